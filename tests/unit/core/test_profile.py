"""Checks, scaling and resampling of a shading profile."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from fractal_mesospim_shading.core.profile import ShadingProfile, resample
from fractal_mesospim_shading.core.profile_shapes import fits_tile, shape_problem, turn_is_unseen
from fractal_mesospim_shading.errors import ProfileError


def test_scaled_to_mean_one_with_the_factor_kept() -> None:
    profile = ShadingProfile.create(np.array([[1, 2], [3, 2]], np.uint16), 100, 5)
    np.testing.assert_allclose(profile.flatfield, [[0.5, 1], [1.5, 1]])
    assert profile.scale == 2
    assert profile.darkfield == 100
    assert profile.baseline == 5
    assert profile.flatfield.dtype == np.float32
    assert not profile.flatfield.flags.writeable


@pytest.mark.parametrize(
    ("flatfield", "message"),
    [
        (np.ones(4), "shape"),
        (np.ones((2, 2, 2)), "shape"),
        (np.ones((0, 3)), "shape"),
        (np.array([[1.0, np.nan]]), "NaN"),
        (np.array([[1.0, np.inf]]), "infinite"),
        (np.array([[1.0, 0.0]]), "0 or below"),
        (np.array([[1.0, -2.0]]), "0 or below"),
        (np.array([["a", "b"]]), "type"),
        (np.array([[1 + 2j]]), "type"),
    ],
)
def test_bad_flatfields_are_refused(flatfield: np.ndarray, message: str) -> None:
    with pytest.raises(ProfileError, match=message):
        ShadingProfile.create(flatfield)


@pytest.mark.parametrize("darkfield", [np.array([[np.nan, 1.0]]), np.ones((2, 2, 2)), np.nan, "x"])
def test_bad_darkfields_are_refused(darkfield: object) -> None:
    with pytest.raises(ProfileError, match="darkfield"):
        ShadingProfile.create(np.ones((1, 2)), darkfield)  # type: ignore[arg-type]


def test_a_bad_baseline_is_refused() -> None:
    with pytest.raises(ProfileError, match="baseline"):
        ShadingProfile.create(np.ones((2, 2)), None, float("inf"))


@pytest.mark.parametrize("new", [(20, 48), (7, 90), (33, 31)])
def test_a_ramp_stays_in_place(new: tuple[int, int]) -> None:
    # A linear ramp over the field of view, sampled at pixel centres.
    def ramp(shape: tuple[int, int]) -> np.ndarray:
        y, x = ((np.arange(n) + 0.5) / n for n in shape)
        return 1 + y[:, None] + 2 * x[None, :]

    old = (20, 24)
    found, expected = resample(ramp(old), new), ramp(new)
    # Beyond the outer centres it is held constant: compare inside only.
    inner = tuple(slice(-(-n // m), n - -(-n // m)) for n, m in zip(new, old, strict=True))
    # Shrinking takes each old pixel as constant over its area: no more than its step off.
    allowed = 1e-6 if all(n >= m for n, m in zip(new, old, strict=True)) else 1e-3
    np.testing.assert_allclose(found[inner], expected[inner], rtol=allowed)


def test_shrinking_by_whole_factors_averages() -> None:
    image = np.random.Generator(np.random.PCG64(0)).uniform(1, 2, (12, 30))
    expected = image.reshape(4, 3, 6, 5).mean(axis=(1, 3))
    np.testing.assert_allclose(resample(image, (4, 6)), expected, rtol=1e-6)


def test_growing_twofold_by_the_closed_form() -> None:
    found = resample(np.array([[1.0, 3.0, 7.0]]), (1, 6))
    np.testing.assert_allclose(found, [[1, 1.5, 2.5, 4, 6, 7]])


def test_never_outside_its_own_range() -> None:
    image = np.random.Generator(np.random.PCG64(1)).uniform(0.3, 1.7, (13, 17))
    for shape in ((64, 64), (5, 40), (1, 1), (200, 3)):
        found = resample(image, shape)
        assert found.shape == shape
        assert found.min() >= np.float32(image.min())
        assert found.max() <= np.float32(image.max())


def test_one_pixel_grows_to_a_constant() -> None:
    np.testing.assert_array_equal(resample(np.array([[2.5]]), (3, 4)), np.full((3, 4), 2.5))


def test_a_resampled_profile_has_mean_one_and_its_darkfield_with_it() -> None:
    rng = np.random.Generator(np.random.PCG64(2))
    profile = ShadingProfile.create(rng.uniform(0.5, 1.5, (8, 8)), rng.uniform(90, 110, (8, 8)))
    found = profile.resampled((20, 30))
    assert found.shape == (20, 30)
    assert found.flatfield.mean() == pytest.approx(1, abs=1e-6)
    assert np.asarray(found.darkfield).shape == (20, 30)
    np.testing.assert_array_equal(profile.resampled((8, 8)).flatfield, profile.flatfield)


def test_a_darkfield_of_another_shape_than_the_flatfield_is_brought_to_the_tile() -> None:
    profile = ShadingProfile.create(np.ones((8, 8)), np.full((4, 4), 100.0))
    assert np.asarray(profile.resampled((8, 8)).darkfield).shape == (8, 8)


TILE = (5056, 2960)
"""An Iris 15 tile as mesoSPIM-control stores it."""


@pytest.mark.parametrize(
    "shape",
    [
        TILE,
        (2528, 1480),
        (316, 185),
        (158, 93),
        (27, 16),
        # 2 % off, to either side.
        (5157, 2960),
        (4957, 2960),
        (10112, 5920),
    ],
)
def test_shapes_of_the_same_field_of_view(shape: tuple[int, int]) -> None:
    assert fits_tile(shape, TILE)
    assert shape_problem(shape, TILE) is None


@pytest.mark.parametrize(
    ("shape", "said"),
    [
        ((2960, 5056), "np.rot90(frame) (k=1)"),
        ((185, 316), "np.rot90(frames, axes=(-2, -1))"),
        ((5158, 2960), "differ by more than 2%"),
        ((4956, 2960), "differ by more than 2%"),
        ((2048, 2048), "1 and 1.71"),
        ((26, 15), "at least 16 pixels"),
        ((2960, 3), "at least 16 pixels"),
        ((1, 1), "single number"),
    ],
)
def test_shapes_of_another_one(shape: tuple[int, int], said: str) -> None:
    problem = shape_problem(shape, TILE)
    assert problem is not None
    assert said in problem
    assert f"{shape[0]} x {shape[1]}" in problem and "5056 x 2960" in problem
    assert "`profile_shape=stretch`" in problem


def test_the_shape_of_a_small_tile_itself_fits() -> None:
    assert fits_tile((8, 12), (8, 12))
    assert not fits_tile((4, 6), (8, 12))


def test_turns_that_cannot_be_seen() -> None:
    assert turn_is_unseen((2048, 2048), (2048, 2048))
    assert turn_is_unseen((128, 128), (2048, 2048))
    assert turn_is_unseen((200, 201), (200, 201))
    assert not turn_is_unseen((100, 101), (100, 101))
    assert not turn_is_unseen(TILE, TILE)


@pytest.mark.parametrize("shape", [(41, 30), (7, 64), (1, 5)])
@pytest.mark.parametrize("kind", [np.float32, np.float64])
def test_what_shrinks_is_averaged_as_by_the_sums_of_the_whole_array(shape, kind) -> None:
    """A row at a time, and to the same bits."""
    image = (np.random.Generator(np.random.PCG64(3)).random(shape) * 1000).astype(kind)
    for size in range(1, shape[0] + 1):
        sums = np.vstack([np.zeros(shape[1]), np.cumsum(image.astype(np.float64), axis=0)])
        edges = np.linspace(0, shape[0], size + 1)
        low = np.minimum(edges.astype(int), shape[0] - 1)
        weight = (edges - low)[:, None]
        at_edges = sums[low] * (1 - weight) + sums[low + 1] * weight
        plain = np.diff(at_edges, axis=0) * (size / shape[0])
        expected = image if size == shape[0] else np.clip(plain, image.min(), image.max())
        for found in (resample(image, (size, shape[1])), resample(image.T, (shape[1], size)).T):
            np.testing.assert_array_equal(found, expected.astype(np.float32))


@pytest.mark.parametrize("kind", ["u1", "u2", "i4", "f4", ">f4", "f8"])
@pytest.mark.parametrize("in_place", [False, True])
def test_each_value_is_divided_in_float64_and_rounded_once(kind: str, in_place: bool) -> None:
    flatfield = np.random.default_rng(5).uniform(40, 200, (37, 53)).astype(kind)
    given = flatfield.astype(np.float64)
    profile = ShadingProfile.create(flatfield.copy(), in_place=in_place)
    expected = [[np.float32(value / profile.scale) for value in row] for row in given]
    assert profile.flatfield.tobytes() == np.array(expected, np.float32).tobytes()


def test_what_is_kept_of_a_profile_is_its_own() -> None:
    values = np.linspace(0.5, 1.5, 60).reshape(6, 10)
    profile = ShadingProfile.create(values, 100)
    first = profile.digest, profile.ends, profile.typical_range
    assert (profile.digest, profile.ends, profile.typical_range) == first
    assert profile.ends == (0.5, 1.5)
    assert profile.typical_range == pytest.approx((0.51, 1.49))
    other = replace(profile, darkfield=101.0)
    assert other.digest != profile.digest
    assert other.digest == replace(profile, darkfield=101.0).digest
    turned = ShadingProfile.create(values[::-1, ::-1] ** 2, 100)
    assert (turned.digest, turned.ends, turned.typical_range) != first


def test_two_are_equal_that_correct_alike() -> None:
    flat = np.linspace(0.5, 1.5, 12).reshape(3, 4)
    profile = ShadingProfile.create(flat, np.full((3, 4), 100.0), 3.0)
    same = ShadingProfile.create(flat, np.full((3, 4), 100.0), 3.0)
    assert profile == same
    assert {profile: 1}[same] == 1
    for other in (
        ShadingProfile.create(flat**2, np.full((3, 4), 100.0), 3.0),
        ShadingProfile.create(flat, np.full((3, 4), 101.0), 3.0),
        ShadingProfile.create(flat, np.full((3, 4), 100.0), 4.0),
        "a profile",
    ):
        assert profile != other
