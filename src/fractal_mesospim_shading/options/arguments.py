"""The options as arguments of functions, for editors and type checkers.

One key for each field of the options of that name, of the types that the field accepts. The
options themselves say what each means, its default and its limits; tests hold both together.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal, TypedDict

from pydantic import BaseModel

from fractal_mesospim_shading.options.flatfield import BasicpyModelParams

Numbers = Sequence[int] | str
"""Whole numbers, or a text such as `1,9`."""


class OutputArguments(TypedDict, total=False):
    """`OutputOptions`, key by key."""

    output_folder: str | None
    ngff_version: Literal["source", "0.4", "0.5"]
    output_shards: Numbers | None
    overwrite: bool
    restart: bool
    follow_links: bool


class ExecutionArguments(TypedDict, total=False):
    """`ExecutionOptions`, key by key."""

    execution: Literal["threads", "processes", "dask", "slurm"]
    n_workers: int | None
    scheduler_address: str | None
    memory_limit: str | None
    durable: bool
    storage_options: Mapping[str, Any] | str | None


class EstimationArguments(TypedDict, total=False):
    """`EstimationOptions`, key by key."""

    models_folder: str | None
    fov_list: Numbers | None
    z_levels: Numbers | None
    basicpy_model_params: BasicpyModelParams | Mapping[str, Any] | str
    n_zplanes: int
    resolution_level: int | None
    seed: int
    camera_offset: float | None
    darkfield_file: str | None
    profile_shape: Literal["keep_aspect", "stretch"]
    skip_empty_channels: bool
    output_offset: float
    zero_is: Literal["auto", "data", "no_data"]
    subtract_baseline: bool
    save_models: bool


class FlatfieldArguments(EstimationArguments, OutputArguments, ExecutionArguments, total=False):
    """`FlatfieldOptions`, key by key."""

    output_image_name: str
    overwrite_input: bool
    outside_tiles: Literal["refuse", "keep", "zero"]
    report: bool


class BackgroundArguments(OutputArguments, ExecutionArguments, total=False):
    """`BackgroundOptions`, key by key."""

    method: BaseModel | Mapping[str, Any] | str
    mask: BaseModel | Mapping[str, Any] | str
    zero_is: Literal["auto", "data", "no_data"]
    mode: Literal["subtract", "divide"]
    weight: float
    reference: float
    output_type: Literal["float32", "source"]
    output_offset: float
    light_background: bool
    add_noise_bias: bool
    tiles: Literal["auto", "tile", "plane"]
    outside_tiles: Literal["refuse", "keep", "zero"]
    save_background: bool
    save_noise: bool
    output_image_name: str
    overwrite_input: bool


class ImportArguments(EstimationArguments, ExecutionArguments, total=False):
    """`ImportOptions`, key by key."""

    correct_flatfield: bool
    image_name: str
    ngff_version: Literal["source", "0.4", "0.5"]
    levels: int
    chunks: Numbers | None
    output_shards: Numbers | None
    sign_x: int | None
    sign_y: int | None
    exclude_groups: Sequence[str] | None
    overwrite: bool
    restart: bool
