"""What was seen of the overlaps of an image, for whoever asks the same of them."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from fractal_mesospim_shading.images.source import ModelGroup, MultitileImage

if TYPE_CHECKING:
    from fractal_mesospim_shading.overlaps.sampling import OverlapEvidence

FloatImage = NDArray[np.float32]


@dataclass
class OverlapMemory:
    """What was seen of overlaps, kept until the same is asked for once more."""

    _kept: dict[str, OverlapEvidence] = field(default_factory=dict)

    def observe(
        self,
        image: MultitileImage,
        group: ModelGroup,
        offset: float | FloatImage,
        *,
        seed: int,
        budget: int,
    ) -> OverlapEvidence:
        """As `observe_overlaps`, which is called the first time."""
        read = (group.channel.index, sorted(group.planes.items()), sorted(group.unwritten))
        key = repr((read, np.asarray(offset, np.float64).tobytes(), seed, budget))
        kept = self._kept.pop(key, None)
        if kept is None:
            # Not at the top: a job holds a memory before it knows whether overlaps are compared.
            from fractal_mesospim_shading.overlaps.sampling import observe_overlaps

            kept = observe_overlaps(image, group, offset, seed=seed, budget=budget)
            self._kept[key] = kept
        return kept
