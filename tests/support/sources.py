"""Each door on each kind of source: tiny images, what comes out, and how often a chunk is read.

Every cell is run, its pixels are held against closed forms, and what it says goes into a page.
"""

from __future__ import annotations

import re
import threading
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from functools import partial
from itertools import product
from math import ceil
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np
import zarr
from numpy.typing import NDArray

from fractal_mesospim_shading import (
    correct_background,
    correct_flatfield,
    estimate_flatfield,
    import_mesospim,
)
from fractal_mesospim_shading.errors import ShadingError
from fractal_mesospim_shading.images import mosaic
from fractal_mesospim_shading.images.native import stack
from fractal_mesospim_shading.images.native.collection import TileCollection
from fractal_mesospim_shading.images.native.container import is_container
from fractal_mesospim_shading.jobs.flatfield import plan_flatfield
from fractal_mesospim_shading.jobs.outlook import outlook
from fractal_mesospim_shading.options.flatfield import FlatfieldOptions
from fractal_mesospim_shading.synthetic.images import write_image
from fractal_mesospim_shading.views.inspection import as_text, describe
from fractal_mesospim_shading.views.preview import write_preview
from tests.support.acquisition import grid_stacks, stack_pixels, write_acquisition
from tests.support.acquisition_table import SyntheticSettings, SyntheticStack
from tests.support.tile_images import write_tile_images

Pixels = Mapping[str, NDArray[Any]]
"""Arrays of full resolution, by the path of their image within the source or the result."""

LASERS = ("488 nm", "561 nm")
TILE = (16, 32)
DARK, BACKGROUND = 100.0, 50.0
PLANES = 3

# Mean 1, and powers of 2, so that what comes out is known to the last bit.
FLAT = np.repeat([0.5, 2.0, 1.0], [16, 8, 8])[None, :].repeat(16, axis=0)


def _light(shape: tuple[int, ...], seed: int) -> NDArray[np.uint16]:
    """A medium under a lamp that falls off, above a camera offset."""
    y, x = (np.linspace(-1, 1, size) for size in shape[-2:])
    lamp = 600 - 100 * (y[:, None] ** 2 + x[None, :] ** 2)
    noisy = np.random.default_rng(seed).poisson(np.broadcast_to(lamp, shape))
    return np.asarray(DARK + noisy, np.uint16)


def _stack(row: SyntheticStack) -> NDArray[np.uint16]:
    """The same with a faint texture, by which overlaps are recognised."""
    texture = stack_pixels(row, PLAIN) // 10
    return np.asarray(_light(texture.shape, row.tile + int(row.laser[:3])) + texture, np.uint16)


PLAIN = SyntheticSettings(tile_shape=TILE, chunks=(2, 16, 16), levels=2, offset=0)
SETTINGS = replace(PLAIN, pixels=_stack)


def _mosaic(folder: Path, **style: Any) -> Path:
    tiles = [[_light((PLANES, *TILE), tile + int(n[:3])) for tile in range(2)] for n in LASERS]
    pixels = np.stack([np.concatenate(own, axis=-1) for own in tiles])
    style = {"chunks": (2, 16, 16), "codec": "blosc", **style}
    write_image(folder / "brain.zarr", pixels, channels=LASERS, tile_shape=TILE, **style)
    return folder / "brain.zarr"


def _rows(**changed: Any) -> list[SyntheticStack]:
    rows = grid_stacks(1, 2, SETTINGS, lasers=LASERS, overlap_px=8)
    return [replace(row, z_end_um=5.0 * (PLANES - 1), **changed) for row in rows]


def _container(
    folder: Path,
    rows: list[SyntheticStack],
    write: Callable[..., Path] = write_acquisition,
    **settings: Any,
) -> Path:
    return write(folder, "brain.ome.zarr", rows, replace(SETTINGS, **settings))


KINDS: Mapping[str, Callable[[Path], Path]] = {
    "Fractal mosaic, 0.4": _mosaic,
    "Fractal mosaic, 0.5": lambda folder: _mosaic(folder, ngff_version="0.5"),
    "Fractal mosaic, 0.5, shards": lambda folder: _mosaic(
        folder, ngff_version="0.5", shards=(2, 16, 32)
    ),
    "acquisition, 0.4": lambda folder: _container(folder, _rows(), version="0.4", xml=True),
    "acquisition, 0.5": lambda folder: _container(folder, _rows()),
    "acquisition, 0.5, shards": lambda folder: _container(folder, _rows(), shards=(2, 16, 32)),
    "acquisition, one image for each tile": lambda folder: _container(
        folder, _rows(), write_tile_images
    ),
    "acquisition, one image for each tile, shards": lambda folder: _container(
        folder, _rows(), write_tile_images, shards=(2, 16, 32)
    ),
    "acquisition, one image for each tile, 0.4, two time points": lambda folder: _container(
        folder, _rows(), partial(write_tile_images, times=[SETTINGS] * 2), version="0.4"
    ),
    "acquisition, one side for each tile": lambda folder: _container(
        folder, [replace(row, shutter="Right" if row.tile else "Left") for row in _rows()]
    ),
    "acquisition, both sides": lambda folder: _container(
        folder, [row for side in ("Left", "Right") for row in _rows(shutter=side)]
    ),
    "acquisition, two angles": lambda folder: _container(
        folder, [row for angle in (0.0, 90.0) for row in _rows(rotation=angle)]
    ),
}
"""How a source of each kind is written into a folder."""


def _flattened(raw: NDArray[Any]) -> NDArray[np.float64]:
    return (raw - DARK) / np.tile(FLAT, (1, raw.shape[-1] // TILE[1]))


def _stored(values: NDArray[np.float64], dtype: np.dtype[Any]) -> NDArray[Any]:
    """As an image stores numbers: integers are rounded half to even, and no less than 0."""
    whole = np.issubdtype(dtype, np.integer)
    return (np.clip(np.rint(values), 0, 65535) if whole else values).astype(dtype)


CORRECTED: Mapping[str, Callable[[NDArray[Any]], NDArray[np.float64]]] = {
    "copied": lambda raw: raw.astype(np.float64),
    "flat-field": _flattened,
    "background": lambda raw: raw - BACKGROUND,
    "both": lambda raw: _flattened(raw) - BACKGROUND,
}
"""What becomes of the pixels of a tile."""


@dataclass(frozen=True)
class Place:
    """Where a door is tried.

    Attributes:
        source: an image or a container.
        mosaics: names of the mosaics in it.
        models: a folder of models.
        out: a folder for what comes out.
    """

    source: Path
    mosaics: tuple[str, ...]
    models: str
    out: Path


def _info(place: Place) -> None:
    assert str(place.source.stem.partition(".")[0]) in as_text(describe(str(place.source)))


def _preview(place: Place) -> None:
    picture = str(place.out / "p.png")
    mosaic = place.mosaics[0] or None
    write_preview(str(place.source), picture, methods=["median:3"], mosaic=mosaic)
    assert Path(picture).read_bytes().startswith(b"\x89PNG")


def _estimate(place: Place) -> None:
    found = estimate_flatfield(
        str(place.source), str(place.out / "models"), fov_list=[1, 2], camera_offset=DARK
    )
    labels = {label.rpartition(": ")[2].partition("/")[0] for label in found}
    assert labels == set(LASERS)
    for model in found.values():
        # Falls off to the corners by a third, in the mean of a tile of mean 1.
        assert 1.05 < model.profile.flatfield[4:12, 8:24].mean() < 1.3


def _dry_run(place: Place) -> None:
    options = FlatfieldOptions(models_folder=place.models, output_folder=str(place.out))
    said = outlook(plan_flatfield(str(place.source), options))
    assert said.source == str(place.source)
    assert said.blocks > 0
    assert not list(place.out.iterdir())


def _flatfield(place: Place, kind: str = "flat-field", **more: Any) -> None:
    given = {"models_folder": place.models, "output_folder": str(place.out), "report": False}
    result = correct_flatfield(str(place.source), **given, **more)
    _same_structure(place.source, Path(result.image_url), kind)


def _background(place: Place) -> None:
    result = correct_background(
        str(place.source),
        method=f"constant:{BACKGROUND:g}",
        output_folder=str(place.out),
        report=False,
    )
    _same_structure(place.source, Path(result.image_url), "background")


def _import(place: Place, kind: str = "copied", **more: Any) -> None:
    results = import_mesospim(str(place.source), str(place.out), sign_x=-1, sign_y=-1, **more)
    assert len(results) == len(place.mosaics)
    found = [pixels for r in results for pixels in _pixels(Path(r.image_url)).values()]
    (dtype,) = {pixels.dtype for pixels in found}
    expected = [
        _stored(CORRECTED[kind](pixels), dtype).ravel() for pixels in _pixels(place.source).values()
    ]
    # Where each tile lies is the matter of other tests: here all their pixels are there.
    np.testing.assert_array_equal(
        np.sort(np.concatenate([pixels.ravel() for pixels in found])),
        np.sort(np.concatenate(expected)),
    )


def _corrected(place: Place) -> dict[str, Any]:
    return {"correct_flatfield": True, "models_folder": place.models}


_METHOD = {"background": f"constant:{BACKGROUND:g}"}

DOORS: Mapping[str, Callable[[Place], None]] = {
    "info": _info,
    "preview": _preview,
    "estimate": _estimate,
    "flat-field, dry run": _dry_run,
    "flat-field": _flatfield,
    "background": _background,
    "both in one pass": lambda place: _flatfield(place, "both", **_METHOD),
    "import": _import,
    "import, flat-field": lambda place: _import(place, "flat-field", **_corrected(place)),
    "import, both": lambda place: _import(place, "both", **_corrected(place), **_METHOD),
}
"""What is done to a source; each looks at what came out."""

PASSES = tuple(DOORS)[4:]
"""Doors that read all pixels, each chunk once."""


def _mosaics(source: Path) -> list[str]:
    if not is_container(str(source)):
        return [""]
    return [one.suffix for one in TileCollection.open(str(source)).mosaics()]


def _pixels(root: Path) -> Pixels:
    """Every array `0` below a folder, read with plain zarr."""
    names = {".zarray", "zarr.json"}
    folders = {path.parent for path in root.rglob("0/*") if path.name in names}
    return {
        folder.parent.relative_to(root).as_posix(): np.asarray(
            zarr.open_array(str(folder), mode="r")[...]
        )
        for folder in folders
        if folder.name == "0"
    }


def _same_structure(source: Path, result: Path, kind: str) -> None:
    raw, found = _pixels(source), _pixels(result)
    assert found.keys() == raw.keys()
    for name, pixels in raw.items():
        expected = _stored(CORRECTED[kind](pixels), found[name].dtype)
        np.testing.assert_array_equal(found[name], expected)


@contextmanager
def decoded_chunks() -> Iterator[Counter[tuple[Any, ...]]]:
    """How often each chunk of any source is decoded: address of the array, and place in it."""
    decoded: Counter[tuple[Any, ...]] = Counter()
    lock = threading.Lock()

    def counting(module: Any) -> Any:
        read = module.read_array

        def counted(array: Any, where: str, box: Any) -> Any:
            ranges = (
                range(s.start // c, ceil(s.stop / c))
                for s, c in zip(box, array.chunks, strict=True)
            )
            with lock:
                decoded.update((where, *index) for index in product(*ranges))
            return read(array, where, box)

        return patch.object(module, "read_array", counted)

    with ExitStack() as patches:
        for module in (mosaic, stack):
            patches.enter_context(counting(module))
        yield decoded


@dataclass(frozen=True)
class Cell:
    """What a door makes of a kind of source.

    Attributes:
        reason: why it is refused; empty where it runs.
        reads: how often a chunk of the source is read, at most, besides what `info` reads to find
            out how the stage runs; None where nothing is.
    """

    reason: str
    reads: int | None


def row(kind: str, folder: Path) -> dict[str, Cell]:
    """Run every door on a source of a kind.

    Args:
        kind: of `KINDS`.
        folder: an empty one.
    """
    source = KINDS[kind](folder / "data")
    mosaics = tuple(_mosaics(source))
    models = folder / "models"
    for laser in LASERS:
        (models / laser).mkdir(parents=True)
        np.savez(models / laser / "profiles.npz", flatfield=FLAT, darkfield=DARK)
    cells: dict[str, Cell] = {}
    by_info: Counter[tuple[Any, ...]] = Counter()
    for number, (door, run) in enumerate(DOORS.items()):
        place = Place(source, mosaics, str(models), folder / str(number))
        place.out.mkdir()
        with decoded_chunks() as decoded:
            try:
                run(place)
            except ShadingError as error:
                cells[door] = Cell(_plain(str(error), folder), None)
                continue
        own = Counter({key: n for key, n in decoded.items() if str(source) in key[0]})
        if door == "info":
            by_info = own
        reads = own if "import" in door or door == "info" else own - by_info
        if door in PASSES:
            assert set(_finest(reads, source)) == {1}, (kind, door)
        cells[door] = Cell("", max(reads.values(), default=0))
    return cells


def _finest(reads: Counter[tuple[Any, ...]], source: Path) -> list[int]:
    """How often each chunk of full resolution was read, those that were not included."""
    counts = []
    for name, pixels in _pixels(source).items():
        lead = (1,) * (pixels.ndim - 3)
        grid = (ceil(n / c) for n, c in zip(pixels.shape, (*lead, 2, 16, 16), strict=True))
        where = "/".join([str(source), *([] if name == "." else [name]), "0"])
        counts += [reads[where, *index] for index in product(*(range(n) for n in grid))]
    return counts


def _plain(text: str, folder: Path) -> str:
    """A message without the paths of this machine."""
    return re.sub(rf"{re.escape(str(folder))}\S*/", "", text).replace("\n", " ")


# --- The page --------------------------------------------------------------------------------

HEAD = """# What runs on which source

This page is made by `docs/generate_sources.py`, which runs each of these on a tiny image; a test
does the same and fails where the page is not true. The pixels that come out are held against closed
forms.

{runs}

{notes}

"Acquisition" is what the microscope writes ([native.md](native.md)): a group for each stack, or one
t,c,z,y,x image for each tile, in OME-Zarr 0.4 or 0.5. The result of a correction is of the kind of
its source; that of an import is a Fractal mosaic for each angle, and for each side where tiles have
both.

## How often a chunk is read

At most, where flat-fields are those of a folder of models and the background is a number.

{reads}

The overlaps of an acquisition are looked at first, to find out or to check how the stage runs in
the image (with `sign_x` and `sign_y` they are not): that is what `info` reads, and is not counted
elsewhere. Where flat-fields are estimated, the chunks that `estimate` reads are read once more. A
background that follows from whole planes, or from pixels around a block, may read more
([background.md](background.md)).
"""


def page(rows: Mapping[str, Mapping[str, Cell]]) -> str:
    """The page, from what was found."""
    reasons = dict.fromkeys(c.reason for cells in rows.values() for c in cells.values() if c.reason)
    letters = {reason: chr(ord("a") + number) for number, reason in enumerate(reasons)}
    notes = [f"{letter}: {reason}" for reason, letter in letters.items()]
    return HEAD.format(
        runs=_table(rows, lambda cell: f"no ({letters[cell.reason]})" if cell.reason else "runs"),
        notes="\n\n".join(notes),
        reads=_table(rows, lambda cell: "" if cell.reads is None else str(cell.reads)),
    )


def _table(rows: Mapping[str, Mapping[str, Cell]], text: Callable[[Cell], str]) -> str:
    lines = [f"| source | {' | '.join(DOORS)} |", "|---" * (len(DOORS) + 1) + "|"]
    for kind, cells in rows.items():
        lines.append(f"| {kind} | {' | '.join(text(cells[door]) for door in DOORS)} |")
    return "\n".join(lines)


def told(text: str) -> dict[str, dict[str, Cell]]:
    """What a page says; the inverse of `page`."""
    reasons = dict(re.findall(r"^([a-z]): (.*)$", text, re.MULTILINE))
    rows: dict[str, dict[str, Cell]] = {}
    for kind in KINDS:
        runs, reads = re.findall(rf"^\| {re.escape(kind)} \| (.*) \|$", text, re.MULTILINE)
        rows[kind] = {
            door: Cell(
                reasons[ran[4:-1]] if ran.startswith("no") else "",
                int(read) if read.strip() else None,
            )
            for door, ran, read in zip(DOORS, runs.split(" | "), reads.split(" | "), strict=True)
        }
    return rows
