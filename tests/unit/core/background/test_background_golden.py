"""Against the outputs of PyAMA, smlmlp and ImageJ."""

from __future__ import annotations

import numpy as np
import pytest

from fractal_mesospim_shading.core.background import gaussian_backgrounds, make_method
from fractal_mesospim_shading.core.background.arrays import correct_array


@pytest.mark.parametrize("name", ["pyama_600x520_gradient.npz", "pyama_tile64_256x320.npz"])
@pytest.mark.parametrize("dtype", [np.uint16, np.float32])
def test_tile_median_gives_the_numbers_of_pyama(golden, name, dtype) -> None:
    arrays, meta = golden(name)
    parameters = {**meta["params"], "tile_size": tuple(meta["params"]["tile_size"])}
    image, mask = arrays["image"][0].astype(dtype), arrays["mask"][0]
    method = make_method("tile_median", compatibility="pyama", **parameters)
    mesh = method.surface(image, mask)
    assert mesh is not None
    np.testing.assert_array_equal(mesh.values, arrays["support"][0])
    # PyAMA's file lists the outer centres only in part.
    assert mesh.centres_y[0] == arrays["centers_y"][0]
    assert mesh.centres_x[-1] == arrays["centers_x"][-1]
    found = method.background(image, mask).background
    np.testing.assert_allclose(found, arrays["background"][0], rtol=1e-5)


def test_local_mean_gives_the_numbers_of_smlmlp(golden) -> None:
    arrays, meta = golden("smlmlp.npz")
    for case in meta["cases"]:
        channels = [arrays[f"in_{case['inputs']}_{i}"] for i in range(case["n"])]
        radii = case["radii"]
        radii = [tuple(pair) for pair in radii] if isinstance(radii, list) else radii
        carried = case["noise_corrections"]
        found, factors = gaussian_backgrounds(channels, radii, carried)
        for i, background in enumerate(found):
            expected = arrays[f"{case['name']}_bkgd_{i}"]
            np.testing.assert_allclose(background, expected, rtol=1e-5)
            before = 1.0 if carried is None else carried[i]
            assert factors[i].published == pytest.approx(case["noise"][i], rel=1e-5)
            assert factors[i].exact == pytest.approx(case["true_factor"][i] * before, rel=1e-5)


def test_imagej_ball_and_paraboloid(golden) -> None:
    arrays, meta = golden("imagej_subtract_background.npz")
    image = arrays["image_u16"]
    for case in meta["cases"]:
        method = make_method(
            case["method"],
            radius_px=case["radius"],
            light_background=case["light"],
            smooth=case["smooth"],
        )
        expected = arrays[case["key"]]
        if case["returns"] == "corrected":
            found = correct_array(image, method, dtype=np.uint16).image
            np.testing.assert_array_equal(found, expected, err_msg=case["key"])
            continue
        background = method.background(image).background
        if case["image"] == "u16":
            # As ImageJ makes an image of it: rounded half up, and clipped.
            rounded = np.clip(np.floor(background + np.float32(0.5)), 0, 65535)
            np.testing.assert_array_equal(rounded.astype(np.uint16), expected)
        else:
            np.testing.assert_allclose(background, expected, rtol=0, atol=1e-3)
