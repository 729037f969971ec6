"""Empty planes that are found by looking at few slabs of each stack, as a Markdown table.

    python benchmarks/empty_slabs.py              tiles of 96, 96 planes (some minutes)
    python benchmarks/empty_slabs.py --quick      one world, to see that it runs

Mosaics of 3 x 3 tiles of known truth, slabs of 4 planes. What is asked: of the planes that were
looked at and called empty, and of those in the ranges that are named, how many hold sample. With
particles (debris) a range may reach over one that nobody looked at.
"""

from __future__ import annotations

import argparse
import sys
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from accuracy import header, row

from fractal_mesospim_shading.core.emptiness.deciding import decide
from fractal_mesospim_shading.core.emptiness.regions import regions_of
from fractal_mesospim_shading.core.emptiness.windows import Windows, choose_window_bin
from fractal_mesospim_shading.core.flatfield.binning import BinnedPlanes, bin_block
from fractal_mesospim_shading.flatfield.empty_sample import chosen_slabs

sys.path.insert(0, str(Path(__file__).parents[1]))
from tests.support.littered import LitteredWorld

DEPTH, SLAB, TILES = 96, 4, 9
NUMBERS = tuple(TILES * of_each for of_each in (1, 2, 3, 5, 9, 12, DEPTH // SLAB))

WORLDS: Mapping[str, Mapping[str, Any]] = {
    "corners are empty": {"sample_radius": 0.6},
    "ends are empty": {"sample_radius": 1.1},
    "small sample": {"sample_radius": 0.3},
    "dim sample": {"sample_radius": 0.6, "sample": 20.0},
    "tilted sample": {"sample_radius": 0.6, "sample": 100.0, "tilt": 1.0},
    "glow": {"sample_radius": 0.6, "sample": 60.0, "glow": 0.3},
    "gaps": {"sample_radius": 0.6, "gaps": 2},
    "particles": {"sample_radius": 0.6, "sample": 60.0, "debris": 60.0},
    "particles, ends are empty": {"sample_radius": 1.1, "sample": 60.0, "debris": 60.0},
}


def looked(world: LitteredWorld) -> Iterator[tuple[int, Counter[str]]]:
    """For each number of slabs, how many planes are empty, called so, named, and wrongly so."""
    excess = {(t, z): world.excess(t, z) for t in world.tile_numbers for z in world.taken}
    slabs = {
        t: [range(k, k + SLAB) for k in range(0, world.planes, SLAB)] for t in world.tile_numbers
    }
    bin_px = choose_window_bin(world.tile_shape)
    for number in NUMBERS:
        chosen = {t: [z for s in own for z in s] for t, own in chosen_slabs(slabs, number).items()}
        refs = [(t, z) for t, planes in chosen.items() for z in planes]
        binned = BinnedPlanes(len(refs), world.tile_shape, bin_px)
        begin = 0
        for t, planes in chosen.items():
            pixels = world.tile_planes(t, planes)
            slots = range(begin, begin + len(planes))
            binned.add(bin_block(pixels, 0, 0, bin_px, None, True), slots)
            begin = slots.stop
        decision = decide(Windows.of(binned.finish(), refs, world.planes))
        regions = regions_of(decision, refs, dict.fromkeys(chosen, (0, world.planes)), world.planes)
        called = [ref for ref, empty in zip(refs, decision.empty, strict=True) if empty]
        named = [
            (r.tile, z) for r in regions for first, last in r.ranges for z in range(first, last + 1)
        ]
        yield (
            number // TILES,
            Counter(
                empty=sum(value < 1e-3 for value in excess.values()),
                called=len(called),
                wrongly_called=sum(excess[ref] > 1 for ref in called),
                named=len(named),
                wrongly_named=sum(excess[ref] > 1 for ref in named),
            ),
        )


def main(arguments: Sequence[str] | None = None) -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="one world")
    parser.add_argument("--seeds", type=int, default=2, help="mosaics of each kind")
    options = parser.parse_args(arguments)
    found: dict[tuple[bool, int], Counter[str]] = {}
    for name, changes in list(WORLDS.items())[: 1 if options.quick else None]:
        for seed in range(1 if options.quick else options.seeds):
            world = LitteredWorld(tile_shape=(96, 96), planes=DEPTH, seed=seed, **changes)
            for of_each, counts in looked(world):
                key = ("particles" in name, of_each)
                found[key] = found.get(key, Counter()) + counts
    header(
        "particles",
        "slabs of a tile",
        "named of what is empty",
        "called",
        "wrong",
        "wrong of named",
    )
    for (particles, of_each), counts in sorted(found.items()):
        share = f"{counts['named'] / counts['empty']:.0%}"
        wrong = f"{counts['wrongly_named'] / max(counts['named'], 1):.1%}"
        row(
            "yes" if particles else "no",
            of_each,
            share,
            counts["called"],
            counts["wrongly_called"],
            wrong,
        )


if __name__ == "__main__":
    main()
