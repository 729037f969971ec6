"""Sliding paraboloid, to the numbers of ImageJ's Subtract Background.

M. Schmid's algorithm of 2007 as in ImageJ 1.53t: parabolas slide along rows,
columns and both diagonals; corner pixels that look like objects are lowered first.
"""

from __future__ import annotations

from typing import Any, ClassVar, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import ConfigDict, Field, PrivateAttr

from fractal_mesospim_shading.core.background.contract import BackgroundMethod
from fractal_mesospim_shading.core.background.inputs import check_radius
from fractal_mesospim_shading.core.background.masks import as_float32, fill_from_nearest
from fractal_mesospim_shading.core.background.rolling_ball import mean_3x3
from fractal_mesospim_shading.core.kernel_cache import kernel

Plane = NDArray[np.float32]

_LEAST_RADIUS_PX = 0.2
"""As in ImageJ, whose manual names 0.2 to 5 for images of 16 bits."""


class SlidingParaboloidModel(BackgroundMethod):
    """ImageJ's sliding paraboloid."""

    model_config = ConfigDict(title="Sliding paraboloid")
    arguments: ClassVar = ("radius_px", "light_background", "smooth", "correct_corners")
    halves_up: ClassVar = True
    height_in_counts: ClassVar = True
    follows_extremes: ClassVar = True

    method: Literal["sliding_paraboloid"] = "sliding_paraboloid"
    radius: float = Field(
        default=50.0, gt=0, description="Of curvature at the tip; larger than the objects."
    )
    smooth: bool = Field(default=True, description="3 x 3 mean before, as ImageJ does.")
    _correct_corners: bool = PrivateAttr(default=True)

    def radius_range_px(self, side_px: int) -> tuple[float, float]:
        # Of curvature, in counts as well as pixels: it has little to do with the tile, and
        # images of small numbers need large ones.
        return _LEAST_RADIUS_PX, 1e9

    @property
    def bytes_a_pixel(self) -> int:
        return 24

    @property
    def halo_px(self) -> int | None:
        # How far a parabola reaches depends on the range of the counts, and the shift
        # of the 3 x 3 maximum and the corners are those of the whole plane.
        return None

    def estimate(self, values: NDArray[Any], ignored: NDArray[np.bool_] | None) -> NDArray[Any]:
        check_radius(self.radius, "The radius of the paraboloid", _LEAST_RADIUS_PX)
        return slid(
            values,
            ignored,
            self.radius,
            light_background=self.light_background,
            smooth=self.smooth,
            correct_corners=self._correct_corners,
        )


def slid(
    image: NDArray[Any],
    ignored: NDArray[np.bool_] | None,
    radius_px: float,
    *,
    light_background: bool,
    smooth: bool,
    correct_corners: bool,
) -> Plane:
    """The background that a paraboloid reaches when it slides under the image.

    Unlike a ball it fits images whose counts are much larger than the objects are wide.

    Args:
        image: (y, x), integer or float; computed in float32 as in ImageJ.
        ignored: (y, x), pixels that take the value of the nearest other pixel first, or None.
        radius_px: of curvature at the apex, 0.2 or more. In pixels for an image whose counts
            are lengths in pixels: in an image with numbers n times as large, a radius n
            times as small has the same form.
        light_background: dark objects on a bright background.
        smooth: a 3 x 3 maximum (whose mean shift is taken back) and a 3 x 3 mean first.
        correct_corners: do not take objects in the corners for background.

    Returns:
        (y, x) float32.
    """
    plane = as_float32(image)
    if ignored is not None:
        plane = fill_from_nearest(plane, ignored)
    plane = -plane if light_background else plane.copy()
    shift = np.float32(0)
    if smooth:
        plane, total = _maximum_3x3(plane)
        shift = np.float32(total / plane.shape[1] / plane.shape[0])
        plane = mean_3x3(plane)
    _slide_everywhere(plane, np.float32(radius_px), correct_corners)
    if light_background:
        return -(plane - shift)
    return plane - shift if smooth else plane


@kernel
def _maximum_3x3(plane):  # type: ignore[no-untyped-def]
    """Maximum along x, then along y, and by how much all pixels rose in total."""
    height, width = plane.shape
    total = np.float64(0)
    along_x = np.empty_like(plane)
    result = np.empty_like(plane)
    for y in range(height):
        risen = np.float64(0)
        for x in range(width):
            before, here = plane[y, max(x - 1, 0)], plane[y, x]
            after = plane[y, min(x + 1, width - 1)]
            highest = max(max(before, after), here)
            risen += np.float64(highest - here)
            along_x[y, x] = highest
        total += risen
    # ImageJ adds up column by column; the order decides the last bits.
    risen_in = np.zeros(width)
    for y in range(height):
        above, below = along_x[max(y - 1, 0)], along_x[min(y + 1, height - 1)]
        for x in range(width):
            here = along_x[y, x]
            highest = max(max(above[x], below[x]), here)
            risen_in[x] += np.float64(highest - here)
            result[y, x] = highest
    for x in range(width):
        total += risen_in[x]
    return result, total


@kernel
def _slide_everywhere(plane, radius, with_corners):  # type: ignore[no-untyped-def]
    height, width = plane.shape
    pixels = plane.reshape(-1)
    longest = max(height, width)
    cache = np.empty(longest, np.float32)
    following = np.empty(longest, np.int64)
    along = np.float32(0.5) / radius
    diagonal = np.float32(1) / radius
    if with_corners:
        _lower_corners(pixels, height, width, along, cache, following)
    for direction in range(5):
        if direction == 0 or direction == 2:
            for y in range(height):
                _slide(pixels, y * width, 1, width, along, cache, following)
        elif direction == 1:
            for x in range(width):
                _slide(pixels, x, width, height, along, cache, following)
        if direction == 2 or direction == 4:
            step = width + 1
            for x in range(width - 2):
                _slide(pixels, x, step, min(height, width - x), diagonal, cache, following)
            for y in range(1, height - 2):
                _slide(pixels, y * width, step, min(width, height - y), diagonal, cache, following)
        if direction == 3:
            step = width - 1
            for x in range(2, width):
                _slide(pixels, x, step, min(height, x + 1), diagonal, cache, following)
            for y in range(height - 2):
                start = y * width + width - 1
                _slide(pixels, start, step, min(width, height - y), diagonal, cache, following)


@kernel
def _candidates(pixels, start, step, length, curvature, cache, following):  # type: ignore[no-untyped-def]
    """Copy a line and link the points that are pointed enough for a parabola to touch."""
    lowest = np.float32(np.inf)
    limit = np.float32(1.999) * curvature
    last = 0
    before, before_that = np.float32(0), np.float32(0)
    # Unsigned indices, or numba looks at each whether it counts from the end.
    for i in range(length):
        value = pixels[np.uint64(start + i * step)]
        cache[np.uint64(i)] = value
        lowest = value if value < lowest else lowest
        if i >= 2 and before + before - before_that - value < limit:
            following[np.uint64(last)] = i - 1
            last = i - 1
        before_that = before
        before = value
    following[last] = length - 1
    following[length - 1] = np.int64(2**62)
    return lowest


@kernel(error_model="numpy")
def _touching_point(i1, length, curvature, lowest, cache, following):  # type: ignore[no-untyped-def]
    """The next point that the parabola through point `i1` touches, and its slope."""
    half = np.float32(0.5)
    here = cache[i1]
    slope_found = np.float32(3.4028235e38)
    found = 0
    search_to = length
    wait = 0
    j = following[i1]
    while j < search_to:
        distance = np.float32(j - i1)
        slope = (cache[np.uint64(j)] - here) / distance + curvature * distance
        if slope < slope_found:
            slope_found = slope
            found = j
            wait = -3
        if wait == 0:
            b = np.float64(half * slope_found / curvature)
            reach = b + np.sqrt(b * b + np.float64((here - lowest) / curvature)) + 1
            if reach < 2.0**31 - 1 - i1:
                farthest = i1 + np.int64(reach)
                if 0 < farthest < search_to:
                    search_to = farthest
        j = following[np.uint64(j)]
        wait += 1
    return found, slope_found


@kernel
def _slide(pixels, start, step, length, curvature, cache, following):  # type: ignore[no-untyped-def]
    """Slide a parabola along one line; the first and last inner points that it touches."""
    lowest = _candidates(pixels, start, step, length, curvature, cache, following)
    first, last = length - 1, 0
    i1 = 0
    while i1 < length - 1:
        i2, slope = _touching_point(i1, length, curvature, lowest, cache, following)
        if i2 <= i1:
            i2 = length - 1
        if i1 == 0:
            first = i2
        if i2 == length - 1:
            last = i1
        here = cache[i1]
        for j in range(i1 + 1, i2):
            distance = np.float32(j - i1)
            value = here + distance * (slope - distance * curvature)
            pixels[np.uint64(start + j * step)] = value
        i1 = i2
    return first, last


@kernel(error_model="numpy")
def _edge_estimates(length, curvature, first, last, cache):  # type: ignore[no-untyped-def]
    """Values that both ends of a line would have without an object on them.

    A straight line through the inner points, with vignetting of sixth order.
    """
    if 4 * first >= length:
        first = 0
    if 4 * (length - 1 - last) >= length:
        last = length - 1
    one, two = np.float32(1), np.float32(2)
    span = np.float32(last - first)
    slope = (cache[last] - cache[first]) / span
    base = cache[first] - slope * np.float32(first)
    vignetting = np.float32(0)
    middle = np.float32(0.5) * np.float32(last + first)
    for i in range((length + 2) // 3, 2 * length // 3 + 1):
        at = (np.float32(i) - middle) * two / span
        shape = at * at * at * at * at * at - one
        line = base + slope * np.float32(i)
        if cache[i] < line + vignetting * shape:
            vignetting = -(line - cache[i]) / shape
    at = (np.float32(first) - middle) * two / span
    offset = vignetting * (at * at * at * at * at * at - one)
    start = base + offset + curvature * np.float32(first) * np.float32(first)
    at = (np.float32(last) - middle) * two / span
    offset = vignetting * (at * at * at * at * at * at - one)
    rest = np.float32(length - 1 - last)
    end = base + np.float32(length - 1) * slope + offset + curvature * rest * rest
    return start, end


@kernel
def _ends(pixels, start, step, length, curvature, cache, following):  # type: ignore[no-untyped-def]
    first, last = _slide(pixels, start, step, length, curvature, cache, following)
    return _edge_estimates(length, curvature, first, last, cache)


@kernel
def _lower_corners(pixels, height, width, along, cache, following):  # type: ignore[no-untyped-def]
    """Lower corner pixels to the mean of the estimates along both edges and the diagonal."""
    right, bottom = width - 1, (height - 1) * width
    diagonal = np.float32(2) * along
    short = min(width, height)
    a0, a1 = _ends(pixels, 0, 1, width, along, cache, following)
    a2, a3 = _ends(pixels, bottom, 1, width, along, cache, following)
    b0, b2 = _ends(pixels, 0, width, height, along, cache, following)
    b1, b3 = _ends(pixels, right, width, height, along, cache, following)
    c0, _ = _ends(pixels, 0, 1 + width, short, diagonal, cache, following)
    c1, _ = _ends(pixels, right, width - 1, short, diagonal, cache, following)
    c2, _ = _ends(pixels, bottom, 1 - width, short, diagonal, cache, following)
    c3, _ = _ends(pixels, bottom + right, -1 - width, short, diagonal, cache, following)
    three = np.float32(3)
    corners = (0, right, bottom, bottom + right)
    estimates = (a0 + b0 + c0, a1 + b1 + c1, a2 + b2 + c2, a3 + b3 + c3)
    for n in range(4):
        estimate = estimates[n] / three
        if pixels[corners[n]] > estimate:
            pixels[corners[n]] = estimate
