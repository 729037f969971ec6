"""Ball and paraboloid against loops and closed forms, where there is no golden file."""

from __future__ import annotations

from math import floor, sqrt

import numpy as np
import pytest

from fractal_mesospim_shading.core.background import METHODS, make_method, remark_on_height
from fractal_mesospim_shading.core.background.apply import Application, apply_background

F = np.float32


def rolling_ball_background(image, **parameters):
    return make_method("rolling_ball", **parameters).background(image).background


def sliding_paraboloid_background(image, **parameters):
    return make_method("sliding_paraboloid", **parameters).background(image).background


def _ball(radius: float) -> tuple[int, list[list[np.float32]]]:
    limits = ((10, 1, 24), (30, 2, 24), (100, 4, 32), (10**9, 8, 40))
    shrink, trim = next((s, t) for limit, s, t in limits if radius <= limit)
    small = max(radius / shrink, 1)
    half = floor(small - int(trim * small) // 100 + 0.5)
    reach = range(-half, half + 1)
    return shrink, [[F(sqrt(max(small**2 - y * y - x * x, 0))) for x in reach] for y in reach]


def _rolled(image: np.ndarray, radius: float) -> np.ndarray:
    """The algorithm pixel by pixel, without smoothing."""
    shrink, ball = _ball(radius)
    half = len(ball) // 2
    height, width = image.shape
    rows, columns = -(-height // shrink), -(-width // shrink)
    small = np.empty((rows, columns), F)
    for j in range(rows):
        for i in range(columns):
            at = slice(j * shrink, (j + 1) * shrink), slice(i * shrink, (i + 1) * shrink)
            small[j, i] = image[at].min()
    rolled = np.full((rows, columns), -np.inf, F)
    for cy in range(-half, rows + half):
        for cx in range(-half, columns + half):
            touched = [
                (y, x, ball[y - cy + half][x - cx + half])
                for y in range(max(cy - half, 0), min(cy + half + 1, rows))
                for x in range(max(cx - half, 0), min(cx + half + 1, columns))
            ]
            z = min(small[y, x] - h for y, x, h in touched)
            for y, x, h in touched:
                rolled[y, x] = max(rolled[y, x], z + h)
    if shrink == 1:
        return rolled
    result = np.empty(image.shape, F)
    for y in range(height):
        for x in range(width):
            (j, v), (i, w) = _left(y, rows, shrink), _left(x, columns, shrink)
            upper = rolled[j, i] * w + rolled[j, i + 1] * (F(1) - w)
            lower = rolled[j + 1, i] * w + rolled[j + 1, i + 1] * (F(1) - w)
            result[y, x] = upper * v + lower * (F(1) - v)
    return result


def _left(pixel: int, cells: int, shrink: int) -> tuple[int, np.float32]:
    left = min(int((pixel - shrink // 2) / shrink), cells - 2)
    distance = (F(pixel) + F(0.5)) / F(shrink) - (F(left) + F(0.5))
    return left, F(1) - distance


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
@pytest.mark.parametrize(
    ("radius", "shape"),
    [(1, (9, 7)), (2.5, (8, 8)), (10, (17, 23)), (10.5, (19, 25)), (30, (26, 21)),
     (31, (22, 30)), (100, (23, 41)), (101, (25, 34)), (150, (17, 16)), (60, (9, 80)),
     (400, (30, 9))],
)  # fmt: skip
def test_ball_of_any_radius_equals_loops(scene, radius, shape, dtype) -> None:
    image = scene(shape, dtype, seed=int(radius))
    expected = _rolled(image, radius)
    found = rolling_ball_background(image, radius_px=radius, smooth=False)
    np.testing.assert_array_equal(found, expected)
    half_up = Application(rounding="half_up")
    corrected, _ = apply_background(image, found, half_up, dtype=dtype)
    truncated = np.clip(np.trunc(image - expected + F(0.5)), 0, np.iinfo(dtype).max)
    np.testing.assert_array_equal(corrected, truncated.astype(dtype))


def test_smoothing_is_a_mean_of_three_along_both_axes(scene) -> None:
    image = scene((12, 15), np.uint16)
    padded = np.pad(image.astype(np.float64), 1, mode="edge")
    means = sum(padded[dy : dy + 12, dx : dx + 15] for dy in range(3) for dx in range(3)) / 9
    found = rolling_ball_background(image, radius_px=3)
    np.testing.assert_allclose(found, _rolled(means.astype(F), 3), atol=1e-3)


@pytest.mark.parametrize("shape", [(1, 1), (1, 9), (9, 1), (2, 2), (3, 50)])
@pytest.mark.parametrize("radius", [1, 15, 50, 200])
def test_tiny_images_stay_finite_and_below_the_image(shape, radius) -> None:
    image = np.full(shape, 7, np.uint16)
    for function in (rolling_ball_background, sliding_paraboloid_background):
        found = function(image, radius_px=radius)
        assert found.shape == shape
        np.testing.assert_allclose(found, 7, atol=1e-4)


def _hull(values: np.ndarray, coefficient: float) -> np.ndarray:
    """Parabolas under a line are straight lines under the line plus a parabola."""
    x = np.arange(values.size)
    lifted = values.astype(np.float64) + coefficient * x**2
    corners: list[int] = []
    for i in x:
        while len(corners) > 1:
            a, b = corners[-2], corners[-1]
            if (lifted[b] - lifted[a]) * (i - a) < (lifted[i] - lifted[a]) * (b - a):
                break
            corners.pop()
        corners.append(int(i))
    return np.interp(x, corners, lifted[corners]) - coefficient * x**2


@pytest.mark.parametrize("radius", [0.2, 0.5, 1, 8, 60, 900])
def test_parabola_under_a_single_line_is_a_convex_hull(scene, radius) -> None:
    line = scene((1, 80), np.float32, seed=int(radius))
    found = sliding_paraboloid_background(
        line, radius_px=radius, smooth=False, correct_corners=False
    )
    np.testing.assert_allclose(found[0], _hull(line[0], 0.5 / radius), atol=1e-3)


@pytest.mark.parametrize("smooth", [False, True])
@pytest.mark.parametrize(
    "function", [rolling_ball_background, sliding_paraboloid_background], ids=["ball", "parab"]
)
def test_light_background_is_the_mirror_image(scene, function, smooth) -> None:
    image = scene((33, 41), np.float32)
    bright = function(-image, radius_px=12, light_background=True, smooth=smooth)
    dark = function(image, radius_px=12, smooth=smooth)
    if function is rolling_ball_background or not smooth:
        np.testing.assert_array_equal(bright, -dark)
    np.testing.assert_allclose(bright, -dark, atol=1e-3)


@pytest.mark.parametrize("factor", [8, 1000])
def test_a_paraboloid_scales_with_the_counts(scene, factor) -> None:
    """An image in 0 to 1 and a large radius have the form of counts and a small one."""
    image = scene((30, 40), np.float32)
    one = sliding_paraboloid_background(image, radius_px=1.5)
    small = sliding_paraboloid_background(image / np.float32(factor), radius_px=1.5 * factor)
    np.testing.assert_allclose(small * factor, one, rtol=1e-4)


@pytest.mark.parametrize("name", METHODS)
def test_a_height_in_counts_is_said_of_images_of_floats(name) -> None:
    method = make_method(name)
    tall = name in ("rolling_ball", "sliding_paraboloid")
    for dtype in (np.uint8, np.uint16):
        assert remark_on_height(method, np.dtype(dtype)) is None
    remark = remark_on_height(method, np.dtype(np.float32))
    assert (remark is not None) == tall
    if remark is not None:
        assert f"{name} has a height in counts" in remark and "range from 0 to 1" in remark


def test_what_the_remark_advises_helps() -> None:
    image = np.full((100, 100), 0.1, np.float32)
    image[40:60, 40:60] += 1
    for name in ("rolling_ball", "sliding_paraboloid"):
        method = make_method(name, radius_px=20)
        taken = method.background(image).background[45:55, 45:55].mean() - 0.1
        wide = method.background(image * 65535).background[45:55, 45:55].mean() / 65535 - 0.1
        assert taken > 0.6 and wide < 0.01


def test_corner_objects_are_not_background(scene) -> None:
    image = np.full((60, 60), 100, np.float32)
    image[:6, :6] = 200
    kept = sliding_paraboloid_background(image, radius_px=20, smooth=False)
    lost = sliding_paraboloid_background(image, radius_px=20, smooth=False, correct_corners=False)
    assert kept[0, 0] < 110 < 190 < lost[0, 0]
