"""Separable convolution of planes and stacks, with the same bits however it is cut."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from fractal_mesospim_shading.core.background.masks import as_float32, fill_from_nearest
from fractal_mesospim_shading.core.kernel_cache import kernel

Array = NDArray[np.float32]


def convolved(
    image: NDArray[Any],
    ignored: NDArray[np.bool_] | None,
    kernel_y: NDArray[np.float64],
    kernel_x: NDArray[np.float64],
    kernel_z: NDArray[np.float64] | None = None,
) -> Array:
    """A separable symmetric convolution; ignored pixels have weight 0.

    The order of the sums is fixed for every pixel, so that a block with a halo of the
    kernel's half-width gives the same bits as the whole plane.
    """
    values = as_float32(image)
    if ignored is None:
        return _blurred(values, kernel_y, kernel_x, kernel_z)
    if ignored.all():
        return np.zeros(image.shape, np.float32)
    total = _blurred(np.where(ignored, np.float32(0), values), kernel_y, kernel_x, kernel_z)
    weight = _blurred((~ignored).astype(np.float32), kernel_y, kernel_x, kernel_z)
    unsupported = weight <= 0
    # Far from ignored pixels nothing is divided, as in blocks without any.
    single = np.ones((1,) * image.ndim, np.float32)
    whole = _blurred(single, kernel_y, kernel_x, kernel_z).item()
    weight[unsupported | (weight == whole)] = 1
    result = np.divide(total, weight, out=total)
    return fill_from_nearest(result, unsupported) if unsupported.any() else result


def _blurred(
    values: Array,
    kernel_y: NDArray[np.float64],
    kernel_x: NDArray[np.float64],
    kernel_z: NDArray[np.float64] | None,
) -> Array:
    stack = values.reshape(-1, *values.shape[-2:])
    if kernel_z is not None:
        flat = stack.reshape(stack.shape[0], -1)
        stack = _blur_first_axis(flat, _half(kernel_z)).reshape(stack.shape)
    half_y, half_x = _half(kernel_y), _half(kernel_x)
    result = np.empty(stack.shape, np.float32)
    for z in range(stack.shape[0]):
        _blur_plane(stack[z], half_y, half_x, result[z])
    return result.reshape(values.shape)


def _half(kernel: NDArray[np.float64]) -> Array:
    """Centre and right half of a symmetric kernel."""
    return kernel[kernel.size // 2 :].astype(np.float32)


@kernel
def _blur_plane(plane, half_y, half_x, result):  # type: ignore[no-untyped-def]
    height, width = plane.shape
    margin = half_x.shape[0] - 1
    line = np.empty(width + 2 * margin, np.float32)
    inner = line[margin : margin + width]
    for y in range(height):
        _add_rows(plane, y, half_y, inner)
        line[:margin] = inner[0]
        line[margin + width :] = inner[width - 1]
        target = result[y]
        centre = half_x[0]
        for x in range(width):
            target[x] = centre * inner[x]
        for k in range(1, margin + 1):
            weight = half_x[k]
            left = line[margin - k : margin - k + width]
            right = line[margin + k : margin + k + width]
            for x in range(width):
                target[x] += weight * (left[x] + right[x])


@kernel
def _blur_first_axis(flat, half):  # type: ignore[no-untyped-def]
    result = np.empty_like(flat)
    for y in range(flat.shape[0]):
        _add_rows(flat, y, half, result[y])
    return result


@kernel
def _add_rows(plane, y, half, target):  # type: ignore[no-untyped-def]
    """Weighted sum of the rows around y, always in the same order."""
    last, width = plane.shape[0] - 1, plane.shape[1]
    row, weight = plane[y], half[0]
    for x in range(width):
        target[x] = weight * row[x]
    for k in range(1, half.shape[0]):
        weight = half[k]
        above, below = plane[max(y - k, 0)], plane[min(y + k, last)]
        for x in range(width):
            target[x] += weight * (above[x] + below[x])
