"""What is counted of the steps of a job, and the step that may follow in the same pass."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

from fractal_mesospim_shading.core.correct import PixelCounts
from fractal_mesospim_shading.core.pyramid import Histogram
from fractal_mesospim_shading.images.arrays.documents import Document

Counts = dict[str, PixelCounts]
"""What happened to pixels, by channel label."""


@dataclass(frozen=True)
class SecondStep:
    """The local background of what the first step gives, taken away in the same pass.

    Attributes:
        task: that does the same by itself.
        parameters: of that task, as its provenance has them.
        counted: kind of the counts of the kernel.
        tell: says what these mean.
        zeros_by_first: whether all zeros are values to it where the first step has met no pixel
            without data.
        titles: of the method, by the label that results show.
        output_offset: counts that it adds.
    """

    task: str
    parameters: Document
    counted: type[PixelCounts]
    tell: Callable[[Counts], None]
    zeros_by_first: bool
    titles: Mapping[str, str]
    output_offset: float

    def settled(
        self, counts: Counts, histograms: Mapping[str, Histogram], first: Counts
    ) -> tuple[Counts, dict[str, Histogram]]:
        """Its counts and histograms, now that all counts of the first step are known.

        Args:
            counts, histograms: by channel label.
            first: the counts of the first step.
        """
        counts, settled = dict(counts), dict(histograms)
        for label, found in first.items() if self.zeros_by_first else ():
            if found.no_data:
                settled[label] = settled[label].without_zero()
            else:
                counts[label] = replace(counts[label], zeros=0, zero_blocks=0)
        return counts, settled
