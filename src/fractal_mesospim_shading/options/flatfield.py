"""What can be asked of the flat-field correction, and of imports that may hold one."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal, TypedDict

from pydantic import BaseModel, ConfigDict, Field

from fractal_mesospim_shading.core.background.inputs import Counts
from fractal_mesospim_shading.messages import know_options
from fractal_mesospim_shading.options.background import BackgroundStep, LocalBackground
from fractal_mesospim_shading.options.base import (
    ExecutionArguments,
    ExecutionOptions,
    InputRoiTable,
    Numbers,
    OutputArguments,
    OutputOptions,
    OutsideTiles,
    Report,
    ZeroIs,
)
from fractal_mesospim_shading.options.basic import BasicpyModelParams, BasicpyParams
from fractal_mesospim_shading.options.values import (
    Decisive,
    FlatfieldFiles,
    Neutral,
    NumberList,
)


class EstimationOptions(BaseModel):
    """Where flat-fields come from, and how they are applied."""

    model_config = ConfigDict(extra="forbid", frozen=True, defer_build=True, allow_inf_nan=False)

    models_folder: Neutral[str | None] = Field(
        default=None,
        description="Folder of measured models: one folder a channel, named as the channel, with a "
        "file `profiles.npz` holding `flatfield` and, where known, `darkfield` and `baseline`; or "
        "with `flatfield.tif` and, where known, `darkfield.tif`. "
        "Goes before all other sources.",
    )
    flatfield_files: Neutral[FlatfieldFiles | None] = Field(
        default=None,
        description="Measured flat-fields as files, by channel (label or wavelength, such as 488): "
        ".npz with the key `flatfield`, .npy or TIFF, in the orientation of a stored tile, with "
        "the camera's offset taken off. One with an empty name is for all other channels. They go "
        "before `models_folder`.",
    )
    scenario: Decisive[Literal["given", "auto"]] = Field(
        default="given",
        description="What the flat-field is estimated from where nothing is named. given: BaSiCPy, "
        "from all planes. auto: the planes of each tile that turn out to be empty, as "
        "`mesospim-shading find-empty IMAGE` shows them, and BaSiCPy in channels without.",
    )
    fov_list: Decisive[NumberList | None] = Field(
        default=None,
        description="Numbers of tiles that hold no sample, from 1, counted down the first column, "
        "then down the next (`mesospim-shading info IMAGE` prints the map). With `z_levels`: the "
        "tiles whose end planes are empty.",
    )
    z_levels: Decisive[NumberList | None] = Field(
        default=None,
        description="Two planes, such as 50 and 600: all planes below the first and above the "
        "second are empty. Without `fov_list` they are taken in the four corner tiles.",
    )
    basicpy_model_params: Decisive[BasicpyParams] = Field(
        default=BasicpyModelParams(),
        description="Parameters of BaSiCPy, the fallback where neither models nor empty regions "
        "are given.",
    )
    basic_python: Neutral[str | None] = Field(
        default=None,
        exclude=True,
        description="Python of an environment that has BaSiCPy, such as basic/bin/python, where "
        "this one has none (Python 3.13 and later). Unset: the environment variable "
        "MESOSPIM_SHADING_BASIC_PYTHON. Not for the server: there the environment holds it.",
    )
    n_zplanes: Decisive[int] = Field(
        default=200,
        ge=1,
        description="Planes to estimate from, spread over all chosen tiles.",
    )
    resolution_level: Decisive[int | None] = Field(
        default=None,
        ge=0,
        description="Pyramid level to estimate from. Unset: the coarsest for BaSiCPy, full "
        "resolution for empty regions.",
    )
    seed: Decisive[int] = Field(default=0, ge=0, description="Seed of the choice of planes.")
    camera_offset: Decisive[Counts | None] = Field(
        default=None,
        description="Counts that the camera adds to every pixel (about 100 to 200). Unset: "
        "estimated from the noise. 0: none, where it has been removed already.",
    )
    darkfield_file: Neutral[str | None] = Field(
        default=None,
        description="Measured dark frame, in the orientation of a stored tile: .npy, .npz with "
        "the key `darkfield`, TIFF (a stack is averaged), or a folder with one `profiles.npz` (key "
        "`darkfield`) for each channel, as in `models_folder`.",
    )
    profile_shape: Decisive[Literal["keep_aspect", "stretch"]] = Field(
        default="keep_aspect",
        description="Which measured flat-fields and dark frames are accepted. keep_aspect: those "
        "of the aspect of a tile (within 2 %), with at least 16 pixels a side. stretch: any; they "
        "are stretched over the tile.",
    )
    skip_empty_channels: Decisive[bool] = Field(
        default=False,
        description="Go on where a channel holds no light, as where its laser was off: it is "
        "copied as it is and marked as not corrected, and the others are corrected. Off: such a "
        "channel stops the run before anything is written.",
    )
    output_offset: Decisive[Counts] = Field(
        default=0.0,
        description="Counts to add to the result, so that noise below 0 is not cut off.",
    )
    output_type: Decisive[Literal["source", "float32"]] = Field(
        default="source",
        description="source keeps the type of the image: values are rounded, and those below 0 are "
        "cut off and counted, unless `output_offset` lifts them. float32 keeps all values as they "
        "are.",
    )
    zero_is: Decisive[ZeroIs] = "auto"
    subtract_baseline: Decisive[bool] = Field(
        default=False,
        description="Also subtract the baseline of the model. BaSiC's baseline is the brightness "
        "of the planes, not their background: subtracting it erases tissue.",
    )
    tile_gains: Decisive[Literal["none", "overlaps"]] = Field(
        default="none",
        description="Make tiles equally bright. overlaps: one gain for each tile and channel, from "
        "the tissue that neighbours both show, where the laser drifted or the sample bleached. "
        "Needs the true positions of the tiles: a native acquisition, or a table of tiles with "
        "their original positions.",
    )
    side_gains: Decisive[bool] = Field(
        default=False,
        description="Make both illumination sides equally bright: one gain for each side and "
        "channel, from tiles that were taken from both. Needs a native acquisition whose tiles "
        "have both sides.",
    )
    overlap_refine: Decisive[bool] = Field(
        default=False,
        description="Make the flat-field of BaSiC or of a few empty planes better by what "
        "neighbouring tiles show of the same tissue, where the sample fills the tiles. It stays as "
        "it is where the overlaps do not speak for a change. Needs the true positions of the "
        "tiles, as `tile_gains` does.",
    )
    background: Decisive[LocalBackground | None] = Field(
        default=None,
        description="Also take the local background away, in the same pass: a method such as "
        "`median:25`, or parameters of the background task, which this equals with a float32 image "
        "in between. `zero_is` and `outside_tiles` count for both. `output_offset` is added "
        "before, the one in here after. The result is float32; set `output_type` in here to source "
        "for the type of the image.",
    )
    save_models: Neutral[bool] = Field(
        default=False,
        description="Write the models used to `<image name>_shading_models` beside the image, "
        "readable again as `models_folder`.",
    )


class EstimationArguments(TypedDict, total=False):
    """`EstimationOptions`, key by key."""

    models_folder: str | None
    flatfield_files: Mapping[str, str] | Sequence[str] | str | None
    scenario: Literal["given", "auto"]
    fov_list: Numbers | None
    z_levels: Numbers | None
    basicpy_model_params: BasicpyModelParams | Mapping[str, Any] | str
    basic_python: str | None
    n_zplanes: int
    resolution_level: int | None
    seed: int
    camera_offset: float | None
    darkfield_file: str | None
    profile_shape: Literal["keep_aspect", "stretch"]
    skip_empty_channels: bool
    output_offset: float
    output_type: Literal["source", "float32"]
    zero_is: Literal["auto", "data", "no_data"]
    subtract_baseline: bool
    tile_gains: Literal["none", "overlaps"]
    side_gains: bool
    overlap_refine: bool
    background: BackgroundStep | Mapping[str, Any] | str | None
    save_models: bool


class FlatfieldOptions(EstimationOptions, OutputOptions, ExecutionOptions):
    """The arguments of the flat-field correction besides the image."""

    output_image_name: Neutral[str] = Field(
        default="{image_name}_flatfield_corr",
        min_length=1,
        description="Name of the result; {image_name} is the name of the source.",
    )
    overwrite_input: Neutral[bool] = Field(
        default=False,
        description="Let the result take the place of the source, once it is complete. The source "
        "is then gone.",
    )
    input_roi_table: Decisive[InputRoiTable] = "FOV_ROI_table"
    outside_tiles: Decisive[OutsideTiles] = "refuse"
    report: Neutral[Report] = True


class FlatfieldArguments(EstimationArguments, OutputArguments, ExecutionArguments, total=False):
    """`FlatfieldOptions`, key by key."""

    output_image_name: str
    overwrite_input: bool
    input_roi_table: str
    outside_tiles: Literal["refuse", "keep", "zero"]
    report: bool


class ImportStyleOptions(BaseModel):
    """What is imported, and what the image looks like on disk."""

    model_config = ConfigDict(extra="forbid", frozen=True, defer_build=True)

    correct_flatfield: Decisive[bool] = Field(
        default=False,
        description="Correct the flat-field on the way, from the models, tiles or planes given "
        "below, in the same single pass.",
    )
    image_name: Neutral[str] = Field(
        default="raw_image",
        min_length=1,
        description="Name of the imported image within `<acquisition>.zarr`. Angle, side and time "
        "point are appended where there are several; `_flatfield_corr` where it is corrected.",
    )
    ngff_version: Decisive[Literal["source", "0.4", "0.5"]] = Field(
        default="source",
        description="OME-Zarr version of the imported image: 0.4 (zarr v2), 0.5 (zarr v3), or the "
        "acquisition's.",
    )
    levels: Decisive[int] = Field(
        default=5, ge=1, le=12, description="Levels of the pyramid, each half as large in y and x."
    )
    chunks: Decisive[NumberList | None] = Field(
        default=None,
        description="Chunk of the imported image in pixels (z, y, x). Unset: the acquisition's, "
        "made to divide the tile.",
    )
    output_shards: Decisive[NumberList | None] = Field(
        default=None,
        description="Shard of the imported image in pixels (z, y, x), multiples of the chunk; only "
        "for OME-Zarr 0.5. Unset: sharded where the acquisition is.",
    )
    sign_x: Decisive[int | None] = Field(
        default=None,
        description="1 where image x grows with stage x, -1 where it falls. Unset: from the "
        "BigStitcher file, else measured in the overlaps, else -1.",
    )
    sign_y: Decisive[int | None] = Field(default=None, description="The same for y.")
    exclude_groups: Decisive[list[str] | None] = Field(
        default=None,
        description="Names of stacks in the container to leave out, as those of an earlier run.",
    )
    overwrite: Neutral[bool] = Field(
        default=False,
        description="Replace a finished image of the same name, once the new one is complete.",
    )
    restart: Neutral[bool] = Field(
        default=False, description="Drop an unfinished run of this import instead of continuing it."
    )
    report: Neutral[Report] = True


class ImportOptions(ImportStyleOptions, EstimationOptions, ExecutionOptions):
    """The arguments of the import of native acquisitions besides the containers."""


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
    report: bool


class ImportTaskOptions(ImportStyleOptions, EstimationOptions):
    """The arguments of the first half of the import task, which passes them on."""

    containers: Neutral[list[str]] = Field(
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


know_options(*FlatfieldOptions.model_fields)
know_options(*ImportOptions.model_fields, *ImportTaskOptions.model_fields)
