"""Background methods side by side on one plane, so that a person can choose by eye."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fractal_mesospim_shading.core.background import (
    METHODS,
    BackgroundMethod,
    check_fits,
    make_method,
)
from fractal_mesospim_shading.core.background.arrays import correct_array
from fractal_mesospim_shading.errors import BackgroundError, OutputWriteError, ParameterError
from fractal_mesospim_shading.images.labels import LabelImage
from fractal_mesospim_shading.images.mosaic import MosaicImage
from fractal_mesospim_shading.images.places import StorageOptions
from fractal_mesospim_shading.images.source import Box
from fractal_mesospim_shading.images.stores import normalise_url
from fractal_mesospim_shading.messages import know_options
from fractal_mesospim_shading.sampling import layout_at_level, plane_count

know_options("methods", "radius", "channel", "tile", "z", "level", "label")

logger = logging.getLogger(__name__)

_RADIUS_NAMES = {
    "tile_median": "tile_size",
    "difference_of_filters": "big_radius_px",
    "constant": "",
}


def write_preview(
    image_url: str,
    output: str,
    *,
    methods: Sequence[str] | None = None,
    radius: float | None = None,
    channel: str | int | None = None,
    tile: int | None = None,
    z: int | None = None,
    level: int = 0,
    label: str | None = None,
    storage_options: StorageOptions = None,
) -> str:
    """Write a picture of several methods on one plane of one tile.

    A method that does not fit the plane is left out, which is said in the picture and as a
    warning.

    Args:
        image_url: of the image.
        output: PNG file to write.
        methods: names, each with a radius after a colon if wanted; all where None.
        radius: of methods that name none, in pixels of the level; for `tile_median` the
            side of the squares is four times as large.
        channel: label or index; None for the first.
        tile: number; None for one in the middle of the mosaic.
        z: plane at the level; None for the middle.
        level: of the pyramid.
        label: name of a label image to leave out; only at level 0.
        storage_options: for a remote address.

    Returns:
        The file written.

    Raises:
        ParameterError: a channel, plane or level that does not exist.
        BackgroundError: a method that does not exist, or none that fits the plane.
        LayoutError: a tile that does not exist.
    """
    image = MosaicImage.open(normalise_url(image_url), storage_options)
    chosen = [_method(text, radius) for text in methods or METHODS]
    box = _plane_box(image, channel, tile, z, level)
    mask = None
    if label is not None:
        if level:
            raise ParameterError("`label` can only be used at level 0.")
        mask = LabelImage.open(image, label).read(box)[0]
    pixels = image.read(level, box)
    plane = pixels.reshape(pixels.shape[-2:])
    results, refused = _compared(plane, chosen, mask)
    from fractal_mesospim_shading.report.figures import background_preview

    picture = background_preview(
        plane,
        results,
        pixel_size_um=image.metadata.pixel_size_um(level)["x"],
        note="\n".join(f"Left out: {error}" for error in refused),
    )
    try:
        Path(output).write_bytes(picture)
    except OSError as error:
        raise OutputWriteError(f"The picture cannot be written to {output}: {error}") from error
    return output


def _compared(
    plane: NDArray[Any], methods: Sequence[BackgroundMethod], mask: NDArray[np.bool_] | None
) -> tuple[dict[str, tuple[NDArray[Any], NDArray[Any]]], list[BackgroundError]]:
    """Background and result of each method that fits, and why others do not."""
    results: dict[str, tuple[NDArray[Any], NDArray[Any]]] = {}
    refused: list[BackgroundError] = []
    for method in methods:
        try:
            check_fits(method, (plane.shape[0], plane.shape[1]))
            background = np.empty(plane.shape, np.float32)
            result = correct_array(
                plane, method, mask=mask, background_out=background, zero_is_no_data=True
            ).image
        except BackgroundError as error:
            refused.append(error)
            logger.warning("%s It is left out of the picture.", error)
        else:
            results[_title(method)] = (background, result)
    if not results:
        raise refused[0]
    return results, refused


def _method(text: str, radius: float | None) -> BackgroundMethod:
    name, _, number = text.partition(":")
    try:
        own = float(number) if number else radius
    except ValueError:
        raise ParameterError(
            f"{text!r}: expected a method and a radius, such as median:25."
        ) from None
    key = _RADIUS_NAMES.get(name, "radius_px")
    parameters: dict[str, Any] = {}
    if own is not None and key:
        parameters[key] = round(4 * own if not number else own) if key == "tile_size" else own
    if name == "opening":
        # As the task has it: an opening of raw pixels follows the darkest noise.
        parameters["smoothing_sigma_px"] = 2.0
    return make_method(name, **parameters)


def _title(method: Any) -> str:
    """A method and the size of its neighbourhood, for a person."""
    name = method.name.replace("_", " ")
    if method.name == "tile_median":
        return f"{name}, squares of {method.tile_size} px"
    if method.name == "difference_of_filters":
        return f"{name}, radii {method.small_radius_px:g} and {method.big_radius_px:g} px"
    if method.name == "constant":
        return f"{name}, the median of the plane"
    return f"{name}, radius {method.radius_px:g} px"


def _plane_box(
    image: MosaicImage, channel: str | int | None, tile: int | None, z: int | None, level: int
) -> Box:
    if not 0 <= level < len(image.levels):
        raise ParameterError(
            f"`level` is {level}, but the image has the levels 0 to {len(image.levels) - 1}."
        )
    layout = layout_at_level(image, level)
    middle = layout.tiles[len(layout.tiles) // 2].number
    place = layout.tile(middle if tile is None else tile)
    depth = plane_count(image, level)
    plane = depth // 2 if z is None else z
    if not 0 <= plane < depth:
        raise ParameterError(f"`z` is {z}, but level {level} has the planes 0 to {depth - 1}.")
    index = _channel(image, channel)
    where = {
        "t": slice(0, 1),
        "c": slice(index, index + 1),
        "z": slice(plane, plane + 1),
        "y": slice(place.y, place.y + layout.tile_shape[0]),
        "x": slice(place.x, place.x + layout.tile_shape[1]),
    }
    return tuple(where[axis] for axis in image.axes)


def _channel(image: MosaicImage, wanted: str | int | None) -> int:
    if wanted is None:
        return 0
    for channel in image.channels:
        if str(wanted) in (channel.label, str(channel.index)):
            return channel.index
    labels = ", ".join(f"{c.index} '{c.label}'" for c in image.channels)
    raise ParameterError(f"There is no channel {wanted!r}; the image has {labels}.")
