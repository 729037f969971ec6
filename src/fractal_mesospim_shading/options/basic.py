"""What can be asked of BaSiC."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field

from fractal_mesospim_shading.options.values import parse_options


class BasicpyModelParams(BaseModel):
    """Parameters of the BaSiCPy model, used where no empty regions and no models are given."""

    model_config = ConfigDict(
        extra="forbid",
        frozen=True,
        defer_build=True,
        allow_inf_nan=False,
        title="BaSiCPy model parameters",
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


BasicpyParams = Annotated[BasicpyModelParams, BeforeValidator(parse_options)]
