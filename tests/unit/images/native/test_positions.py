"""Stage positions to rows, columns, signs and separate mosaics."""

from __future__ import annotations

import itertools

import pytest

from fractal_mesospim_shading.images.native.positions import (
    Orientation,
    connected,
    lines_of,
    signs_from_xml,
)

STAGE = [(4120.0, -870.25), (4120.0, -639.25), (3831.0, -870.25), (3542.0, -408.25)]


@pytest.mark.parametrize("signs", list(itertools.product((1, -1), repeat=2)))
def test_signs_of_a_project_file(signs: tuple[int, int]) -> None:
    image = [(signs[0] * x + 17.0, signs[1] * y - 3.0) for x, y in STAGE]
    found = signs_from_xml(STAGE, image, 1.0)
    assert found is not None
    assert (found.sign_x, found.sign_y, found.transposed) == (*signs, False)


def test_project_file_with_exchanged_axes() -> None:
    found = signs_from_xml(STAGE, [(-y, x) for x, y in STAGE], 1.0)
    assert found is not None
    assert (found.sign_x, found.sign_y, found.transposed) == (-1, 1, True)


def test_single_column_leaves_x_open() -> None:
    stage = [(10.0, 0.0), (10.0, 50.0)]
    found = signs_from_xml(stage, [(-10.0, 0.0), (-10.0, -50.0)], 1.0)
    assert found is not None
    assert (found.sign_x, found.sign_y) == (None, -1)


def test_project_file_that_a_stitcher_changed() -> None:
    assert signs_from_xml(STAGE, [(x * 0.9, y) for x, y in STAGE], 1.0) is None


def test_image_coordinates() -> None:
    assert Orientation(-1, 1).image_um(3.0, 5.0) == (5.0, -3.0)
    assert Orientation(-1, 1, transposed=True).image_um(3.0, 5.0) == (3.0, -5.0)


def test_lines_tolerate_jitter() -> None:
    assert lines_of([0.0, 90.0, 4.0, 93.0, 180.0], 100.0) == ([0, 1, 0, 1, 2], 3)


def test_whole_line_missing_leaves_an_empty_one() -> None:
    assert lines_of([0.0, 90.0, 270.0], 100.0) == ([0, 1, 3], 4)


def test_gap_that_is_no_whole_step_closes() -> None:
    assert lines_of([0.0, 90.0, 220.0], 100.0) == ([0, 1, 2], 3)


def test_far_tiles_are_other_mosaics_numbered_from_the_left() -> None:
    near = [(0.0, 5000.0), (90.0, 5000.0), (0.0, 5090.0)]
    far = [(0.0, 0.0), (90.0, 0.0), (0.0, 90.0)]
    assert connected([*near, *far], (100.0, 100.0)) == [1, 1, 1, 0, 0, 0]


def test_missing_line_does_not_split() -> None:
    assert connected([(0.0, 0.0), (90.0, 0.0), (270.0, 0.0)], (100.0, 100.0)) == [0, 0, 0]


def test_sparse_sampling_is_one_mosaic() -> None:
    places = [(float(y), float(x)) for y in (0, 250, 500) for x in (0, 250)]
    assert set(connected(places, (100.0, 100.0))) == {0}
