"""Local background on small arrays: what the methods do, and what noise does to them.

    python examples/local_background.py                   prints what it finds
    python examples/local_background.py --figure out.png  also draws it

Four lessons on images that are made here, so that the truth is known:

1. One threshold cannot find spots on a background that varies. After a top-hat,
   built from a minimum and a maximum filter, it can.
2. Noise pulls the top-hat's background down: smooth first, or correct for it.
3. A median gives a background that noise does not shift.
4. The same on a stack of planes that lie in a file, written plane by plane.
"""

from __future__ import annotations

import argparse
import tempfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from fractal_mesospim_shading.core.background import make_method
from fractal_mesospim_shading.core.background.arrays import correct_array, estimate_array
from fractal_mesospim_shading.core.background.noise import estimate_noise_sigma, noise_bias

SIDE = 240
SPOT_RADIUS = 4
# About three times the radius of the objects.
RADIUS_PX = 13
NOISE = 6.0


@dataclass(frozen=True)
class Scene:
    """A made-up image and what it is made of."""

    background: NDArray[np.float64]
    spots: NDArray[np.bool_]
    centres: tuple[tuple[int, int], ...]
    image: NDArray[np.uint8]


def make_scene(noise: float, seed: int = 3) -> Scene:
    """Spots of equal brightness on a bright hill, with normal noise."""
    rng = np.random.default_rng(seed)
    y, x = np.indices((SIDE, SIDE))
    hill = 130 * np.exp(-((y - 90) ** 2 + (x - 150) ** 2) / (2 * 70.0**2))
    background = 20 + hill
    spots = np.zeros((SIDE, SIDE), bool)
    grid = [(cy, cx) for cy in range(20, SIDE - 10, 33) for cx in range(20, SIDE - 10, 33)]
    centres = tuple((cy + int(rng.integers(-6, 7)), cx + int(rng.integers(-6, 7)))
                    for cy, cx in grid)  # fmt: skip
    for cy, cx in centres:
        spots |= (y - cy) ** 2 + (x - cx) ** 2 <= SPOT_RADIUS**2
    image = background + 60 * spots + rng.normal(0, noise, background.shape)
    return Scene(background, spots, centres, np.clip(np.rint(image), 0, 255).astype(np.uint8))


def top_hat(image: NDArray[np.uint8], radius_px: int) -> NDArray[np.float64]:
    """The image minus its opening: a minimum filter, then a maximum filter."""
    size = 2 * radius_px + 1
    lowest = ndimage.minimum_filter(image, size)
    return image.astype(float) - ndimage.maximum_filter(lowest, size)


def found_spots(image: NDArray[np.floating], threshold: float, scene: Scene) -> tuple[int, int]:
    """How many spots one threshold finds, each by itself, and how many other things."""
    labels, number = ndimage.label(image > threshold)
    hit = 0
    used: set[int] = set()
    for centre in scene.centres:
        label = int(labels[centre])
        size = int((labels == label).sum()) if label else 0
        if label and label not in used and size < 3 * np.pi * SPOT_RADIUS**2:
            hit += 1
            used.add(label)
    sizes = ndimage.sum_labels(np.ones(labels.shape), labels, range(1, number + 1))
    false = sum(1 for n, s in enumerate(sizes, start=1) if n not in used and s > 4)
    return hit, false


def best_threshold(image: NDArray[np.floating], scene: Scene) -> tuple[float, int, int]:
    """The best that any single threshold can do: threshold, spots, other things."""
    tried = []
    for threshold in np.linspace(image.min(), image.max(), 60)[1:-1]:
        hit, false = found_spots(image, float(threshold), scene)
        tried.append((hit - false, float(threshold), hit, false))
    _, threshold, hit, false = max(tried)
    return threshold, hit, false


def report(name: str, corrected: NDArray[np.floating], scene: Scene) -> None:
    """Print how well one threshold does, and where the background ends up."""
    threshold, hit, false = best_threshold(corrected, scene)
    away = ~ndimage.binary_dilation(scene.spots, iterations=4)
    rest = float(np.mean(corrected[away]))
    print(
        f"  {name:<34} threshold {threshold:6.1f}: {hit:2d} of {len(scene.centres)} spots, "
        f"{false:2d} others; left of the background {rest:+6.1f} counts"
    )


def lesson_top_hat() -> None:
    """Spots on a varying background, without noise."""
    scene = make_scene(noise=0)
    print("1. Spots on a varying background, one threshold")
    report("raw image", scene.image.astype(float), scene)
    by_hand = top_hat(scene.image, RADIUS_PX)
    report("top-hat by minimum and maximum", by_hand, scene)
    same = correct_array(
        scene.image,
        make_method("opening", radius_px=RADIUS_PX, shape="square", smoothing_sigma_px=0),
    ).image
    print(f"  the method 'opening' gives the same numbers: {np.array_equal(by_hand, same)}")


def lesson_noise() -> dict[str, NDArray[np.floating]]:
    """The same with noise: what a top-hat does, and what helps."""
    scene = make_scene(noise=NOISE)
    sigma = estimate_noise_sigma(scene.image)
    print(f"2. With noise of {NOISE:g} counts (estimated: {sigma:.1f})")
    # The opening alone; by default it is smoothed by 2 px first.
    raw_opening = make_method("opening", radius_px=RADIUS_PX, smoothing_sigma_px=0)
    plain = correct_array(scene.image, raw_opening).image
    smooth = correct_array(scene.image, make_method("opening", radius_px=RADIUS_PX)).image
    report("raw image", scene.image.astype(float), scene)
    report("top-hat", plain, scene)
    report("top-hat, noise bias added back", plain + noise_bias(raw_opening, sigma), scene)
    report("top-hat after a Gaussian of 2 px", smooth, scene)
    print("3. A background that noise does not shift")
    median = correct_array(
        scene.image, make_method("median", radius_px=RADIUS_PX, exact=True)
    ).image
    report("median", median, scene)
    difference = make_method("difference_of_filters", small_radius_px=2, big_radius_px=RADIUS_PX)
    report("small median minus big median", correct_array(scene.image, difference).image, scene)
    masked = make_method("tile_median", tile_size=60, dilation=3)
    report("medians of tiles, spots masked",
           correct_array(scene.image, masked, mask=scene.spots).image, scene)  # fmt: skip
    return {"image": scene.image, "top-hat": plain, "after smoothing": smooth, "median": median}


def lesson_files() -> None:
    """A stack in a file, corrected into another file."""
    print("4. A stack in a file")
    planes = [make_scene(NOISE, seed).image for seed in range(3)]
    with tempfile.TemporaryDirectory() as folder:
        shape = (3, SIDE, SIDE)
        source = np.memmap(Path(folder) / "raw.bin", np.uint8, "w+", shape=shape)
        source[:] = planes
        target = np.memmap(Path(folder) / "corrected.bin", np.float32, "w+", shape=shape)
        method = make_method("median", radius_px=RADIUS_PX)

        def tell(done: int, total: int) -> None:
            print(f"  plane {done} of {total}")

        result = correct_array(source, method, out=target, progress=tell)
        background = estimate_array(source, method)
        print(f"  {result.counts.pixels} pixels, background {background.mean():.1f} counts")


def draw(images: dict[str, NDArray[np.floating]], path: Path) -> None:
    """The images side by side, with the profile of one row below each."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(2, len(images), figsize=(3.2 * len(images), 5), squeeze=False)
    for (upper, lower), (name, image) in zip(axes.T, images.items(), strict=True):
        upper.imshow(image, cmap="gray", vmin=np.percentile(image, 1))
        upper.set_title(name)
        upper.axhline(86, color="tab:orange", linewidth=0.8)
        upper.set_axis_off()
        lower.plot(image[86], linewidth=0.8)
        lower.axhline(0, color="0.7", linewidth=0.8)
        lower.set_xlabel("x (px)")
    axes[1, 0].set_ylabel("counts")
    figure.tight_layout()
    figure.savefig(path, dpi=120)
    print(f"figure: {path}")


def main() -> None:
    """Run all lessons."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--figure", type=Path, help="file for a figure")
    arguments = parser.parse_args()
    lesson_top_hat()
    images = lesson_noise()
    lesson_files()
    if arguments.figure:
        draw(images, arguments.figure)


if __name__ == "__main__":
    main()
