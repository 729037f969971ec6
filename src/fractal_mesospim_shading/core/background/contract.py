"""What every background method is: the parameters that a user may write, and what callers ask.

A method is one class in a file of its own: a pydantic model with the estimate beside its
parameters. Lengths are in pixels or micrometers as they were written; `in_pixels` gives the
method of a channel, which can estimate.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, ClassVar, Self

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field, PrivateAttr

from fractal_mesospim_shading.core.background.inputs import Unit, checked, shown
from fractal_mesospim_shading.core.background.masks import (
    checked_mask,
    common_level,
    image_and_mask,
    less_level,
    no_data,
    plus_level,
    union,
    usable_share,
)
from fractal_mesospim_shading.core.background.surfaces import Surface
from fractal_mesospim_shading.errors import BackgroundError

if TYPE_CHECKING:
    from fractal_mesospim_shading.core.background.noise import NoiseFactor

Array = NDArray[np.float32]
Bool = NDArray[np.bool_]
Marks = NDArray[Any] | None
Estimate = Callable[[NDArray[Any], Bool | None], NDArray[Any]]

MOST_PX = 10_000
"""No neighbourhood is larger: the background is all but flat, and methods take minutes."""


@dataclass(frozen=True)
class BackgroundResult:
    """What a method says of a plane or stack.

    Attributes:
        background: the shape of the image; 0 where there is no data. float32, or float64
            where counts above 2^24 need its digits.
        estimated: False if no pixel was usable. The background is 0 then, and the
            image passes through unchanged.
        noise: map of the background's standard deviation, for methods that have one.
        denoised: of the same type, to be corrected in place of the image, for methods that
            smooth the image as well; None otherwise.
        share: of the pixels with data, those that the estimate used.
        even: whether no part of the plane had pixels enough for an estimate of its own, so
            that there is one number for all.
    """

    background: NDArray[Any]
    estimated: bool = True
    noise: Array | None = None
    denoised: NDArray[Any] | None = None
    share: float = 1.0
    even: bool = False

    def part(self, keep: tuple[slice, ...]) -> BackgroundResult:
        """The same of a part of the plane or stack."""
        noise, denoised = (
            None if values is None else values[keep] for values in (self.noise, self.denoised)
        )
        return replace(self, background=self.background[keep], noise=noise, denoised=denoised)


class BackgroundMethod(BaseModel):
    """What all methods share.

    Attributes:
        arguments: names of what Python may give, see `make_method` and `field_of`.
        wider: arguments that may be more in Python than a user may write.
        short: the field that a number after the name stands for, as in `median:25`.
        short_in_radii: how large that number is for objects of radius 1; 0 where it is no length.
        precedence: fields that stand for the same thing, the one that goes first at first.
        halves_up: whether integers are rounded half up, as in ImageJ.
        height_in_counts: whether its neighbourhood has a height, so that counts matter.
        follows_extremes: whether it follows the darkest places (the brightest, if told so).
        follows_noise: whether noise can shift its background.
        maps_noise: whether it can give a map of the background's noise.
        denoises: whether it gives pixels to be corrected in place of those of the image.
        in_float32: whether it computes in float32, counts above 2^24 less a common level.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, defer_build=True, allow_inf_nan=False)

    name: ClassVar[str]
    arguments: ClassVar[tuple[str, ...]]
    wider: ClassVar[Mapping[str, Any]] = {}
    short: ClassVar[str] = "radius"
    short_in_radii: ClassVar[float] = 1.0
    precedence: ClassVar[tuple[str, ...]] = ()
    halves_up: ClassVar[bool] = False
    height_in_counts: ClassVar[bool] = False
    follows_extremes: ClassVar[bool] = False
    follows_noise: ClassVar[bool] = True
    maps_noise: ClassVar[bool] = False
    denoises: ClassVar[bool] = False
    in_float32: ClassVar[bool] = True

    radius_unit: Unit = Field(
        default="pixels", description="Unit of all radii and sizes of this method in the plane."
    )
    _light_background: bool = PrivateAttr(default=False)
    _noise_map: bool = PrivateAttr(default=False)

    @classmethod
    def __pydantic_init_subclass__(cls, **kwargs: Any) -> None:
        """The name is the value of the field `method`, by which users choose."""
        cls.name = cls.model_fields["method"].default

    @classmethod
    def of(cls, **arguments: Any) -> Self:
        """A method of what Python gives, all in pixels; see `make_method`.

        Raises:
            BackgroundError: an argument that there is not, or of a wrong type.
        """
        unknown = sorted(set(arguments) - set(cls.arguments))
        if unknown:
            raise BackgroundError(
                f"The method {cls.name} has no parameter {', '.join(unknown)}; it has "
                f"{', '.join(cls.arguments)}."
            )
        given: dict[str, Any] = {}
        for name in [name for name in cls.arguments if name in arguments]:
            field = cls.model_fields.get(cls.field_of(name, None))
            hint = cls.wider.get(name, bool if field is None else field.annotation)
            value = checked(f"the method {cls.name}", name, arguments[name], hint)
            given[cls.field_of(name, value)] = value
        method = cls.model_construct(**{k: v for k, v in given.items() if k in cls.model_fields})
        for field_name in given.keys() - cls.model_fields.keys():
            setattr(method, field_name, given[field_name])
        return method

    @classmethod
    def field_of(cls, name: str, value: Any) -> str:
        """Where an argument of Python belongs.

        Lengths end in `_px` there, since all are in pixels. What users choose by another option,
        or cannot choose, is a private attribute.

        Args:
            name: of the argument.
            value: which decides for some of `wider`.
        """
        field = name.replace("_z_px", "_z_planes").removesuffix("_px")
        return field if field in cls.model_fields else f"_{field}"

    def in_pixels(
        self,
        pixel_um: tuple[float, float] = (1.0, 1.0),
        channel: int = 0,
        *,
        light_background: bool = False,
        noise_map: bool = False,
    ) -> Self:
        """This method for one channel, with all lengths in pixels.

        Args:
            pixel_um: size of a pixel (y, x), for lengths in micrometers.
            channel: index, for parameters with a number for each channel.
            light_background: dark objects on a bright background, for methods that know it.
            noise_map: a map of the noise as well, for methods that have one.
        """
        pixels = self.radius_unit == "pixels"
        scale = 1.0 if pixels else 1.0 / (pixel_um[0] * pixel_um[1]) ** 0.5
        given = dict(self)
        lengths = [name.removesuffix("_px") for name in self.arguments if name.endswith("_px")]
        scaled = {name: given[name] * scale for name in lengths if given.get(name) is not None}
        changes = {"radius_unit": "pixels", **scaled, **self.of_channel(channel, scale)}
        method = self.model_copy(update=changes)
        method._light_background = light_background and self.follows_extremes
        method._noise_map = noise_map and self.maps_noise
        return method

    def of_channel(self, channel: int, scale: float) -> dict[str, Any]:
        """Fields that differ between channels, lengths times `scale`, which is pixels a unit."""
        return {}

    @property
    def per_channel(self) -> dict[str, Sequence[float]]:
        """Lists with a number for each channel, by field, as far as they are given."""
        return {}

    @property
    def title(self) -> str:
        """The method and the size of its neighbourhood, for a person."""
        return f"{self.spoken_name}, radius {self.largest_radius_px:.4g} px"

    @property
    def spoken_name(self) -> str:
        """The name in words."""
        return self.name.replace("_", " ")

    @property
    def light_background(self) -> bool:
        """Whether it looks for dark objects on a bright background."""
        return self._light_background

    @property
    def largest_radius_px(self) -> float:
        """The radius of its neighbourhood, the largest where it has several."""
        return float(dict(self)[self.short])

    def radius_range_px(self, side_px: int) -> tuple[float, float]:
        """The smallest and the largest radius for a tile whose shorter side is this long."""
        return 1.0, float(side_px)

    @property
    @abstractmethod
    def halo_px(self) -> int | None:
        """Pixels around a block that make its result equal to that of the whole plane.

        None: the method needs the whole plane. The number holds without objects masked
        out: under an object wider than the neighbourhood the background comes from
        the nearest place that has one, however far. Pixels without data are no problem.
        """

    @property
    def bytes_a_pixel(self) -> int:
        """What it holds at most beside a plane or stack, with objects and the result."""
        return 48

    @property
    def alignment_px(self) -> int:
        """Blocks have to begin at multiples of this."""
        return 1

    @property
    def depth_px(self) -> int:
        """Planes to each side that a plane depends on; 0 is plane by plane."""
        return 0

    @property
    def own_dilation_px(self) -> int:
        """By how much it widens the objects of a mask itself."""
        return 0

    @property
    def least_share(self) -> float:
        """Of the pixels of a part of the plane, for an estimate of its own."""
        return 0.0

    @property
    def noise_factor(self) -> NoiseFactor | None:
        """Noise of image - background over that of the image, where it is known."""
        return None

    @property
    def has_surface(self) -> bool:
        """Whether a small description of a plane gives the background of any part of it."""
        return False

    def surface(
        self, image: NDArray[Any], mask: Marks = None, coverage: Marks = None
    ) -> Surface | None:
        """That description, for a method that has one; arguments as for `background`.

        Returns:
            None if no pixel is usable.
        """
        raise NotImplementedError(self.name)

    def background(
        self, image: NDArray[Any], mask: Marks = None, coverage: Marks = None
    ) -> BackgroundResult:
        """Estimate the background.

        Args:
            image: (y, x), or (z, y, x) for a method with a z radius. Masked pixels of a
                masked array are objects.
            mask: same shape; above 0 marks objects, ignored and interpolated under.
            coverage: same shape; above 0 marks pixels without data. NaN is added. The
                background is 0 there.

        Raises:
            BackgroundError: for parameters out of range or other shapes.
        """
        return self.estimated_where_usable(self.estimate, *self.usable(image, mask, coverage))

    @abstractmethod
    def estimate(self, values: NDArray[Any], ignored: Bool | None) -> NDArray[Any]:
        """The background of a plane or stack.

        Args:
            values: (y, x), or (z, y, x) for a method with a z radius.
            ignored: same shape, pixels that do not count; None where all do. One does at least.

        Returns:
            The shape of the image; float32, or float64 where that has more digits.
        """

    def usable(
        self, image: NDArray[Any], mask: Marks, coverage: Marks
    ) -> tuple[NDArray[Any], Bool | None, Bool | None]:
        """The image as an array, its objects, and its pixels without data; None for none.

        Raises:
            BackgroundError: for lengths that are not in pixels yet, or other shapes.
        """
        if self.radius_unit != "pixels":
            raise BackgroundError(
                f"The lengths of the method {self.name} are in {self.radius_unit}; give it in "
                "pixels, by in_pixels()."
            )
        image, objects = image_and_mask(image, mask, deep=self.depth_px > 0)
        return image, objects, union(no_data(image), checked_mask(image, coverage))

    def estimated_where_usable(
        self, estimate: Estimate, image: NDArray[Any], objects: Bool | None, missing: Bool | None
    ) -> BackgroundResult:
        """Run an estimate on the pixels that have data; the others get a background of 0.

        Args:
            estimate: called with the image and all pixels to ignore, or None.
            image, objects, missing: as `usable` gives them.
        """
        ignored = union(objects, missing)
        if ignored is not None and ignored.all():
            return BackgroundResult(np.zeros(image.shape, np.float32), estimated=False)
        level = common_level(image, ignored) if self.in_float32 else None
        values = image if level is None else less_level(image, level)
        background = plus_level(estimate(values, ignored), level)
        if missing is not None:
            background[missing] = 0
        return BackgroundResult(background, share=usable_share(ignored, missing, image.size))


def check_method(method: Any) -> None:
    """Refuse what is no method, such as the name or the class of one.

    Raises:
        BackgroundError: with what was given.
    """
    if not isinstance(method, BackgroundMethod):
        raise BackgroundError(
            f"The method is {shown(method)}; expected one made by make_method('median') or the "
            "like."
        )
