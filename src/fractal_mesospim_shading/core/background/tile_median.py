"""Medians of overlapping tiles and a spline through them.

The method of PyAMA, of the family of SExtractor: E. Bertin and S. Arnouts, A&AS 117,
1996, doi:10.1051/aas:1996164.
"""

from __future__ import annotations

from collections.abc import Callable
from math import ceil
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from fractal_mesospim_shading.core.background.masks import (
    as_float32,
    checked_mask,
    dilate_mask,
    union,
)
from fractal_mesospim_shading.core.background.mesh import Interpolation, Mesh
from fractal_mesospim_shading.errors import BackgroundError

Compatibility = Literal["none", "pyama"]
# The median absolute deviation of a normal distribution is sigma divided by this.
_MAD_TO_SIGMA = 1.4826
# 64 MB of counts.
_MOST_HISTOGRAMS = 2**16


def tile_edges(length: int, tile_size: int) -> NDArray[np.int64]:
    """Edges of half tiles; tile i reaches from edge i to edge i + 2.

    Args:
        length: pixels of the axis.
        tile_size: the largest length of a tile; tiles are equal up to rounding.
    """
    tiles = ceil(length / tile_size)
    return np.asarray(np.rint(np.linspace(0, length, 2 * tiles + 1)), np.int64)


def tile_median_mesh(
    image: NDArray[Any],
    mask: NDArray[Any] | None = None,
    *,
    coverage: NDArray[Any] | None = None,
    tile_size: int | tuple[int, int] = 256,
    dilation: int = 10,
    min_unmasked_fraction: float = 0.0,
    sigma_clip: float | None = None,
    filter_size: int = 1,
    interpolation: Interpolation = "spline",
    compatibility: Compatibility = "none",
    noise_map: bool = False,
) -> Mesh | None:
    """The medians of all tiles of a plane; evaluate them for any part of it.

    Args:
        image: (y, x), integer or float.
        mask: (y, x), nonzero pixels and their neighbourhood do not count.
        coverage: (y, x), True where there is no data; not dilated.
        tile_size: pixels, number or (y, x). Several times the largest object; with
            smaller tiles the background follows the objects, with larger ones it
            misses bends.
        dilation: pixels by which the mask grows before it is used.
        min_unmasked_fraction: a tile with a smaller part of usable pixels (0 to 1)
            takes the median of the whole frame, as a tile without any does.
        sigma_clip: leave out values farther than this many standard deviations from
            the median of their tile, again and again (at most 10 times).
        filter_size: side of the median filter over the grid of tiles; odd, 1 is none.
        interpolation: spline of degree min(3, tiles - 1), linear, or none (nearest).
        compatibility: `pyama` puts the centres of the tiles half a pixel too far, as
            PyAMA does; on a slope of g counts per pixel the error is g / 2.
        noise_map: also estimate the standard deviation of each tile, as 1.4826 times
            the median absolute deviation.

    Returns:
        The mesh, or None if no pixel is usable.

    Raises:
        BackgroundError: for parameters out of range or a mask of another shape.
    """
    size_y, size_x = tile_size if isinstance(tile_size, tuple) else (tile_size, tile_size)
    _check(size_y, size_x, min_unmasked_fraction, sigma_clip, filter_size, interpolation)
    objects = checked_mask(image, mask)
    if objects is not None:
        objects = dilate_mask(objects, dilation)
    ignored = union(objects, checked_mask(image, coverage))
    if ignored is not None and ignored.all():
        return None
    edges_y, edges_x = tile_edges(image.shape[0], size_y), tile_edges(image.shape[1], size_x)
    medians, deviations = _tile_statistics(
        image, ignored, edges_y, edges_x, min_unmasked_fraction, sigma_clip, noise_map
    )
    medians = _completed(medians, lambda: _frame_median(image, ignored))
    if noise_map:
        deviations = _completed(deviations, lambda: _frame_deviation(image, ignored))
    half_pixel = 0.0 if compatibility == "pyama" else 0.5
    return Mesh(
        _grid_filtered(medians, filter_size),
        (edges_y[:-2] + edges_y[2:]) / 2 - half_pixel,
        (edges_x[:-2] + edges_x[2:]) / 2 - half_pixel,
        (image.shape[0], image.shape[1]),
        interpolation,
        _grid_filtered(deviations, filter_size) if noise_map else None,
    )


def tile_median_background(
    image: NDArray[Any], mask: NDArray[Any] | None = None, **parameters: Any
) -> NDArray[np.float32]:
    """The background of a plane by medians of tiles.

    Args:
        image: (y, x), integer or float.
        mask: (y, x), nonzero pixels and their neighbourhood do not count.
        parameters: of `tile_median_mesh`.

    Returns:
        (y, x) float32; 0 everywhere if no pixel is usable.
    """
    mesh = tile_median_mesh(image, mask, **parameters)
    return np.zeros(image.shape, np.float32) if mesh is None else mesh.background()


def _check(
    size_y: int,
    size_x: int,
    fraction: float,
    sigma_clip: float | None,
    filter_size: int,
    interpolation: str,
) -> None:
    if min(size_y, size_x) < 2:
        raise BackgroundError(f"The tile size is {(size_y, size_x)} px; expected 2 or more.")
    if not 0 <= fraction <= 1:
        raise BackgroundError(f"min_unmasked_fraction is {fraction}; expected 0 to 1.")
    if sigma_clip is not None and not sigma_clip > 0:
        raise BackgroundError(f"sigma_clip is {sigma_clip}; expected a positive number or none.")
    if filter_size < 1 or filter_size % 2 == 0:
        raise BackgroundError(f"filter_size is {filter_size}; expected an odd number from 1 on.")
    if interpolation not in ("spline", "linear", "none"):
        raise BackgroundError(
            f"The interpolation is {interpolation!r}; expected 'spline', 'linear' or 'none'."
        )


def _tile_statistics(
    image: NDArray[Any],
    ignored: NDArray[np.bool_] | None,
    edges_y: NDArray[np.int64],
    edges_x: NDArray[np.int64],
    fraction: float,
    sigma_clip: float | None,
    noise_map: bool,
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    from fractal_mesospim_shading.core.background import tile_statistics

    # Histograms of half tiles are quick as long as they are few.
    few = edges_y.size * edges_x.size < _MOST_HISTOGRAMS
    if few and image.dtype in (np.uint8, np.uint16) and sigma_clip is None and not noise_map:
        numbers = np.ascontiguousarray(image)
        if ignored is not None:
            numbers = np.where(ignored, np.int32(2**16), numbers.astype(np.int32))
        medians = tile_statistics.medians_of_integers(numbers, edges_y, edges_x, fraction)
        return medians, np.zeros_like(medians)
    values = as_float32(image)
    if ignored is not None:
        values = np.where(ignored, np.float32(np.nan), values)
    clip = np.inf if sigma_clip is None else float(sigma_clip)
    medians, deviations = tile_statistics.statistics_of_floats(
        values, edges_y, edges_x, fraction, clip, noise_map
    )
    return medians, deviations * np.float32(_MAD_TO_SIGMA)


def _frame_median(image: NDArray[Any], ignored: NDArray[np.bool_] | None) -> float:
    return float(np.median(image if ignored is None else image[~ignored]))


def _frame_deviation(image: NDArray[Any], ignored: NDArray[np.bool_] | None) -> float:
    values = as_float32(image if ignored is None else image[~ignored])
    return _MAD_TO_SIGMA * float(np.median(np.abs(values - np.median(values))))


def _completed(values: NDArray[np.float32], fallback: Callable[[], float]) -> NDArray[np.float32]:
    """Tiles without enough pixels take the value of the whole frame."""
    empty = np.isnan(values)
    if empty.any():
        values[empty] = fallback()
    return values


def _grid_filtered(values: NDArray[np.float32], filter_size: int) -> NDArray[np.float32]:
    if filter_size == 1:
        return values
    from fractal_mesospim_shading.core.background.median import median_background

    radius = filter_size // 2
    return median_background(values, radius_px=radius, shape="square", exact=True)
