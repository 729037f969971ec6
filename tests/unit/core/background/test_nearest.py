"""Places without an estimate of their own: plane by plane the same as over the whole stack."""

from __future__ import annotations

import numpy as np
import pytest

from fractal_mesospim_shading.core.background import make_method, nearest
from fractal_mesospim_shading.core.background.masks import fill_from_nearest
from fractal_mesospim_shading.core.background.nearest import (
    FromNeighbourhoods,
    LocalEstimate,
    nearest_supported,
)


@pytest.mark.parametrize("at_once", [2**18, 3])
@pytest.mark.parametrize("supported", [0.02, 0.1, 0.4])
def test_planes_one_by_one_give_the_bits_of_the_whole_stack(supported, at_once, monkeypatch):
    """Many places are equally far on such small grids: ties are settled alike as well."""
    monkeypatch.setattr(nearest, "_AT_ONCE", at_once)
    monkeypatch.setattr(nearest, "_MOST_PLACES", 2 * at_once)
    rng = np.random.default_rng(int(100 * supported))
    for shape in rng.integers(1, 8, (40, 3)):
        unsupported = rng.random(shape) > supported
        unsupported.flat[rng.integers(unsupported.size)] = False
        numbers = np.arange(unsupported.size, dtype=np.float32).reshape(shape)
        wanted = fill_from_nearest(numbers, unsupported)
        pairs = zip(numbers, unsupported, strict=True)
        planes = [LocalEstimate.of(*pair) for pair in pairs]
        for z, marks in enumerate(unsupported):
            found = nearest_supported(marks, z, len(planes), planes.__getitem__)
            np.testing.assert_array_equal(found, wanted[z][marks])


def test_no_further_planes_are_asked_than_can_be_nearer():
    marks, asked = np.zeros((9, 9), np.bool_), []
    marks[4, 4] = marks[2:7, 2:7] = True

    def plane(z):
        asked.append(z)
        return LocalEstimate(np.full((9, 9), z, np.float32), marks)

    nearest_supported(marks, 20, 40, plane)
    # The middle is 3 pixels away from the edge of the object.
    assert sorted(asked) == list(range(17, 24))


def test_a_stack_that_has_none_says_so():
    marks = np.ones((3, 3), np.bool_)
    empty = LocalEstimate(np.zeros((3, 3), np.float32), marks)
    assert nearest_supported(marks, 1, 4, lambda _: empty) is None


@pytest.mark.parametrize("name", ["median", "gaussian", "opening"])
def test_an_estimate_is_that_of_its_neighbourhoods_filled_and_spread(name):
    pixels = np.random.default_rng(2).integers(300, 400, (40, 50)).astype(np.uint16)
    ignored = np.zeros(pixels.shape, np.bool_)
    ignored[5:36, 5:40] = True
    method = make_method(name, radius_px=6)
    assert isinstance(method, FromNeighbourhoods)
    local = method.local(pixels, ignored)
    assert local.unsupported is not None and local.unsupported.any()
    found = method.spread(fill_from_nearest(local.numbers, local.unsupported), pixels.shape)
    np.testing.assert_array_equal(found, method.background(pixels, ignored).background)
