"""Flat-fields refined by overlaps: how good, on known truth and on real tiles, as Markdown tables.

    python benchmarks/overlaps.py                  acquisitions of known truth (about 10 minutes)
    python benchmarks/overlaps.py --quick          two small ones, to see that it runs
    python benchmarks/overlaps.py --real FOLDER    tiles of a microscope with their positions

Known truth: tiles with stage errors and gains within 15 %, filled with sample or not; the camera
offset is given. RMS errors of BaSiC's flat-field, and of the one that overlaps make of it; that of
the gains beside it; and the two errors that are reported, all in percent.

A folder of real tiles holds 2-D TIFF files and `TileConfiguration.registered.txt`, with a line
`name; ; (x, y)` for each tile whose position in pixels is known, as Fiji's stitching writes it.
The tables give the absolute log ratio of the two views in bins of 8 x 8 pixels, in percent, in
overlaps from which nothing was learnt: they are held back in five parts, one after the other.
"""

from __future__ import annotations

import argparse
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import tifffile
from accuracy import header, row
from numpy.typing import NDArray
from scipy.ndimage import map_coordinates

from fractal_mesospim_shading.core.flatfield.basic import (
    basic_planes,
    fit_basic,
    profile_from_basic,
)
from fractal_mesospim_shading.core.flatfield.binning import BinnedPlanes, bin_block
from fractal_mesospim_shading.core.overlaps.neighbours import neighbours
from fractal_mesospim_shading.core.overlaps.observations import OverlapPair
from fractal_mesospim_shading.core.overlaps.observing import Piece, Rejected, observe
from fractal_mesospim_shading.core.overlaps.refine import refine_flatfield
from fractal_mesospim_shading.options.basic import BasicpyModelParams
from fractal_mesospim_shading.synthetic.overlapping import OverlappingWorld

FloatArray = NDArray[np.float64]
Origins = Mapping[int, tuple[float, float]]
Stacks = Mapping[int, NDArray[np.float32]]

BIN = 4
FOLDS = 5
MOST_PLANES = 200
SHEETS = 6

WORLDS: dict[str, dict[str, Any]] = {
    "3 x 3, 12 planes, filled": {},
    "4 x 5, 12 planes, filled": {"grid": (4, 5)},
    "3 x 3, filled, stage errors 4 px": {"stage_error": 4.0},
    "3 x 3, filled, light lost by 15 %": {"gain_range": 0.05, "drift": 0.15},
    "3 x 3, filled, bleaching by 3 %": {"bleaching": 0.03},
    "3 x 3, filled, tilted": {"shape": "tilted"},
    "3 x 3, filled, band": {"shape": "band"},
    "3 x 3, filled, streaks of 3 %": {"streaks": 0.03},
    "3 x 3, 96 planes, filled": {"planes": 96},
    "4 x 5, 96 planes, filled": {"planes": 96, "grid": (4, 5)},
    "3 x 3, medium in the corners": {"region": "centre", "share": 0.55},
    "3 x 3, a third is sample": {"share": 0.35},
}


def in_bins(image: NDArray[np.floating[Any]]) -> FloatArray:
    """Means over squares; what fills none is left out."""
    height, width = (size // BIN * BIN for size in image.shape)
    cells = image[:height, :width].reshape(height // BIN, BIN, width // BIN, BIN)
    return np.asarray(cells.mean(axis=(1, 3), dtype=np.float64))


def basic(stacks: Stacks, offset: float) -> FloatArray:
    """BaSiC's flat-field of an even choice of planes, (y, x)."""
    planes = [plane for number in sorted(stacks) for plane in stacks[number]]
    chosen = np.unique(np.linspace(0, len(planes) - 1, MOST_PLANES).astype(int))
    tile_shape = planes[0].shape
    binned = BinnedPlanes(len(chosen), tile_shape)
    for slot, number in enumerate(chosen):
        block = planes[number][None]
        binned.add(bin_block(block, 0, 0, binned.bin_px), range(slot, slot + 1))
    settings = BasicpyModelParams().model_dump()
    reduced = basic_planes(binned.finish(), offset, settings["working_size"])
    fitted = profile_from_basic(fit_basic(reduced, settings), tile_shape, offset)
    return fitted.flatfield.astype(np.float64)


def observed(
    stacks: Stacks, origins: Origins, tile_shape: tuple[int, int]
) -> tuple[list[OverlapPair], int]:
    """The overlaps that could be registered, and the number of those that could not."""
    found, rejected = [], 0
    for pair in neighbours(origins, tile_shape):
        (y0, y1), (x0, x1) = pair.window
        dy, dx = pair.shift
        views = stacks[pair.first][:, y0:y1, x0:x1]
        others = stacks[pair.second][:, y0 - dy : y1 - dy, x0 - dx : x1 - dx]
        step = max(-(-len(views) // SHEETS), 4)
        pieces = [
            Piece(views[z : z + 4], others[z : z + 4], (y0, x0), z)
            for z in range(0, len(views), step)
        ]
        bins = observe(pair, pieces)
        if isinstance(bins, Rejected):
            rejected += 1
        else:
            found.append(bins)
    return found, rejected


def known_truth(name: str, seed: int, changes: Mapping[str, Any]) -> None:
    """One row of the table."""
    world = OverlappingWorld(seed=seed, **{"gain_range": 0.15, **changes})
    stacks = {
        number: world.tile_stack(number).astype(np.float32) - np.float32(world.offset)
        for number in world.tile_numbers
    }
    origins = dict(zip(world.tile_numbers, map(tuple, world.nominal_positions), strict=True))
    pairs, rejected = observed(stacks, origins, world.tile_shape)
    before = np.log(in_bins(basic(stacks, 0.0)))
    views = {number: in_bins(stack.mean(axis=0)) for number, stack in stacks.items()}
    found = refine_flatfield(pairs, before, views, origins, world.tile_shape)
    truth = np.log(in_bins(world.flatfield()))
    gains = np.log(world.gains())[[number - 1 for number in found.log_gains]]
    wrong = np.std(np.array(list(found.log_gains.values())) - gains)
    row(
        name,
        seed,
        f"{len(pairs)} + {rejected}",
        f"{100 * np.std(before - truth):.2f}",
        f"{100 * np.std(before + found.log_change - truth):.2f}",
        f"{100 * found.error_before:.2f}",
        f"{100 * found.error_after:.2f}",
        f"{100 * wrong:.2f}",
        "refined" if found.used else f"stays: {found.reason}",
    )


def positions(folder: Path) -> dict[str, tuple[float, float]]:
    """(y, x) of the tiles by the names of their files."""
    text = (folder / "TileConfiguration.registered.txt").read_text()
    lines = re.findall(r"^(.+?);.*;\s*\((\S+?),\s*(\S+?)\)\s*$", text, re.MULTILINE)
    return {name.strip(): (float(y), float(x)) for name, x, y in lines}


def real_tiles(folder: Path, offset: float) -> None:
    """The tables of real tiles."""
    places = positions(folder)
    names = sorted(path.name for path in folder.glob("*.tif*"))
    images = [tifffile.imread(folder / name) for name in names]
    stacks = {}
    for number, image in enumerate(images, 1):
        light = np.atleast_3d(image.T).T.astype(np.float32) - np.float32(offset)
        light[np.atleast_3d(image.T).T == np.iinfo(image.dtype).max] = np.nan
        stacks[number] = light
    origins = {n: places[name] for n, name in enumerate(names, 1) if name in places}
    tile_shape = stacks[1].shape[1:]
    flat = basic({n: np.nan_to_num(s, nan=65535 - offset) for n, s in stacks.items()}, 0.0)
    pairs, rejected = observed(stacks, origins, tile_shape)
    print(f"\n{len(stacks)} tiles, {len(origins)} with positions; {len(pairs)} overlaps could be")
    print(f"registered, {rejected} could not.")
    with np.errstate(invalid="ignore"):
        views = {number: in_bins(stack.mean(axis=0)) for number, stack in stacks.items()}
    before = np.log(in_bins(flat))
    learnt = []
    for fold in range(FOLDS):
        rest = [pair for k, pair in enumerate(pairs) if k % FOLDS != fold]
        learnt.append(refine_flatfield(rest, before, views, origins, tile_shape))
    whole = refine_flatfield(pairs, before, views, origins, tile_shape)
    header("flat-field", "median", "90th percentile", "RMS", "without gains: median", "90th", "RMS")
    named = {"none": [np.zeros_like(before)] * FOLDS, "BaSiC": [before] * FOLDS}
    named["refined"] = [before + one.log_change for one in learnt]
    for name, logs in named.items():
        left = [remainder(pair, logs[k % FOLDS]) for k, pair in enumerate(pairs)]
        shapes = [values - np.median(values) for values in left]
        row(name, *summary(left), *summary(shapes))
    print(f"\nReported: {100 * whole.error_before:.1f} -> {100 * whole.error_after:.1f} %", end="")
    print(f"{'' if whole.used else '; the flat-field stays, because ' + whole.reason}.")


def remainder(pair: OverlapPair, log_flatfield: FloatArray) -> FloatArray:
    """Log ratios of a pair once its views are divided by a flat-field in bins."""
    return pair.log_ratio_after(
        lambda y, x: np.asarray(
            map_coordinates(
                log_flatfield,
                [(y + 0.5) / BIN - 0.5, (x + 0.5) / BIN - 0.5],
                order=1,
                mode="nearest",
            )
        )
    )


def summary(parts: Sequence[FloatArray]) -> list[str]:
    """Median, 90th percentile and RMS of what is left, percent."""
    left = np.abs(np.concatenate(list(parts)))
    figures = np.median(left), np.quantile(left, 0.9), np.sqrt(np.mean(left**2))
    return [f"{100 * figure:.2f}" for figure in figures]


def main(arguments: Sequence[str] | None = None) -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="two small acquisitions")
    parser.add_argument("--real", type=Path, help="folder of real tiles with their positions")
    parser.add_argument("--offset", type=float, default=0.0, help="of the real camera, counts")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1])
    options = parser.parse_args(arguments)
    if options.real:
        real_tiles(options.real, options.offset)
        return
    header(
        "acquisition",
        "seed",
        "overlaps, rejected",
        "BaSiC",
        "refined",
        "reported: before",
        "after",
        "gains",
        "decision",
    )
    for name, changes in list(WORLDS.items())[: 1 if options.quick else None]:
        for seed in options.seeds:
            known_truth(name, seed, {**changes, "planes": 4} if options.quick else changes)


if __name__ == "__main__":
    main()
