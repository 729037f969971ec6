"""Background correction for people with arrays: NumPy arrays and memory maps.

from fractal_mesospim_shading.core.background import make_method
from fractal_mesospim_shading.core.background.arrays import correct_array

result = correct_array(stack, make_method("median", radius_px=30))
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import DTypeLike, NDArray

from fractal_mesospim_shading.core.background.apply import (
    Application,
    AppliedCounts,
    apply_background,
)
from fractal_mesospim_shading.core.background.catalogue import check_fits
from fractal_mesospim_shading.core.background.contract import BackgroundMethod, BackgroundResult
from fractal_mesospim_shading.core.background.masks import no_data
from fractal_mesospim_shading.errors import BackgroundError

Progress = Callable[[int, int], None]
Index = tuple[int, ...]


@dataclass(frozen=True)
class CorrectedArray:
    """The result of `correct_array`.

    Attributes:
        image: the corrected image; the `out` that was given, if one was.
        counts: of its pixels.
        unestimated: indices of planes (or stacks) without a usable pixel. Their
            background is 0 and they passed through unchanged.
    """

    image: NDArray[Any]
    counts: AppliedCounts
    unestimated: tuple[Index, ...]


def estimate_array(
    image: NDArray[Any],
    method: BackgroundMethod,
    *,
    mask: NDArray[Any] | None = None,
    out: NDArray[Any] | None = None,
    zero_is_no_data: bool = False,
    progress: Progress | None = None,
) -> NDArray[Any]:
    """The background of every plane.

    Args:
        image: (..., y, x); (..., z, y, x) for a method with a z radius, which holds
            one such stack in memory, others one plane.
        method: from `make_method` or its class.
        mask: of the image's shape, or (y, x) for all planes; nonzero marks objects.
        out: float array for the background, e.g. a memory map; made if not given.
        zero_is_no_data: 0 means that nothing was recorded.
        progress: called with (planes or stacks done, all of them).

    Returns:
        float32, or `out`; 0 where no background can be estimated.

    Raises:
        BackgroundError: for shapes or parameters that do not fit.
    """
    result = _target(image, out, np.float32)
    for index, _, found in _results(image, method, mask, zero_is_no_data, progress):
        result[index] = found.background
    return result


def correct_array(
    image: NDArray[Any],
    method: BackgroundMethod,
    *,
    mask: NDArray[Any] | None = None,
    application: Application | None = None,
    dtype: DTypeLike = np.float32,
    out: NDArray[Any] | None = None,
    background_out: NDArray[Any] | None = None,
    zero_is_no_data: bool = False,
    progress: Progress | None = None,
) -> CorrectedArray:
    """Estimate the background of every plane and take it away.

    Args:
        image: (..., y, x), see `estimate_array`.
        method: from `make_method` or its class.
        mask: of the image's shape, or (y, x) for all planes; nonzero marks objects.
        application: subtract or divide, weight, offset; see `Application`. A light
            background is taken over from the method.
        dtype: of the result; float32 keeps negative values.
        out: array for the result, e.g. a memory map; its type then counts.
        background_out: float array that receives the background as well.
        zero_is_no_data: 0 means that nothing was recorded; it stays 0.
        progress: called with (planes or stacks done, all of them).

    Raises:
        BackgroundError: for shapes or parameters that do not fit.
    """
    how = _completed(application or Application(), method)
    result = _target(image, out, dtype)
    saved = None if background_out is None else _target(image, background_out, np.float32)
    counts = AppliedCounts()
    unestimated: list[Index] = []
    for index, values, found in _results(image, method, mask, zero_is_no_data, progress):
        part = found.image_to_correct(values)
        absent = no_data(values, zero_is_no_data=zero_is_no_data)
        if found.denoised is not None and absent is not None:
            part = np.where(absent, values, part)
        if not found.estimated:
            unestimated.append(index)
            absent = np.ones(values.shape, np.bool_)
        corrected, some = apply_background(
            part, found.background, how, dtype=result.dtype, coverage=absent
        )
        result[index] = corrected
        counts += some
        if saved is not None:
            saved[index] = found.background
    return CorrectedArray(result, counts, tuple(unestimated))


def _completed(application: Application, method: BackgroundMethod) -> Application:
    """Rounding and light background as the method has them, where nothing else is said."""
    rounding = application.rounding or ("half_up" if method.halves_up else "half_even")
    light = application.light_background or bool(getattr(method, "light_background", False))
    return replace(application, rounding=rounding, light_background=light)


def _target(image: NDArray[Any], out: NDArray[Any] | None, dtype: DTypeLike) -> NDArray[Any]:
    if out is None:
        return np.empty(image.shape, dtype)
    if out.shape != image.shape:
        raise BackgroundError(
            f"The array for the result has shape {out.shape}, the image {image.shape}; "
            "give an array of the same shape."
        )
    return out


def _results(
    image: NDArray[Any],
    method: BackgroundMethod,
    mask: NDArray[Any] | None,
    zero_is_no_data: bool,
    progress: Progress | None,
) -> Iterator[tuple[Index, NDArray[Any], BackgroundResult]]:
    axes = 3 if method.depth_px else 2
    if image.ndim < axes or 0 in image.shape:
        raise BackgroundError(
            f"The image has shape {image.shape}; expected {axes} or more axes, ending with "
            f"{'z, y, x' if axes == 3 else 'y, x'}, and at least one pixel."
        )
    if mask is not None and mask.shape not in (image.shape, image.shape[-2:]):
        raise BackgroundError(
            f"The mask has shape {mask.shape}, the image {image.shape}; expected the same, or "
            f"{image.shape[-2:]} for all planes."
        )
    check_fits(method, (image.shape[-2], image.shape[-1]))
    leading = image.shape[:-axes]
    total = int(np.prod(leading, dtype=np.int64))
    for done, index in enumerate(np.ndindex(*leading), start=1):
        values = np.asarray(image[index])
        objects = None
        if mask is not None:
            part = mask[index] if mask.shape == image.shape else mask
            objects = np.broadcast_to(np.asarray(part), values.shape)
        coverage = no_data(values, zero_is_no_data=zero_is_no_data)
        yield index, values, method.background(values, objects, coverage)
        if progress is not None:
            progress(done, total)
