"""Which option goes before another: the scenario that is meant, and options that are not used.

Where the documentation says that one option goes before another, the other is passed over,
and a line of the log says so. An option that can do nothing at all here is an error: who
gave it expects something of it.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Any

from pydantic import BaseModel

from fractal_mesospim_shading.core.background import BackgroundMethod
from fractal_mesospim_shading.errors import ParameterError
from fractal_mesospim_shading.options.base import OutputOptions
from fractal_mesospim_shading.options.basic import BasicpyModelParams
from fractal_mesospim_shading.options.flatfield import (
    EstimationOptions,
    ImportOptions,
)

IMAGE_OPTIONS = (
    *OutputOptions.model_fields,
    "output_image_name",
    "overwrite_input",
    "save_models",
    "background",
    "output_offset",
    "output_type",
    "subtract_baseline",
    "tile_gains",
    "side_gains",
    "outside_tiles",
    "execution",
    "scheduler_address",
    "durable",
)
"""What an estimate without a correction has no use for."""


_OF_ESTIMATES = (
    "scenario",
    "fov_list",
    "z_levels",
    "basicpy_model_params",
    "basic_python",
    "n_zplanes",
    "resolution_level",
    "skip_empty_channels",
    "overlap_refine",
)


@dataclass(frozen=True)
class MeasuredProfile:
    """Scenario 1: flat-fields measured before."""

    models_folder: str | None


@dataclass(frozen=True)
class EmptyRegions:
    """Scenario 2: tiles, planes or both that hold no sample."""

    fov_list: tuple[int, ...] | None
    z_levels: tuple[int, ...] | None


@dataclass(frozen=True)
class Basic:
    """Scenario 3: the statistics of all planes."""

    params: BasicpyModelParams
    python: str | None = None


@dataclass(frozen=True)
class Automatic:
    """What of the image turns out to be empty; else the statistics of all planes."""

    basic: Basic


Scenario = MeasuredProfile | EmptyRegions | Basic | Automatic


def choose_scenario(options: EstimationOptions) -> Scenario:
    """Turn the flat arguments into the one scenario they mean.

    | models_folder | fov_list | z_levels | scenario | what it means |
    |---|---|---|---|---|
    | given | any | any | any | `MeasuredProfile` |
    | unset | given | unset | any | `EmptyRegions`: those tiles, all planes |
    | unset | unset | given | any | `EmptyRegions`: corner tiles, planes outside the levels |
    | unset | given | given | any | `EmptyRegions`: those tiles, planes outside the levels |
    | unset | unset | unset | auto | `Automatic`: what is found to be empty, else `Basic` |
    | unset | unset | unset | given | `Basic` |

    An empty list or text means "not given".
    """
    if options.models_folder or options.flatfield_files:
        return MeasuredProfile(options.models_folder)
    if options.fov_list or options.z_levels:
        tiles = tuple(options.fov_list) if options.fov_list else None
        levels = tuple(options.z_levels) if options.z_levels else None
        return EmptyRegions(tiles, levels)
    basic = Basic(options.basicpy_model_params, options.basic_python)
    return Automatic(basic) if options.scenario == "auto" else basic


def given(options: BaseModel, names: Collection[str]) -> list[str]:
    """Those of some options that somebody asked for, in their order.

    A value that is the default asks for nothing, nor does an empty list or text, or a switch
    that is off; but a switch that is on by default and was set to on does.
    """
    values: dict[str, Any] = dict(options)
    fields = type(options).model_fields
    return [
        name
        for name in names
        if name in options.model_fields_set
        and values[name] is not False
        and values[name] not in (None, [], "")
        and (values[name] is True or values[name] != fields[name].get_default())
    ]


def refuse_idle(
    options: BaseModel, *, writes_image: bool = True, no_report: str | None = None
) -> None:
    """Refuse options that can do nothing here.

    Args:
        options: of any kind of job.
        writes_image: False for an estimate alone.
        no_report: why no report can be written; None where it can.

    Raises:
        ParameterError: names them all, and why.
    """
    values: dict[str, Any] = dict(options)
    reasons: list[tuple[Collection[str], str]] = []
    if not writes_image:
        reasons.append((IMAGE_OPTIONS, "where models are written and no image"))
    if no_report is not None:
        reasons.append((("report",), no_report))
    if isinstance(options, ImportOptions) and not options.correct_flatfield:
        reasons.append((tuple(EstimationOptions.model_fields), "without `correct_flatfield`"))
    if writes_image and values.get("execution") != "dask":
        reasons.append((("scheduler_address",), "without `execution=dask`"))
    files = ("flatfield_files", "models_folder", "darkfield_file")
    if not any(values.get(name) for name in files):
        named = "`flatfield_files`, `models_folder` or `darkfield_file`"
        reasons.append((("profile_shape",), f"without {named}"))
    if values.get("background") is not None:
        reasons.append((("output_type",), "beside `background`, which holds one of its own"))
    if values.get("mode") == "subtract":
        reasons.append((("reference",), "without `mode=divide`"))
    lines = [
        f"{_listed(names)} can do nothing {why}. Leave {'it' if len(names) == 1 else 'them'} out."
        for candidates, why in reasons
        if (names := given(options, [n for n in candidates if n in values]))
    ]
    if values.get("background") is not None:
        try:
            refuse_idle(values["background"])
        except ParameterError as error:
            lines.append(f"In `background`: {error}")
    if lines:
        raise ParameterError(" ".join(lines))


def refuse_idle_baseline(
    options: EstimationOptions, scenario: Scenario, baselines: Collection[float | None]
) -> None:
    """Refuse the subtraction of a baseline that no model has.

    Args:
        options: of the estimate.
        scenario: the one chosen.
        baselines: of the measured models.

    Raises:
        ParameterError: there is none.
    """
    if not options.subtract_baseline:
        return
    if isinstance(scenario, EmptyRegions | Automatic):
        raise ParameterError(
            "`subtract_baseline` can do nothing with empty regions: only models of BaSiC have a "
            "baseline. Leave it out."
        )
    if isinstance(scenario, MeasuredProfile) and all(value is None for value in baselines):
        raise ParameterError(
            "`subtract_baseline` can do nothing: no model in `models_folder` has a 'baseline'. "
            "Leave it out."
        )


def passed_over(
    options: EstimationOptions, scenario: Scenario, with_dark: Collection[str]
) -> list[str]:
    """What is said of options that others go before, a line each.

    Args:
        options: of the estimate.
        scenario: the one chosen.
        with_dark: labels of the measured models that hold a dark-field.
    """
    lines = []
    if isinstance(scenario, MeasuredProfile):
        first = "models_folder" if scenario.models_folder else "flatfield_files"
        lines += _line(options, _OF_ESTIMATES, f"`{first}` goes first")
    if isinstance(scenario, EmptyRegions):
        later = ("scenario", "basicpy_model_params", "basic_python")
        lines += _line(options, later, "empty regions go first")
    if with_dark:
        models = ", ".join(f"'{label}'" for label in with_dark)
        offsets = ("darkfield_file", "camera_offset")
        lines += _line(options, offsets, f"the dark-field in the models goes first ({models})")
    if given(options, ("darkfield_file",)):
        lines += _line(options, ("camera_offset",), "`darkfield_file` goes first")
    return lines


def passed_over_in_place(options: BaseModel) -> list[str]:
    """What is said of a name that a result in the place of its source does not get."""
    if not dict(options).get("overwrite_input"):
        return []
    return _line(options, ("output_image_name",), "`overwrite_input` goes first")


def passed_over_in_method(method: BackgroundMethod) -> list[str]:
    """What is said of parameters of a background method that others go before."""
    values, names = dict(method), method.precedence
    first = next((name for name in names if values[name]), None)
    if first is None:
        return []
    later = given(method, names[names.index(first) + 1 :])
    return [f"Passed over in `method`: '{name}'; '{first}' goes first." for name in later]


def _line(options: BaseModel, names: Sequence[str], why: str) -> list[str]:
    found = given(options, names)
    return [f"Passed over: {_listed(found)}; {why}."] if found else []


def _listed(names: Sequence[str]) -> str:
    *first, last = (f"`{name}`" for name in names)
    return f"{', '.join(first)} and {last}" if first else last
