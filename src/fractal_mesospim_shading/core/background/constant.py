"""One number of counts everywhere; without a number, the median of the plane."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import ConfigDict, Field

from fractal_mesospim_shading.core.background.contract import BackgroundMethod, Marks
from fractal_mesospim_shading.core.background.inputs import Counts, CountsList
from fractal_mesospim_shading.core.background.masks import WHOLE_TO


@dataclass(frozen=True)
class Level:
    """A surface of one value.

    Attributes:
        value: in counts.
        share: of the pixels with data, those that it rests on.
        even: whether parts of the plane should have had values of their own.
    """

    value: float
    share: float = 1.0
    even: bool = False

    def background(self, rows: slice, columns: slice) -> NDArray[np.float32]:
        shape = (rows.stop - rows.start, columns.stop - columns.start)
        return np.full(shape, self.value, np.float32)

    def noise_map(self, rows: slice, columns: slice) -> NDArray[np.float32]:
        raise RuntimeError("a constant has no noise map")


class ConstantModel(BackgroundMethod):
    """One number of counts everywhere."""

    model_config = ConfigDict(title="Constant")
    arguments: ClassVar = ("value",)
    short: ClassVar = "value"
    short_in_radii: ClassVar = 0.0
    precedence: ClassVar = ("value_per_channel", "value")
    follows_noise: ClassVar = False
    in_float32: ClassVar = False

    method: Literal["constant"] = "constant"
    value: Counts | None = Field(
        default=None, description="Counts; unset takes the median of each plane."
    )
    value_per_channel: CountsList | None = Field(
        default=None, description="Counts for each channel; goes before `value`."
    )

    def of_channel(self, channel: int, scale: float) -> dict[str, Any]:
        if not self.value_per_channel:
            return {}
        return {"value": self.value_per_channel[channel], "value_per_channel": None}

    @property
    def per_channel(self) -> dict[str, Sequence[float]]:
        given = self.value_per_channel
        return {} if given is None else {"value_per_channel": given}

    @property
    def title(self) -> str:
        number = "the median of the plane" if self.value is None else f"{self.value:g} counts"
        return f"{self.spoken_name}, {number}"

    @property
    def largest_radius_px(self) -> float:
        return 1.0

    @property
    def bytes_a_pixel(self) -> int:
        return 20

    @property
    def halo_px(self) -> int | None:
        return None if self.value is None else 0

    @property
    def has_surface(self) -> bool:
        return self.value is None

    def surface(
        self, image: NDArray[Any], mask: Marks = None, coverage: Marks = None
    ) -> Level | None:
        result = self.background(image, mask, coverage)
        if not result.estimated:
            return None
        usable = result.background if coverage is None else result.background[~(coverage > 0)]
        return Level(float(usable.flat[0]), result.share, result.even)

    def estimate(self, values: NDArray[Any], ignored: NDArray[np.bool_] | None) -> NDArray[Any]:
        usable = values if ignored is None else values[~ignored]
        value = float(np.median(usable)) if self.value is None else self.value
        # float64 where float32 would lose digits of large counts.
        wide = abs(value) > WHOLE_TO and float(np.float32(value)) != value
        return np.full(values.shape, value, np.float64 if wide else np.float32)
