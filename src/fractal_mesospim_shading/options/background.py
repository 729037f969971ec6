"""What a user may ask of the local background correction."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field

from fractal_mesospim_shading.messages import know_options
from fractal_mesospim_shading.options.base import (
    ExecutionOptions,
    OutputOptions,
    OutsideTiles,
    ZeroIs,
)
from fractal_mesospim_shading.options.values import (
    Counts,
    Decisive,
    Neutral,
    parse_list,
    parse_options,
)

Unit = Literal["pixels", "micrometers"]
RadiusList = Annotated[list[float], BeforeValidator(parse_list)]
CountsList = Annotated[list[Counts], BeforeValidator(parse_list)]

_MOST_PX = 10_000
"""No neighbourhood is larger than this."""


def parse_method(value: Any) -> Any:
    """Accept `median`, `median:25` (name and radius in pixels) and JSON for a method."""
    if not isinstance(value, str) or value.lstrip().startswith("{"):
        return parse_options(value)
    name, _, number = value.strip().partition(":")
    chosen: dict[str, Any] = {"method": name}
    if number:
        radii = {"tile_median": "tile_size", "difference_of_filters": "big_radius"}
        radii["constant"] = "value"
        chosen[radii.get(name, "radius")] = number
    return chosen


class MethodModel(BaseModel):
    """What all methods share."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    radius_unit: Unit = Field(
        default="pixels", description="Unit of all radii and sizes of this method in the plane."
    )


class TileMedianModel(MethodModel):
    """Medians of overlapping tiles and a smooth surface through them."""

    model_config = ConfigDict(title="Tile median and spline")

    method: Literal["tile_median"] = "tile_median"
    tile_size: float = Field(
        default=256.0,
        gt=0,
        description="Side of the squares whose medians make the background: several times the "
        "objects, smaller than the background's changes.",
    )
    dilation: int = Field(
        default=10,
        ge=0,
        le=_MOST_PX,
        description="Pixels by which masked objects are widened first.",
    )
    min_unmasked_fraction: float = Field(
        default=0.0,
        ge=0,
        le=1,
        description="Squares with a smaller share of unmasked pixels take the median of the frame.",
    )
    sigma_clip: float | None = Field(
        default=None,
        gt=0,
        description="Leave out pixels further than this many standard deviations from the median "
        "of their square, such as objects that are not masked. 3 is usual.",
    )
    filter_size: int = Field(
        default=1,
        ge=1,
        le=_MOST_PX,
        description="Median filter over this many squares; odd; 1 is none.",
    )
    interpolation: Literal["spline", "linear", "none"] = Field(
        default="spline",
        description="Surface between the squares; the spline is held to the range of the four "
        "around a pixel.",
    )
    compatibility: Literal["none", "pyama"] = Field(
        default="none",
        description="pyama: as PyAMA, with squares half a pixel off, and a surface that swings "
        "beyond the squares around it at steps.",
    )


class MedianModel(MethodModel):
    """Sliding median."""

    model_config = ConfigDict(title="Median")

    method: Literal["median"] = "median"
    radius: float = Field(
        default=25.0,
        gt=0,
        description="Radius of the neighbourhood: about three times the objects'.",
    )
    shape: Literal["disk", "imagej_disk", "square"] = Field(
        default="disk",
        description="Of the neighbourhood; imagej_disk is the slightly larger one of ImageJ.",
    )
    exact: bool = Field(
        default=False,
        description="Use every pixel. Otherwise means of small blocks, which is many times faster "
        "and less noisy.",
    )
    radius_z_planes: int | None = Field(
        default=None, ge=1, le=_MOST_PX, description="Also over so many planes up and down."
    )


class OpeningModel(MethodModel):
    """Morphological opening; what it leaves is the white top-hat."""

    model_config = ConfigDict(title="Opening (top-hat)")

    method: Literal["opening"] = "opening"
    radius: float = Field(
        default=25.0, gt=0, description="Radius of the neighbourhood; larger than the objects."
    )
    shape: Literal["disk", "imagej_disk", "square"] = Field(
        default="disk",
        description="Of the neighbourhood; imagej_disk is the slightly larger one of ImageJ.",
    )
    smoothing_sigma: float = Field(
        default=2.0,
        ge=0,
        description="Gaussian smoothing first. Without it, the opening follows the darkest noise "
        "and lies several standard deviations too low.",
    )
    radius_z_planes: int | None = Field(
        default=None, ge=1, le=_MOST_PX, description="Also over so many planes up and down."
    )


class RollingBallModel(MethodModel):
    """ImageJ's rolling ball."""

    model_config = ConfigDict(title="Rolling ball")

    method: Literal["rolling_ball"] = "rolling_ball"
    radius: float = Field(default=50.0, gt=0, description="Of the ball; larger than the objects.")
    smooth: bool = Field(default=True, description="3 x 3 mean before, as ImageJ does.")


class SlidingParaboloidModel(MethodModel):
    """ImageJ's sliding paraboloid."""

    model_config = ConfigDict(title="Sliding paraboloid")

    method: Literal["sliding_paraboloid"] = "sliding_paraboloid"
    radius: float = Field(
        default=50.0, gt=0, description="Of curvature at the tip; larger than the objects."
    )
    smooth: bool = Field(default=True, description="3 x 3 mean before, as ImageJ does.")


class GaussianModel(MethodModel):
    """Gaussian local mean."""

    model_config = ConfigDict(title="Gaussian local mean")

    method: Literal["gaussian"] = "gaussian"
    radius: float = Field(
        default=7.0, gt=0, description="Twice the standard deviation of the Gaussian."
    )
    radius_yx: tuple[float, float] | None = Field(
        default=None, description="Different radii along y and x; goes before `radius`."
    )
    radius_per_channel: RadiusList | None = Field(
        default=None, description="One radius for each channel; goes before the others."
    )
    radius_z_planes: float | None = Field(
        default=None, gt=0, le=_MOST_PX, description="Also along z, with this radius in planes."
    )


class DifferenceOfFiltersModel(MethodModel):
    """Small filter minus big filter."""

    model_config = ConfigDict(title="Difference of filters")

    method: Literal["difference_of_filters"] = "difference_of_filters"
    small_radius: float | None = Field(
        default=2.0, gt=0, description="Of the filter against noise; unset for none."
    )
    big_radius: float = Field(
        default=25.0, gt=0, description="Of the filter that gives the background."
    )
    filter: Literal["median", "gaussian", "mean"] = Field(
        default="median", description="The filter, for both radii."
    )


class ConstantModel(MethodModel):
    """One number of counts everywhere."""

    model_config = ConfigDict(title="Constant")

    method: Literal["constant"] = "constant"
    value: Counts | None = Field(
        default=None, description="Counts; unset takes the median of each plane."
    )
    value_per_channel: CountsList | None = Field(
        default=None, description="Counts for each channel; goes before `value`."
    )


Method = Annotated[
    TileMedianModel
    | MedianModel
    | OpeningModel
    | RollingBallModel
    | SlidingParaboloidModel
    | GaussianModel
    | DifferenceOfFiltersModel
    | ConstantModel,
    Field(discriminator="method"),
]


class NoMask(BaseModel):
    """Every pixel counts."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False, title="No mask")

    kind: Literal["none"] = "none"


class LabelMask(BaseModel):
    """A label image of the same OME-Zarr."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False, title="Label image")

    kind: Literal["label"] = "label"
    label_name: str = Field(
        min_length=1,
        description="Name of the label image; everything above 0 is an object. It may be coarser "
        "than the image, as its scale says, or have one plane for all.",
    )
    dilation: float = Field(
        default=0.0, ge=0, le=_MOST_PX, description="By how much objects are widened."
    )
    dilation_unit: Unit = Field(default="pixels", description="Unit of the dilation.")


class ThresholdMask(BaseModel):
    """Pixels above a number of counts are objects."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False, title="Threshold")

    kind: Literal["threshold"] = "threshold"
    threshold: Counts = Field(description="Counts above which a pixel is an object.")
    dilation: float = Field(
        default=0.0, ge=0, le=_MOST_PX, description="By how much objects are widened."
    )
    dilation_unit: Unit = Field(default="pixels", description="Unit of the dilation.")


Mask = Annotated[NoMask | LabelMask | ThresholdMask, Field(discriminator="kind")]


class LocalBackgroundOptions(BaseModel):
    """How the background is estimated and taken away."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    method: Decisive[Annotated[Method, BeforeValidator(parse_method)]] = Field(
        default=TileMedianModel(), description="How the background is estimated."
    )
    mask: Decisive[Annotated[Mask, BeforeValidator(parse_options)]] = Field(
        default=NoMask(), description="Objects that the estimate leaves out."
    )
    zero_is: Decisive[ZeroIs] = "auto"
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
    outside_tiles: Decisive[OutsideTiles] = "refuse"
    save_background: Decisive[bool] = Field(
        default=False, description="Also write the background as an image beside the result."
    )
    save_noise: Decisive[bool] = Field(
        default=False,
        description="Also write the standard deviation of the background (tile_median only).",
    )


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


know_options(*BackgroundOptions.model_fields)


def method_parameters(
    model: Any, pixel_um: tuple[float, float], channel: int, light_background: bool
) -> tuple[str, dict[str, Any]]:
    """Name and parameters of a method for one channel, all in pixels.

    Args:
        model: one of the method models.
        pixel_um: size of a pixel (y, x), for radii in micrometers.
        channel: index.
        light_background: for methods that know it.
    """
    scale = 1.0 if model.radius_unit == "pixels" else 1.0 / (pixel_um[0] * pixel_um[1]) ** 0.5
    given = model.model_dump(exclude={"method", "radius_unit"})
    name: str = model.method
    if name == "tile_median":
        given["tile_size"] = max(1, round(given["tile_size"] * scale))
        return name, given
    if name == "constant":
        per_channel = given.pop("value_per_channel")
        return name, {"value": per_channel[channel] if per_channel else given["value"]}
    if name == "difference_of_filters":
        small = given["small_radius"]
        return name, {
            "small_radius_px": None if small is None else small * scale,
            "big_radius_px": given["big_radius"] * scale,
            "filter": given["filter"],
        }
    parameters: dict[str, Any] = {"radius_px": given.pop("radius") * scale}
    if name == "gaussian":
        radius_yx, per_channel = given.pop("radius_yx"), given.pop("radius_per_channel")
        if radius_yx is not None:
            parameters["radius_px"] = (radius_yx[0] * scale, radius_yx[1] * scale)
        if per_channel:
            parameters["radius_px"] = per_channel[channel] * scale
    if "radius_z_planes" in given:
        parameters["radius_z_px"] = given.pop("radius_z_planes")
    if "smoothing_sigma" in given:
        parameters["smoothing_sigma_px"] = given.pop("smoothing_sigma") * scale
    if name in ("opening", "rolling_ball", "sliding_paraboloid"):
        parameters["light_background"] = light_background
    return name, {**parameters, **given}
