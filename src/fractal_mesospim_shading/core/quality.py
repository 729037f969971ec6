"""How good a correction is, measured on the image itself: seams, flatness, lost pixels."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import NDArray

from fractal_mesospim_shading.core.layout import Tile, TileLayout
from fractal_mesospim_shading.core.profile import ShadingProfile
from fractal_mesospim_shading.core.seams import (
    Span,
    as_stack,
    coarse_spans,
    medium_steps,
    spans_between,
)

if TYPE_CHECKING:
    from fractal_mesospim_shading.core.correct import PixelCounts, TileCorrection

# Pixels that are cut out of planes at a time: a few megabytes.
_TOGETHER = 2**19


@dataclass(frozen=True)
class ShadingQuality:
    """What a correction did to one channel. Fractions are 0 to 1; NaN is "not measured".

    Attributes:
        profile_low, profile_high: percentiles 1 and 99 of the flat-field (mean 1).
        seam_before, seam_after: see `medium_steps`.
        flatness_before, flatness_after: see `flatness`.
        clipped: fraction of pixels whose result left the range of the type.
        saturated: fraction of raw pixels at the upper end of the type.
        no_data: fraction of raw pixels that were never acquired.
    """

    profile_low: float
    profile_high: float
    seam_before: float = float("nan")
    seam_after: float = float("nan")
    flatness_before: float = float("nan")
    flatness_after: float = float("nan")
    clipped: float = float("nan")
    saturated: float = float("nan")
    no_data: float = float("nan")

    @classmethod
    def measure(
        cls,
        profile: ShadingProfile,
        before: NDArray[Any],
        after: NDArray[Any],
        layout: TileLayout,
        *,
        offset: float = 0.0,
        output_offset: float = 0.0,
        factor: Span = (1, 1),
        counts: PixelCounts | None = None,
    ) -> ShadingQuality:
        """Compare planes before and after a correction.

        Args:
            profile: of the channel.
            before, after: the same planes, (n, y, x), at any pyramid level; they are averaged. Or
                their means, (y, x).
            layout: tiles at full resolution.
            offset, output_offset: counts without light, before and after.
            factor: by how much y and x have shrunk from full resolution to these planes.
            counts: of the whole image, where the correction has counted them.
        """
        both = [
            (mean_plane(planes), dark)
            for planes, dark in ((before, offset), (after, output_offset))
        ]
        steps = medium_steps(both[0][0] - offset, both[1][0] - output_offset, layout, factor=factor)
        unevenness = [flatness(planes, layout, dark, factor=factor) for planes, dark in both]
        return replace(
            cls.of_counts(profile, counts),
            seam_before=steps[0],
            seam_after=steps[1],
            flatness_before=unevenness[0],
            flatness_after=unevenness[1],
        )

    @classmethod
    def of_counts(cls, profile: ShadingProfile, counts: PixelCounts | None) -> ShadingQuality:
        """What is known where no plane is looked at; arguments as for `measure`."""
        low, high = profile.typical_range
        if counts is None:
            return cls(low, high)
        clipped = counts.clipped_low + counts.clipped_high
        parts = (clipped, counts.saturated, counts.no_data)
        lost = [part / max(counts.pixels, 1) for part in parts]
        return cls(low, high, clipped=lost[0], saturated=lost[1], no_data=lost[2])

    @property
    def seam_text(self) -> str | None:
        """The seam step before and after; None where there is no seam with light before."""
        if not np.isfinite(self.seam_before):
            return None
        if not np.isfinite(self.seam_after):
            return f"{_percent(self.seam_before)} before; nothing is left to measure after"
        return f"{_percent(self.seam_before)} before, {_percent(self.seam_after)} after"

    def rows(self, *, seams: bool = True) -> tuple[tuple[str, str], ...]:
        """Name and value of everything that was measured, as text.

        Args:
            seams: whether the steps there are told of.
        """
        spans = (
            *(
                (("Step across tile seams, in empty medium", self.seam_before, self.seam_after),)
                if seams
                else ()
            ),
            ("Unevenness of the mean tile", self.flatness_before, self.flatness_after),
        )
        fractions = (
            ("Pixels clipped", self.clipped),
            ("Pixels saturated in the source", self.saturated),
            ("Pixels never acquired", self.no_data),
        )
        profile = f"{self.profile_low:.2f} to {self.profile_high:.2f}"
        return (
            ("Profile, 1st to 99th percentile", profile),
            *(
                (n, f"{b:.1%} before, {a:.1%} after")
                for n, b, a in spans
                if np.isfinite([b, a]).all()
            ),
            *((name, _fraction_text(part)) for name, part in fractions if np.isfinite(part)),
        )


def mean_plane(planes: NDArray[Any]) -> NDArray[np.float64]:
    """Mean (y, x) of planes (n, y, x) or of one, without a copy of them all in float64."""
    mean: NDArray[np.float64] = planes.reshape(-1, *planes.shape[-2:]).mean(0, dtype=np.float64)
    return mean


def flatness(
    planes: NDArray[Any],
    layout: TileLayout,
    offset: float = 0.0,
    *,
    factor: Span = (1, 1),
    cells: int = 8,
) -> float:
    """How uneven the tiles are on average: 0 for no shading left.

    Each tile is cut into cells, and the median of each cell divided by that of the tile.
    The median over all tiles and planes leaves what they have in common, and the result
    is its root mean square deviation from 1. The sample does not cancel on few tiles.

    Args:
        planes: (y, x) or (n, y, x).
        layout: tiles at full resolution.
        offset: counts without light, subtracted first.
        factor: by how much y and x have shrunk from full resolution to these planes.
        cells: along each side of a tile.

    Returns:
        A relative deviation; NaN where no tile has light.
    """
    stack = as_stack(planes)
    spans = [coarse_spans(tile, layout, factor) for tile in layout.tiles]
    spans = [own for own in spans if all(start < stop for start, stop in own)]
    maps = []
    for shape, corners in _alike(spans, cells).items():
        for some in _in_batches(corners, shape.pixels * len(stack)):
            medians = shape.medians(stack, some) - offset
            typical = np.median(medians, axis=(0, 1))
            lit = typical > 0
            maps.append(medians[..., lit] / typical[lit])
    every = np.concatenate(maps, axis=-1) if maps else np.zeros((1, 1, 0))
    if not every.size:
        return float("nan")
    common = np.median(every, axis=-1)
    return float(np.sqrt(np.mean((common / common.mean() - 1) ** 2)))


@dataclass(frozen=True)
class _Cells:
    """Where the cells of a tile lie, from its corner: their rows and their columns."""

    rows: tuple[Span, ...]
    columns: tuple[Span, ...]

    @property
    def pixels(self) -> int:
        """Of a tile."""
        return self.rows[-1][1] * self.columns[-1][1]

    def medians(self, stack: NDArray[np.float64], corners: NDArray[np.int64]) -> NDArray[Any]:
        """(rows, columns, n, tiles) medians of the cells of some tiles, in all planes at once."""
        whole = (1, self.rows[-1][1], self.columns[-1][1])
        cut = sliding_window_view(stack, whole)[:, corners[:, 0], corners[:, 1], 0]
        return np.array(
            [
                [np.median(cut[..., a:b, c:d], axis=(-2, -1)) for c, d in self.columns]
                for a, b in self.rows
            ]
        )


def _alike(spans: Sequence[tuple[Span, Span]], cells: int) -> dict[_Cells, list[tuple[int, int]]]:
    """The corners of tiles by where their cells lie; all tiles have equally many."""
    numbers = [min([cells, *(own[axis][1] - own[axis][0] for own in spans)]) for axis in (0, 1)]
    found: dict[_Cells, list[tuple[int, int]]] = {}
    for own in spans:
        rows, columns = (_cut(*span, n) for span, n in zip(own, numbers, strict=True))
        found.setdefault(_Cells(rows, columns), []).append((own[0][0], own[1][0]))
    return found


@lru_cache(maxsize=4096)
def _cut(start: int, stop: int, number: int) -> tuple[Span, ...]:
    """So many spans from one place to another, counted from the first; tiles of a row share it."""
    edges = np.linspace(start, stop, number + 1).astype(int) - start
    return tuple(spans_between(edges))


def _in_batches(corners: Sequence[Span], pixels: int) -> list[NDArray[np.int64]]:
    """The same in parts of a few megabytes, where each takes so many pixels."""
    together = max(1, _TOGETHER // pixels)
    return np.array_split(np.array(corners, np.int64), -(-len(corners) // together))


def flattened(
    planes: NDArray[Any],
    layout: TileLayout,
    correction_of: Callable[[Tile], TileCorrection],
    *,
    factor: Span = (1, 1),
) -> NDArray[np.float64]:
    """Planes of any level without their shading, as these measures need them.

    Where the flat-field changes little within a coarse pixel, this is the mean of the corrected
    fine ones.

    Args:
        planes: (y, x) or (n, y, x), raw.
        layout: tiles at full resolution.
        correction_of: a tile; only its flat-field and dark-field are asked for.
        factor: by how much y and x have shrunk from full resolution to these planes.

    Returns:
        (n, y, x); coarse pixels that lie in no tile as a whole, and those of 0, are 0.
    """
    stack = as_stack(planes)
    result = np.zeros_like(stack)
    for tile in layout.tiles:
        (y0, y1), (x0, x1) = coarse_spans(tile, layout, factor)
        fine = (
            slice(y0 * factor[0] - tile.y, y1 * factor[0] - tile.y),
            slice(x0 * factor[1] - tile.x, x1 * factor[1] - tile.x),
        )
        correction = correction_of(tile)
        flat, dark = (
            np.broadcast_to(np.asarray(part, np.float64), layout.tile_shape)[fine]
            .reshape(y1 - y0, factor[0], x1 - x0, factor[1])
            .mean(axis=(1, 3))
            for part in (correction.divisor(), correction.dark)
        )
        raw = stack[:, y0:y1, x0:x1]
        result[:, y0:y1, x0:x1] = np.where(raw == 0, 0, (raw - dark) / flat)
    return result


def _percent(fraction: float) -> str:
    return f"{100 * fraction:.1f} %"


def _fraction_text(fraction: float) -> str:
    if fraction == 0:
        return "none"
    return f"{fraction:.2%}" if fraction >= 1e-4 else f"{fraction * 1e6:.2g} in a million"
