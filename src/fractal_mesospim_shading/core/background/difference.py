"""Difference of filters: a small filter against noise minus a big one as background."""

from __future__ import annotations

from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from fractal_mesospim_shading.core.background.inputs import image_and_mask
from fractal_mesospim_shading.core.background.masks import as_float32, checked_mask
from fractal_mesospim_shading.core.background.parameter_checks import (
    check_radius,
    is_number,
    shown,
)
from fractal_mesospim_shading.errors import BackgroundError

FilterName = Literal["median", "gaussian", "mean"]


def check_radii(small_radius_px: float | None, big_radius_px: float) -> None:
    """Refuse radii below 1, and a small one that is not smaller than the big one.

    Raises:
        BackgroundError: with both numbers.
    """
    check_radius(big_radius_px, "The big radius")
    if small_radius_px is None:
        return
    if not is_number(small_radius_px) or not 1 <= small_radius_px < big_radius_px:
        raise BackgroundError(
            f"The small radius is {shown(small_radius_px)} px, the big one {big_radius_px}; "
            "expected 1 <= small < big, or no small filter."
        )


def filtered(
    image: NDArray[Any], ignored: NDArray[np.bool_] | None, radius_px: float, filter: FilterName
) -> NDArray[np.float32]:
    """A plane after one filter; the median is exact.

    Args:
        image: (y, x).
        ignored: pixels that do not enter.
        radius_px: of the disk of the median, of the Gaussian (2 sigma), or of the
            square of the mean (whole pixels).
        filter: which one.

    Raises:
        BackgroundError: for an unknown filter or a radius below 1.
    """
    from fractal_mesospim_shading.core.background.gaussian import (
        gaussian_background,
        mean_background,
    )
    from fractal_mesospim_shading.core.background.median import median_background

    if filter == "median":
        return median_background(image, ignored, radius_px=radius_px, exact=True)
    if filter == "gaussian":
        return gaussian_background(image, ignored, radius_px=radius_px)
    if filter == "mean":
        return mean_background(image, ignored, radius_px=int(radius_px))
    raise BackgroundError(f"The filter is {filter!r}; expected 'median', 'gaussian' or 'mean'.")


def difference_background(
    image: NDArray[Any],
    mask: NDArray[Any] | None = None,
    *,
    big_radius_px: float = 25.0,
    filter: FilterName = "median",
) -> NDArray[np.float32]:
    """The background of a difference of filters: the big filter alone.

    Args:
        image: (y, x).
        mask: (y, x); nonzero pixels do not enter.
        big_radius_px: about three times the radius of the objects.
        filter: median, gaussian or mean.
    """
    check_radii(None, big_radius_px)
    image, mask = image_and_mask(image, mask)
    return filtered(image, checked_mask(image, mask), big_radius_px, filter)


def difference_of_filters(
    image: NDArray[Any],
    mask: NDArray[Any] | None = None,
    *,
    small_radius_px: float | None = 2.0,
    big_radius_px: float = 25.0,
    filter: FilterName = "median",
) -> NDArray[np.float32]:
    """Small filter minus big filter, signed.

    Args:
        image: (y, x).
        mask: (y, x); nonzero pixels do not enter the big filter.
        small_radius_px: against noise, smaller than the objects; None takes the
            image as it is.
        big_radius_px: about three times the radius of the objects.
        filter: median, gaussian or mean.

    Returns:
        (y, x) float32.

    Raises:
        BackgroundError: for radii out of order, or a mask of another shape.
    """
    check_radii(small_radius_px, big_radius_px)
    image, mask = image_and_mask(image, mask)
    background = difference_background(image, mask, big_radius_px=big_radius_px, filter=filter)
    if small_radius_px is None:
        return as_float32(image) - background
    return filtered(image, None, small_radius_px, filter) - background
