"""How processor time grows with tiles, channels, planes and chunks, as a Markdown table.

    python benchmarks/growth.py --folder /somewhere/with/room

Small images of one property each: seconds of CPU of `info`, of the plan (`--dry-run`), and of the
correction with a measured model, the start of the interpreter included, with the peak of the memory
of the correction.
"""

from __future__ import annotations

import argparse
import shutil
import sys
import tempfile
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path

import numpy as np
from measuring import measured
from throughput import BARE, THREADS, ours, use_processors

from fractal_mesospim_shading.synthetic.images import write_image

TILE = 64


@dataclass(frozen=True)
class Size:
    """An image.

    Attributes:
        what: the property that grows.
        side: tiles along y and x.
        channels, planes: as many.
        chunk: its shape.
    """

    what: str
    side: int = 8
    channels: int = 1
    planes: int = 4
    chunk: tuple[int, int, int] = (4, 512, 512)

    @property
    def labels(self) -> tuple[str, ...]:
        """Of the channels."""
        return tuple(f"channel {i}" for i in range(self.channels))

    def write(self, folder: Path) -> None:
        """Write the image, of a few even counts, and a flat-field of 1 for each channel."""
        side = self.side * TILE
        plane = np.add.outer(np.arange(side) % 128, np.arange(side) % 3) + 150
        pixels = np.broadcast_to(plane, (self.channels, self.planes, side, side))
        write_image(
            folder / "image.zarr",
            pixels.astype("uint16"),
            channels=self.labels,
            tile_shape=(TILE, TILE),
            chunks=self.chunk,
            codec="blosc",
        )
        for label in self.labels:
            (folder / "models" / label).mkdir(parents=True, exist_ok=True)
            flat = np.ones((TILE, TILE), np.float32)
            np.savez(folder / "models" / label / "profiles.npz", flatfield=flat)

    @property
    def files(self) -> int:
        """Chunks of level 0."""
        depth, height, width = self.chunk
        side = self.side * TILE
        return self.channels * -(-self.planes // depth) * -(-side // height) * -(-side // width)


SIZES = (
    *(Size(f"{side**2} tiles", side) for side in (4, 32, 100)),
    *(Size(f"{n} channels", channels=n) for n in (2, 8, 32)),
    *(Size(f"{n} planes", planes=n) for n in (40, 400, 4000)),
    *(Size(f"chunks of {n} x {n}", 32, planes=8, chunk=(1, n, n)) for n in (256, 64, 32)),
)


def row(size: Size, folder: Path) -> str:
    """One row of the table."""
    # In a process of its own, whose memory would count for those that this one starts.
    maker = get_context("spawn").Process(target=size.write, args=(folder,))
    maker.start()
    maker.join()
    image, models = folder / "image.zarr", folder / "models"
    program = [sys.executable, "-m", "fractal_mesospim_shading.cli"]
    correct = [*ours(str(image), str(folder), str(models), *BARE), "--camera-offset", "100"]
    info = measured([*program, "info", str(image)])
    plan = measured([*correct, "--dry-run"])
    run = measured(correct)
    pixels = size.channels * size.planes * (size.side * TILE) ** 2 / 1e6
    cells = (
        size.what,
        f"{pixels:.0f}",
        f"{size.files}",
        f"{info.cpu:.1f}",
        f"{plan.cpu:.1f}",
        f"{run.cpu:.1f}",
        f"{run.peak / 1e6:.0f}",
    )
    return f"| {' | '.join(cells)} |"


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--folder", type=Path, help="for images and results (default: temporary)")
    given = parser.parse_args()
    use_processors(THREADS)
    print("| image | million pixels | chunks | `info`, CPU s | plan | correction | peak, MB |")
    print("|---|---|---|---|---|---|---|")
    with tempfile.TemporaryDirectory(dir=given.folder) as temporary:
        for number, size in enumerate(SIZES):
            folder = Path(temporary) / f"{number}"
            folder.mkdir()
            print(row(size, folder), flush=True)
            shutil.rmtree(folder)


if __name__ == "__main__":
    main()
