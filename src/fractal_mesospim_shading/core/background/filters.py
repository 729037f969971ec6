"""What several methods are made of: neighbourhoods and convolutions.

A neighbourhood of a rank filter is a stack of centred runs, one for each of its rows. Convolutions
are separable, with the same bits however an image is cut.
"""

from __future__ import annotations

from math import erf, floor, sqrt
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from fractal_mesospim_shading.core.background.inputs import check_radius
from fractal_mesospim_shading.core.background.masks import as_float32
from fractal_mesospim_shading.core.background.nearest import LocalEstimate
from fractal_mesospim_shading.core.kernel_cache import kernel
from fractal_mesospim_shading.errors import BackgroundError

Array = NDArray[np.float32]
Shape = Literal["disk", "imagej_disk", "square"]

_REACH_SIGMA = 2.5758
"""99 % of a normal distribution lie within this many sigma."""


def row_half_widths(radius_px: float, shape: Shape) -> NDArray[np.int64]:
    """How far a neighbourhood reaches to each side in each of its rows.

    Args:
        radius_px: at least 1.
        shape: `disk`, dx^2 + dy^2 <= r^2 (scikit-image's: 81 pixels at 5);
            `imagej_disk`, dx^2 + dy^2 <= r^2 + 1 (89 pixels at 5); or `square`.

    Returns:
        One entry for each row, from the top; the length is odd.

    Raises:
        BackgroundError: for a radius below 1 or an unknown shape.
    """
    check_radius(radius_px, "The radius")
    if shape == "square":
        half = int(radius_px)
        return np.full(2 * half + 1, half)
    if shape == "disk":
        squared = radius_px * radius_px
    elif shape == "imagej_disk":
        squared = float(int(_imagej_radius(radius_px) ** 2) + 1)
    else:
        raise BackgroundError(
            f"The neighbourhood is {shape!r}; expected 'disk', 'imagej_disk' or 'square'."
        )
    half = int(sqrt(squared + 1e-10))
    return np.array([int(sqrt(squared - dy * dy + 1e-10)) for dy in range(-half, half + 1)])


def _imagej_radius(radius_px: float) -> float:
    # ImageJ keeps the sizes of its older kernels for these two ranges.
    if 1.5 <= radius_px < 1.75:
        return 1.75
    return 2.85 if 2.5 <= radius_px < 2.85 else radius_px


def half_size(radius_px: float, shape: Shape) -> int:
    """Pixels from the centre of a neighbourhood to its end."""
    return row_half_widths(radius_px, shape).size // 2


def footprint(radius_px: float, shape: Shape) -> NDArray[np.uint8]:
    """A neighbourhood as an array of 0 and 1, odd in both directions."""
    widths = row_half_widths(radius_px, shape)
    across = np.abs(np.arange(-int(widths.max()), int(widths.max()) + 1))
    return np.asarray(across[None, :] <= widths[:, None], np.uint8)


def gaussian_kernel(sigma_px: float) -> NDArray[np.float64]:
    """A Gaussian integrated over each pixel, cut at 2.5758 sigma, sum 1, odd length."""
    half = floor(_REACH_SIGMA * sigma_px)
    edges = (np.arange(-half, half + 2) - 0.5) / (sqrt(2.0) * sigma_px)
    cumulative = np.array([erf(edge) for edge in edges])
    kernel = np.diff(cumulative)
    return np.asarray(kernel / kernel.sum())


def kernel_half_width(radius_px: float) -> int:
    """Pixels from the centre of the kernel of this radius to its end."""
    return floor(_REACH_SIGMA * radius_px / 2)


def convolved(
    image: NDArray[Any],
    ignored: NDArray[np.bool_] | None,
    kernel_y: NDArray[np.float64],
    kernel_x: NDArray[np.float64],
    kernel_z: NDArray[np.float64] | None = None,
) -> Array:
    """As `convolved_locally`; where the kernel meets ignored pixels alone, from the nearest."""
    return convolved_locally(image, ignored, kernel_y, kernel_x, kernel_z).filled()


def convolved_locally(
    image: NDArray[Any],
    ignored: NDArray[np.bool_] | None,
    kernel_y: NDArray[np.float64],
    kernel_x: NDArray[np.float64],
    kernel_z: NDArray[np.float64] | None = None,
) -> LocalEstimate:
    """A separable symmetric convolution; ignored pixels have weight 0.

    The order of the sums is fixed for every pixel, so that a block with a halo of the
    kernel's half-width gives the same bits as the whole plane.
    """
    values = as_float32(image)
    if ignored is None:
        return LocalEstimate(_blurred(values, kernel_y, kernel_x, kernel_z))
    total = _blurred(np.where(ignored, np.float32(0), values), kernel_y, kernel_x, kernel_z)
    weight = _blurred((~ignored).astype(np.float32), kernel_y, kernel_x, kernel_z)
    unsupported = weight <= 0
    # Far from ignored pixels nothing is divided, as in blocks without any.
    single = np.ones((1,) * image.ndim, np.float32)
    whole = _blurred(single, kernel_y, kernel_x, kernel_z).item()
    weight[unsupported | (weight == whole)] = 1
    return LocalEstimate.of(np.divide(total, weight, out=total), unsupported)


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
