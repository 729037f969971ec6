"""Run small jobs of every kind and compare the bytes of their results between two revisions.

    python benchmarks/same_trees.py --save before.json       # at one revision
    python benchmarks/same_trees.py --compare before.json    # at another

Every file of every result counts, provenance included. Where only metadata differ, the line
says so: a new option shows in the provenance of all jobs. The time of day in the header of a
gzip stream does not count, nor does the folder in which all this happens.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import shutil
import sys
import tempfile
from collections.abc import Callable
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import numcodecs
import numpy as np
import zarr

import fractal_mesospim_shading as shading
from fractal_mesospim_shading.core.profile import ShadingProfile
from fractal_mesospim_shading.images.models.folder import save_models
from fractal_mesospim_shading.synthetic.demo import write_mosaic
from fractal_mesospim_shading.synthetic.images import write_image
from fractal_mesospim_shading.synthetic.world import LightSheetWorld

sys.path.insert(0, str(Path(__file__).parents[1]))
from tests.support.acquisition import grid_stacks, write_acquisition
from tests.support.acquisition_table import SyntheticSettings

SEED = 9
TILE = (48, 64)
CHANNELS = ("488 nm", "561 nm")
WORLD = LightSheetWorld(TILE, (3, 3), planes=16, sample_radius=0.47, seed=SEED)
SMALL = LightSheetWorld(TILE, (2, 2), planes=6, sample_radius=0.47, seed=SEED)
EMPTY = [1, 3, 7, 9]
METADATA = {".zattrs", "zarr.json", ".zgroup", ".zmetadata"}
MODES = {"offset": {"camera_offset": 100}, "tiles": {"fov_list": EMPTY, "n_zplanes": 24}}

Tree = dict[str, str]
Job = Callable[["Place"], None]


class Place:
    """The folders of one job.

    Attributes:
        home: the folder of all jobs.
        out: gets the results of this one; all of it is compared.
    """

    def __init__(self, home: Path, name: str) -> None:
        self.home = home
        self.out = home / "results" / name
        self.out.mkdir(parents=True)

    def source(self, name: str, write: Callable[[Path], object]) -> Path:
        """A source that jobs share; it is written once."""
        path = self.home / "sources" / name
        if not path.exists():
            path.parent.mkdir(parents=True, exist_ok=True)
            write(path)
        return path

    def models(self, tile: tuple[int, int] = TILE) -> str:
        """A folder with the true models of the two channels."""
        world = replace(SMALL, tile_shape=tile)
        return str(self.source("models", lambda path: save_models(path, _true_models(world))))


def _true_models(world: LightSheetWorld) -> dict[str, ShadingProfile]:
    return {
        label: ShadingProfile.create(world.flatfield(index), world.dark_frame(), None)
        for index, label in enumerate(CHANNELS)
    }


@cache
def _pixels(world: LightSheetWorld) -> np.ndarray:
    """The mosaic as an array (c, z, y, x)."""
    rows, columns = world.grid
    planes = range(world.planes)
    channels = [
        np.block(
            [
                [world.tile_planes(c * rows + r + 1, planes, channel) for c in range(columns)]
                for r in range(rows)
            ]
        )
        for channel in range(len(CHANNELS))
    ]
    return np.clip(np.rint(np.stack(channels)), 0, 65535).astype(np.uint16)


# --- Sources ---------------------------------------------------------------------------------


def _mosaic(place: Place, name: str = "mosaic", **style: Any) -> Path:
    """Nine tiles, the corners empty."""
    style = {"chunks": (4, 48, 64), **style}
    return place.source(f"{name}.zarr", lambda path: write_mosaic(path, WORLD, CHANNELS, **style))


def _four(place: Place, name: str, axes: str = "czyx", **style: Any) -> Path:
    """Four tiles as an array, in a form of its own."""
    array = _pixels(SMALL)
    array = array[None] if axes == "tczyx" else array[0] if axes == "zyx" else array
    labels = CHANNELS if "c" in axes else None
    style = {"chunks": (4, 40, 50), "tile_shape": TILE, "channels": labels, **style}
    return place.source(f"{name}.zarr", lambda path: write_image(path, array, axes=axes, **style))


def _one_channel(place: Place) -> Path:
    """The nine tiles without a c axis."""
    return place.source(
        "nine.zarr",
        lambda path: write_mosaic(path, WORLD, CHANNELS[:1], axes="zyx", chunks=(4, 48, 64)),
    )


def _with_labels(place: Place, name: str = "labelled", **style: Any) -> Path:
    def write(path: Path) -> None:
        style_here = {"chunks": (4, 40, 50), **style}
        write_image(path, _pixels(SMALL), tile_shape=TILE, channels=CHANNELS, **style_here)
        (path / "notes.txt").write_text("from the bench")
        zarr_format = 3 if style.get("ngff_version") == "0.5" else 2
        labels = zarr.open_group(str(path / "labels"), mode="a", zarr_format=zarr_format)
        labels.attrs.update(
            {"ome": {"version": "0.5", "labels": ["cells"]}}
            if zarr_format == 3
            else {"labels": ["cells"]}
        )
        cells = (_pixels(SMALL)[0] > 500).astype(np.uint16)
        write_image(path / "labels" / "cells", cells, axes="zyx", chunks=(2, 40, 40), **style)

    return place.source(f"{name}.zarr", write)


def _container(place: Place, name: str, sides: bool = False, angles: bool = False) -> Path:
    version = "0.4" if "04" in name else "0.5"
    settings = SyntheticSettings(
        version=version,
        tile_shape=TILE,
        levels=2,
        xml=not angles,
        seed=SEED,
        shards=(4, 64, 64) if "sharded" in name else None,
        flatfields={
            (label, side): SMALL.flatfield(index)
            for index, label in enumerate(CHANNELS)
            for side in ("Left", "Right")
        },
    )
    shutters = ("Left", "Right") if sides else ("Left",)
    stacks = grid_stacks(2, 2, settings, lasers=CHANNELS, shutters=shutters, overlap_px=6)
    if angles:
        stacks += [
            replace(stack, rotation=90.0, tile=stack.tile + 4, z_end_um=15.0) for stack in stacks
        ]
    folder = place.source(
        name, lambda path: write_acquisition(path, "brain.ome.zarr", stacks, settings)
    )
    return folder / "brain.ome.zarr"


# --- Jobs ------------------------------------------------------------------------------------


def _flatfield(place: Place, source: Path, **options: Any) -> None:
    options = {"output_folder": str(place.out), "report": False, "n_workers": 2, **options}
    shading.correct_flatfield(str(source), **options)


def _background(place: Place, source: Path, method: Any, **options: Any) -> None:
    options = {"output_folder": str(place.out), "n_workers": 2, **options}
    shading.correct_background(str(source), method=method, **options)


def _import(place: Place, container: Path, **options: Any) -> None:
    shading.import_mesospim([str(container)], str(place.out), n_workers=2, levels=3, **options)


def _measured(place: Place, source: Path, **options: Any) -> None:
    _flatfield(place, source, models_folder=place.models(), **options)


def _in_place(place: Place) -> None:
    source = place.out / "labelled.zarr"
    shutil.copytree(_with_labels(place), source)
    options = {"overwrite_input": True, "output_folder": None}
    _measured(place, source, save_models=True, **options)
    _background(place, source, {"method": "constant"}, tiles="plane", **options)


_V05 = {"ngff_version": "0.5"}
_SHARDED = {**_V05, "chunks": (2, 24, 32), "shards": (4, 48, 64)}
_FILTERED = {"codec": numcodecs.Zlib(level=1), "byte_order": ">"}

JOBS: dict[str, Job] = {
    "flatfield measured 0.4": lambda p: _measured(p, _mosaic(p)),
    "flatfield tiles save_models": lambda p: _flatfield(
        p, _mosaic(p), fov_list=EMPTY, n_zplanes=24, save_models=True
    ),
    "flatfield z_levels offset": lambda p: _flatfield(
        p, _mosaic(p), z_levels=[2, 13], camera_offset=100, output_offset=20
    ),
    "flatfield tiles 0.5 sharded processes": lambda p: _flatfield(
        p, _mosaic(p, "sharded", **_SHARDED), fov_list=EMPTY, execution="processes"
    ),
    "flatfield basic": lambda p: _flatfield(
        p, _mosaic(p), basicpy_model_params={"working_size": 16}, n_zplanes=12, camera_offset=100
    ),
    "flatfield gzip 0.4": lambda p: _measured(p, _four(p, "gzip", codec="gzip")),
    "flatfield gzip 0.5": lambda p: _measured(p, _four(p, "gzip5", codec="gzip", **_V05)),
    "flatfield zlib big-endian": lambda p: _measured(p, _four(p, "big", **_FILTERED)),
    "flatfield order F, blosc": lambda p: _measured(
        p, _four(p, "fortran", memory_order="F", codec="blosc", separator=".")
    ),
    "flatfield tczyx uncompressed": lambda p: _measured(
        p, _four(p, "timed", "tczyx", codec=None, ragged="ceil")
    ),
    "flatfield zyx tiles": lambda p: _flatfield(
        p, _one_channel(p), fov_list=EMPTY, camera_offset=100
    ),
    "flatfield 0.4 to 0.5 shards labels": lambda p: _measured(
        p, _with_labels(p), ngff_version="0.5", output_shards=[4, 80, 100]
    ),
    "flatfield 0.5 to 0.4 labels": lambda p: _measured(
        p, _with_labels(p, "labelled5", **_V05), ngff_version="0.4"
    ),
    "flatfield and background in place": _in_place,
    "container 0.4 sides": lambda p: _measured(
        p, _container(p, "native04", sides=True), save_models=True
    ),
    "container 0.5 angles measured": lambda p: _measured(p, _container(p, "native05", angles=True)),
    "import 0.4 to 0.5 sides": lambda p: _import(
        p, _container(p, "native04", sides=True), ngff_version="0.5"
    ),
    "import corrected sharded": lambda p: _import(
        p,
        _container(p, "native_sharded"),
        correct_flatfield=True,
        models_folder=p.models(),
        save_models=True,
    ),
    "background tile_median labels": lambda p: _background(
        p,
        _with_labels(p),
        {"method": "tile_median", "tile_size": 16},
        mask={"kind": "label", "label_name": "cells", "dilation": 1},
        save_background=True,
        save_noise=True,
    ),
    "background median threshold": lambda p: _background(
        p,
        _mosaic(p),
        {"method": "median", "radius": 8},
        mask={"kind": "threshold", "threshold": 600},
        output_type="source",
        output_offset=50,
    ),
    "background opening z fused 0.5": lambda p: _background(
        p,
        _four(p, "fused", tile_shape=None, **_V05),
        {"method": "opening", "radius": 5, "radius_z_planes": 1},
        save_background=True,
    ),
    "background rolling ball": lambda p: _background(
        p, _four(p, "gzip", codec="gzip"), {"method": "rolling_ball", "radius": 12}
    ),
    "background paraboloid zyx": lambda p: _background(
        p, _four(p, "one", "zyx"), {"method": "sliding_paraboloid", "radius": 9}
    ),
    "background gaussian divide": lambda p: _background(
        p, _four(p, "big", **_FILTERED), {"method": "gaussian", "radius": 6}, mode="divide"
    ),
    "background difference plane": lambda p: _background(
        p,
        _four(p, "timed", "tczyx", codec=None, ragged="ceil"),
        {"method": "difference_of_filters", "big_radius": 7},
        tiles="plane",
    ),
}


# --- Comparison ------------------------------------------------------------------------------


def tree(folder: Path, home: Path) -> Tree:
    """sha256 of each file below a folder, by relative path."""
    found = {}
    for path in sorted(folder.rglob("*")):
        if path.is_file():
            content = path.read_bytes().replace(os.fsencode(home), b"HOME")
            if content[:3] == b"\x1f\x8b\x08":
                content = content[:4] + bytes(4) + content[8:]
            found[path.relative_to(folder).as_posix()] = hashlib.sha256(content).hexdigest()
    return found


def digest(files: Tree) -> str:
    """One sha256 for a tree."""
    return hashlib.sha256(json.dumps(files, sort_keys=True).encode()).hexdigest()


def difference(before: Tree, now: Tree) -> str | None:
    """What differs between two trees, in one line; None where nothing does."""
    names = sorted(n for n in {*before, *now} if before.get(n) != now.get(n))
    if not names:
        return None
    only_metadata = all(Path(name).name in METADATA for name in names)
    kind = "metadata differ" if only_metadata else "ARRAYS OR OTHER FILES DIFFER"
    shown = [name for name in names if only_metadata or Path(name).name not in METADATA]
    return f"{kind} ({len(names)} of {len({*before, *now})} files): {', '.join(shown[:4])}"


def run_job(name: str, home: Path) -> Tree:
    """Run one job; a job that fails is a tree of one entry."""
    place = Place(home, name.replace(" ", "_"))
    try:
        JOBS[name](place)
    except Exception as error:  # noqa: BLE001 the other jobs are of interest as well
        return {"failed": f"{type(error).__name__}: {error}".replace(str(home), "HOME")}
    return tree(place.out, home)


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--save", metavar="FILE", help="write what was found")
    parser.add_argument("--compare", metavar="FILE", help="compare with what was saved")
    parser.add_argument("--only", default="", help="jobs whose name holds this text")
    given = parser.parse_args()
    known = json.loads(Path(given.compare).read_text()) if given.compare else None
    found: dict[str, Tree] = {}
    bad = 0
    with tempfile.TemporaryDirectory(prefix="same_trees_") as folder:
        for name in (name for name in JOBS if given.only in name):
            files = found[name] = run_job(name, Path(folder).resolve())
            verdict = files.get("failed")
            if known is not None and verdict is None:
                before = known.get(name)
                verdict = "new job" if before is None else difference(before, files)
            bad += verdict is not None
            line = f"{name:40}" if known is not None else f"{name:40} {digest(files)}"
            print(line, verdict or ("same" if known is not None else ""), flush=True)
    if given.save:
        Path(given.save).write_text(json.dumps(found, indent=1))
    print(f"{len(found) - bad} of {len(found)} jobs {'are as before' if known else 'ran'}")
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main())
