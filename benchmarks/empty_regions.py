"""Empty planes that are found by themselves, against the best choice by hand, as a Markdown table.

    python benchmarks/empty_regions.py            tiles of 256 (some minutes)
    python benchmarks/empty_regions.py --quick    tiles of 96, to see that it runs

Every row is a mosaic of 3 x 3 tiles of known truth. All planes are looked at; the flat-field is
estimated from those that are called empty, with nothing else given, and from what a person
would name who knows the truth: tiles without sample, the ends of the stacks of the corner tiles,
or of all tiles. The best of these is the best choice by hand. RMS is of the estimate over the
truth, minus 1.
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from accuracy import errors, from_empty, header, row, sample

from fractal_mesospim_shading.core.emptiness.deciding import decide
from fractal_mesospim_shading.core.emptiness.windows import Windows, choose_window_bin
from fractal_mesospim_shading.core.flatfield.binning import BinnedPlanes, bin_block
from fractal_mesospim_shading.errors import ShadingError
from fractal_mesospim_shading.synthetic.world import LightSheetWorld

Planes = Mapping[int, Sequence[int]]

WORLDS: Mapping[str, Mapping[str, Any]] = {
    "corner tiles are empty": {"sample_radius": 0.45},
    "corner tiles are empty, dim sample": {"sample_radius": 0.45, "sample": 10.0},
    "the ends of all stacks are empty": {"sample_radius": 0.65},
    "ends are empty, dim sample": {"sample_radius": 0.65, "sample": 10.0},
    "ends are empty, medium of 10 counts": {"sample_radius": 0.65, "medium": 10.0, "sample": 60.0},
    "sample nearly everywhere": {"sample_radius": 1.1},
    "a scientific CMOS camera": {"sample_radius": 0.65, "camera": "scientific CMOS"},
    "noise shared by neighbours": {"sample_radius": 0.65, "camera": "shared"},
    "averages of 4 frames": {"sample_radius": 0.65, "camera": "averaged"},
}


def found_empty(world: LightSheetWorld) -> tuple[Planes, float]:
    """The planes that are called empty, and the share of those that are empty which they are."""
    every, bin_px = range(world.planes), choose_window_bin(world.tile_shape)
    refs = [(tile, z) for tile in world.tile_numbers for z in every]
    binned = BinnedPlanes(len(refs), world.tile_shape, bin_px)
    for k, tile in enumerate(world.tile_numbers):
        slots = range(k * world.planes, (k + 1) * world.planes)
        binned.add(bin_block(world.tile_planes(tile, every), 0, 0, bin_px, None, True), slots)
    empty = decide(Windows.of(binned.finish(), refs, world.planes)).empty
    truth = np.array([world.is_empty(*ref) for ref in refs])
    planes: dict[int, list[int]] = {}
    for (tile, z), own in zip(refs, empty, strict=True):
        if own:
            planes.setdefault(tile, []).append(z)
    return planes, float(empty[truth].mean())


def by_hand(world: LightSheetWorld) -> dict[str, Planes]:
    """What a person would name who knows which planes are empty."""
    empty = {
        tile: [z for z in range(world.planes) if world.is_empty(tile, z)]
        for tile in world.tile_numbers
    }
    whole = {tile: planes for tile, planes in empty.items() if len(planes) == world.planes}
    corners = {tile: empty[tile] for tile in (1, 3, 7, 9)}
    shared = set.intersection(*(set(planes) for planes in corners.values()))
    choices = {
        "tiles": whole,
        "ends of the corner tiles": dict.fromkeys(corners, sorted(shared)),
        "all that is empty": {tile: planes for tile, planes in empty.items() if planes},
    }
    return {name: planes for name, planes in choices.items() if any(planes.values())}


def wrong(world: LightSheetWorld, planes: Planes, number: int) -> float:
    """RMS error in percent of a flat-field from planes; infinite where none can be estimated."""
    try:
        _, found = from_empty(world, sample(world, planes, number))
    except ShadingError:
        return float("inf")
    return errors(world, found.profile.flatfield)[0]


def main(arguments: Sequence[str] | None = None) -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="small tiles, few planes")
    parser.add_argument("--seeds", type=int, default=1, help="worlds for each row")
    options = parser.parse_args(arguments)
    size, depth, number = (96, 24, 40) if options.quick else (256, 64, 120)
    header("mosaic", "seed", "found of what is empty", "best by hand", "RMS %", "found: RMS %")
    for name, changes in WORLDS.items():
        for seed in range(options.seeds):
            world = LightSheetWorld((size, size), planes=depth, seed=seed, **changes)
            planes, share = found_empty(world)
            hand = {what: wrong(world, own, number) for what, own in by_hand(world).items()}
            best = min(hand, key=lambda what: hand[what])
            ours = wrong(world, planes, number) if planes else float("inf")
            cells = (name, seed, f"{100 * share:.0f} %", best)
            row(*cells, f"{hand[best]:.2f}", f"{ours:.2f}")


if __name__ == "__main__":
    main()
