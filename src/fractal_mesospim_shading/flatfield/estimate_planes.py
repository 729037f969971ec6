"""The planes of an estimate, read and reduced to bins."""

from __future__ import annotations

import logging
from dataclasses import dataclass, replace

import numpy as np

from fractal_mesospim_shading.core.flatfield.binning import BinnedStack
from fractal_mesospim_shading.core.flatfield.emptiness import without_margins
from fractal_mesospim_shading.core.profile import resample
from fractal_mesospim_shading.flatfield.plane_sample import Sample
from fractal_mesospim_shading.flatfield.sampling import (
    PlaneChoice,
    PlaneRef,
    drawn_planes,
)
from fractal_mesospim_shading.images.models.frames import DarkFrame
from fractal_mesospim_shading.images.source import ModelGroup
from fractal_mesospim_shading.messages import counted

logger = logging.getLogger(__name__)


def planes_to_read(choice: PlaneChoice, group: ModelGroup) -> tuple[PlaneRef, ...]:
    """The planes that the flat-field of a group is estimated from.

    Raises:
        SamplingError: there is none.
    """
    options, planes = choice.options, choice.of_group(group)
    return drawn_planes(choice.image, planes, choice.level, options.n_zplanes, options.seed)


@dataclass(frozen=True)
class SampledPlanes:
    """The planes of an estimate.

    Attributes:
        stack: in bins, the dark frame taken off where there is one.
        refs: number of the tile of each, and the plane.
        dark: the dark frame at the level that was read.
        available: planes that could have been drawn.
    """

    stack: BinnedStack
    refs: tuple[PlaneRef, ...]
    dark: DarkFrame | None
    available: int

    @property
    def tiles(self) -> tuple[int, ...]:
        """Number of the tile of each."""
        return tuple(tile for tile, _ in self.refs)


def sampled_planes(choice: PlaneChoice, group: ModelGroup, workers: int) -> SampledPlanes:
    """Read the planes of a group that are drawn for an estimate.

    Raises:
        SamplingError: there is none.
        SourceReadError: a chunk cannot be read.
    """
    options = choice.options
    candidates = choice.of_group(group)
    refs = planes_to_read(choice, group)
    what = counted(len(refs), "plane")
    logger.info("Channel %s: reading %s of level %d", choice.name_of(group), what, choice.level)
    sample = Sample(choice.image, group.channel.index, choice.level, refs)
    dark, tile_shape = choice.dark.get(group.channel.label), sample.layout.tile_shape
    if isinstance(dark, np.ndarray) and dark.shape != tile_shape:
        dark = resample(dark, tile_shape)
    no_offset = options.zero_is == "auto" and dark is None and options.camera_offset == 0
    no_data = options.zero_is != "data" and not no_offset
    stack = sample.read(dark=dark, zero_is_no_data=no_data, workers=workers)
    if no_offset:
        stack = without_margins(stack)
    return SampledPlanes(stack, refs, dark, sum(len(planes) for planes in candidates.values()))


def with_zeros(stack: BinnedStack) -> BinnedStack:
    """The same planes with single zeros counted as values: there is no offset to miss."""
    height, width = stack.tile_shape
    rows = np.diff(np.append(np.arange(0, height, stack.bin_px), height))
    columns = np.diff(np.append(np.arange(0, width, stack.bin_px), width))
    share = stack.count / (rows[:, None] * columns[None, :])
    return replace(stack, mean=(stack.mean * share).astype(np.float32))
