"""How close each background method comes to a known background, as a Markdown table.

    python benchmarks/background_accuracy.py            a plane of 1024 x 1024 (half a minute)
    python benchmarks/background_accuracy.py --quick    512 x 512, to see that it runs

The plane has a background that changes slowly (a slope and a hill), cells of 15 pixels on 5 %
of it, and noise of 18 counts. All numbers are counts: the mean of the estimate minus the truth
where there is background, the same under the cells, and the root mean square over the plane.
A row "masked" knows where the cells are, widened by 3 pixels.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fractal_mesospim_shading.core.background import BackgroundMethod, make_method
from fractal_mesospim_shading.core.background.masks import dilate_mask
from fractal_mesospim_shading.core.background.noise import estimate_noise_sigma, noise_bias

NOISE = 18.0


def make_scene(
    side: int, seed: int = 0
) -> tuple[NDArray[np.uint16], NDArray[np.float64], NDArray[np.bool_]]:
    """The image, its true background, and where the cells are."""
    rng = np.random.default_rng(seed)
    y, x = np.indices((side, side)) / side
    truth = 300 + 80 * x + 50 * y + 120 * np.exp(-((x - 0.4) ** 2 + (y - 0.6) ** 2) / 0.08)
    cells = np.zeros((side, side), np.bool_)
    while cells.mean() < 0.05:
        top, left = rng.integers(0, side - 15, 2)
        disk = np.hypot(*(np.indices((15, 15)) - 7)) <= 7
        cells[top : top + 15, left : left + 15] |= disk
    image = truth + 800 * cells + rng.normal(0, NOISE, truth.shape)
    return np.rint(image).astype(np.uint16), truth, cells


def rows() -> Iterator[tuple[str, BackgroundMethod, bool, bool]]:
    """Name, method, whether the cells are masked, whether the noise is added back."""

    def method(name: str, **parameters: Any) -> BackgroundMethod:
        return make_method(name, **parameters)

    tile = method("tile_median", tile_size=64, dilation=0)
    yield "tile_median, 64", tile, False, False
    yield "tile_median, 64, masked", tile, True, False
    clipped = method("tile_median", tile_size=64, dilation=0, sigma_clip=3.0)
    yield "tile_median, 64, clipped at 3 sigma", clipped, False, False
    yield "median, 25 (block means)", method("median", radius_px=25), False, False
    yield "median, 25, exact", method("median", radius_px=25, exact=True), False, False
    gaussian = method("gaussian", radius_px=50.0)
    yield "gaussian, 50", gaussian, False, False
    yield "gaussian, 50, masked", gaussian, True, False
    for sigma in (0, 2, 4):
        opening = method("opening", radius_px=25, smoothing_sigma_px=sigma)
        yield f"opening, 25, smoothed by {sigma}", opening, False, False
    opening = method("opening", radius_px=25, smoothing_sigma_px=2)
    yield "opening, 25, smoothed by 2, noise added back", opening, False, True
    yield "rolling_ball, 50", method("rolling_ball", radius_px=50), False, False
    yield "rolling_ball, 50, noise added back", method("rolling_ball", radius_px=50), False, True
    yield "sliding_paraboloid, 50", method("sliding_paraboloid", radius_px=50), False, False
    yield (
        "difference_of_filters, 25 (median)",
        method("difference_of_filters", big_radius_px=25),
        False,
        False,
    )
    yield "constant (median)", method("constant"), False, False


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="a small plane")
    image, truth, cells = make_scene(512 if parser.parse_args().quick else 1024)
    mask = dilate_mask(cells, 3)
    print("| method, radius in pixels | on background | under cells | root mean square |")
    print("|---|---:|---:|---:|")
    for name, method, masked, lifted in rows():
        found = method.background(image, mask if masked else None).background
        error = found.astype(np.float64) - truth
        if lifted:
            error -= noise_bias(method, estimate_noise_sigma(image))
        square = float(np.sqrt(np.mean(error**2)))
        outside, inside = error[~cells].mean(), error[cells].mean()
        print(f"| {name} | {outside:+.1f} | {inside:+.1f} | {square:.1f} |", flush=True)


if __name__ == "__main__":
    main()
