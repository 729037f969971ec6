"""A profile applied to arrays, against the formula in float64 and Dask's own laziness."""

from __future__ import annotations

import doctest

import dask
import dask.array
import numpy as np
import pytest

from fractal_mesospim_shading.core.profile import ShadingProfile
from fractal_mesospim_shading.errors import ParameterError, ProfileError

SHAPE = (24, 20)


@pytest.fixture
def profile(flatfield):
    return ShadingProfile.create(flatfield(SHAPE))


def _exact(profile, array, offset, added=0.0):
    return (array.astype(np.float64) - offset) / profile.flatfield.astype(np.float64) + added


@pytest.mark.parametrize("lead", [(), (3,), (2, 3)])
@pytest.mark.parametrize("dtype", ["uint8", "uint16", "float32", ">u2"])
def test_the_formula_for_all_ranks_and_types(profile, lead, dtype):
    rng = np.random.default_rng(1)
    planes = rng.integers(60, 150, (*lead, *SHAPE)).astype(dtype)
    before = planes.copy()
    result = profile.apply(planes, camera_offset=50, output_offset=7)
    exact = _exact(profile, planes, 50, 7)
    assert result.shape == planes.shape
    assert result.dtype == np.dtype(dtype).newbyteorder("=")
    assert np.array_equal(planes, before)
    least = 1e-3 if dtype == "float32" else 0.5 + 1e-3
    assert np.abs(result - exact).max() <= least


def test_float32_is_neither_rounded_nor_cut_off(profile):
    planes = np.random.default_rng(2).integers(1, 200, (3, *SHAPE)).astype(np.uint16)
    cut = profile.apply(planes, camera_offset=100)
    kept = profile.apply(planes, camera_offset=100, output_type="float32")
    assert kept.dtype == np.float32
    assert kept.min() < -50
    assert cut.min() == 0
    assert np.array_equal(cut, np.clip(np.rint(kept), 0, 65535))
    np.testing.assert_allclose(kept, _exact(profile, planes, 100), rtol=1e-5, atol=1e-4)


def test_a_dark_field_goes_off_pixel_by_pixel(flatfield):
    dark = np.random.default_rng(3).uniform(90, 110, SHAPE)
    profile = ShadingProfile.create(flatfield(SHAPE), dark)
    planes = np.full((2, *SHAPE), 500, np.float32)
    np.testing.assert_allclose(profile.apply(planes), _exact(profile, planes, dark), rtol=1e-5)


@pytest.mark.parametrize(
    ("zero_is", "offset", "stays_0"),
    [("auto", 100, True), ("no_data", 100, True), ("data", 100, False), ("auto", 0, False)],
)
def test_a_pixel_of_0(profile, zero_is, offset, stays_0):
    planes = np.full((1, *SHAPE), 300, np.uint16)
    planes[0, 10, 10] = 0
    options = {"camera_offset": offset, "zero_is": zero_is, "output_offset": 200}
    found = profile.apply(planes, **options)[0, 10, 10]
    value = round(float(_exact(profile, planes, offset, 200)[0, 10, 10]))
    assert found == (0 if stays_0 else value)


def test_margins_are_no_data_without_an_offset(profile):
    planes = np.full((2, *SHAPE), 300, np.uint16)
    planes[:, :6] = 0
    result = profile.apply(planes, camera_offset=0, output_offset=50)
    assert (result[:, :6] == 0).all()
    assert (result[:, 6:] > 50).all()


def test_a_mask_stays(profile):
    mask = np.zeros((2, *SHAPE), bool)
    mask[0, 3] = True
    planes = np.ma.MaskedArray(np.full(mask.shape, 300, np.uint16), mask)
    result = profile.apply(planes, camera_offset=10)
    assert np.array_equal(result.mask, mask)
    assert np.array_equal(result.data, profile.apply(planes.data, camera_offset=10))


@pytest.mark.parametrize("chunks", [(1, 24, 20), (2, 7, 9), (-1, -1, 5)])
def test_a_dask_array_is_computed_when_it_is_asked_for(profile, chunks):
    planes = np.random.default_rng(4).integers(0, 400, (3, *SHAPE)).astype(np.uint16)
    planes[:, :5] = 0
    read = []

    def noted(block):
        read.append(block.shape)
        return block

    lazy = dask.array.from_array(planes, chunks=chunks).map_blocks(
        noted, dtype=planes.dtype, meta=planes[:0, :0, :0]
    )
    result = profile.apply(lazy, camera_offset=0, output_type="float32")
    assert isinstance(result, dask.array.Array)
    assert (result.shape, result.dtype, read) == (planes.shape, np.float32, [])
    with dask.config.set(scheduler="sync"):
        assert np.array_equal(
            result.compute(), profile.apply(planes, camera_offset=0, output_type="float32")
        )
    assert read


@pytest.mark.parametrize(
    ("array", "options", "error", "says"),
    [
        (np.zeros((3, 48, 40), np.uint16), {}, ProfileError, "Cut a mosaic into its tiles"),
        (np.zeros((20, 24), np.uint16), {}, ProfileError, r"\(20, 24\); expected planes"),
        (np.zeros(SHAPE, np.int32), {}, ParameterError, "int32; expected uint8, uint16, float32"),
        (np.zeros(SHAPE, np.uint16), {"camera_offset": None}, ParameterError, "has no dark-field"),
        (np.zeros(SHAPE, np.uint16), {"camera_offset": np.nan}, ParameterError, "finite number"),
        (np.zeros(SHAPE, np.uint16), {"output_type": "int8"}, ParameterError, "source or float32"),
        (np.zeros(SHAPE, np.uint16), {"subtract_baseline": True}, ParameterError, "no baseline"),
        (np.zeros(SHAPE, np.uint16), {"zero_is": "maybe"}, ValueError, "expected one of auto"),
    ],
)
def test_what_cannot_be_applied(profile, array, options, error, says):
    with pytest.raises(error, match=says):
        profile.apply(array, **{"camera_offset": 100, **options})


def test_two_offsets_are_one_too_many(flatfield):
    profile = ShadingProfile.create(flatfield(SHAPE), 100.0)
    with pytest.raises(ParameterError, match="leave camera_offset= out"):
        profile.apply(np.zeros(SHAPE, np.uint16), camera_offset=100)


def test_the_example_of_the_docstring():
    (example,) = doctest.DocTestFinder(recurse=False).find(ShadingProfile.apply, "apply", globs={})
    assert doctest.DocTestRunner().run(example).failed == 0


def test_a_profile_is_shown_in_a_line(flatfield):
    shown = repr(ShadingProfile.create(flatfield((480, 400)), np.full((480, 400), 99.5)))
    assert len(shown) < 100
    assert "480 x 400" in shown
    assert "99.5 counts" in shown


def test_the_picture_shows_the_whole_field_of_view_with_its_range(flatfield):
    pyplot = pytest.importorskip("matplotlib.pyplot")
    profile = ShadingProfile.create(flatfield((1000, 900)))
    figure, own = pyplot.subplots()
    axes = profile.plot(own)
    assert axes is own
    (image,) = axes.get_images()
    assert list(image.get_extent()) == [0, 900, 1000, 0]
    assert image.get_clim() == (profile.flatfield.min(), profile.flatfield.max())
    (_, bar) = figure.axes
    assert bar.get_ylabel() == "relative brightness"
    pyplot.close(figure)
    flat = ShadingProfile.create(np.ones((30, 30))).plot()
    low, high = flat.get_images()[0].get_clim()
    assert low < 1 < high
    pyplot.close(flat.figure)
