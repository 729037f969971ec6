"""Looking for empty planes: what was read for it, and what was found."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from fractal_mesospim_shading.core.emptiness.deciding import Decision, decide
from fractal_mesospim_shading.core.emptiness.regions import TileRegions, regions_of
from fractal_mesospim_shading.core.emptiness.windows import Windows
from fractal_mesospim_shading.core.threads import freed_memory_kept
from fractal_mesospim_shading.errors import SamplingError
from fractal_mesospim_shading.flatfield.plane_sample import Sample
from fractal_mesospim_shading.flatfield.sampling import PlaneRef, plane_count
from fractal_mesospim_shading.images.source import ModelGroup, MultitileImage
from fractal_mesospim_shading.images.storage.large_arrays import large_zeros


@dataclass(frozen=True)
class EmptyPlanes:
    """What of a channel and side is empty, as far as it was looked at.

    Attributes:
        image: that was read.
        group: of stacks that share a model.
        level: of the pyramid that was read; its planes are those of full resolution.
        refs: planes looked at, sorted.
        windows: of these planes; None where no plane has a neighbour.
        decision: about each of them; None likewise.
        regions: by tile.
        means: (n, y, x) of bins of these planes, counts with the offset in them; None where that
            was not kept.
    """

    image: MultitileImage
    group: ModelGroup
    level: int
    refs: tuple[PlaneRef, ...]
    windows: Windows | None
    decision: Decision | None
    regions: tuple[TileRegions, ...]
    means: NDArray[np.float32] | None = None

    @property
    def empty(self) -> dict[int, list[int]]:
        """The planes that are empty, by tile."""
        found: dict[int, list[int]] = {}
        if self.decision is not None:
            for (tile, plane), empty in zip(self.refs, self.decision.empty, strict=True):
                if empty:
                    found.setdefault(tile, []).append(plane)
        return found

    @property
    def confidence(self) -> float:
        """Mean confidence of the empty planes; 0 without any."""
        if self.decision is None or not self.decision.empty.any():
            return 0.0
        return float(self.decision.confidence[self.decision.empty].mean())


def look_for_empty(
    group: ModelGroup, sample: Sample, *, zero_is_no_data: bool = True, workers: int = 1
) -> EmptyPlanes:
    """Look at some planes of a channel and side, and decide which are empty.

    Args:
        group: of the model groups of the image.
        sample: of its planes, see `sample_to_look_at`.
        zero_is_no_data: whether pixels of 0 may be no data.
        workers: boxes read at a time.

    Raises:
        SourceReadError: a chunk cannot be read.
    """
    image, level, refs = sample.image, sample.level, sample.planes
    if not refs:
        return EmptyPlanes(image, group, level, (), None, None, ())
    with freed_memory_kept:
        stack = sample.read(
            dark=None, zero_is_no_data=zero_is_no_data, workers=workers, zeros=large_zeros
        )
    n_z = plane_count(image, level)
    tiles = {tile: group.planes[tile] for tile, _ in refs}
    means = stack.mean
    try:
        with freed_memory_kept:
            windows = Windows.of(stack, refs, n_z, large_zeros)
            # Only its means are looked at again.
            del stack
            decision = decide(windows)
    except SamplingError:
        unknown = tuple(
            TileRegions(tile, (first, stop), 0, 0.0, first, stop - 1, 0.0)
            for tile, (first, stop) in sorted(tiles.items())
        )
        return EmptyPlanes(image, group, level, refs, None, None, unknown)
    regions = regions_of(decision, refs, tiles, n_z)
    return EmptyPlanes(image, group, level, refs, windows, decision, regions, means)
