"""The methods by name, and whether a method fits an image. A new method is one line of `Method`."""

from __future__ import annotations

from typing import Annotated, Any, get_args

import numpy as np
from pydantic import Field

from fractal_mesospim_shading.core.background.constant import ConstantModel
from fractal_mesospim_shading.core.background.contract import BackgroundMethod
from fractal_mesospim_shading.core.background.difference import DifferenceOfFiltersModel
from fractal_mesospim_shading.core.background.gaussian import GaussianModel
from fractal_mesospim_shading.core.background.inputs import length_in_short, shown
from fractal_mesospim_shading.core.background.median import MedianModel
from fractal_mesospim_shading.core.background.opening import OpeningModel
from fractal_mesospim_shading.core.background.rolling_ball import RollingBallModel
from fractal_mesospim_shading.core.background.sliding_paraboloid import SlidingParaboloidModel
from fractal_mesospim_shading.core.background.tile_median import TileMedianModel
from fractal_mesospim_shading.errors import BackgroundError

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

METHODS: dict[str, type[BackgroundMethod]] = {
    method.name: method for method in get_args(get_args(Method)[0])
}


def make_method(name: str, **parameters: Any) -> BackgroundMethod:
    """A method with parameters, all lengths in pixels.

    Args:
        name: a key of `METHODS`.
        parameters: of that method, see its `arguments`; the others keep their defaults.

    Raises:
        BackgroundError: for an unknown name or parameter, with those that exist.

    Example:
        >>> from fractal_mesospim_shading.core.background import METHODS, make_method
        >>> sorted(METHODS)[:4]
        ['constant', 'difference_of_filters', 'gaussian', 'median']
        >>> METHODS["median"].arguments
        ('radius_px', 'shape', 'exact', 'radius_z_px')
        >>> make_method("median", radius_px=25).largest_radius_px
        25.0
    """
    name = method_named(name) if isinstance(name, str) else name
    if not isinstance(name, str) or name not in METHODS:
        raise BackgroundError(
            f"There is no background method {shown(name)}; choose one of {', '.join(METHODS)}."
        )
    return METHODS[name].of(**parameters)


ALIASES = {"tophat": "opening", "top_hat": "opening"}
"""Names that the field knows a method by, besides its own."""


def method_named(text: str) -> str:
    """The name of a method as it is written here, of `top-hat` or `rolling-ball`; any other text
    stays as it is.
    """
    name = text.strip().replace("-", "_")
    name = ALIASES.get(name, name)
    return name if name in METHODS else text.strip()


def method_in_short(value: Any) -> Any:
    """Accept `median`, `median:25` and `median:15um` for a method; all else stays as it is."""
    if not isinstance(value, str) or value.lstrip().startswith("{"):
        return value
    text, _, number = value.strip().partition(":")
    name = method_named(text)
    if not number:
        return {"method": name}
    if name not in METHODS or not METHODS[name].short_in_radii:
        return {"method": name, METHODS[name].short if name in METHODS else "radius": number}
    length, unit = length_in_short(number)
    return {"method": name, METHODS[name].short: length, "radius_unit": unit}


def method_of_radius(text: str, radius: str) -> str:
    """`median:25` of a method and a radius for its objects, `15um` for one in micrometers.

    Args:
        text: name of a method.
        radius: a number, with its unit if it is not in pixels. The side of the squares of
            `tile_median` is four times as large.

    Raises:
        BackgroundError: the text has a number already, the method has no radius, or this is none.
    """
    name = method_named(text)
    if ":" in text or text.lstrip().startswith("{"):
        raise BackgroundError(f"`radius` was given, and the method {text} has one already.")
    if name in METHODS and not METHODS[name].short_in_radii:
        raise BackgroundError(f"`radius` was given, and the method {name} has none.")
    number, unit = length_in_short(radius)
    try:
        length = float(number) * (METHODS[name].short_in_radii if name in METHODS else 1.0)
    except ValueError:
        raise BackgroundError(
            f"`radius` is {shown(radius)}; expected a number, such as 25 or 15um."
        ) from None
    return f"{name}:{length!r}{'um' if unit == 'micrometers' else ''}"


def check_light(method: BackgroundMethod, *, light_background: bool) -> None:
    """Refuse a light background that only half of the correction would know of.

    Args:
        method: that estimates.
        light_background: whether dark objects are to stay dark on white.

    Raises:
        BackgroundError: the method knows no light background, or was made for a dark one.
    """
    if not light_background or method.light_background:
        return
    if method.follows_extremes:
        raise BackgroundError(
            f"`light_background` is set for the result, but not for the method {method.name}; "
            "set it there."
        )
    names = ", ".join(name for name, one in METHODS.items() if one.follows_extremes)
    raise BackgroundError(
        f"`light_background` is set, but the method {method.name} follows neither the brightest "
        f"places nor the darkest ones: it is right for dark objects as it is. Leave the option "
        f"out (a result in integers keeps dark objects with `output_offset`), or take one of "
        f"{names}."
    )


def remark_on_height(method: BackgroundMethod, dtype: np.dtype[Any]) -> str | None:
    """What a person should know of a ball or paraboloid on an image of floats.

    Args:
        method: any.
        dtype: of the image.

    Returns:
        One sentence or two; None where there is nothing to say.
    """
    if not method.height_in_counts or dtype.kind != "f":
        return None
    return (
        f"The image holds floats, and {method.name} has a height in counts, as large as its radius "
        f"of {method.largest_radius_px:g} px, whatever the range of the image. Where the pixels "
        "range from 0 to 1 or the like, it takes most of every object away with the background: "
        "multiply such an image first, by 65535 for instance."
    )


def check_fits(method: BackgroundMethod, tile_shape_yx: tuple[int, int]) -> None:
    """Refuse a method whose radius is too small, or too large for the tile.

    Balls, paraboloids and Gaussians may be larger than the tile, as in ImageJ; of a median
    or an opening nothing but one number would be left.

    Raises:
        BackgroundError: with both numbers.
    """
    radius = method.largest_radius_px
    least, most = method.radius_range_px(min(tile_shape_yx))
    if not least <= radius <= most:
        raise BackgroundError(
            f"The radius of the method {method.name} is {radius:g} px, the tile measures "
            f"{tile_shape_yx[0]} x {tile_shape_yx[1]} px; expected a radius from {least:g} to "
            f"{most:.12g} px."
        )
