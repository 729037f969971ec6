"""Medians of overlapping tiles and a spline through them.

The method of PyAMA, of the family of SExtractor: E. Bertin and S. Arnouts, A&AS 117,
1996, doi:10.1051/aas:1996164.
"""

from __future__ import annotations

from collections.abc import Callable
from math import ceil
from typing import Any, ClassVar, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import ConfigDict, Field, PrivateAttr

from fractal_mesospim_shading.core.background.contract import (
    MOST_PX,
    BackgroundMethod,
    BackgroundResult,
    Marks,
)
from fractal_mesospim_shading.core.background.masks import (
    as_float32,
    common_level,
    dilate_mask,
    less_level,
    union,
    usable_share,
)
from fractal_mesospim_shading.core.background.median import sliding_median
from fractal_mesospim_shading.core.background.surfaces import Interpolation, Mesh
from fractal_mesospim_shading.core.background.tile_statistics import (
    in_their_order,
    medians_of_tiles,
    statistics_of_floats,
)
from fractal_mesospim_shading.errors import BackgroundError

Bool = NDArray[np.bool_]
Compatibility = Literal["none", "pyama"]

_MAD_TO_SIGMA = 1.4826
"""The median absolute deviation of a normal distribution is sigma divided by this."""

_MOST_HISTOGRAMS = 2**16
"""64 MB of counts."""


class TileMedianModel(BackgroundMethod):
    """Medians of overlapping tiles and a smooth surface through them."""

    model_config = ConfigDict(title="Tile median and spline")
    arguments: ClassVar = (
        "tile_size",
        "dilation",
        "min_unmasked_fraction",
        "sigma_clip",
        "filter_size",
        "interpolation",
        "compatibility",
        "noise_map",
    )
    wider: ClassVar = {"tile_size": int | tuple[int, int]}
    short: ClassVar = "tile_size"
    short_in_radii: ClassVar = 4.0
    maps_noise: ClassVar = True

    method: Literal["tile_median"] = "tile_median"
    tile_size: float = Field(
        default=256.0,
        gt=0,
        description="Side of the squares whose medians make the background: several times the "
        "objects, smaller than the background's changes.",
    )
    dilation: int = Field(
        default=10,
        ge=0,
        le=MOST_PX,
        description="Pixels by which masked objects are widened first.",
    )
    min_unmasked_fraction: float = Field(
        default=0.0,
        ge=0,
        le=1,
        description="Squares with a smaller share of unmasked pixels take the median of the frame.",
    )
    sigma_clip: float | None = Field(
        default=None,
        gt=0,
        description="Leave out pixels further than this many standard deviations from the median "
        "of their square, such as objects that are not masked. 3 is usual.",
    )
    filter_size: int = Field(
        default=1,
        ge=1,
        le=MOST_PX,
        description="Median filter over this many squares; odd; 1 is none.",
    )
    interpolation: Interpolation = Field(
        default="spline",
        description="Surface between the squares; the spline is held to the range of the four "
        "around a pixel.",
    )
    compatibility: Compatibility = Field(
        default="none",
        description="pyama: as PyAMA, with squares half a pixel off, and a surface that swings "
        "beyond the squares around it at steps.",
    )
    _tile_yx: tuple[int, int] | None = PrivateAttr(default=None)

    @classmethod
    def field_of(cls, name: str, value: Any) -> str:
        return "_tile_yx" if isinstance(value, tuple) else super().field_of(name, value)

    def of_channel(self, channel: int, scale: float) -> dict[str, Any]:
        return {"tile_size": max(1, round(self.tile_size * scale))}

    @property
    def tile_shape_yx(self) -> tuple[int, int]:
        """Largest size of a tile, (y, x)."""
        return self._tile_yx or (int(self.tile_size), int(self.tile_size))

    @property
    def title(self) -> str:
        return f"{self.spoken_name}, squares of {self.tile_size} px"

    @property
    def largest_radius_px(self) -> float:
        # A tile larger than the frame is cut to it: one constant, still well defined.
        return 1.0

    @property
    def bytes_a_pixel(self) -> int:
        return 20

    @property
    def halo_px(self) -> int | None:
        return None

    @property
    def own_dilation_px(self) -> int:
        return self.dilation

    @property
    def least_share(self) -> float:
        return self.min_unmasked_fraction

    @property
    def has_surface(self) -> bool:
        return True

    def surface(
        self, image: NDArray[Any], mask: Marks = None, coverage: Marks = None
    ) -> Mesh | None:
        return self._mesh(*self.usable(image, mask, coverage))

    def background(
        self, image: NDArray[Any], mask: Marks = None, coverage: Marks = None
    ) -> BackgroundResult:
        image, objects, missing = self.usable(image, mask, coverage)
        mesh = self._mesh(image, objects, missing)
        if mesh is None:
            return BackgroundResult(np.zeros(image.shape, np.float32), estimated=False)
        planes = [mesh.background()] + ([mesh.noise_map()] if self._noise_map else [])
        if missing is not None:
            for plane in planes:
                plane[missing] = 0
        noise = planes[1] if self._noise_map else None
        return BackgroundResult(planes[0], noise=noise, share=mesh.share, even=mesh.even)

    def estimate(self, values: NDArray[Any], ignored: Bool | None) -> NDArray[Any]:
        return self.background(values, ignored).background

    def _mesh(self, image: NDArray[Any], objects: Bool | None, missing: Bool | None) -> Mesh | None:
        """The medians of all tiles of a plane; None if no pixel is usable."""
        self._check_ranges()
        if objects is not None:
            objects = dilate_mask(objects, self.dilation)
        ignored = union(objects, missing)
        if ignored is not None and ignored.all():
            return None
        level = common_level(image, ignored)
        image = image if level is None else less_level(image, level)
        edges_y, edges_x = map(_tile_edges, image.shape, self.tile_shape_yx)
        medians, deviations = self._statistics(image, ignored, edges_y, edges_x)
        even = medians.size > 1 and bool(np.isnan(medians).all())
        half_pixel = 0.0 if self.compatibility == "pyama" else 0.5

        def counted() -> NDArray[Any]:
            return image if ignored is None else image[~ignored]

        return Mesh(
            self._whole(medians, lambda: float(np.median(counted()))),
            (edges_y[:-2] + edges_y[2:]) / 2 - half_pixel,
            (edges_x[:-2] + edges_x[2:]) / 2 - half_pixel,
            (image.shape[0], image.shape[1]),
            self.interpolation,
            self.compatibility != "pyama",
            self._whole(deviations, lambda: _deviation(counted())) if self._noise_map else None,
            level,
            usable_share(ignored, missing, image.size),
            even,
        )

    def _check_ranges(self) -> None:
        """Refuse parameters out of range, with what was given and what was expected."""
        if min(self.tile_shape_yx) < 2:
            raise BackgroundError(f"The tile size is {self.tile_shape_yx} px; expected 2 or more.")
        if not 0 <= self.min_unmasked_fraction <= 1:
            raise BackgroundError(
                f"min_unmasked_fraction is {self.min_unmasked_fraction}; expected 0 to 1."
            )
        if self.sigma_clip is not None and not self.sigma_clip > 0:
            raise BackgroundError(
                f"sigma_clip is {self.sigma_clip}; expected a positive number or none."
            )
        if self.filter_size < 1 or self.filter_size % 2 == 0:
            raise BackgroundError(
                f"filter_size is {self.filter_size}; expected an odd number from 1 on."
            )

    def _statistics(
        self,
        image: NDArray[Any],
        ignored: Bool | None,
        edges_y: NDArray[np.int64],
        edges_x: NDArray[np.int64],
    ) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """Medians and deviations of all tiles, NaN for those with too few pixels."""
        fraction, clip, noise = self.min_unmasked_fraction, self.sigma_clip, self._noise_map
        # Histograms of half tiles are quick as long as they are few.
        few = edges_y.size * edges_x.size < _MOST_HISTOGRAMS
        counted = few and clip is None and not noise
        if counted and image.dtype in (np.uint8, np.uint16):
            numbers = np.ascontiguousarray(image)
            if ignored is not None:
                numbers = np.where(ignored, np.int32(2**16), numbers.astype(np.int32))
            none = np.zeros((0, 0), np.float32)
            medians = medians_of_tiles(none, numbers, edges_y, edges_x, fraction)
            return medians, np.zeros_like(medians)
        values = as_float32(image)
        if ignored is not None:
            values = np.where(ignored, np.float32(np.nan), values)
        if counted:
            numbers = in_their_order(values)
            medians = medians_of_tiles(values, numbers, edges_y, edges_x, fraction)
            return medians, np.zeros_like(medians)
        most = np.inf if clip is None else float(clip)
        medians, deviations = statistics_of_floats(values, edges_y, edges_x, fraction, most, noise)
        return medians, deviations * np.float32(_MAD_TO_SIGMA)

    def _whole(
        self, grid: NDArray[np.float32], of_frame: Callable[[], float]
    ) -> NDArray[np.float32]:
        """The grid with the value of the frame where tiles had too few pixels, and filtered."""
        empty = np.isnan(grid)
        if empty.any():
            grid[empty] = of_frame()
        if self.filter_size == 1:
            return grid
        return sliding_median(grid, None, self.filter_size // 2, "square")


def _tile_edges(length: int, tile_size: int) -> NDArray[np.int64]:
    """Edges of half tiles; tile i reaches from edge i to edge i + 2.

    Args:
        length: pixels of the axis.
        tile_size: the largest length of a tile; tiles are equal up to rounding.
    """
    tiles = ceil(length / tile_size)
    return np.asarray(np.rint(np.linspace(0, length, 2 * tiles + 1)), np.int64)


def _deviation(counted: NDArray[Any]) -> float:
    values = as_float32(counted)
    return _MAD_TO_SIGMA * float(np.median(np.abs(values - np.median(values))))
