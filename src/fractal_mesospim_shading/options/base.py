"""What can be asked of every job: where the result goes, and where it is computed.

The field help of the options is what the web form, the command line and the documentation
show: one definition for all doors. Beside each stands the same as a `TypedDict`, for editors and
type checkers of Python; tests hold both together.

A model is built when it is first used (`defer_build`): each command has options of its own kind.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Annotated, Any, Literal, TypedDict

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field

from fractal_mesospim_shading.messages import know_options
from fractal_mesospim_shading.options.values import (
    Bearing,
    Decisive,
    Neutral,
    NumberList,
    parse_options,
)

Numbers = Sequence[int] | str
"""Whole numbers as arguments: a list, or a text such as `1,9`."""

Execution = Literal["threads", "processes", "dask", "slurm"]

Document = Annotated[dict[str, Any] | None, BeforeValidator(parse_options)]


ZeroIs = Annotated[
    Literal["auto", "data", "no_data"],
    Field(
        description="What a pixel of 0 is. auto: no data under a camera offset, where a plane of "
        "a tile is 0 throughout, and in margins (rows or columns that are 0 from an edge of the "
        "tile inwards, up to data that begin with a step); every other 0 is a value. data: always "
        "a value. no_data: nothing was recorded there; it counts nowhere and stays 0."
    ),
]
"""What is done about pixels of 0, in all tasks."""


Report = Annotated[
    bool,
    Field(
        description="Write a report beside the result: whether it worked, with figures and numbers."
    ),
]
"""Whether a job says on a page of its own how it came out."""

OutsideTiles = Annotated[
    Literal["refuse", "keep", "zero"],
    Field(
        description="What becomes of pixels that belong to no tile of the table (a tile that it "
        "lacks, gaps between tiles). refuse: stop before anything is corrected, unless the image "
        "is 0 there. keep: leave them as they are, camera offset included. zero: make them 0."
    ),
]
"""What is done about pixels of no tile, in both corrections."""


InputRoiTable = Annotated[
    str,
    Field(
        min_length=1,
        description="Name of the table of the fields of view (tiles) of the image. Without a table "
        "of the usual name the whole plane is one tile. Not for native acquisitions, whose stacks "
        "are the tiles.",
    ),
]
"""Which table tells where the tiles lie, in both corrections; called as in the tasks of Fractal."""


class OutputOptions(BaseModel):
    """Where a result goes and what it looks like on disk."""

    model_config = ConfigDict(extra="forbid", frozen=True, defer_build=True)

    output_folder: Neutral[str | None] = Field(
        default=None,
        description="Folder for the result. Unset: beside the source. Needed where the source "
        "lies on read-only storage.",
    )
    ngff_version: Decisive[Literal["source", "0.4", "0.5"]] = Field(
        default="source",
        description="OME-Zarr version of the result: 0.4 (zarr v2), 0.5 (zarr v3), or the "
        "source's.",
    )
    output_shards: Decisive[NumberList | None] = Field(
        default=None,
        description="Shape of a shard of the result in pixels, for the last axes (as z, y, x); "
        "multiples of the chunk. Only for OME-Zarr 0.5. Unset: sharded if the source is, with "
        "shards of at most 128 MiB.",
    )
    overwrite: Neutral[bool] = Field(
        default=False,
        description="Replace a finished result of the same name, once the new one is complete.",
    )
    restart: Neutral[bool] = Field(
        default=False,
        description="Drop an unfinished run of this job instead of continuing it.",
    )
    follow_links: Neutral[bool] = Field(
        default=False,
        exclude=True,
        description="Copy what links in tables, labels and other members of the image stand for, "
        "also where they lead out of it, as in DataLad or git-annex data sets. Not for a server.",
    )


class OutputArguments(TypedDict, total=False):
    """`OutputOptions`, key by key."""

    output_folder: str | None
    ngff_version: Literal["source", "0.4", "0.5"]
    output_shards: Numbers | None
    overwrite: bool
    restart: bool
    follow_links: bool


class ExecutionOptions(BaseModel):
    """Where the computation runs. Nothing here changes a byte of the result."""

    model_config = ConfigDict(extra="forbid", frozen=True, defer_build=True)

    execution: Neutral[Execution] = Field(
        default="threads",
        description="threads: this process. processes: a Dask cluster on this machine. dask: the "
        "running Dask scheduler of `scheduler_address`. slurm: Dask workers as SLURM jobs.",
    )
    n_workers: Neutral[int | None] = Field(
        default=None,
        ge=1,
        description="Threads, processes or SLURM jobs, each of which works on one block at a time. "
        "Unset: one for each processor of the SLURM job, else of those that this process may use; "
        "two threads for each where blocks are small, so that none waits for the disk.",
    )
    scheduler_address: Neutral[str | None] = Field(
        default=None,
        description="Address of a Dask scheduler, such as tcp://host:8786. Unset: the environment "
        "variable DASK_SCHEDULER_ADDRESS.",
    )
    memory_limit: Neutral[str | None] = Field(
        default=None,
        description="Memory to stay within, such as 4GB. Unset: the limit of the SLURM job or the "
        "container, else of the machine. With `execution` slurm: of each job; unset: what a block "
        "of this image needs.",
    )
    durable: Neutral[bool] = Field(
        default=False,
        description="Wait for the disk after every few blocks, so that a run that is ended by a "
        "power cut can be continued from there. A finished result is safe in any case: its last "
        "step always waits.",
    )
    storage_options: Neutral[Document] = Field(
        default=None,
        exclude=True,
        description="Options of the fsspec file system for remote addresses. Not for the server: "
        "there the environment holds them.",
    )


class ExecutionArguments(TypedDict, total=False):
    """`ExecutionOptions`, key by key."""

    execution: Literal["threads", "processes", "dask", "slurm"]
    n_workers: int | None
    scheduler_address: str | None
    memory_limit: str | None
    durable: bool
    storage_options: Mapping[str, Any] | str | None


def ordered_fields(model: type[BaseModel]) -> list[str]:
    """Names of the fields as people should see them: what matters most comes first."""
    own, *others = [c for c in model.__mro__ if issubclass(c, BaseModel) and c is not BaseModel]
    names = [n for first in others[:1] for n in first.model_fields]
    names += [n for owner in (own, *others) for n in owner.__annotations__]
    return list(dict.fromkeys(name for name in names if name in model.model_fields))


def parameters_of(options: BaseModel) -> dict[str, Any]:
    """The options that decide the bytes of a result, without paths, as JSON."""
    fields = type(options).model_fields
    neutral = {name for name, field in fields.items() if Bearing.NEUTRAL in field.metadata}
    return options.model_dump(mode="json", exclude=neutral)


def asked_of(options: BaseModel) -> dict[str, Any]:
    """The options that differ from their defaults, as JSON, without secrets of a storage."""
    return options.model_dump(mode="json", exclude={"storage_options"}, exclude_defaults=True)


know_options("zarr_url", "zarr_dir", "output")
