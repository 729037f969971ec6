"""The accuracy of the flat-field on mosaics of known truth, as Markdown tables.

    python benchmarks/accuracy.py            tiles of 512 and 2048 (about 10 minutes)
    python benchmarks/accuracy.py --quick    tiles of 128, to see that it runs
    python benchmarks/accuracy.py --cameras --seeds 20    cameras of all kinds (hours)

Every row estimates from simulated planes with nothing but the scenario's own
parameters given, and compares with the flat-field that made the planes. RMS and
maximum are of the estimate over the truth, minus 1.
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import groupby
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fractal_mesospim_shading.core.flatfield.basic import (
    basic_planes,
    fit_basic,
    fit_in_turn,
    profile_from_basic,
)
from fractal_mesospim_shading.core.flatfield.binning import BinnedPlanes, BinnedStack, bin_block
from fractal_mesospim_shading.core.flatfield.drawing import choose_planes
from fractal_mesospim_shading.core.flatfield.emptiness import median_along_first
from fractal_mesospim_shading.core.flatfield.estimate import EmptyEstimate, estimate_flatfield
from fractal_mesospim_shading.core.flatfield.offset import OffsetEstimate, Pixels, estimate_offset
from fractal_mesospim_shading.core.profile import ShadingProfile, resample
from fractal_mesospim_shading.options.basic import BasicpyModelParams
from fractal_mesospim_shading.synthetic.world import LightSheetWorld

Z_CHUNK = 8


@dataclass(frozen=True)
class Sampled:
    """Binned planes as they are, and with the measured dark frame taken off."""

    raw: BinnedStack
    dark_off: BinnedStack
    dark_frame: NDArray[np.float32]
    with_sample: int


def sample(
    world: LightSheetWorld, candidates: Mapping[int, Sequence[int]], n_planes: int
) -> Sampled:
    """Simulate and bin planes, one slab of one tile at a time."""
    chosen = choose_planes(candidates, n_planes, seed=world.seed, z_chunk=Z_CHUNK)
    dark = world.measured_dark_frame()
    raw, dark_off = (BinnedPlanes(len(chosen), world.tile_shape) for _ in range(2))
    slot = 0
    for _, group in groupby(chosen, key=lambda plane: (plane[0], plane[1] // Z_CHUNK)):
        planes = list(group)
        block = world.tile_planes(planes[0][0], [z for _, z in planes])
        slots = range(slot, slot + len(planes))
        # A 0 of whole counts is no data, as jobs take it where an offset is looked for.
        no_data = world.pixel_type != "float32"
        raw.add(bin_block(block, 0, 0, raw.bin_px, None, no_data), slots)
        dark_off.add(bin_block(block, 0, 0, raw.bin_px, dark, no_data), slots)
        slot += len(planes)
    with_sample = sum(not world.is_empty(*plane) for plane in chosen)
    integer = world.pixel_type != "float32"
    return Sampled(raw.finish(integer), dark_off.finish(integer), dark, with_sample)


def errors(world: LightSheetWorld, flatfield: NDArray[np.floating[Any]]) -> tuple[float, float]:
    """RMS and largest error of a flat-field, percent."""
    wrong = flatfield / flatfield.mean() / world.flatfield() - 1
    return 100 * float(np.sqrt((wrong**2).mean())), 100 * float(np.abs(wrong).max())


def found_offset(
    world: LightSheetWorld, stack: BinnedStack, *, mostly_empty: bool
) -> OffsetEstimate:
    """The offset as a job finds it in an image that nothing is known of."""
    pixels = Pixels(raw=world.pixel_type == "uint16")
    return estimate_offset(stack, mostly_empty=mostly_empty, pixels=pixels)


def from_empty(world: LightSheetWorld, data: Sampled) -> tuple[OffsetEstimate, EmptyEstimate]:
    """Offset and flat-field with nothing given."""
    offset = found_offset(world, data.raw, mostly_empty=True)
    return offset, estimate_flatfield(data.raw, offset.value, offset_uncertainty=offset.uncertainty)


def with_basic(
    world: LightSheetWorld,
    stack: BinnedStack,
    offset: float,
    settings: Mapping[str, Any],
) -> ShadingProfile:
    """Flat-field of BaSiC."""
    fit = fit_basic(basic_planes(stack, offset, settings["working_size"]), settings)
    return profile_from_basic(fit, world.tile_shape, offset)


def plain_median(world: LightSheetWorld, stack: BinnedStack) -> NDArray[np.float32]:
    """Median over the planes, offset left in, as most scripts do."""
    return resample(median_along_first(stack.mean.astype(np.float64)), world.tile_shape)


def row(*cells: object) -> None:
    """Print one row of a Markdown table."""
    print("| " + " | ".join(str(cell) for cell in cells) + " |", flush=True)


def header(*cells: str) -> None:
    """Print the head of a Markdown table."""
    print()
    row(*cells)
    row(*["---"] * len(cells))


def accuracy_table(
    sizes: Sequence[int], n_empty: int, n_basic: int, *, variants: bool = True
) -> None:
    """The scenarios at several tile sizes."""
    header("tile", "scenario", "planes", "offset found", "RMS %", "largest %", "reported %")
    for size in sizes:
        world = LightSheetWorld(tile_shape=(size, size), planes=64, sample_radius=0.45)
        data = sample(world, {tile: range(world.planes) for tile in (1, 9)}, n_empty)
        empty_rows(world, data, "empty tiles")
        true = estimate_flatfield(data.raw, world.offset).profile.flatfield
        report(world, "empty tiles, true mean offset given", n_empty, "", true)
        dark = estimate_flatfield(data.dark_off, dark_frame=data.dark_frame)
        report(
            world,
            "empty tiles, measured dark frame",
            n_empty,
            "",
            dark.profile.flatfield,
            f"{100 * dark.relative_uncertainty:.2f}",
        )
        report(
            world,
            "*plain median, offset left in*",
            n_empty,
            "",
            plain_median(world, data.raw),
        )
        world = replace(world, sample_radius=0.65)
        planes = [*range(24), *range(40, 64)]
        data = sample(world, dict.fromkeys((1, 3, 7, 9), planes), n_empty)
        empty_rows(world, data, f"empty z-levels ({data.with_sample} planes hold sample)")
        report(
            world,
            "*plain median, offset left in*",
            n_empty,
            "",
            plain_median(world, data.raw),
        )
        for radius, what in (
            (0.65, "sample in the middle"),
            (1.1, "sample nearly everywhere"),
        ):
            basic_rows(replace(world, sample_radius=radius), n_basic, what, variants=variants)


def empty_rows(world: LightSheetWorld, data: Sampled, name: str) -> None:
    """An empty-region scenario with nothing given."""
    offset, found = from_empty(world, data)
    rejected = (
        f"{name}; {len(found.planes_rejected)} rejected, "
        f"{len(found.planes_partly_used)} used in part"
    )
    report(
        world,
        rejected,
        len(data.raw.mean),
        f"{offset.value:.1f} ± {offset.uncertainty:.1f}",
        found.profile.flatfield,
        f"{100 * found.relative_uncertainty:.2f}",
    )


def basic_rows(world: LightSheetWorld, n_planes: int, what: str, *, variants: bool) -> None:
    """BaSiC with our defaults, with others, and as BaSiCPy does it by itself."""
    every = {tile: range(world.planes) for tile in world.tile_numbers}
    data = sample(world, every, n_planes)
    offset = found_offset(world, data.raw, mostly_empty=False)
    text = f"{offset.value:.1f} ± {offset.uncertainty:.1f}"
    ours = BasicpyModelParams().model_dump()
    choices = {f"BaSiC, {what} ({data.with_sample} planes)": ours}
    if variants:
        choices["BaSiC, ladmap"] = {**ours, "fitting_mode": "ladmap"}
        choices["BaSiC, autosegment"] = {**ours, "autosegment": True}
        choices["BaSiC, darkfield fitted"] = {**ours, "get_darkfield": True}
    for name, settings in choices.items():
        flat = with_basic(world, data.raw, offset.value, settings).flatfield
        report(world, name, n_planes, text, flat)
    flat = with_basic(world, data.raw, 0.0, {**ours, "fitting_mode": "ladmap"}).flatfield
    report(world, "*BaSiCPy's own defaults, offset left in*", n_planes, "", flat)


def report(
    world: LightSheetWorld,
    name: str,
    planes: int,
    offset: str,
    flatfield: NDArray[np.floating[Any]],
    reported: str = "",
) -> None:
    """One row of the accuracy table."""
    rms, largest = errors(world, flatfield)
    row(
        world.tile_shape[0],
        name,
        planes,
        offset,
        f"{rms:.2f}",
        f"{largest:.1f}",
        reported,
    )


def variation_table(size: int, n_planes: int) -> None:
    """Empty tiles, one property of the world varied at a time.

    Covered: both errors are within twice the uncertainty that was reported.
    """
    header(
        "varied",
        "offset error",
        "reported",
        "RMS %",
        "reported %",
        "dark frame: RMS %",
        "reported %",
        "both covered",
    )
    base = LightSheetWorld(tile_shape=(size, size), planes=64, sample=0.0, seed=1)
    variations: dict[str, dict[str, Any]] = {"nothing": {}}
    for name, values in {
        "shape": ("vignette", "tilted", "band"),
        "waist": (0.25, 0.9),
        "falloff": (0.3, 0.8),
        "streaks": (0.0, 0.02, 0.04),
        "offset": (90.0, 150.0, 210.0),
        "gain": (0.2, 0.5, 1.0, 4.0),
        "read_noise": (1.0, 1.5, 2.0),
        "medium": (10.0, 20.0, 120.0, 300.0),
        "dark_structure": (0.0, 2.0),
        "seed": (2, 3),
    }.items():
        for value in values:
            variations[f"{name} {value}"] = {name: value}
    for name, changes in variations.items():
        world = replace(base, **changes)
        data = sample(world, {tile: range(world.planes) for tile in (1, 9)}, n_planes)
        offset, found = from_empty(world, data)
        dark = estimate_flatfield(data.dark_off, dark_frame=data.dark_frame)
        wrong = offset.value - world.offset
        rms, dark_rms = (errors(world, e.profile.flatfield)[0] for e in (found, dark))
        covered = abs(wrong) <= 2 * offset.uncertainty
        covered &= rms <= 200 * found.relative_uncertainty
        row(
            name,
            f"{wrong:+.2f}",
            f"{offset.uncertainty:.2f}",
            f"{rms:.2f}",
            f"{100 * found.relative_uncertainty:.2f}",
            f"{dark_rms:.3f}",
            f"{100 * dark.relative_uncertainty:.3f}",
            "yes" if covered else "**no**",
        )


CAMERA_WORLDS: Mapping[str, Mapping[str, Any]] = {
    "photons and read noise": {},
    "scientific CMOS": {"camera": "scientific CMOS"},
    "steps of one standard deviation": {"camera": "stepped"},
    "shared by neighbours (1-2-1)": {"camera": "shared"},
    "bright noise cut at 2.5 sigma": {"camera": "despeckled"},
    "Gaussian": {"camera": "gaussian"},
    "shifted by 0.25 pixels": {"camera": "shifted by 0.25"},
    "shifted by 0.5 pixels": {"camera": "shifted by 0.5"},
    "averages of 4 frames": {"camera": "averaged"},
    "offset 0": {"offset": 0.0},
    "8 bit, offset 20": {"offset": 20.0, "pixel_type": "uint8"},
    "floats": {"pixel_type": "float32"},
}
"""What differs from the world of the first table."""

_ENDS = [*range(24), *range(40, 64)]
CAMERA_SCENARIOS: Mapping[str, tuple[float, Mapping[int, Sequence[int]], int]] = {
    "empty tiles": (0.45, {tile: range(64) for tile in (1, 9)}, 120),
    "empty z-levels": (0.65, dict.fromkeys((1, 3, 7, 9), _ENDS), 120),
    "BaSiC": (0.65, {tile: range(64) for tile in range(1, 10)}, 200),
}
"""Radius of the sample, planes to draw from, and how many."""


@dataclass(frozen=True)
class CameraResult:
    """One estimate with nothing given: errors of the offset (counts) and of the flat-field (%)."""

    wrong: float
    uncertainty: float
    rms: float
    reported: float

    @property
    def covered(self) -> bool:
        """Whether the offset is within twice its uncertainty."""
        return abs(self.wrong) <= 2 * self.uncertainty


def camera_result(world: LightSheetWorld, stack: BinnedStack, scenario: str) -> CameraResult:
    """Offset and flat-field of one world."""
    empty = scenario != "BaSiC"
    offset = found_offset(world, stack, mostly_empty=empty)
    uncertainty = offset.uncertainty
    if empty:
        found = estimate_flatfield(stack, offset.value, offset_uncertainty=uncertainty)
        flat, reported = found.profile.flatfield, 100 * found.relative_uncertainty
    else:
        settings = BasicpyModelParams().model_dump()
        fit, planes, used, _ = fit_in_turn(stack, offset.value, uncertainty, settings)
        flat = profile_from_basic(fit, world.tile_shape, used).flatfield
        reported = 100 * float(np.std(flat)) * uncertainty / float(np.median(planes))
    rms, _ = errors(world, flat)
    return CameraResult(offset.value - world.offset, uncertainty, rms, reported)


def camera_row(camera: str, scenario: str, results: Sequence[CameraResult]) -> None:
    """One row of the table of cameras."""
    wrong, uncertainty, rms, reported = (
        np.array([getattr(result, name) for result in results])
        for name in ("wrong", "uncertainty", "rms", "reported")
    )
    row(
        camera,
        scenario,
        f"{wrong.mean():+.1f}",
        f"{np.abs(wrong).max():.1f}",
        f"{np.median(uncertainty):.1f}",
        f"{sum(result.covered for result in results)} of {len(results)}",
        f"{np.median(rms):.2f}",
        f"{rms.max():.2f}",
        f"{np.median(reported):.2f}",
    )


def camera_header() -> None:
    """The head of the table of cameras."""
    header(
        "noise",
        "scenario",
        "offset: mean error",
        "largest",
        "reported",
        "within twice that",
        "RMS %",
        "largest RMS %",
        "reported %",
    )


def camera_table(size: int, seeds: Sequence[int]) -> None:
    """Cameras of all kinds, each scenario, some seeds."""
    camera_header()
    for camera, changes in CAMERA_WORLDS.items():
        for scenario, (radius, candidates, number) in CAMERA_SCENARIOS.items():
            results = []
            for seed in seeds:
                world = LightSheetWorld((size, size), planes=64, sample_radius=radius, seed=seed)
                world = replace(world, **changes)
                data = sample(world, candidates, number)
                results.append(camera_result(world, data.raw, scenario))
            camera_row(camera, scenario, results)


def main(arguments: Sequence[str] | None = None) -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="small tiles, few planes")
    parser.add_argument("--sizes", type=int, nargs="+", help="tile sizes of the first table")
    parser.add_argument("--no-variations", action="store_true")
    parser.add_argument("--cameras", action="store_true", help="the table of cameras alone")
    parser.add_argument("--seeds", type=int, default=3, help="worlds for each row of that")
    parser.add_argument("--first-seed", type=int, default=0, help="of these worlds")
    options = parser.parse_args(arguments)
    if options.cameras:
        seeds = range(options.first_seed, options.first_seed + options.seeds)
        camera_table(128 if options.quick else 512, seeds)
        return
    n_empty, n_basic = (40, 40) if options.quick else (120, 200)
    sizes = options.sizes or ([128] if options.quick else [512, 2048])
    accuracy_table(sizes, n_empty, n_basic, variants=not options.quick)
    if not options.no_variations:
        variation_table(128 if options.quick else 512, n_empty)


if __name__ == "__main__":
    main()
