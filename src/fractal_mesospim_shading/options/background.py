"""What a user may ask of the local background correction."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field

from fractal_mesospim_shading.core.background.catalogue import METHODS, Method, method_in_short
from fractal_mesospim_shading.core.background.contract import MOST_PX
from fractal_mesospim_shading.core.background.inputs import Counts, Unit, length_in_short
from fractal_mesospim_shading.core.background.tile_median import TileMedianModel
from fractal_mesospim_shading.messages import know_options
from fractal_mesospim_shading.options.base import (
    ExecutionArguments,
    ExecutionOptions,
    InputRoiTable,
    OutputArguments,
    OutputOptions,
    OutsideTiles,
    Report,
    ZeroIs,
)
from fractal_mesospim_shading.options.values import Decisive, Neutral, parse_options


class NoMask(BaseModel):
    """Every pixel counts."""

    model_config = ConfigDict(
        extra="forbid", frozen=True, defer_build=True, allow_inf_nan=False, title="No mask"
    )

    kind: Literal["none"] = "none"


class LabelMask(BaseModel):
    """A label image of the same OME-Zarr."""

    model_config = ConfigDict(
        extra="forbid", frozen=True, defer_build=True, allow_inf_nan=False, title="Label image"
    )

    kind: Literal["label"] = "label"
    label_name: str = Field(
        min_length=1,
        description="Name of the label image; everything above 0 is an object. It may be coarser "
        "than the image, as its scale says, or have one plane for all.",
    )
    dilation: float = Field(
        default=0.0, ge=0, le=MOST_PX, description="By how much objects are widened."
    )
    dilation_unit: Unit = Field(default="pixels", description="Unit of the dilation.")


class ThresholdMask(BaseModel):
    """Pixels above a number of counts are objects."""

    model_config = ConfigDict(
        extra="forbid", frozen=True, defer_build=True, allow_inf_nan=False, title="Threshold"
    )

    kind: Literal["threshold"] = "threshold"
    threshold: Counts = Field(description="Counts above which a pixel is an object.")
    dilation: float = Field(
        default=0.0, ge=0, le=MOST_PX, description="By how much objects are widened."
    )
    dilation_unit: Unit = Field(default="pixels", description="Unit of the dilation.")


Mask = Annotated[NoMask | LabelMask | ThresholdMask, Field(discriminator="kind")]


def mask_in_short(value: Any) -> Any:
    """Accept `nuclei`, `nuclei:3`, `nuclei:2um`, `threshold:400`, `threshold:400:3` and `none`.

    A label image that is called `none` or `threshold`, or has a colon in its name, needs JSON.
    """
    if not isinstance(value, str) or value.lstrip().startswith("{"):
        return value
    first, *numbers = value.strip().split(":")
    if first == "none" and not numbers:
        return {"kind": "none"}
    mask: dict[str, Any] = {"kind": "label", "label_name": first}
    if first == "threshold" and numbers:
        mask = {"kind": "threshold", "threshold": numbers.pop(0)}
    elif first == "threshold":
        raise ValueError(_MASKS)
    if len(numbers) > 1:
        raise ValueError(_MASKS)
    if numbers:
        mask["dilation"], mask["dilation_unit"] = length_in_short(numbers[0])
    return mask


_MASKS = (
    "expected the name of a label image, threshold:COUNTS, or none, with a dilation behind it "
    "if needed (nuclei:3, threshold:400:2um)"
)


def _with_its_kind(value: Any) -> Any:
    if isinstance(value, Mapping) and "kind" not in value:
        raise ValueError(f"{_MASKS}; or a 'kind' in it: none, label or threshold")
    return value


MaskOption = Annotated[
    Mask,
    BeforeValidator(_with_its_kind),
    BeforeValidator(parse_options),
    BeforeValidator(mask_in_short),
]


class BackgroundStep(BaseModel):
    """How the background is estimated and taken away."""

    model_config = ConfigDict(
        extra="forbid", frozen=True, defer_build=True, allow_inf_nan=False, title="Local background"
    )

    method: Decisive[
        Annotated[Method, BeforeValidator(parse_options), BeforeValidator(method_in_short)]
    ] = Field(default=TileMedianModel(), description="How the background is estimated.")
    mask: Decisive[MaskOption] = Field(
        default=NoMask(), description="Objects that the estimate leaves out."
    )
    mode: Decisive[Literal["subtract", "divide"]] = Field(
        default="subtract",
        description="subtract light that was added (fluorescence); divide by what the light was "
        "multiplied with (uneven illumination).",
    )
    weight: Decisive[float] = Field(
        default=1.0, ge=0, le=1, description="Part of the background to take away, 0 to 1."
    )
    reference: Decisive[Counts] = Field(
        default=1000.0,
        gt=0,
        description="For `divide`: the counts of a pixel that equals its background.",
    )
    output_type: Decisive[Literal["float32", "source"]] = Field(
        default="float32",
        description="float32 keeps negative values. source keeps the type of the image: values "
        "below 0 are cut off and counted, unless `output_offset` lifts them.",
    )
    output_offset: Decisive[Counts] = Field(default=0.0, description="Counts to add to the result.")
    light_background: Decisive[bool] = Field(
        default=False,
        description="Dark objects on a bright background: rolling ball, paraboloid and opening.",
    )
    add_noise_bias: Decisive[bool] = Field(
        default=False,
        description="Add back what the noise pulls the estimate down by (opening, rolling ball, "
        "paraboloid).",
    )
    tiles: Decisive[Literal["auto", "tile", "plane"]] = Field(
        default="auto",
        description="tile: each tile of the mosaic by itself, for neighbours in an unfused mosaic "
        "are no neighbours in the sample. plane: across the whole plane. auto: tile where there "
        "is a table of tiles.",
    )
    save_background: Decisive[bool] = Field(
        default=False, description="Also write the background as an image beside the result."
    )
    save_noise: Decisive[bool] = Field(
        default=False,
        description="Also write the standard deviation of the background (tile_median only).",
    )


def step_in_short(value: Any) -> Any:
    """Accept a method alone, as text or as its parameters, for a whole step."""
    given = parse_options(method_in_short(value))
    if not isinstance(given, Mapping) or given.keys() <= BackgroundStep.model_fields.keys():
        return given
    name = given.get("method")
    if not isinstance(name, str):
        return given
    # Whatever else is given with a name that is none: the name is what is wrong.
    alone = name not in METHODS or given.keys() <= METHODS[name].model_fields.keys()
    return {"method": given} if alone else given


LocalBackground = Annotated[BackgroundStep, BeforeValidator(step_in_short)]


class LocalBackgroundOptions(BackgroundStep):
    """The same with what the flat-field correction is asked as well."""

    zero_is: Decisive[ZeroIs] = "auto"
    input_roi_table: Decisive[InputRoiTable] = "FOV_ROI_table"
    outside_tiles: Decisive[OutsideTiles] = "refuse"


class BackgroundOptions(LocalBackgroundOptions, OutputOptions, ExecutionOptions):
    """The arguments of the background correction besides the image."""

    output_image_name: Neutral[str] = Field(
        default="{image_name}_background_corr",
        min_length=1,
        description="Name of the result; {image_name} is the name of the source.",
    )
    overwrite_input: Neutral[bool] = Field(
        default=False,
        description="Let the result take the place of the source, once it is complete. The source "
        "is then gone.",
    )
    report: Neutral[Report] = True


class BackgroundArguments(OutputArguments, ExecutionArguments, total=False):
    """`BackgroundOptions`, key by key."""

    method: BaseModel | Mapping[str, Any] | str
    mask: BaseModel | Mapping[str, Any] | str
    mode: Literal["subtract", "divide"]
    weight: float
    reference: float
    output_type: Literal["float32", "source"]
    output_offset: float
    light_background: bool
    add_noise_bias: bool
    tiles: Literal["auto", "tile", "plane"]
    save_background: bool
    save_noise: bool
    zero_is: Literal["auto", "data", "no_data"]
    input_roi_table: str
    outside_tiles: Literal["refuse", "keep", "zero"]
    output_image_name: str
    overwrite_input: bool
    report: bool


know_options(*BackgroundOptions.model_fields, "radius")
