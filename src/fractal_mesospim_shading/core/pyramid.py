"""Coarser levels of a block: block means, and which shapes belong together."""

from __future__ import annotations

from math import prod
from typing import Any

import numba
import numpy as np
from numpy.typing import NDArray

from fractal_mesospim_shading.core.kernel_cache import KEPT
from fractal_mesospim_shading.errors import ImageFormatError


def level_factor(
    fine: tuple[int, ...], coarse: tuple[int, ...], wished: tuple[int, ...] | None = None
) -> tuple[int, ...]:
    """By how much each axis shrinks from one level to the next.

    A writer may drop or keep the pixels that fill no whole coarse pixel, so the
    coarse size is the fine one divided by the factor and rounded down or up.

    Args:
        fine, coarse: shapes of the two levels.
        wished: the factors that the scales give; taken where the shapes allow them.

    Raises:
        ImageFormatError: an axis shrinks by something that is no whole number.
    """
    factors = []
    for axis, (n, m) in enumerate(zip(fine, coarse, strict=True)):
        fitting = [f for f in range(1, 17) if m in (n // f, -(-n // f)) and m > 0]
        if not fitting:
            raise ImageFormatError(
                f"A pyramid level of shape {coarse} does not follow from {fine}: each axis has "
                "to shrink by a whole number up to 16. Build the pyramid again."
            )
        if wished is not None and wished[axis] in fitting:
            factors.append(wished[axis])
        else:
            factors.append(2 if 2 in fitting and n > 1 and m < n else fitting[0])
    return tuple(factors)


def block_mean(
    block: NDArray[Any],
    factor: tuple[int, ...],
    shape: tuple[int, ...],
    out: NDArray[Any] | None = None,
) -> NDArray[Any]:
    """Mean over blocks of pixels, rounded half to even for integers.

    Args:
        block: (..., z, y, x), whose origin lies on a multiple of the factor.
        factor: block size along each axis; 1 for all but the last three.
        shape: of the result. Blocks cut by the end of the array are averaged over
            the pixels that are there; pixels beyond the last block are left out.
        out: where to put the result; contiguous, of that shape and the block's type.
    """
    lead = block.shape[:-3] if block.ndim > 3 else ()
    fine = block.reshape((-1, *((1,) * (3 - min(block.ndim, 3))), *block.shape[len(lead) :]))
    f3 = (1, 1, *factor)[-3:]
    s3 = (1, 1, *shape)[-3:]
    result = np.empty(shape, dtype=block.dtype) if out is None else out
    coarse = result.reshape((prod(lead), *s3))
    integers = np.issubdtype(block.dtype, np.integer)
    for source, target in zip(fine, coarse, strict=True):
        if integers and f3 == (1, 2, 2):
            _mean_1x2x2(source, target)
        elif f3 == (1, 2, 2):
            _float_mean_1x2x2(source, target)
        else:
            _mean_any(source, f3[0], f3[1], f3[2], target, integers)
    return result


@numba.njit(nogil=True, cache=KEPT)
def _mean_1x2x2(fine, coarse):  # type: ignore[no-untyped-def]
    """Whole 2 x 2 blocks in integer arithmetic; the cut ones are left to `_mean_any`."""
    height, width = fine.shape[1] // 2, fine.shape[2] // 2
    for z in range(coarse.shape[0]):
        for y in range(min(coarse.shape[1], height)):
            upper, lower = fine[z, 2 * y], fine[z, 2 * y + 1]
            for x in range(min(coarse.shape[2], width)):
                total = (
                    np.int32(upper[2 * x])
                    + np.int32(upper[2 * x + 1])
                    + np.int32(lower[2 * x])
                    + np.int32(lower[2 * x + 1])
                )
                # + 1, and one more where the quotient is odd: halves go to even.
                coarse[z, y, x] = (total + np.int32(1) + ((total >> 2) & 1)) >> 2
        if coarse.shape[1] > height:
            _mean_any(fine[z : z + 1, 2 * height :], 1, 2, 2, coarse[z : z + 1, height:], True)
        if coarse.shape[2] > width:
            _mean_any(fine[z : z + 1, :, 2 * width :], 1, 2, 2, coarse[z : z + 1, :, width:], True)


@numba.njit(nogil=True, cache=KEPT)
def _float_mean_1x2x2(fine, coarse):  # type: ignore[no-untyped-def]
    """Whole 2 x 2 blocks, added in the order of `_mean_any`; the cut ones are left to it."""
    height, width = fine.shape[1] // 2, fine.shape[2] // 2
    for z in range(coarse.shape[0]):
        for y in range(min(coarse.shape[1], height)):
            upper, lower, row = fine[z, 2 * y], fine[z, 2 * y + 1], coarse[z, y]
            for x in range(min(coarse.shape[2], width)):
                total = np.float64(upper[2 * x]) + np.float64(upper[2 * x + 1])
                total += np.float64(lower[2 * x])
                total += np.float64(lower[2 * x + 1])
                row[x] = total * 0.25
        if coarse.shape[1] > height:
            _mean_any(fine[z : z + 1, 2 * height :], 1, 2, 2, coarse[z : z + 1, height:], False)
        if coarse.shape[2] > width:
            _mean_any(fine[z : z + 1, :, 2 * width :], 1, 2, 2, coarse[z : z + 1, :, width:], False)


@numba.njit(nogil=True, cache=KEPT)
def _mean_any(fine, fz, fy, fx, coarse, integers):  # type: ignore[no-untyped-def]
    for z in range(coarse.shape[0]):
        z1 = min((z + 1) * fz, fine.shape[0])
        for y in range(coarse.shape[1]):
            y1 = min((y + 1) * fy, fine.shape[1])
            for x in range(coarse.shape[2]):
                x1 = min((x + 1) * fx, fine.shape[2])
                total = np.float64(0.0)
                for i in range(z * fz, z1):
                    for j in range(y * fy, y1):
                        for k in range(x * fx, x1):
                            total += np.float64(fine[i, j, k])
                count = (z1 - z * fz) * (y1 - y * fy) * (x1 - x * fx)
                coarse[z, y, x] = np.rint(total / count) if integers else total / count
