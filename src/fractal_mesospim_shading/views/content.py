"""What a report shows: plain values and small arrays, gathered by whoever ran the correction."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from numpy.typing import NDArray

from fractal_mesospim_shading.core.layout import TileLayout
from fractal_mesospim_shading.core.profile import ShadingProfile
from fractal_mesospim_shading.core.quality import ShadingQuality

Facts = tuple[tuple[str, str], ...]
"""Name and value of what is known, as text, in the order in which it is shown."""


@dataclass(frozen=True)
class ChannelReport:
    """One channel of a corrected image.

    Attributes:
        label: of the channel.
        profile: that was applied.
        before, after: one plane of the mosaic, (y, x), the same level and plane of both.
        layout: tiles at full resolution.
        factor: by how much (y, x) have shrunk from full resolution to the planes shown.
        offset, output_offset: counts without light, before and after.
        plane: which one along z is shown, for the caption.
        quality: what was measured.
        facts: everything else that is to be said: scenario, offset and its uncertainty,
            planes used and rejected.
        pixel_size_um: (y, x) at full resolution; None shows pixels.
    """

    label: str
    profile: ShadingProfile
    before: NDArray[Any]
    after: NDArray[Any]
    layout: TileLayout
    factor: tuple[int, int] = (1, 1)
    offset: float = 0.0
    output_offset: float = 0.0
    plane: int = 0
    quality: ShadingQuality | None = None
    facts: Facts = ()
    pixel_size_um: tuple[float, float] | None = None

    def rows(self) -> Facts:
        """All facts, those of the quality last."""
        return self.facts + (self.quality.rows() if self.quality is not None else ())


@dataclass(frozen=True)
class ImageReport:
    """A corrected image.

    Attributes:
        title: such as the name of the image.
        channels: in the order of the image.
        facts: of the whole image: shape, size, time, throughput.
        notes: lines that a person may want to read.
        warnings: lines that a person should look at.
    """

    title: str
    channels: tuple[ChannelReport, ...]
    facts: Facts = ()
    notes: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()
