"""The methods of background correction as parameters that can estimate.

Each method is one immutable set of parameters with the same few answers (see
`contract.BackgroundMethod`), so that a caller needs no case distinction. Kernels are
imported when they are used.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from fractal_mesospim_shading.core.background.contract import (
    LEAST_PARABOLOID_PX,
    MOST_RADIUS_PX,
    Array,
    BackgroundResult,
    Marks,
    Planewise,
    estimated_where_usable,
)
from fractal_mesospim_shading.core.background.footprints import Shape, half_size
from fractal_mesospim_shading.core.background.inputs import image_and_mask
from fractal_mesospim_shading.core.background.masks import checked_mask, no_data, union
from fractal_mesospim_shading.core.background.tile_parameters import TileParameters

if TYPE_CHECKING:
    from fractal_mesospim_shading.core.background.mesh import Mesh

Bool = NDArray[np.bool_]


@dataclass(frozen=True)
class TileMedian(TileParameters, Planewise):
    """Masked medians of overlapping tiles and a spline; see `TileParameters`."""

    name: ClassVar[str] = "tile_median"

    @property
    def largest_radius_px(self) -> float:
        # A tile larger than the frame is cut to it: one constant, still well defined.
        return 1.0

    @property
    def halo_px(self) -> int | None:
        return None

    def background(
        self, image: NDArray[Any], mask: Marks = None, coverage: Marks = None
    ) -> BackgroundResult:
        image, mask = image_and_mask(image, mask)
        mesh = self.mesh(image, mask, coverage)
        if mesh is None:
            return BackgroundResult(np.zeros(image.shape, np.float32), estimated=False)
        missing = union(no_data(image), checked_mask(image, coverage))
        planes = [mesh.background()] + ([mesh.noise_map()] if self.noise_map else [])
        if missing is not None:
            for plane in planes:
                plane[missing] = 0
        noise = planes[1] if self.noise_map else None
        return BackgroundResult(planes[0], noise=noise, share=mesh.share, even=mesh.even)

    def mesh(self, image: NDArray[Any], mask: Marks = None, coverage: Marks = None) -> Mesh | None:
        """The `Mesh` of a plane, to be evaluated in parts; None if no pixel is usable."""
        from fractal_mesospim_shading.core.background.tile_median import tile_median_mesh

        image, mask = image_and_mask(image, mask)
        missing = union(no_data(image), checked_mask(image, coverage))
        return tile_median_mesh(image, mask, missing, self)


@dataclass(frozen=True)
class Median(Planewise):
    """Sliding median, exact or on block means; see `median_background`."""

    radius_px: float = 25.0
    shape: Shape = "disk"
    exact: bool = False
    radius_z_px: int | None = None

    name: ClassVar[str] = "median"

    @property
    def largest_radius_px(self) -> float:
        return self.radius_px

    @property
    def alignment_px(self) -> int:
        from fractal_mesospim_shading.core.background.median import median_block_px

        return 1 if self.exact else median_block_px(self.radius_px)

    @property
    def halo_px(self) -> int | None:
        block = self.alignment_px
        half = half_size(self.radius_px / block, self.shape)
        # With blocks: the neighbour for the interpolation, and one that is cut.
        return half if block == 1 else (half + 2) * block

    @property
    def depth_px(self) -> int:
        return self.radius_z_px or 0

    def background(
        self, image: NDArray[Any], mask: Marks = None, coverage: Marks = None
    ) -> BackgroundResult:
        from fractal_mesospim_shading.core.background.median import median_background

        def estimate(values: NDArray[Any], ignored: Bool | None) -> Array:
            return median_background(
                values,
                ignored,
                radius_px=self.radius_px,
                shape=self.shape,
                exact=self.exact,
                radius_z_px=self.radius_z_px,
            )

        return estimated_where_usable(image, mask, coverage, self.depth_px, estimate)


@dataclass(frozen=True)
class Opening(Planewise):
    """Morphological opening of the smoothed image, of the top-hat; see `opening_background`.

    A `smoothing_sigma_px` of 0 gives the bare opening, which follows the darkest noise.
    """

    radius_px: float = 25.0
    shape: Shape = "disk"
    smoothing_sigma_px: float = 2.0
    light_background: bool = False
    radius_z_px: int | None = None

    name: ClassVar[str] = "opening"
    follows_extremes: ClassVar[bool] = True

    @property
    def largest_radius_px(self) -> float:
        return self.radius_px

    @property
    def halo_px(self) -> int | None:
        from fractal_mesospim_shading.core.background.gaussian import kernel_half_width

        reach = half_size(self.radius_px, self.shape)
        return 2 * reach + kernel_half_width(2 * self.smoothing_sigma_px)

    @property
    def depth_px(self) -> int:
        return 2 * (self.radius_z_px or 0)

    def background(
        self, image: NDArray[Any], mask: Marks = None, coverage: Marks = None
    ) -> BackgroundResult:
        from fractal_mesospim_shading.core.background.opening import opening_background

        def estimate(values: NDArray[Any], ignored: Bool | None) -> Array:
            return opening_background(
                values,
                ignored,
                radius_px=self.radius_px,
                shape=self.shape,
                smoothing_sigma_px=self.smoothing_sigma_px,
                light_background=self.light_background,
                radius_z_px=self.radius_z_px,
            )

        return estimated_where_usable(image, mask, coverage, self.depth_px, estimate)


@dataclass(frozen=True)
class RollingBall(Planewise):
    """ImageJ's rolling ball; see `rolling_ball_background`."""

    radius_px: float = 50.0
    light_background: bool = False
    smooth: bool = True

    name: ClassVar[str] = "rolling_ball"
    follows_extremes: ClassVar[bool] = True
    halves_up: ClassVar[bool] = True
    height_in_counts: ClassVar[bool] = True

    @property
    def largest_radius_px(self) -> float:
        return self.radius_px

    def radius_range_px(self, side_px: int) -> tuple[float, float]:
        return 1.0, max(float(side_px), MOST_RADIUS_PX)

    @property
    def alignment_px(self) -> int:
        from fractal_mesospim_shading.core.background.rolling_ball import ball_shrink

        return ball_shrink(self.radius_px)

    @property
    def halo_px(self) -> int | None:
        from fractal_mesospim_shading.core.background.rolling_ball import ball_halo_px

        return ball_halo_px(self.radius_px)

    def background(
        self, image: NDArray[Any], mask: Marks = None, coverage: Marks = None
    ) -> BackgroundResult:
        from fractal_mesospim_shading.core.background.rolling_ball import rolling_ball_background

        def estimate(values: NDArray[Any], ignored: Bool | None) -> Array:
            return rolling_ball_background(values, ignored, **self.__dict__)

        return estimated_where_usable(image, mask, coverage, 0, estimate)


@dataclass(frozen=True)
class SlidingParaboloid(Planewise):
    """ImageJ's sliding paraboloid; see `sliding_paraboloid_background`."""

    radius_px: float = 50.0
    light_background: bool = False
    smooth: bool = True
    correct_corners: bool = True

    name: ClassVar[str] = "sliding_paraboloid"
    follows_extremes: ClassVar[bool] = True
    halves_up: ClassVar[bool] = True
    height_in_counts: ClassVar[bool] = True

    @property
    def largest_radius_px(self) -> float:
        return self.radius_px

    def radius_range_px(self, side_px: int) -> tuple[float, float]:
        # Of curvature, in counts as well as pixels: it has little to do with the tile, and
        # images of small numbers need large ones.
        return LEAST_PARABOLOID_PX, 1e9

    @property
    def halo_px(self) -> int | None:
        # How far a parabola reaches depends on the range of the counts, and the shift
        # of the 3 x 3 maximum and the corners are those of the whole plane.
        return None

    def background(
        self, image: NDArray[Any], mask: Marks = None, coverage: Marks = None
    ) -> BackgroundResult:
        from fractal_mesospim_shading.core.background.sliding_paraboloid import (
            sliding_paraboloid_background,
        )

        def estimate(values: NDArray[Any], ignored: Bool | None) -> Array:
            return sliding_paraboloid_background(values, ignored, **self.__dict__)

        return estimated_where_usable(image, mask, coverage, 0, estimate)
