"""What every background method answers, and what all have in common."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar, Protocol

import numpy as np
from numpy.typing import NDArray

from fractal_mesospim_shading.core.background.inputs import image_and_mask
from fractal_mesospim_shading.core.background.masks import (
    checked_mask,
    no_data,
    union,
    usable_share,
)
from fractal_mesospim_shading.core.background.parameter_checks import check_parameters, shown
from fractal_mesospim_shading.core.background.wide import common_level, less_level, plus_level
from fractal_mesospim_shading.errors import BackgroundError

Array = NDArray[np.float32]
Marks = NDArray[Any] | None


@dataclass(frozen=True)
class BackgroundResult:
    """What a method found out about a plane or stack.

    Attributes:
        background: the shape of the image; 0 where there is no data. float32, or float64
            where counts above 2^24 need its digits.
        estimated: False if no pixel was usable. The background is 0 then, and the
            image passes through unchanged.
        noise: map of the background's standard deviation, for methods that have one.
        denoised: of the same type, to be corrected in place of the image, for methods that
            smooth the image as well; None otherwise.
        share: of the pixels with data, those that the estimate used.
        even: whether no part of the plane had pixels enough for an estimate of its own, so
            that there is one number for all.
    """

    background: NDArray[Any]
    estimated: bool = True
    noise: Array | None = None
    denoised: NDArray[Any] | None = None
    share: float = 1.0
    even: bool = False

    def image_to_correct(self, image: NDArray[Any]) -> NDArray[Any]:
        """The image, or its smoothed form where the method has made one."""
        return image if self.denoised is None else self.denoised


class BackgroundMethod(Protocol):
    """What every method answers.

    Attributes:
        name: as users write it.
        halves_up: whether integers are rounded half up, as in ImageJ.
        height_in_counts: whether its neighbourhood has a height besides its radius, which makes
            it depend on the range of the pixels.
        follows_extremes: whether it follows the darkest places, or the brightest ones if
            it is told that the background is light; others know no such difference.
    """

    name: ClassVar[str]
    halves_up: ClassVar[bool]
    height_in_counts: ClassVar[bool]
    follows_extremes: ClassVar[bool]

    @property
    def light_background(self) -> bool:
        """Whether it looks for dark objects on a bright background."""
        ...

    @property
    def largest_radius_px(self) -> float:
        """The radius of its neighbourhood, the largest where it has several."""
        ...

    def radius_range_px(self, side_px: int) -> tuple[float, float]:
        """The smallest and the largest radius for a tile whose shorter side is this long."""
        ...

    @property
    def halo_px(self) -> int | None:
        """Pixels around a block that make its result equal to that of the whole plane.

        None: the method needs the whole plane. The number holds without objects masked
        out: under an object wider than the neighbourhood the background comes from
        the nearest place that has one, however far. Pixels without data are no problem.
        """
        ...

    @property
    def alignment_px(self) -> int:
        """Blocks have to begin at multiples of this."""
        ...

    @property
    def depth_px(self) -> int:
        """Planes to each side that a plane depends on; 0 is plane by plane."""
        ...

    def background(
        self, image: NDArray[Any], mask: Marks = None, coverage: Marks = None
    ) -> BackgroundResult:
        """Estimate the background.

        Args:
            image: (y, x), or (z, y, x) for a method with a z radius. Masked pixels of a
                masked array are objects.
            mask: same shape; above 0 marks objects, ignored and interpolated under.
            coverage: same shape; above 0 marks pixels without data. NaN is added.

        Raises:
            BackgroundError: for parameters out of range or other shapes.
        """
        ...


def check_method(method: Any) -> None:
    """Refuse what is no method, such as the name or the class of one.

    Raises:
        BackgroundError: with what was given.
    """
    if isinstance(method, type) or not callable(getattr(method, "background", None)):
        raise BackgroundError(
            f"The method is {shown(method)}; expected one made by make_method('median') or the "
            "like."
        )


Estimate = Callable[[NDArray[Any], NDArray[np.bool_] | None], NDArray[Any]]


MOST_RADIUS_PX = 10_000.0
"""Of methods that may reach farther than the tile: beyond it they take minutes for nothing, as
the background has long been all but flat."""


LEAST_PARABOLOID_PX = 0.2
"""As in ImageJ, whose manual names 0.2 to 5 for images of 16 bits."""


class Planewise:
    """Answers of a method that works on one plane and knows no special rules."""

    halves_up: ClassVar[bool] = False
    height_in_counts: ClassVar[bool] = False
    follows_extremes: ClassVar[bool] = False
    light_background: bool = False
    name: ClassVar[str]

    def __post_init__(self) -> None:
        check_parameters(f"the method {self.name}", self)

    def radius_range_px(self, side_px: int) -> tuple[float, float]:
        return 1.0, float(side_px)

    @property
    def alignment_px(self) -> int:
        return 1

    @property
    def depth_px(self) -> int:
        return 0


def estimated_where_usable(
    image: NDArray[Any],
    mask: Marks,
    coverage: Marks,
    depth_px: int,
    estimate: Estimate,
    *,
    in_float32: bool = True,
) -> BackgroundResult:
    """Run an estimate on the pixels that have data; the others get a background of 0.

    Args:
        image: (y, x), or (z, y, x) if `depth_px` is above 0.
        mask: objects, ignored and interpolated under.
        coverage: pixels without data; NaN is added.
        depth_px: planes to each side that the estimate looks at.
        estimate: called with the image and all pixels to ignore, or None.
        in_float32: whether it computes in float32; counts above 2^24 then come to it less
            a common level.

    Raises:
        BackgroundError: for shapes that do not fit.
    """
    image, mask = image_and_mask(image, mask, deep=depth_px > 0)
    missing = union(no_data(image), checked_mask(image, coverage))
    ignored = union(checked_mask(image, mask), missing)
    if ignored is not None and ignored.all():
        return BackgroundResult(np.zeros(image.shape, np.float32), estimated=False)
    level = common_level(image, ignored) if in_float32 else None
    values = image if level is None else less_level(image, level)
    background = plus_level(estimate(values, ignored), level)
    if missing is not None:
        background[missing] = 0
    share = usable_share(ignored, missing, image.size)
    return BackgroundResult(background, share=share)
