"""What a user may ask for.

The field help of these models is what the web form, the command line and the
documentation show: one definition for all doors.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Annotated, Any, Literal, TypeVar

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, ValidationError

from fractal_mesospim_shading.errors import ParameterError
from fractal_mesospim_shading.messages import know_options
from fractal_mesospim_shading.options.validation import sentences

OptionsT = TypeVar("OptionsT", bound=BaseModel)

Execution = Literal["threads", "processes", "dask", "slurm"]


def parse_list(value: Any) -> Any:
    """Accept `1,9`, `[1,9]` and repeated options for a list of numbers."""
    items = value if isinstance(value, list | tuple) else [value]
    if not any(isinstance(item, str) for item in items):
        return value
    numbers: list[Any] = []
    for item in items:
        if not isinstance(item, str):
            numbers.append(item)
            continue
        text = item.strip()
        text = text[1:-1] if text.startswith("[") and text.endswith("]") else text
        numbers.extend(part.strip() for part in text.split(",") if part.strip())
    return numbers


def parse_options(value: Any) -> Any:
    """Accept JSON text where a model or a mapping is expected."""
    if not isinstance(value, str):
        return value
    try:
        return json.loads(value)
    except json.JSONDecodeError as error:
        raise ValueError(f'expected JSON such as {{"key": 1}} ({error})') from None
    except RecursionError:
        raise ValueError("expected JSON of fewer levels") from None


_LARGEST_COUNTS = 3.4e38
"""What a pixel of 32 bits can hold; beyond, sums with pixels are infinite."""


def _pixel_value(value: float) -> float:
    if not abs(value) <= _LARGEST_COUNTS:
        raise ValueError("expected a number of counts that a pixel can hold")
    return value


Counts = Annotated[float, AfterValidator(_pixel_value)]
NumberList = Annotated[list[int], BeforeValidator(parse_list)]


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


OutsideTiles = Annotated[
    Literal["refuse", "keep", "zero"],
    Field(
        description="What becomes of pixels that belong to no tile of the table (a tile that it "
        "lacks, gaps between tiles). refuse: stop before anything is corrected, unless the image "
        "is 0 there. keep: leave them as they are, camera offset included. zero: make them 0."
    ),
]
"""What is done about pixels of no tile, in both corrections."""


class BasicpyModelParams(BaseModel):
    """Parameters of the BaSiCPy model, used where no empty regions and no models are given."""

    model_config = ConfigDict(
        extra="forbid", frozen=True, allow_inf_nan=False, title="BaSiCPy model parameters"
    )

    autosegment: bool = Field(
        default=False,
        description="Segment the sample by a threshold and leave it out of the fit.",
    )
    autosegment_margin: int = Field(
        default=10,
        ge=0,
        description="Pixels (of the reduced planes) by which the segmented sample is widened.",
    )
    epsilon: float = Field(
        default=0.1,
        gt=0,
        description="Weight regularisation; larger values give smoother profiles.",
    )
    get_darkfield: bool = Field(
        default=False,
        description="Also estimate a dark-field. Seldom of use: on data of known truth it made "
        "the flat-field several times worse. A measured dark frame is better.",
    )
    max_workers: int = Field(
        default=2,
        ge=1,
        description="Threads of BaSiCPy. The fit runs pinned to one processor, so that its "
        "result is the same everywhere; more threads change nothing.",
    )
    smoothness_darkfield: float = Field(
        default=1.0, gt=0, description="Weight of the dark-field's smoothness."
    )
    smoothness_flatfield: float = Field(
        default=1.0, gt=0, description="Weight of the flat-field's smoothness."
    )
    working_size: int | None = Field(
        default=128,
        ge=16,
        description="Side in pixels to which planes are reduced for the fit; unset uses the "
        "planes as sampled, at many times the cost.",
    )
    fitting_mode: Literal["approximate", "ladmap"] = Field(
        default="approximate",
        description="Algorithm of the fit. `approximate` was never worse than `ladmap` on data "
        "of known truth, and several times better on some.",
    )


class OutputOptions(BaseModel):
    """Where a result goes and what it looks like on disk."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    output_folder: str | None = Field(
        default=None,
        description="Folder for the result. Unset: beside the source. Needed where the source "
        "lies on read-only storage.",
    )
    ngff_version: Literal["source", "0.4", "0.5"] = Field(
        default="source",
        description="OME-Zarr version of the result: 0.4 (zarr v2), 0.5 (zarr v3), or the "
        "source's.",
    )
    output_shards: NumberList | None = Field(
        default=None,
        description="Shape of a shard of the result in pixels, for the last axes (as z, y, x); "
        "multiples of the chunk. Only for OME-Zarr 0.5. Unset: sharded if the source is, with "
        "shards of at most 128 MiB.",
    )
    overwrite: bool = Field(
        default=False,
        description="Replace a finished result of the same name, once the new one is complete.",
    )
    restart: bool = Field(
        default=False,
        description="Drop an unfinished run of this job instead of continuing it.",
    )
    follow_links: bool = Field(
        default=False,
        exclude=True,
        description="Copy what links in tables, labels and other members of the image stand for, "
        "also where they lead out of it, as in DataLad or git-annex data sets. Not for a server.",
    )


class ExecutionOptions(BaseModel):
    """Where the computation runs. Nothing here changes a byte of the result."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    execution: Execution = Field(
        default="threads",
        description="threads: this process. processes: a Dask cluster on this machine. dask: the "
        "running Dask scheduler of `scheduler_address`. slurm: Dask workers as SLURM jobs.",
    )
    n_workers: int | None = Field(
        default=None,
        ge=1,
        description="Threads, processes or SLURM jobs, each of which works on one block at a time. "
        "Unset: one for each processor of the SLURM job, else of those that this process may use; "
        "two threads for each where blocks are small, so that none waits for the disk.",
    )
    scheduler_address: str | None = Field(
        default=None,
        description="Address of a Dask scheduler, such as tcp://host:8786. Unset: the environment "
        "variable DASK_SCHEDULER_ADDRESS.",
    )
    memory_limit: str | None = Field(
        default=None,
        description="Memory to stay within, such as 4GB. Unset: the limit of the SLURM job or the "
        "container, else of the machine. With `execution` slurm: of each job; unset: what a block "
        "of this image needs.",
    )
    durable: bool = Field(
        default=False,
        description="Wait for the disk after every few blocks, so that a run that is ended by a "
        "power cut can be continued from there. A finished result is safe in any case: its last "
        "step always waits.",
    )
    storage_options: Annotated[dict[str, Any] | None, BeforeValidator(parse_options)] = Field(
        default=None,
        exclude=True,
        description="Options of the fsspec file system for remote addresses. Not for the server: "
        "there the environment holds them.",
    )


class EstimationOptions(BaseModel):
    """Where flat-fields come from, and how they are applied."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    models_folder: str | None = Field(
        default=None,
        description="Folder of measured models: one folder a channel, named as the channel, with a "
        "file `profiles.npz` holding `flatfield` and, where known, `darkfield` and `baseline`. "
        "Goes before all other sources.",
    )
    fov_list: NumberList | None = Field(
        default=None,
        description="Numbers of tiles that hold no sample, from 1, counted down the first column, "
        "then down the next (`mesospim-shading info IMAGE` prints the map). With `z_levels`: the "
        "tiles whose end planes are empty.",
    )
    z_levels: NumberList | None = Field(
        default=None,
        description="Two planes, such as 50 and 600: all planes below the first and above the "
        "second are empty. Without `fov_list` they are taken in the four corner tiles.",
    )
    basicpy_model_params: Annotated[BasicpyModelParams, BeforeValidator(parse_options)] = Field(
        default=BasicpyModelParams(),
        description="Parameters of BaSiCPy, the fallback where neither models nor empty regions "
        "are given.",
    )
    n_zplanes: int = Field(
        default=200,
        ge=1,
        description="Planes to estimate from, spread over all chosen tiles.",
    )
    resolution_level: int | None = Field(
        default=None,
        ge=0,
        description="Pyramid level to estimate from. Unset: the coarsest for BaSiCPy, full "
        "resolution for empty regions.",
    )
    seed: int = Field(default=0, ge=0, description="Seed of the choice of planes.")
    camera_offset: Counts | None = Field(
        default=None,
        description="Counts that the camera adds to every pixel (about 100 to 200). Unset: "
        "estimated from the noise. 0: none, where it has been removed already.",
    )
    darkfield_file: str | None = Field(
        default=None,
        description="Measured dark frame, in the orientation of a stored tile: .npy, .npz with "
        "the key `darkfield`, TIFF (a stack is averaged), or a folder with one `profiles.npz` (key "
        "`darkfield`) for each channel, as in `models_folder`.",
    )
    profile_shape: Literal["keep_aspect", "stretch"] = Field(
        default="keep_aspect",
        description="Which measured flat-fields and dark frames are accepted. keep_aspect: those "
        "of the aspect of a tile (within 2 %), with at least 16 pixels a side. stretch: any; they "
        "are stretched over the tile.",
    )
    skip_empty_channels: bool = Field(
        default=False,
        description="Go on where a channel holds no light, as where its laser was off: it is "
        "copied as it is and marked as not corrected, and the others are corrected. Off: such a "
        "channel stops the run before anything is written.",
    )
    output_offset: Counts = Field(
        default=0.0,
        description="Counts to add to the result, so that noise below 0 is not cut off.",
    )
    zero_is: ZeroIs = "auto"
    subtract_baseline: bool = Field(
        default=False,
        description="Also subtract the baseline of the model. BaSiC's baseline is the brightness "
        "of the planes, not their background: subtracting it erases tissue.",
    )
    save_models: bool = Field(
        default=False,
        description="Write the models used to `<image name>_shading_models` beside the image, "
        "readable again as `models_folder`.",
    )


class FlatfieldOptions(EstimationOptions, OutputOptions, ExecutionOptions):
    """The arguments of the flat-field correction besides the image."""

    output_image_name: str = Field(
        default="{image_name}_flatfield_corr",
        min_length=1,
        description="Name of the result; {image_name} is the name of the source.",
    )
    overwrite_input: bool = Field(
        default=False,
        description="Let the result take the place of the source, once it is complete. The source "
        "is then gone.",
    )
    outside_tiles: OutsideTiles = "refuse"
    report: bool = Field(default=True, description="Write a report with figures beside the result.")


class ImportStyleOptions(BaseModel):
    """What is imported, and what the image looks like on disk."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    correct_flatfield: bool = Field(
        default=False,
        description="Correct the flat-field on the way, from the models, tiles or planes given "
        "below, in the same single pass.",
    )
    image_name: str = Field(
        default="raw_image",
        min_length=1,
        description="Name of the imported image within `<acquisition>.zarr`. Angle, side and time "
        "point are appended where there are several; `_flatfield_corr` where it is corrected.",
    )
    ngff_version: Literal["source", "0.4", "0.5"] = Field(
        default="source",
        description="OME-Zarr version of the imported image: 0.4 (zarr v2), 0.5 (zarr v3), or the "
        "acquisition's.",
    )
    levels: int = Field(
        default=5, ge=1, le=12, description="Levels of the pyramid, each half as large in y and x."
    )
    chunks: NumberList | None = Field(
        default=None,
        description="Chunk of the imported image in pixels (z, y, x). Unset: the acquisition's, "
        "made to divide the tile.",
    )
    output_shards: NumberList | None = Field(
        default=None,
        description="Shard of the imported image in pixels (z, y, x), multiples of the chunk; only "
        "for OME-Zarr 0.5. Unset: sharded where the acquisition is.",
    )
    sign_x: int | None = Field(
        default=None,
        description="1 where image x grows with stage x, -1 where it falls. Unset: from the "
        "BigStitcher file, else measured in the overlaps, else -1.",
    )
    sign_y: int | None = Field(default=None, description="The same for y.")
    exclude_groups: list[str] | None = Field(
        default=None,
        description="Names of stacks in the container to leave out, as those of an earlier run.",
    )
    overwrite: bool = Field(
        default=False,
        description="Replace a finished image of the same name, once the new one is complete.",
    )
    restart: bool = Field(
        default=False, description="Drop an unfinished run of this import instead of continuing it."
    )


class ImportOptions(ImportStyleOptions, EstimationOptions, ExecutionOptions):
    """The arguments of the import of native acquisitions besides the containers."""


class ImportTaskOptions(ImportStyleOptions, EstimationOptions):
    """The arguments of the first half of the import task, which passes them on."""

    containers: list[str] = Field(
        description="Addresses of the acquisitions: folders that mesoSPIM-control wrote, such as "
        "`/data/brain_Mag5x_Ch488.ome.zarr`."
    )

    def import_options(self) -> ImportOptions:
        """The options of the import itself."""
        return ImportOptions(**self.model_dump(exclude={"containers"}, exclude_unset=True))


class ImportUnitOptions(ExecutionOptions):
    """The arguments of the second half of the import task: where it runs."""

    def combined(self, chosen: dict[str, Any]) -> ImportOptions:
        """The options of the first half with where to run."""
        return ImportOptions(**{**chosen, **self.model_dump(exclude_unset=True)})


def ordered_fields(model: type[BaseModel]) -> list[str]:
    """Names of the fields as people should see them: what matters most comes first."""
    classes = [c for c in model.__mro__ if issubclass(c, BaseModel) and c is not BaseModel]
    order: list[str] = []
    for owner in (*classes[1:2], *classes[:1], *classes[2:]):
        order += [n for n in owner.__annotations__ if n in model.model_fields and n not in order]
    return order


@dataclass(frozen=True)
class MeasuredProfile:
    """Scenario 1: flat-fields measured before."""

    models_folder: str


@dataclass(frozen=True)
class EmptyRegions:
    """Scenario 2: tiles, planes or both that hold no sample."""

    fov_list: tuple[int, ...] | None
    z_levels: tuple[int, ...] | None


@dataclass(frozen=True)
class Basic:
    """Scenario 3: the statistics of all planes."""

    params: BasicpyModelParams


Scenario = MeasuredProfile | EmptyRegions | Basic


def choose_scenario(options: EstimationOptions) -> Scenario:
    """Turn the flat arguments into the one scenario they mean.

    | models_folder | fov_list | z_levels | scenario |
    |---|---|---|---|
    | given | any | any | `MeasuredProfile` |
    | unset | given | unset | `EmptyRegions`: those tiles, all planes |
    | unset | unset | given | `EmptyRegions`: corner tiles, planes outside the levels |
    | unset | given | given | `EmptyRegions`: those tiles, planes outside the levels |
    | unset | unset | unset | `Basic` |

    An empty list or text means "not given".
    """
    if options.models_folder:
        return MeasuredProfile(options.models_folder)
    if options.fov_list or options.z_levels:
        tiles = tuple(options.fov_list) if options.fov_list else None
        levels = tuple(options.z_levels) if options.z_levels else None
        return EmptyRegions(tiles, levels)
    return Basic(options.basicpy_model_params)


def parameters_of(options: BaseModel) -> dict[str, Any]:
    """The options that decide the bytes of a result, without paths, as JSON."""
    left_out = {
        "execution",
        "n_workers",
        "scheduler_address",
        "memory_limit",
        "durable",
        "storage_options",
        "output_folder",
        "output_image_name",
        "image_name",
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


def validated(model: type[OptionsT], arguments: dict[str, Any]) -> OptionsT:
    """Build an options model; all wrong arguments come in one readable error.

    Raises:
        ParameterError: names each argument, what was found and what was expected.
    """
    try:
        return model(**arguments)
    except ValidationError as error:
        raise ParameterError(sentences(error)) from None


def asked_for(
    model: type[OptionsT], written: dict[str, Any], typed: dict[str, Any] | None = None
) -> OptionsT:
    """Options of a form or a file, where every parameter stands, asked for or not.

    Args:
        model: of the options.
        written: values of the form; one that is the default was not asked for.
        typed: values that go before them, all of them asked for.

    Raises:
        ParameterError: names each argument, what was found and what was expected.
    """
    typed = typed or {}
    values = dict(validated(model, {**written, **typed}))
    fields = model.model_fields
    changed = {
        name: value
        for name, value in written.items()
        if name in typed or values[name] != fields[name].get_default()
    }
    return validated(model, {**changed, **typed})


know_options("zarr_url", "zarr_dir", "output", *FlatfieldOptions.model_fields)
know_options(*ImportOptions.model_fields, *ImportTaskOptions.model_fields)
