"""Blocks with a halo give the bits of the whole plane."""

from __future__ import annotations

import numpy as np
import pytest

from fractal_mesospim_shading.core.background import METHODS, make_method

BLOCKWISE = [
    make_method("gaussian", radius_px=9.0),
    make_method("gaussian", radius_px=(3.0, 11.0)),
    make_method("median", radius_px=5, exact=True),
    make_method("median", radius_px=5, exact=True, shape="imagej_disk"),
    make_method("median", radius_px=13),
    make_method("median", radius_px=20),
    make_method("opening", radius_px=6),
    make_method("opening", radius_px=10, shape="square"),
    make_method("opening", radius_px=9.5, shape="imagej_disk", smoothing_sigma_px=2.0),
    make_method("rolling_ball", radius_px=8),
    make_method("rolling_ball", radius_px=15),
    make_method("rolling_ball", radius_px=40, light_background=True),
    make_method("difference_of_filters", small_radius_px=2, big_radius_px=7, filter="gaussian"),
    make_method("difference_of_filters", small_radius_px=2, big_radius_px=7, filter="median"),
    make_method("difference_of_filters", small_radius_px=2, big_radius_px=7, filter="mean"),
    make_method("constant", value=5.0),
]


def _by_blocks(image, method, block):
    """Each block from a cut-out that ends at the halo, or at the edge of the image."""
    step = -(-block // method.alignment_px) * method.alignment_px
    halo = -(-method.halo_px // method.alignment_px) * method.alignment_px
    result = np.empty(image.shape, np.float32)
    for y in range(0, image.shape[0], step):
        for x in range(0, image.shape[1], step):
            y0, x0 = max(y - halo, 0), max(x - halo, 0)
            # The far side ends exactly at the halo, wherever that is.
            part = image[y0 : y + step + method.halo_px, x0 : x + step + method.halo_px]
            found = method.background(np.ascontiguousarray(part)).background
            result[y : y + step, x : x + step] = found[y - y0 :, x - x0 :][:step, :step]
    return result


@pytest.mark.slow
@pytest.mark.parametrize("method", BLOCKWISE, ids=repr)
@pytest.mark.parametrize("dtype", [np.uint16, np.float32])
def test_halo_makes_blocks_equal_to_the_whole(scene, method, dtype) -> None:
    image = scene((131, 150), dtype)
    image[:40, 90:] = 0 if dtype is np.uint16 else np.nan
    whole = method.background(image).background
    np.testing.assert_array_equal(_by_blocks(image, method, 32), whole)


def test_opening_needs_twice_its_radius(scene) -> None:
    image = scene((60, 60), np.uint16)
    whole = make_method("opening", radius_px=6).background(image).background
    short = make_method("opening", radius_px=6).background(image[:, : 30 + 6]).background
    assert (short[:, :30] != whole[:, :30]).any()


def test_methods_that_need_the_whole_plane_say_so() -> None:
    for method in (
        make_method("tile_median"),
        make_method("sliding_paraboloid"),
        make_method("constant"),
    ):
        assert method.halo_px is None


def test_mesh_of_tiles_is_evaluated_in_parts(scene) -> None:
    image = scene((200, 170), np.uint16)
    mesh = make_method("tile_median", tile_size=40, noise_map=True).surface(image)
    rows, columns = slice(37, 121), slice(64, 170)
    np.testing.assert_array_equal(mesh.background(rows, columns), mesh.background()[rows, columns])
    np.testing.assert_array_equal(mesh.noise_map(rows, columns), mesh.noise_map()[rows, columns])


@pytest.mark.parametrize("name", METHODS)
def test_memory_layout_does_not_matter(scene, name) -> None:
    image = scene((64, 70), np.uint16)
    method = make_method(name)
    plain = method.background(image).background
    assert plain.dtype == np.float32
    for other in (np.asfortranarray(image), np.repeat(image, 2, 1)[:, ::2], image.astype(">u2")):
        np.testing.assert_array_equal(method.background(other).background, plain)
