"""Medians of overlapping tiles and a spline through them.

The method of PyAMA, of the family of SExtractor: E. Bertin and S. Arnouts, A&AS 117,
1996, doi:10.1051/aas:1996164.
"""

from __future__ import annotations

from collections.abc import Callable
from math import ceil
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fractal_mesospim_shading.core.background.inputs import image_and_mask
from fractal_mesospim_shading.core.background.masks import (
    as_float32,
    checked_mask,
    dilate_mask,
    union,
    usable_share,
)
from fractal_mesospim_shading.core.background.mesh import Mesh
from fractal_mesospim_shading.core.background.tile_parameters import TileParameters
from fractal_mesospim_shading.core.background.wide import common_level, less_level

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
    coverage: NDArray[Any] | None = None,
    parameters: TileParameters | None = None,
) -> Mesh | None:
    """The medians of all tiles of a plane; evaluate them for any part of it.

    Args:
        image: (y, x), integer or float.
        mask: (y, x), nonzero pixels and their neighbourhood do not count.
        coverage: (y, x), nonzero where there is no data; not dilated.
        parameters: see `TileParameters`.

    Returns:
        The mesh, or None if no pixel is usable.

    Raises:
        BackgroundError: for parameters out of range or a mask of another shape.
    """
    how = parameters or TileParameters()
    how.check()
    image, mask = image_and_mask(image, mask)
    objects = checked_mask(image, mask)
    if objects is not None:
        objects = dilate_mask(objects, how.dilation)
    missing = checked_mask(image, coverage)
    ignored = union(objects, missing)
    if ignored is not None and ignored.all():
        return None
    size_y, size_x = how.tile_shape_yx
    edges_y, edges_x = tile_edges(image.shape[0], size_y), tile_edges(image.shape[1], size_x)
    level = common_level(image, ignored)
    image = image if level is None else less_level(image, level)
    medians, deviations = _tile_statistics(image, ignored, edges_y, edges_x, how)
    even = medians.size > 1 and bool(np.isnan(medians).all())
    medians = _completed(medians, lambda: _frame_median(image, ignored))
    if how.noise_map:
        deviations = _completed(deviations, lambda: _frame_deviation(image, ignored))
    as_pyama = how.compatibility == "pyama"
    half_pixel = 0.0 if as_pyama else 0.5
    return Mesh(
        _grid_filtered(medians, how.filter_size),
        (edges_y[:-2] + edges_y[2:]) / 2 - half_pixel,
        (edges_x[:-2] + edges_x[2:]) / 2 - half_pixel,
        (image.shape[0], image.shape[1]),
        how.interpolation,
        not as_pyama,
        _grid_filtered(deviations, how.filter_size) if how.noise_map else None,
        level,
        usable_share(ignored, missing, image.size),
        even,
    )


def tile_median_background(
    image: NDArray[Any], mask: NDArray[Any] | None = None, **parameters: Any
) -> NDArray[Any]:
    """The background of a plane by medians of tiles.

    Args:
        image: (y, x), integer or float.
        mask: (y, x), nonzero pixels and their neighbourhood do not count.
        parameters: fields of `TileParameters`.

    Returns:
        (y, x) float32, or float64 for counts above 2^24; 0 everywhere if no pixel is usable.
    """
    mesh = tile_median_mesh(image, mask, parameters=TileParameters(**parameters))
    return np.zeros(image.shape, np.float32) if mesh is None else mesh.background()


def _tile_statistics(
    image: NDArray[Any],
    ignored: NDArray[np.bool_] | None,
    edges_y: NDArray[np.int64],
    edges_x: NDArray[np.int64],
    how: TileParameters,
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    from fractal_mesospim_shading.core.background import tile_statistics

    # Histograms of half tiles are quick as long as they are few.
    few = edges_y.size * edges_x.size < _MOST_HISTOGRAMS
    if (
        few
        and image.dtype in (np.uint8, np.uint16)
        and how.sigma_clip is None
        and not how.noise_map
    ):
        numbers = np.ascontiguousarray(image)
        if ignored is not None:
            numbers = np.where(ignored, np.int32(2**16), numbers.astype(np.int32))
        medians = tile_statistics.medians_of_integers(
            numbers, edges_y, edges_x, how.min_unmasked_fraction
        )
        return medians, np.zeros_like(medians)
    values = as_float32(image)
    if ignored is not None:
        values = np.where(ignored, np.float32(np.nan), values)
    clip = np.inf if how.sigma_clip is None else float(how.sigma_clip)
    medians, deviations = tile_statistics.statistics_of_floats(
        values, edges_y, edges_x, how.min_unmasked_fraction, clip, how.noise_map
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
