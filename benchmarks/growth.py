"""How processor time grows with tiles, channels, planes, chunks, labels and stacks, as two tables.

    python benchmarks/growth.py --folder /somewhere/with/room
    python benchmarks/growth.py --folder /somewhere/with/10/GB --only million
    python benchmarks/growth.py --folder /somewhere/with/room --only stacks

Small images of one property each: seconds of CPU of `info`, of the plan (`--dry-run`), and of the
correction with a measured model, the start of the interpreter included, with the peak of the memory
of the correction; for tiles and channels also of one with its report, and of `find-empty`.
A million chunks are a million files of one block of the disk each, and as many of the result.

The second table shows one command at three sizes: the stacks of a native container, whose tiles
overlap, backgrounds of many tiles, in larger images and in the same one, and `check` of many. Its
last column is what one more of them takes, of processor time and of memory, from the size before:
in larger images that is also what their pixels take, as more blocks are in flight and more means
wait.
"""

from __future__ import annotations

import argparse
import json
import shutil
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path

import numpy as np
import zarr
from measuring import Measured, measured
from throughput import BARE, THREADS, ours, use_processors

from fractal_mesospim_shading.images.roi_tables import write_roi_tables
from fractal_mesospim_shading.synthetic.images import write_image
from fractal_mesospim_shading.synthetic.overlapping import (
    OverlappingWorld,
    write_overlapping_mosaic,
)
from fractal_mesospim_shading.synthetic.world import grid_layout

sys.path.insert(0, str(Path(__file__).parents[1]))
from tests.support.acquisition import grid_stacks, write_acquisition
from tests.support.acquisition_table import SyntheticSettings

PROGRAM = (sys.executable, "-m", "fractal_mesospim_shading.cli")
TILE = 64
SIDES = (4, 32, 100)
PLANE = 6400
"""Side of a plane that is cut into more and more tiles."""


@dataclass(frozen=True)
class Size:
    """An image.

    Attributes:
        what: the property that grows.
        side: tiles along y and x.
        channels, planes: as many.
        chunk: its shape.
        beside: label images, and the shape of their chunks.
        looked_at: whether the report and `find-empty` are measured as well.
        only_level: no pyramid; every chunk is a copy of the file of the first one.
        tile: side of a tile.
    """

    what: str
    side: int = 8
    channels: int = 1
    planes: int = 4
    chunk: tuple[int, int, int] = (4, 512, 512)
    beside: int = 0
    beside_chunk: tuple[int, int, int] = (4, 512, 512)
    looked_at: bool = False
    only_level: bool = False
    tile: int = TILE

    @property
    def labels(self) -> tuple[str, ...]:
        """Of the channels."""
        return tuple(f"channel {i}" for i in range(self.channels))

    def write(self, folder: Path) -> None:
        """Write the image, of a few even counts, and a flat-field of 1 for each channel."""
        side = self.side * self.tile
        plane = np.add.outer(np.arange(side) % 128, np.arange(side) % 3) + 150
        pixels = np.broadcast_to(plane, (self.channels, self.planes, side, side))
        image = folder / "image.zarr"
        shape = (1, *self.chunk) if self.only_level else pixels.shape
        write_image(
            image,
            pixels[tuple(slice(n) for n in shape)].astype("uint16"),
            channels=self.labels,
            tile_shape=None if self.only_level else (self.tile, self.tile),
            chunks=self.chunk,
            codec="blosc",
            **({"factors": ()} if self.only_level else {}),
        )
        if self.only_level:
            enlarge(image, pixels.shape, self.chunk)
        if self.beside:
            self.write_labels(image, pixels.shape[1:])
        for label in self.labels:
            (folder / "models" / label).mkdir(parents=True, exist_ok=True)
            flat = np.ones((self.tile, self.tile), np.float32)
            np.savez(folder / "models" / label / "profiles.npz", flatfield=flat)

    def write_labels(self, image: Path, shape: tuple[int, ...]) -> None:
        """Label images beside the image, of one object each."""
        names = [f"label {i}" for i in range(self.beside)]
        labels = zarr.open_group(str(image / "labels"), mode="w", zarr_format=2)
        labels.attrs["labels"] = names
        for name in names:
            write_image(
                image / "labels" / name,
                np.ones(shape, "uint32"),
                axes="zyx",
                chunks=self.beside_chunk,
                codec="blosc",
                attributes={"image-label": {"version": "0.4"}},
            )

    @property
    def files(self) -> int:
        """Chunks of level 0."""
        depth, height, width = self.chunk
        side = self.side * self.tile
        return self.channels * -(-self.planes // depth) * -(-side // height) * -(-side // width)


def enlarge(image: Path, shape: tuple[int, ...], chunk: tuple[int, int, int]) -> None:
    """Make an image of one chunk larger, by copies of its file."""
    document = image / "0" / ".zarray"
    document.write_text(json.dumps({**json.loads(document.read_text()), "shape": shape}))
    write_roi_tables(
        str(image), grid_layout(shape[-2:], (TILE, TILE)), {"z": 5.0, "y": 1.3, "x": 1.3}, shape[1]
    )
    data = (image / "0" / "0" / "0" / "0" / "0").read_bytes()
    counts = [-(-n // unit) for n, unit in zip(shape[1:], chunk, strict=True)]
    for z, y in np.ndindex(*counts[:2]):
        folder = image / "0" / "0" / f"{z}" / f"{y}"
        folder.mkdir(parents=True, exist_ok=True)
        for x in range(counts[2]):
            (folder / f"{x}").write_bytes(data)


SIZES = (
    *(Size(f"{side**2} tiles", side, looked_at=True) for side in SIDES),
    *(Size(f"{n} channels", channels=n, looked_at=True) for n in (2, 8, 32)),
    *(Size(f"{n} planes", planes=n) for n in (40, 400, 4000)),
    *(Size(f"chunks of {n} x {n}", 32, planes=8, chunk=(1, n, n)) for n in (256, 64, 32)),
    Size("a million chunks of 32 x 32", 125, planes=16, chunk=(1, 32, 32), only_level=True),
    *(Size(f"{n} labels", beside=n) for n in (1, 10, 100)),
    *(
        Size(f"a label in chunks of {n} x {n}", 32, beside=1, beside_chunk=(1, n, n))
        for n in (256, 64, 16)
    ),
)


def made_apart(write: Callable[..., object], *given: object) -> None:
    """Write in a process of its own, whose memory would count for those that this one starts."""
    maker = get_context("spawn").Process(target=write, args=given)
    maker.start()
    maker.join()


def row(size: Size, folder: Path) -> str:
    """One row of the first table."""
    made_apart(size.write, folder)
    image, models = folder / "image.zarr", folder / "models"
    correct = [*ours(str(image), str(folder), str(models), *BARE), "--camera-offset", "100"]
    info = measured([*PROGRAM, "info", str(image)])
    plan = measured([*correct, "--dry-run"])
    run = measured(correct)
    seen = [f"{info.cpu:.1f}", f"{plan.cpu:.1f}", f"{run.cpu:.1f}", f"{run.peak / 1e6:.0f}"]
    if size.looked_at:
        with_report = [option for option in correct if option != "--no-report"]
        report = measured([*with_report, "--output-image-name", "reported"])
        empty = measured([*PROGRAM, "find-empty", str(image), "--output", str(folder / "p.png")])
        seen += [f"{report.cpu:.1f}", f"{empty.cpu:.1f}", f"{empty.peak / 1e6:.0f}"]
    else:
        seen += [""] * 3
    pixels = size.channels * size.planes * (size.side * size.tile) ** 2 / 1e6
    return f"| {' | '.join([size.what, f'{pixels:.0f}', f'{size.files}', *seen])} |"


def write_container(folder: Path, side: int) -> None:
    """A native container of so many stacks along y and x, and a model of a flat-field of 1."""
    settings = SyntheticSettings()
    write_acquisition(folder, "a.ome.zarr", grid_stacks(side, side, settings), settings)
    (folder / "models" / "488 nm").mkdir(parents=True)
    flat = np.ones(settings.tile_shape, np.float32)
    np.savez(folder / "models" / "488 nm" / "profiles.npz", flatfield=flat)


def write_tiles(folder: Path, side: int) -> None:
    """A mosaic of so many tiles along y and x."""
    Size("", side).write(folder)


def write_cut(folder: Path, side: int) -> None:
    """The same plane in so many tiles along y and x: what grows is their number alone."""
    Size("", side, tile=PLANE // side).write(folder)


def write_overlapping(folder: Path, side: int) -> None:
    """The same, whose tiles show the tissue of their neighbours at their edges."""
    world = OverlappingWorld(tile_shape=(TILE, TILE), grid=(side, side), planes=4, overlap=0.3)
    write_overlapping_mosaic(folder / "image.zarr", world, chunks=(4, 512, 512), codec="blosc")


def of_container(folder: Path) -> Mapping[str, Sequence[str]]:
    """Commands of a container by their names."""
    container = str(folder / "a.ome.zarr")
    correct = [*ours(container, str(folder), str(folder / "models")), "--camera-offset", "100"]
    return {
        "`info`": [*PROGRAM, "info", container],
        "plan": [*correct, "--dry-run"],
        "correction with report": correct,
        "import": [*PROGRAM, "import", container, "--zarr-dir", str(folder / "imported")],
    }


def of_tiles(folder: Path) -> Mapping[str, Sequence[str]]:
    """The same of a mosaic."""
    background = ["correct-background", str(folder / "image.zarr"), "--method", "median:5"]
    more = ["--output-folder", str(folder), "--no-report"]
    return {"background `median:5`": [*PROGRAM, *background, *more]}


def of_cut(folder: Path) -> Mapping[str, Sequence[str]]:
    """Backgrounds of the same pixels, each block by itself."""
    image, models = str(folder / "image.zarr"), str(folder / "models")
    more = ["--output-folder", str(folder), "--no-report", "--n-workers", "1", "--overwrite"]
    both = ["correct-flatfield", image, "--models-folder", models, "--camera-offset", "100"]
    return {
        **{
            f"background `{method}`": [
                *(*PROGRAM, "correct-background", image),
                *("--method", method, *more),
            ]
            for method in ("median:5", "tile_median", "gaussian:5")
        },
        "both, `median:5`": [*PROGRAM, *both, "--background", "median:5", *more],
    }


def of_overlapping(folder: Path) -> Mapping[str, Sequence[str]]:
    """The same of one whose tiles overlap."""
    return {"`check`": [*PROGRAM, "check", str(folder / "image.zarr"), "--camera-offset", "100"]}


@dataclass(frozen=True)
class Series:
    """Images of one kind in some sizes.

    Attributes:
        what: there are more and more of.
        sides: how many along y, and as many along x.
        write: an image of a side into a folder.
        commands: that are measured, by their names.
    """

    what: str
    sides: tuple[int, ...]
    write: Callable[[Path, int], None]
    commands: Callable[[Path], Mapping[str, Sequence[str]]]

    def rows(self, folder: Path) -> Iterator[str]:
        """The rows of the second table."""
        before: dict[str, tuple[int, Measured]] = {}
        for side in self.sides:
            number, place = side**2, folder / f"{side}"
            place.mkdir()
            made_apart(self.write, place, side)
            for name, command in self.commands(place).items():
                run = measured(command)
                more = ""
                if name in before:
                    fewer, other = before[name]
                    time = (run.cpu - other.cpu) / (number - fewer)
                    memory = (run.peak - other.peak) / (number - fewer)
                    more = f"{1e3 * time:.1f} ms, {memory / 1e3:.0f} kB"
                before[name] = number, run
                cells = [f"{number} {self.what}", name, f"{run.cpu:.1f}", f"{run.peak / 1e6:.0f}"]
                yield f"| {' | '.join([*cells, more])} |"
            shutil.rmtree(place)


SERIES = (
    Series("stacks", (8, 16, 32), write_container, of_container),
    Series("tiles", SIDES, write_tiles, of_tiles),
    Series("tiles of the same pixels", (10, 100, 200), write_cut, of_cut),
    Series("overlapping tiles", SIDES, write_overlapping, of_overlapping),
)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--folder", type=Path, help="for images and results (default: temporary)")
    parser.add_argument("--only", default="", help="rows whose name holds this")
    given = parser.parse_args()
    use_processors(THREADS)
    names = "image | million pixels | chunks | `info`, CPU s | plan | correction | peak, MB"
    print(f"| {names} | with report | `find-empty` | peak, MB |\n{'|---' * 10}|")
    with tempfile.TemporaryDirectory(dir=given.folder) as temporary:
        for number, size in enumerate(size for size in SIZES if given.only in size.what):
            folder = Path(temporary) / f"{number}"
            folder.mkdir()
            print(row(size, folder), flush=True)
            shutil.rmtree(folder)
        print(f"\n| image | command | CPU s | peak, MB | for one more |\n{'|---' * 5}|")
        for series in SERIES:
            if given.only in series.what:
                folder = Path(temporary) / series.what
                folder.mkdir()
                for line in series.rows(folder):
                    print(line, flush=True)


if __name__ == "__main__":
    main()
