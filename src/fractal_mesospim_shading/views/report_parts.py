"""What a report is made of: plain data, from which the page, its pictures and its JSON are made."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fractal_mesospim_shading.core.layout import TileLayout
from fractal_mesospim_shading.core.profile import ShadingProfile
from fractal_mesospim_shading.core.seams import MediumLine
from fractal_mesospim_shading.flatfield.planes_seen import PlanesSeen
from fractal_mesospim_shading.overlaps.certificate import OverlapCheck
from fractal_mesospim_shading.views.verdict import Verdict

Facts = tuple[tuple[str, str], ...]
"""Name and value of what is known, as text, in the order in which it is shown."""

FloatArray = NDArray[np.float32]


@dataclass(frozen=True)
class Pair:
    """The same pixels before and after, light above the offset; 0 where there is no data.

    Attributes:
        before, after: (y, x).
        caption: what and where it is.
    """

    before: FloatArray
    after: FloatArray
    caption: str


@dataclass(frozen=True)
class PlanesShown:
    """What some planes of a mosaic look like before and after.

    Attributes:
        whole: one plane of the mosaic.
        crop: of full resolution, where tiles meet worst; None where none is shown.
        lines: brightness of the empty medium across the mosaic, along x and along y.
    """

    whole: Pair
    crop: Pair | None = None
    lines: tuple[MediumLine, ...] = ()


@dataclass(frozen=True)
class ChannelReport:
    """What was done to one channel, or one illumination side of it.

    Attributes:
        label: of the model.
        layout: tiles at full resolution.
        pixel_mm: sides (y, x) of a pixel of full resolution.
        profile: that was applied; None where there is none.
        shown: planes before and after; None where none are shown.
        facts: in the words of a microscopist.
        method: in those of the method.
        check: what the overlaps of the tiles say; None where it is not known how they lie.
        truth: (y, x) the true flat-field, of an image made for that; else None.
        planes: that were looked at for the flat-field; None where it was given.
    """

    label: str
    layout: TileLayout
    pixel_mm: tuple[float, float]
    profile: ShadingProfile | None = None
    shown: PlanesShown | None = None
    facts: Facts = ()
    method: Facts = ()
    check: OverlapCheck | None = None
    truth: FloatArray | None = None
    planes: PlanesSeen | None = None


@dataclass(frozen=True)
class ImageReport:
    """A corrected image, or a container of such.

    Attributes:
        title: such as the name of the image.
        what: was done, such as `Shading correction`.
        channels: in the order of the image.
        verdict: whether it worked; None where nothing is judged.
        facts: of the whole job: shape, size, time.
        asked: options with their values.
        notes: lines that a person may want to read.
        warnings: lines that a person should look at.
        numbers: all of it for programs, as JSON.
    """

    title: str
    what: str
    channels: Sequence[ChannelReport]
    verdict: Verdict | None = None
    facts: Facts = ()
    asked: Facts = ()
    notes: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()
    numbers: dict[str, Any] = field(default_factory=dict)
