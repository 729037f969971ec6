"""Rolling ball, to the numbers of ImageJ's Subtract Background.

S. R. Sternberg, "Biomedical Image Processing", IEEE Computer 16(1), 1983,
doi:10.1109/MC.1983.1654163; the variant of ImageJ 1.53t: 3 x 3 mean, block
minimum, opening with the top of a ball, bilinear enlargement, all in float32.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import floor
from typing import Any, ClassVar, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import ConfigDict, Field

from fractal_mesospim_shading.core.background.contract import MOST_PX, BackgroundMethod
from fractal_mesospim_shading.core.background.inputs import check_radius
from fractal_mesospim_shading.core.background.masks import as_float32, fill_from_nearest
from fractal_mesospim_shading.core.kernel_cache import kernel

Plane = NDArray[np.float32]
_THIRD = np.float32(0.33333333)
_HIGHEST = np.finfo(np.float32).max


class RollingBallModel(BackgroundMethod):
    """ImageJ's rolling ball."""

    model_config = ConfigDict(title="Rolling ball")
    arguments: ClassVar = ("radius_px", "light_background", "smooth")
    halves_up: ClassVar = True
    height_in_counts: ClassVar = True
    follows_extremes: ClassVar = True

    method: Literal["rolling_ball"] = "rolling_ball"
    radius: float = Field(default=50.0, gt=0, description="Of the ball; larger than the objects.")
    smooth: bool = Field(default=True, description="3 x 3 mean before, as ImageJ does.")

    def radius_range_px(self, side_px: int) -> tuple[float, float]:
        return 1.0, float(max(side_px, MOST_PX))

    @property
    def alignment_px(self) -> int:
        return ball_shrink(self.radius)

    @property
    def bytes_a_pixel(self) -> int:
        return 24

    @property
    def halo_px(self) -> int | None:
        shrink = ball_shrink(self.radius)
        return 2 * _half_width(self.radius) * shrink + 2 * shrink + 1

    def estimate(self, values: NDArray[Any], ignored: NDArray[np.bool_] | None) -> NDArray[Any]:
        ball = make_ball(self.radius)
        return rolled(
            values, ignored, ball, light_background=self.light_background, smooth=self.smooth
        )


@dataclass(frozen=True)
class Ball:
    """The part of a ball that ImageJ rolls.

    Attributes:
        shrink: factor by which the image is made smaller first.
        heights: (n, n) float32, height over the equator in counts; n is odd.
    """

    shrink: int
    heights: Plane

    @property
    def half_width(self) -> int:
        """Pixels of the small image from the centre of the ball to its edge."""
        return self.heights.shape[0] // 2


def ball_shrink(radius_px: float) -> int:
    """The factor by which ImageJ makes an image smaller for a ball of this radius."""
    return 1 if radius_px <= 10 else 2 if radius_px <= 30 else 4 if radius_px <= 100 else 8


def _half_width(radius_px: float) -> int:
    """Pixels of the small image from the centre of the ball to where its arc is cut off."""
    shrink = ball_shrink(radius_px)
    trim_percent = {1: 24, 2: 24, 4: 32, 8: 40}[shrink]
    radius = max(radius_px / shrink, 1.0)
    return floor(radius - int(trim_percent * radius) // 100 + 0.5)


def make_ball(radius_px: float) -> Ball:
    """The ball of ImageJ: radius and height divided by the shrink factor, arc trimmed.

    Args:
        radius_px: radius in pixels and, at the same time, in counts.

    Raises:
        BackgroundError: for a radius below 1.
    """
    check_radius(radius_px, "The radius of the ball")
    shrink, half = ball_shrink(radius_px), _half_width(radius_px)
    radius = max(radius_px / shrink, 1.0)
    across = np.arange(-half, half + 1, dtype=np.float64)
    squared = radius * radius - across[:, None] ** 2 - across[None, :] ** 2
    return Ball(shrink, np.sqrt(np.maximum(squared, 0.0)).astype(np.float32))


def rolled(
    image: NDArray[Any],
    ignored: NDArray[np.bool_] | None,
    ball: Ball,
    *,
    light_background: bool,
    smooth: bool,
) -> Plane:
    """The background that a ball reaches when it rolls under the image.

    Args:
        image: (y, x), integer or float; computed in float32 as in ImageJ.
        ignored: (y, x), pixels that do not stop the ball, or None.
        ball: larger than the largest object; a smaller one climbs into the objects and takes
            their light away. On images with a large range of counts it is flat.
        light_background: dark objects on a bright background.
        smooth: a 3 x 3 mean first, as ImageJ by default. Without it the ball hangs
            on the darkest noise, and the background is too low.

    Returns:
        (y, x) float32.
    """
    plane = as_float32(image)
    if ignored is not None:
        plane = fill_from_nearest(plane, ignored)
    if light_background:
        plane = -plane
    if smooth:
        plane = mean_3x3(plane)
    if ignored is not None:
        plane = np.where(ignored, _HIGHEST, plane)
    small = _block_minimum(plane, ball.shrink) if ball.shrink > 1 else plane
    small = _opened(small, ball)
    unreached = small < -0.5 * _HIGHEST
    if ignored is not None and unreached.any():
        small = fill_from_nearest(small, unreached)
    result = _enlarged(small, image.shape, ball.shrink) if ball.shrink > 1 else small
    return -result if light_background else result


def mean_3x3(plane: Plane) -> Plane:
    """ImageJ's 3 x 3 mean: along x, then along y, edges repeated, float32 in between."""
    return np.asarray(_mean_3(plane, _THIRD), np.float32)


def _opened(small: Plane, ball: Ball) -> Plane:
    # The centre of the ball may lie outside; pixels outside do not stop it.
    if ball.heights.shape[0] > min(small.shape):
        centres = _lowest_difference_within(small, ball.heights, _HIGHEST)
    else:
        padded = np.pad(small, 2 * ball.half_width, constant_values=_HIGHEST)
        centres = _lowest_difference(padded, ball.heights)
    # Where nothing stopped the ball, it must not raise the background either.
    centres[centres > 0.5 * _HIGHEST] = -_HIGHEST
    return np.asarray(_highest_sum(centres, ball.heights), np.float32)


def _enlarged(small: Plane, shape: tuple[int, ...], shrink: int) -> Plane:
    height, width = shape
    rows, row_weights = _interpolation(height, small.shape[0], shrink)
    columns, column_weights = _interpolation(width, small.shape[1], shrink)
    return np.asarray(
        _bilinear(
            small,
            rows,
            row_weights,
            columns,
            column_weights,
            min(small.shape[0] - 1, 1),
            min(small.shape[1] - 1, 1),
        ),
        np.float32,
    )


def _interpolation(
    length: int, small_length: int, shrink: int
) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
    """Index of the left neighbour in the small image and its weight, as ImageJ has them.

    Beyond the outer cell centres this extrapolates.
    """
    pixel = np.arange(length)
    left = np.maximum(pixel - shrink // 2, 0) // shrink
    left = np.maximum(np.minimum(left, small_length - 2), 0)
    half = np.float32(0.5)
    centre = (pixel.astype(np.float32) + half) / np.float32(shrink)
    weight = np.float32(1) - (centre - (left.astype(np.float32) + half))
    return left, weight.astype(np.float32)


@kernel
def _mean_3(plane, third):  # type: ignore[no-untyped-def]
    height, width = plane.shape
    along_x = np.empty_like(plane)
    for y in range(height):
        row, target = plane[y], along_x[y]
        for x in range(1, width - 1):
            target[x] = (row[x - 1] + row[x] + row[x + 1]) * third
        last = width - 1
        target[0] = (row[0] + row[0] + row[min(1, last)]) * third
        target[last] = (row[max(last - 1, 0)] + row[last] + row[last]) * third
    result = np.empty_like(plane)
    for y in range(height):
        above, here = along_x[max(y - 1, 0)], along_x[y]
        below, target = along_x[min(y + 1, height - 1)], result[y]
        for x in range(width):
            target[x] = (above[x] + here[x] + below[x]) * third
    return result


@kernel
def _block_minimum(plane, shrink):  # type: ignore[no-untyped-def]
    height, width = plane.shape
    rows, columns = (height + shrink - 1) // shrink, (width + shrink - 1) // shrink
    small = np.empty((rows, columns), np.float32)
    line = np.empty(width, np.float32)
    for j in range(rows):
        line[:] = plane[j * shrink]
        for y in range(j * shrink + 1, min((j + 1) * shrink, height)):
            row = plane[y]
            for x in range(width):
                line[x] = row[x] if row[x] < line[x] else line[x]
        for i in range(columns):
            lowest = line[i * shrink]
            for x in range(i * shrink + 1, min((i + 1) * shrink, width)):
                lowest = line[x] if line[x] < lowest else lowest
            small[j, i] = lowest
    return small


@kernel
def _lowest_difference(padded, ball):  # type: ignore[no-untyped-def]
    size = ball.shape[0]
    rows, columns = padded.shape[0] - size + 1, padded.shape[1] - size + 1
    result = np.empty((rows, columns), np.float32)
    for y in range(rows):
        target = result[y]
        target[:] = padded[y, :columns] - ball[0, 0]
        for dy in range(size):
            for dx in range(size):
                height = ball[dy, dx]
                source = padded[y + dy, dx : dx + columns]
                for x in range(columns):
                    value = source[x] - height
                    target[x] = value if value < target[x] else target[x]
    return result


@kernel
def _lowest_difference_within(small, ball, highest):  # type: ignore[no-untyped-def]
    """The same for a ball larger than the image: only pairs with a pixel, and no margins."""
    size, (height, width) = ball.shape[0], small.shape
    result = np.full((height + size - 1, width + size - 1), highest, np.float32)
    for y in range(result.shape[0]):
        target = result[y]
        for dy in range(max(size - 1 - y, 0), min(size, height + size - 1 - y)):
            source = small[y + dy - size + 1]
            for dx in range(size):
                lift, start = ball[dy, dx], size - 1 - dx
                for x in range(width):
                    value = source[x] - lift
                    here = target[start + x]
                    target[start + x] = value if value < here else here
    return result


@kernel
def _highest_sum(centres, ball):  # type: ignore[no-untyped-def]
    size = ball.shape[0]
    rows, columns = centres.shape[0] - size + 1, centres.shape[1] - size + 1
    result = np.empty((rows, columns), np.float32)
    for y in range(rows):
        target = result[y]
        target[:] = centres[y, :columns] + ball[0, 0]
        for dy in range(size):
            for dx in range(size):
                height = ball[dy, dx]
                source = centres[y + dy, dx : dx + columns]
                for x in range(columns):
                    value = source[x] + height
                    target[x] = value if value > target[x] else target[x]
    return result


@kernel
def _bilinear(small, rows, row_weights, columns, column_weights, below, right):  # type: ignore[no-untyped-def]
    one = np.float32(1)
    height, width = rows.shape[0], columns.shape[0]
    result = np.empty((height, width), np.float32)
    wide = np.empty((small.shape[0], width), np.float32)
    for j in range(small.shape[0]):
        for x in range(width):
            i, weight = columns[x], column_weights[x]
            wide[j, x] = small[j, i] * weight + small[j, i + right] * (one - weight)
    for y in range(height):
        upper, lower, weight = wide[rows[y]], wide[rows[y] + below], row_weights[y]
        target = result[y]
        for x in range(width):
            target[x] = upper[x] * weight + lower[x] * (one - weight)
    return result
