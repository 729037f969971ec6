"""CPU time of the background methods beside public implementations, as a Markdown table.

    python benchmarks/background.py            planes of 2048 x 2048 (about 3 minutes)
    python benchmarks/background.py --quick    planes of 640 x 640, to see that it runs

One thread, CPU milliseconds, the best of several runs. photutils and sep are measured
where they are installed. Programs that take many seconds run on a part of the plane;
their time is scaled to the whole and marked with ~. The ratio is that of our time to the
fastest program that computes the same thing; programs that compute something similar
(marked "similar") do not enter it.
"""

from __future__ import annotations

import os

for _name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ[_name] = "1"

import argparse  # noqa: E402
import time  # noqa: E402
import warnings  # noqa: E402
from collections.abc import Callable, Iterator  # noqa: E402
from dataclasses import dataclass  # noqa: E402
from functools import partial  # noqa: E402
from importlib.util import find_spec  # noqa: E402
from inspect import signature  # noqa: E402
from typing import Any  # noqa: E402

import cv2  # noqa: E402
import numpy as np  # noqa: E402
from numpy.typing import NDArray  # noqa: E402
from scipy import ndimage  # noqa: E402
from scipy.interpolate import RectBivariateSpline  # noqa: E402
from skimage.filters import rank  # noqa: E402
from skimage.morphology import disk  # noqa: E402
from skimage.restoration import rolling_ball  # noqa: E402

from fractal_mesospim_shading.core.background import BackgroundMethod, make_method  # noqa: E402
from fractal_mesospim_shading.core.background.gaussian import gaussian_kernel  # noqa: E402

Plane = NDArray[np.uint16]
Run = Callable[[Plane], Any]


@dataclass(frozen=True)
class Peer:
    """Another program.

    Attributes:
        name: for the table.
        run: on a plane; None if it is not installed.
        part: side of the plane it runs on is that of the whole over this.
        same: whether it computes the same thing.
    """

    name: str
    run: Run | None
    part: int = 1
    same: bool = True


@dataclass(frozen=True)
class Row:
    """One line of the table: our method and its peers."""

    setting: str
    method: BackgroundMethod
    peers: tuple[Peer, ...]


def make_plane(side: int, seed: int = 0) -> Plane:
    """A slope with noise of 18 counts and bright spots."""
    rng = np.random.default_rng(seed)
    y, x = np.indices((side, side))
    image = 300 + 0.05 * x + 0.03 * y + rng.normal(0, 18, (side, side))
    for _ in range(max(1, side * side // 7000)):
        top, left = rng.integers(0, side - 15, 2)
        image[top : top + 15, left : left + 15] += 800
    return np.clip(np.rint(image), 0, 65535).astype(np.uint16)


def milliseconds(run: Callable[[], Any], *, repeats: int = 7, enough_ms: float = 1500) -> float:
    """The best CPU time of several runs; slow ones run fewer times."""
    best = spent = np.inf
    total = 0.0
    for _ in range(repeats):
        start = time.process_time()
        run()
        spent = (time.process_time() - start) * 1000
        best = min(best, spent)
        total += spent
        if total > enough_ms:
            break
    return float(best)


def pyama(image: Plane, tile: int) -> NDArray[np.float32]:
    """PyAMA's formula: nanmedian of each overlapping tile, spline through them."""
    masked = image.astype(np.float32)
    edges = [np.rint(np.linspace(0, n, 2 * -(-n // tile) + 1)).astype(int) for n in image.shape]
    support = np.array(
        [
            [
                np.nanmedian(masked[edges[0][j] : edges[0][j + 2], edges[1][i] : edges[1][i + 2]])
                for i in range(edges[1].size - 2)
            ]
            for j in range(edges[0].size - 2)
        ]
    )
    centres = [(e[:-2] + e[2:]) / 2 for e in edges]
    degrees = [min(3, c.size - 1) for c in centres]
    spline = RectBivariateSpline(*centres, support, kx=degrees[0], ky=degrees[1])
    return np.asarray(spline(*map(np.arange, image.shape)), np.float32)


def sep_background(tile: int) -> Run | None:
    """The meshes of sep; None if it is not installed."""
    if find_spec("sep") is None:
        return None
    import sep

    return lambda image: sep.Background(image.astype(np.float32), bw=tile, bh=tile).back()


def photutils_background(tile: int) -> Run | None:
    """The meshes of photutils, medians without clipping; None if it is not installed."""
    if find_spec("photutils") is None:
        return None
    from photutils.background import Background2D, MedianBackground

    def run(image: Plane) -> Any:
        found = Background2D(
            image, tile, filter_size=1, sigma_clip=None, bkg_estimator=MedianBackground()
        )
        return found.background

    return run


def gaussian_rows() -> Iterator[Row]:
    for radius in (5, 15, 50, 100):
        kernel = gaussian_kernel(radius / 2)
        single = kernel.astype(np.float32)

        def opencv(image: Plane, single: NDArray[np.float32] = single) -> Any:
            border = cv2.BORDER_REPLICATE
            return cv2.sepFilter2D(image.astype(np.float32), -1, single, single, borderType=border)

        def scipy(image: Plane, kernel: NDArray[np.float64] = kernel) -> Any:
            rows = ndimage.correlate1d(image.astype(np.float32), kernel, 0, mode="nearest")
            return ndimage.correlate1d(rows, kernel, 1, mode="nearest")

        peers = (Peer("OpenCV", opencv), Peer("SciPy", scipy))
        yield Row(f"radius {radius}", make_method("gaussian", radius_px=float(radius)), peers)


def opening_rows() -> Iterator[Row]:
    for shape in ("disk", "square"):
        for radius in (5, 15, 50, 100):
            side = 2 * radius + 1
            element = disk(radius) if shape == "disk" else np.ones((side, side), np.uint8)

            def opencv(image: Plane, element: NDArray[np.uint8] = element) -> Any:
                # As float32, which is what a correction goes on with.
                return cv2.morphologyEx(image, cv2.MORPH_OPEN, element).astype(np.float32)

            def scipy(image: Plane, element: NDArray[np.uint8] = element) -> Any:
                if element.all():
                    return ndimage.grey_opening(image, size=element.shape)
                return ndimage.grey_opening(image, footprint=element)

            part = 1 if shape == "square" else 8
            peers = (Peer("OpenCV", opencv), Peer("SciPy", scipy, part))
            if shape == "disk" and radius > 15:
                peers = peers[:1]
            yield Row(
                f"{shape} {radius}",
                make_method("opening", radius_px=radius, shape=shape, smoothing_sigma_px=0.0),
                peers,
            )  # type: ignore[arg-type]


def median_rows() -> Iterator[Row]:
    for radius in (5, 15, 50, 100):
        element = disk(radius)

        def skimage(image: Plane, element: NDArray[np.uint8] = element) -> Any:
            return rank.median(image, element)

        def scipy(image: Plane, element: NDArray[np.uint8] = element) -> Any:
            return ndimage.median_filter(image, footprint=element)

        slow = (Peer("SciPy", scipy, 8),) if radius == 5 else ()
        part = 4 if radius < 100 else 2
        peers = (Peer("scikit-image rank", skimage, part), *slow)
        yield Row(
            f"exact, radius {radius}", make_method("median", radius_px=radius, exact=True), peers
        )
        near = (Peer("scikit-image rank", skimage, part, same=False),)
        yield Row(f"block means, radius {radius}", make_method("median", radius_px=radius), near)


def other_rows() -> Iterator[Row]:
    known = signature(rolling_ball).parameters
    one_thread = "workers" if "workers" in known else "num_threads"
    for radius in (5, 15, 25, 50, 100):

        def skimage(image: Plane, radius: int = radius) -> Any:
            return rolling_ball(image, radius=radius, **{one_thread: 1})

        part = 1 if radius <= 5 else 8
        peers = (Peer("scikit-image (erosion only)", skimage, part, same=False),)
        yield Row(f"radius {radius}", make_method("rolling_ball", radius_px=radius), peers)
    for radius in (15, 50):
        yield Row(f"radius {radius}", make_method("sliding_paraboloid", radius_px=radius), ())
    for tile in (256, 128, 64):

        def same(image: Plane, tile: int = tile) -> Any:
            return pyama(image, tile)

        peers = (
            Peer("PyAMA's formula", same),
            Peer("sep", sep_background(tile), same=False),
            Peer("photutils", photutils_background(tile), same=False),
        )
        yield Row(f"tile {tile}", make_method("tile_median", tile_size=tile), peers)
    yield Row(
        "mean 2 and 25",
        make_method("difference_of_filters", small_radius_px=2, big_radius_px=25, filter="mean"),
        (),
    )


def print_row(row: Row, image: Plane) -> None:
    """Measure one row and print it."""
    row.method.background(image[:128, :128])
    ours = milliseconds(partial(row.method.background, image))
    cells, best = [], np.inf
    for peer in row.peers:
        if peer.run is None:
            cells.append(f"{peer.name}: not installed")
            continue
        side = image.shape[0] // peer.part
        part, run = np.ascontiguousarray(image[:side, :side]), peer.run
        spent = milliseconds(partial(run, part)) * peer.part**2
        mark = "~" if peer.part > 1 else ""
        note = "" if peer.same else ", similar"
        cells.append(f"{peer.name} {mark}{spent:.0f} ({ours / spent:.3f}{note})")
        best = min(best, spent) if peer.same else best
    ratio = f"{ours / best:.2f}" if np.isfinite(best) else ""
    print(
        f"| {row.method.name} | {row.setting} | {ours:.0f} | {ratio} | {'; '.join(cells)} |",
        flush=True,
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="small planes")
    parser.add_argument("--only", default="", help="methods whose name contains this")
    arguments = parser.parse_args()
    cv2.setNumThreads(1)
    warnings.filterwarnings("ignore", message="Bad rank filter performance")
    image = make_plane(640 if arguments.quick else 2048)
    print("| method | setting | ours, CPU ms | ours / fastest equal | others (ours / theirs) |")
    print("|---|---|---:|---:|---|")
    for rows in (gaussian_rows(), opening_rows(), median_rows(), other_rows()):
        for row in rows:
            if arguments.only in row.method.name:
                print_row(row, image)


if __name__ == "__main__":
    main()
