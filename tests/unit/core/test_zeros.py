"""Which zeros of a plane are no data."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.ndimage import gaussian_filter

from fractal_mesospim_shading.core.zeros import (
    DataBox,
    ZeroTally,
    data_box,
    zero_rule,
    zeros_without_data,
)
from fractal_mesospim_shading.errors import BackgroundError

TYPES = ("uint8", "uint16", "float32", "float64", "int32")


def recorded(shape=(120, 150), level=100.0, dtype="uint16", seed=0):
    """A plane as a camera gives it: an offset, a slope, noise, and bright squares."""
    rng = np.random.default_rng(seed)
    y, x = np.indices(shape)
    image = level + 0.1 * x + 0.05 * y + rng.normal(0, 3, shape)
    for _ in range(4):
        top, left = rng.integers(0, min(shape) - 5, 2)
        image[top : top + 5, left : left + 5] += level
    return np.rint(image).astype(dtype)


def brute_force_margins(plane):
    """The definition, line by line: True where rows or columns are 0 from an edge inwards."""
    marked = np.zeros(plane.shape, bool)
    for lines, own in ((plane, marked), (plane.T, marked.T)):
        for order in (range(len(lines)), range(len(lines) - 1, -1, -1)):
            for line in order:
                if any(value != 0 and np.isfinite(value) for value in lines[line]):
                    break
                own[line] = True
    return marked & (plane == 0)


def found(plane, rule="look"):
    mask, _ = zeros_without_data(plane, rule)
    return np.zeros(plane.shape, bool) if mask is None else mask


MARGINS = [(0, 0, 0, 0), (7, 0, 0, 0), (0, 1, 0, 0), (0, 0, 30, 0), (0, 0, 0, 75), (3, 40, 21, 9)]


@pytest.mark.parametrize("dtype", TYPES)
@pytest.mark.parametrize("margins", MARGINS)
def test_margins_and_whole_planes_are_no_data(margins, dtype):
    plane = recorded(dtype=dtype, level=80.0)
    top, bottom, left, right = margins
    plane[: top or 0], plane[len(plane) - bottom :] = 0, 0
    plane[:, : left or 0], plane[:, plane.shape[1] - right :] = 0, 0
    plane[60, 70] = 0  # a value like any other
    wanted = brute_force_margins(plane)
    assert wanted.any() == any(margins)
    np.testing.assert_array_equal(found(plane), wanted)
    np.testing.assert_array_equal(found(plane, "margins"), wanted)
    assert data_box(plane).blocks == ()
    plane[...] = 0
    assert found(plane).all() and found(plane, "margins").all()


def test_other_rules_ask_no_pixel():
    plane = recorded()
    plane[:9] = 0
    plane[50, 50] = 0
    assert zeros_without_data(plane, "data") == (None, 0)
    np.testing.assert_array_equal(found(plane, "no_data"), plane == 0)
    assert zeros_without_data(plane[20:40], "no_data") == (None, 0)


def test_each_plane_of_a_stack_for_itself():
    stack = np.stack([recorded(), recorded(seed=1), recorded(seed=2)])
    stack[0, :9], stack[1] = 0, 0
    stack[2, 20:60, 30:70] = 0
    mask, blocks = zeros_without_data(stack[None], "look")
    assert blocks == 1
    np.testing.assert_array_equal(mask[0], [found(plane) for plane in stack])
    assert mask.sum() == 9 * 150 + 120 * 150


@given(st.integers(0, 2**32 - 1), st.integers(1, 12), st.integers(1, 12))
def test_margins_of_any_plane_follow_the_definition(seed, height, width):
    rng = np.random.default_rng(seed)
    plane = rng.integers(0, 2, (height, width)) * rng.integers(0, 2, (1, width))
    plane = (plane * rng.integers(0, 2, (height, 1))).astype("float32")
    plane[rng.random(plane.shape) < 0.05] = np.nan
    np.testing.assert_array_equal(found(plane, "margins"), brute_force_margins(plane))


# --- Zeros that are values, in the worlds that have them -----------------------------------------


def indices(shape=(120, 150)):
    return np.indices(shape)


def spots(centres, sigma=4.0, height=1000.0, threshold=0.0):
    y, x = indices()
    image = sum(height * np.exp(-((y - a) ** 2 + (x - b) ** 2) / 2 / sigma**2) for a, b in centres)
    return np.where(image > threshold, image, 0)


GRID = [(y, x) for y in range(15, 120, 24) for x in range(15, 150, 24)]

VALUES = {
    "spots on a true zero": spots(GRID, threshold=30),
    "few spots": spots([(30, 40), (80, 100)], threshold=30),
    "one spot": spots([(50, 60)], threshold=30),
    "one large spot": spots([(60, 70)], sigma=20.0, threshold=100),
    "spots that fade": spots(GRID, threshold=1e-3),
    "spots of whole counts": np.rint(spots(GRID)),
    "a hot pixel": np.where((indices()[0] == 33) & (indices()[1] == 70), 5000, 0),
    "a hot line": np.where(indices()[0] == 33, 500, 0),
    "a disk": np.hypot(indices()[0] - 60, indices()[1] - 70) < 40,
    "a square": (abs(indices()[0] - 60) < 10) & (abs(indices()[1] - 70) < 10),
    "a slope from zero": indices()[1],
    "a steep slope": 50.0 * indices()[0],
    "a parabola": indices()[0] ** 2,
    "zero to three": indices()[1] % 4,
    "zero to seven": indices()[0] % 8,
    "photons": np.random.default_rng(0).poisson(0.02, (120, 150)),
    "more photons": np.random.default_rng(1).poisson(1.0, (120, 150)) * (indices()[1] > 3),
    "clipped noise": np.maximum(np.random.default_rng(2).normal(0, 9, (120, 150)), 0),
}


@pytest.mark.parametrize("dtype", ["uint16", "float32"])
@pytest.mark.parametrize("name", VALUES)
def test_zeros_that_are_values(name, dtype):
    plane = VALUES[name].astype(dtype)
    assert (plane == 0).any()
    assert not found(plane).any()
    assert not found(plane[::-1, ::-1]).any()


WITH_MARGIN = {
    "a camera": recorded(),
    "counts of few photons": np.random.default_rng(0).poisson(5, (120, 150)),
    "an edge between two pixels": recorded() * np.where(indices()[0] == 20, 0.07, 1.0),
    "a blurred edge": recorded() * np.clip((indices()[0] - 18) / 6, 0, 1),
    "signed noise": np.random.default_rng(1).normal(0, 9, (120, 150)) + 0.25,
    "tissue that begins at the margin": 100 + 10 * np.maximum(indices()[0] - 20, 0),
    "tissue that begins later": np.where(indices()[0] < 24, 100, 2000),
    "a lost block": np.where((indices()[0] < 60) & (indices()[1] < 50), 0, recorded()),
    "a ragged edge": np.where(indices()[0] < 20 + indices()[1] // 50 * 9, 0, recorded()),
    "clipped medium beside tissue": np.where(
        indices()[0] < 70,
        recorded(),
        np.maximum(np.random.default_rng(2).normal(0, 9, (120, 150)), 0),
    ),
    "dead pixels": recorded() * (np.random.default_rng(3).random((120, 150)) > 0.01),
}


@pytest.mark.parametrize("name", WITH_MARGIN)
def test_margins_in_many_worlds(name):
    plane = np.asarray(WITH_MARGIN[name], "float32")
    plane[:20] = 0
    np.testing.assert_array_equal(found(plane)[:20], True)
    np.testing.assert_array_equal(found(plane)[20:], False)
    np.testing.assert_array_equal(found(plane[::-1, ::-1])[-20:], True)
    np.testing.assert_array_equal(found(np.ascontiguousarray(plane.T))[:, :20], True)


def tissue(rng, shape):
    """An offset, medium, structure of several sizes and bright spots, with the noise of photons."""
    image = sum(
        gaussian_filter(rng.normal(size=shape), s, mode="wrap") * s ** rng.uniform(1, 2)
        for s in (2, 8, 32)
    )
    image = np.minimum(np.exp(image / image.std()) * rng.uniform(5, 2000), 2e4)
    y, x = np.ogrid[: shape[0], : shape[1]]
    for _ in range(rng.integers(0, 20)):
        a, b, s = rng.integers(0, shape[0]), rng.integers(0, shape[1]), rng.uniform(1, 10)
        image += rng.uniform(0, 3000) * np.exp(-((y - a) ** 2 + (x - b) ** 2) / 2 / s**2)
    return rng.poisson((image + rng.choice([105, 160, 260])) / 2) * 2


def test_margins_of_scenes_of_tissue():
    rng, missed = np.random.default_rng(0), 0
    for _ in range(60):
        shape = tuple(rng.integers(80, 250, 2))
        top, right = (int(rng.integers(1, size // 3)) for size in shape)
        plane = tissue(rng, shape).astype("uint16")
        plane[:top], plane[:, shape[1] - right :] = 0, 0
        box = data_box(plane)
        missed += (box.rows, box.columns) != (slice(top, shape[0]), slice(0, shape[1] - right))
    assert missed <= 1


def test_spots_of_all_kinds_have_no_margins():
    rng, wrong, y, x = np.random.default_rng(0), 0, *np.ogrid[:150, :190]
    for _ in range(150):
        plane, sigma = np.zeros((150, 190)), rng.uniform(0.5, 15)
        for _ in range(int(np.exp(rng.uniform(0, 4)))):
            a, b = rng.integers(0, 150), rng.integers(0, 190)
            size, long = sigma * rng.uniform(0.5, 1.5), rng.uniform(0.5, 2)
            distance = ((y - a) ** 2 / long + (x - b) ** 2 * long) / size**2
            plane += rng.uniform(200, 1000) * np.exp(-distance / 2)
        limit = rng.choice([0, 1, 30, 100, 300])
        plane = np.where(plane > limit, plane, 0).astype(rng.choice(["uint16", "float32"]))
        wrong += plane.any() and found(plane).any()
    assert wrong <= 1


# --- Blocks that are worth a word ----------------------------------------------------------------


@pytest.mark.parametrize(("side", "number"), [(32, 0), (33, 1), (40, 1), (64, 1)])
@pytest.mark.parametrize("place", [(8, 16), (13, 21), (0, 0), (1, 3)])
def test_blocks_of_zeros_beside_data(side, number, place):
    plane = recorded((150, 160))
    y, x = place
    plane[y : y + side, x : x + side] = 0
    blocks = data_box(plane).blocks
    assert len(blocks) == number
    assert all(plane[at] == 0 for at in blocks)


def test_each_block_is_counted_once():
    plane = recorded((300, 300))
    for y, x in [(10, 10), (10, 60), (100, 20), (101, 200)]:
        plane[y : y + 40, x : x + 40] = 0
    plane[:, 290:] = 0
    plane[200:260, 250:] = 0
    found = data_box(plane)
    assert found.columns == slice(0, 290)
    assert len(found.blocks) == 5
    assert len(data_box(plane, "margins").blocks) == 5


def test_a_turned_image_has_four():
    y, x = np.indices((200, 200)) - 100
    inside = (abs(0.9 * y + 0.3 * x) < 85) & (abs(0.9 * x - 0.3 * y) < 85)
    found = data_box(np.where(inside, recorded((200, 200)), 0))
    assert len(found.blocks) == 4
    assert (found.rows, found.columns) == (slice(0, 200), slice(0, 200))


SPARSE = [(y, x) for y, x in GRID if y > 70 or x > 70]

DOWN_TO_ZERO = {
    "spots that fade": spots(SPARSE, threshold=1e-3),
    "spots of whole counts": np.rint(spots(SPARSE)),
    "spots less a constant": np.maximum(spots(SPARSE) - 30, 0),
    "noise": VALUES["clipped noise"] * (indices()[0] > 50),
    "photons": VALUES["photons"] * (indices()[0] > 50),
    "a slope": np.maximum(indices()[0] - 50, 0),
}


@pytest.mark.parametrize(
    ("name", "dtype"),
    [(name, "uint16") for name in DOWN_TO_ZERO]
    + [(name, "float32") for name in DOWN_TO_ZERO if name != "photons"],
)
def test_no_word_where_data_come_down_to_zero(name, dtype):
    plane = DOWN_TO_ZERO[name].astype(dtype)
    assert not plane[:35, :35].any()
    assert data_box(plane).blocks == ()


# --- Whatever the boxes --------------------------------------------------------------------------


@given(st.integers(0, 2**32 - 1))
def test_boxes_do_not_matter(seed):
    rng = np.random.default_rng(seed)
    shape = (int(rng.integers(60, 130)), int(rng.integers(60, 130)))
    planes = np.stack([recorded(shape, seed=k) for k in range(3)])
    planes[0, : rng.integers(0, 20)] = 0
    planes[1, :, shape[1] - rng.integers(1, 20) :] = 0
    planes[2, 5:50, 7:50] = 0
    planes = planes.astype(rng.choice(["uint16", "float32"]))
    tally = ZeroTally(3, shape, planes.dtype)
    cuts = [[0, *sorted(set(rng.integers(1, size, 3).tolist())), size] for size in shape]
    for y0, y1 in zip(cuts[0][:-1], cuts[0][1:], strict=True):
        for x0, x1 in zip(cuts[1][:-1], cuts[1][1:], strict=True):
            tally.add(planes[:, y0:y1, x0:x1], y0, x0)
    assert tally.boxes() == tuple(data_box(plane) for plane in planes)


def test_the_part_outside_of_a_box():
    box = DataBox(slice(3, 7), slice(2, 9))
    whole = np.ones((10, 12), bool)
    whole[3:7, 2:9] = False
    for rows in (slice(0, 10), slice(4, 6), slice(0, 3), slice(7, 10), slice(5, 9)):
        for columns in (slice(0, 12), slice(9, 12), slice(0, 1), slice(1, 4)):
            np.testing.assert_array_equal(box.outside(rows, columns), whole[rows, columns])
    assert DataBox(slice(0, 0), slice(0, 0)).outside(slice(0, 4), slice(2, 5)).all()


def test_memory_of_a_plane_is_bounded():
    assert ZeroTally.bytes_a_plane((2048, 2048), np.dtype("uint16")) < 2**19
    assert ZeroTally.bytes_a_plane((20480, 20480), np.dtype("float32")) < 2**26


def test_what_a_person_says_goes_before_what_is_known():
    assert zero_rule("data", True) == "data"
    assert zero_rule("no_data", False) == "no_data"
    assert [zero_rule("auto", held) for held in (None, True, False)] == ["look", "margins", "data"]
    with pytest.raises(BackgroundError, match="zero_is.*'nodata'; expected one of auto, data"):
        zero_rule("nodata")
    with pytest.raises(BackgroundError, match="holds_no_data is 'yes'"):
        zero_rule("auto", "yes")
