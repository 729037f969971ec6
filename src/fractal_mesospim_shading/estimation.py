"""From a scenario to one shading profile per channel: the only choice among scenarios."""

from __future__ import annotations

import io
import json
import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fractal_mesospim_shading.core.binning import BinnedStack
from fractal_mesospim_shading.core.profile import ShadingProfile, resample
from fractal_mesospim_shading.core.sampling import choose_planes, empty_planes
from fractal_mesospim_shading.errors import LayoutError, SamplingError
from fractal_mesospim_shading.images.source import Channel, MultitileImage
from fractal_mesospim_shading.params import (
    Basic,
    BasicpyModelParams,
    EmptyRegions,
    FlatfieldOptions,
    MeasuredProfile,
    Scenario,
    choose_scenario,
)
from fractal_mesospim_shading.sampling import (
    PlaneRef,
    Sample,
    layout_at_level,
    plane_count,
    read_sample,
    time_count,
    z_factor,
)

logger = logging.getLogger(__name__)

_OFFSET_PLANES = 48
"""Planes at full resolution from which the offset is estimated where nothing else is read."""

_WORST_OFFSET = 5.0
"""Counts of uncertainty above which an estimated offset is not used."""

Dark = NDArray[np.float32] | float | None


@dataclass(frozen=True)
class ChannelModel:
    """What the correction of one channel uses.

    Attributes:
        profile: flat-field, and dark-field where it was measured.
        offset: counts to subtract where the profile has no dark-field.
        facts: where it comes from, as JSON, for log, provenance and report.
    """

    profile: ShadingProfile
    offset: float
    facts: dict[str, Any] = field(default_factory=dict)

    def to_bytes(self) -> bytes:
        """For the folder of a job, so that a continued run need not estimate again."""
        arrays: dict[str, Any] = {"flatfield": self.profile.flatfield}
        if self.profile.darkfield is not None:
            arrays["darkfield"] = self.profile.darkfield
        if self.profile.baseline is not None:
            arrays["baseline"] = self.profile.baseline
        rest = {"offset": self.offset, "facts": self.facts, "scale": self.profile.scale}
        buffer = io.BytesIO()
        np.savez(buffer, rest=json.dumps(rest), **arrays)
        return buffer.getvalue()

    @classmethod
    def from_bytes(cls, data: bytes) -> ChannelModel:
        """The inverse of `to_bytes`, to the last bit."""
        with np.load(io.BytesIO(data), allow_pickle=False) as content:
            rest = json.loads(str(content["rest"]))
            dark: Dark = None
            if "darkfield" in content:
                array = content["darkfield"]
                dark = array.item() if array.ndim == 0 else array
            baseline = content["baseline"].item() if "baseline" in content else None
            profile = ShadingProfile(content["flatfield"], dark, baseline, rest["scale"])
        return cls(profile, rest["offset"], rest["facts"])


@dataclass(frozen=True)
class EstimationPlan:
    """What is to be read for the models of an image; made and checked before a pixel is read.

    Attributes:
        scenario: the one chosen.
        level: of the pyramid that flat-fields are estimated from.
        candidates: tile number -> planes of that level that may be drawn.
        models: measured profiles by channel label, in the first scenario.
        dark: measured dark frame by channel label.
    """

    scenario: Scenario
    level: int
    candidates: Mapping[int, Sequence[int]]
    models: Mapping[str, ShadingProfile] = field(default_factory=dict)
    dark: Mapping[str, NDArray[np.float32] | float] = field(default_factory=dict)


def plan_estimation(
    image: MultitileImage,
    options: FlatfieldOptions,
    models: Mapping[str, ShadingProfile],
    dark: Mapping[str, NDArray[np.float32] | float],
) -> EstimationPlan:
    """Choose scenario, level and planes.

    Raises:
        LayoutError: a tile number that the mosaic does not have, or one given twice.
        SamplingError: z-levels that leave nothing, a level that does not exist.
    """
    scenario = choose_scenario(options)
    level = options.resolution_level
    if level is None:
        level = len(image.levels) - 1 if isinstance(scenario, Basic) else 0
    if level >= len(image.levels):
        raise SamplingError(
            f"resolution_level is {level}, but the image has the levels 0 to "
            f"{len(image.levels) - 1}."
        )
    tiles = [tile.number for tile in image.layout.tiles]
    n_z = plane_count(image, level)
    planes: Sequence[int] = range(n_z)
    if isinstance(scenario, EmptyRegions):
        if scenario.fov_list is not None:
            tiles = _checked_tiles(image, scenario.fov_list)
        else:
            tiles = list(image.layout.corners)
            if not tiles:
                raise SamplingError(
                    "All four corner tiles of this mosaic are missing; name the tiles whose end "
                    "planes are empty in fov_list."
                )
        if scenario.z_levels is not None:
            planes = empty_planes(plane_count(image, 0), scenario.z_levels, z_factor(image, level))
            planes = [z for z in planes if z < n_z]
    every = [t * n_z + z for t in range(time_count(image)) for z in planes]
    return EstimationPlan(scenario, level, dict.fromkeys(tiles, every), models, dark)


def _checked_tiles(image: MultitileImage, numbers: Sequence[int]) -> list[int]:
    repeated = sorted({n for n in numbers if list(numbers).count(n) > 1})
    if repeated:
        raise LayoutError(f"fov_list names the tiles {repeated} more than once.")
    try:
        return [image.layout.tile(number).number for number in numbers]
    except LayoutError as error:
        raise LayoutError(
            f"fov_list: {error} The tiles of this image are:\n{image.layout.map_text()}"
        ) from None


def estimate_channel(
    image: MultitileImage,
    channel: Channel,
    plan: EstimationPlan,
    options: FlatfieldOptions,
    *,
    zero_fill: bool,
    workers: int,
) -> ChannelModel:
    """The model of one channel.

    Args:
        image: to read from.
        channel: of the image.
        plan: from `plan_estimation`.
        options: number of planes, seed, offset, parameters of BaSiC.
        zero_fill: whether chunks that are not there read as 0.
        workers: boxes read at a time.
    """
    if isinstance(plan.scenario, MeasuredProfile):
        return _measured(image, channel, plan, options, zero_fill=zero_fill, workers=workers)
    layout = layout_at_level(image, plan.level)
    refs = _drawn(image, plan.candidates, plan.level, options.n_zplanes, options.seed)
    dark = _dark_at(plan.dark.get(channel.label), layout.tile_shape)
    sample = Sample(channel.index, plan.level, refs, layout)
    no_data = zero_fill and options.camera_offset != 0
    stack = read_sample(image, sample, dark=dark, zero_is_no_data=no_data, workers=workers)
    offset, facts = _offset(
        image, channel, stack, plan, options, zero_fill=zero_fill, workers=workers
    )
    if no_data and dark is None and offset <= 0:
        stack = _with_zeros(stack)
    facts |= {"level": plan.level, "seed": options.seed, "tiles": sorted(plan.candidates)}
    facts["saturated_sampled"] = stack.saturated
    dark_counts = 0.0 if dark is not None else offset
    if isinstance(plan.scenario, Basic):
        profile, more = _basic(stack, image.layout.tile_shape, dark_counts, plan.scenario.params)
    else:
        profile, more = _empty(stack, dark_counts, facts.get("offset_uncertainty", 0.0))
    if dark is not None:
        profile = replace(profile, darkfield=plan.dark[channel.label])
    return ChannelModel(profile, offset, {**facts, **more})


def _drawn(
    image: MultitileImage,
    candidates: Mapping[int, Sequence[int]],
    level: int,
    n_planes: int,
    seed: int,
) -> tuple[PlaneRef, ...]:
    depth = image.read_units(level)[image.axes.index("z")] if "z" in image.axes else 1
    return tuple(choose_planes(candidates, n_planes, seed, depth))


def _dark_at(dark: Dark, tile_shape: tuple[int, int]) -> Dark:
    if isinstance(dark, np.ndarray) and dark.shape != tile_shape:
        return resample(dark, tile_shape)
    return dark


def _with_zeros(stack: BinnedStack) -> BinnedStack:
    """The same planes with single zeros counted as values: there is no offset to miss."""
    height, width = stack.tile_shape
    rows = np.diff(np.append(np.arange(0, height, stack.bin_px), height))
    columns = np.diff(np.append(np.arange(0, width, stack.bin_px), width))
    share = stack.count / (rows[:, None] * columns[None, :])
    return replace(stack, mean=(stack.mean * share).astype(np.float32))


def _measured(
    image: MultitileImage,
    channel: Channel,
    plan: EstimationPlan,
    options: FlatfieldOptions,
    *,
    zero_fill: bool,
    workers: int,
) -> ChannelModel:
    profile = plan.models[channel.label]
    facts: dict[str, Any] = {"scenario": "measured model", "scale": profile.scale}
    if profile.darkfield is None and channel.label in plan.dark:
        profile = replace(profile, darkfield=plan.dark[channel.label])
    if profile.darkfield is not None:
        return ChannelModel(profile, 0.0, {**facts, **_dark_facts(profile.darkfield)})
    offset, more = _offset(image, channel, None, plan, options, zero_fill=zero_fill, workers=workers)
    return ChannelModel(profile, offset, {**facts, **more})


def _dark_facts(dark: NDArray[np.float32] | float) -> dict[str, Any]:
    return {"offset": float(np.mean(dark)), "offset_from": "measured dark-field"}


def _offset(
    image: MultitileImage,
    channel: Channel,
    stack: BinnedStack | None,
    plan: EstimationPlan,
    options: FlatfieldOptions,
    *,
    zero_fill: bool,
    workers: int,
) -> tuple[float, dict[str, Any]]:
    """The camera offset in counts: measured, given, or estimated from the noise."""
    if channel.label in plan.dark:
        return 0.0, _dark_facts(plan.dark[channel.label])
    if options.camera_offset is not None:
        return options.camera_offset, {"offset": options.camera_offset, "offset_from": "given"}
    from fractal_mesospim_shading.core.offset import estimate_offset

    if stack is None or plan.level > 0:
        # The noise of averaged pixels says nothing about the camera.
        n_z = plane_count(image, 0) * time_count(image)
        candidates = {tile.number: range(n_z) for tile in image.layout.tiles}
        if stack is not None and isinstance(plan.scenario, EmptyRegions):
            factor = z_factor(image, plan.level)
            candidates = {
                tile: range(min(planes) * factor, min((max(planes) + 1) * factor, n_z))
                for tile, planes in plan.candidates.items()
            }
        refs = _drawn(image, candidates, 0, _OFFSET_PLANES, options.seed)
        sample = Sample(channel.index, 0, refs, image.layout)
        stack = read_sample(image, sample, dark=None, zero_is_no_data=zero_fill, workers=workers)
    estimate = estimate_offset(stack, mostly_empty=isinstance(plan.scenario, EmptyRegions))
    facts: dict[str, Any] = {
        "offset": estimate.value,
        "offset_uncertainty": estimate.uncertainty,
        "offset_from": f"estimated ({estimate.method})",
    }
    if not estimate.uncertainty <= _WORST_OFFSET:
        logger.warning(
            "Channel %s: the camera offset cannot be told from the noise (%.1f +- %.1f counts); 0 "
            "is used, and the flat-field will be too flat. Give camera_offset or darkfield_file.",
            channel.label,
            estimate.value,
            estimate.uncertainty,
        )
        return 0.0, {**facts, "offset": 0.0, "offset_rejected": estimate.value}
    value = estimate.value if estimate.value > estimate.uncertainty else 0.0
    return value, {**facts, "offset": value}


def _empty(
    stack: BinnedStack, offset: float, uncertainty: float
) -> tuple[ShadingProfile, dict[str, Any]]:
    from fractal_mesospim_shading.core.estimate import estimate_flatfield

    estimate = estimate_flatfield(stack, offset, offset_uncertainty=uncertainty)
    return estimate.profile, {
        "scenario": "empty regions",
        "planes_used": len(estimate.planes_used),
        "planes_rejected": len(estimate.planes_rejected),
        "brightness": float(estimate.brightness),
        "masked_fraction": float(estimate.masked_fraction),
        "relative_noise": float(estimate.relative_noise),
        "relative_uncertainty": float(estimate.relative_uncertainty),
        "scale": estimate.profile.scale,
    }


def _basic(
    stack: BinnedStack,
    tile_shape: tuple[int, int],
    offset: float,
    params: BasicpyModelParams,
) -> tuple[ShadingProfile, dict[str, Any]]:
    from fractal_mesospim_shading.core.basic import (
        BasicParameters,
        basic_planes,
        fit_basic,
        profile_from_basic,
    )

    parameters = BasicParameters(**params.model_dump())
    planes = basic_planes(stack, offset, parameters)
    profile = profile_from_basic(fit_basic(planes, parameters), tile_shape, offset)
    return profile, {"scenario": "BaSiCPy", "planes_used": len(planes), "scale": profile.scale}


def facts_line(label: str, model: ChannelModel) -> str:
    """One line for the log."""
    facts = model.facts
    text = f"Channel {label}: {facts['scenario']}"
    if "planes_used" in facts:
        text += f", {facts['planes_used']} planes used"
    if facts.get("planes_rejected"):
        text += f", {facts['planes_rejected']} left out because they hold sample"
    text += f"; camera offset {facts['offset']:.1f}"
    if "offset_uncertainty" in facts:
        text += f" +- {facts['offset_uncertainty']:.1f}"
    low, high = np.percentile(model.profile.flatfield, [1, 99])
    return (
        f"{text} ({facts['offset_from']}); flat-field {low:.2f} to {high:.2f} (mean 1, "
        f"divided by {facts['scale']:.5g})"
    )


def parameters_of(options: FlatfieldOptions) -> dict[str, Any]:
    """The options that decide the bytes of a result, without paths, as JSON."""
    left_out = {
        "execution",
        "n_workers",
        "scheduler_address",
        "memory_limit",
        "storage_options",
        "output_folder",
        "output_image_name",
        "overwrite",
        "overwrite_input",
        "restart",
        "save_models",
        "report",
        "models_folder",
        "darkfield_file",
    }
    dumped: dict[str, Any] = options.model_dump(mode="json", exclude=left_out)
    return dumped


def model_digest(model: ShadingProfile) -> str:
    """Fingerprint of a measured profile, for provenance and to match a continued run."""
    import hashlib

    digest = hashlib.sha256(model.flatfield.tobytes())
    digest.update(np.asarray(model.darkfield if model.darkfield is not None else 0).tobytes())
    digest.update(json.dumps(model.baseline).encode())
    return digest.hexdigest()[:16]
