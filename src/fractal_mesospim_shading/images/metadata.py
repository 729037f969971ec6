"""What the attributes of an image say: axes, units, arrays, sizes of pixels, channels."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import prod
from typing import TYPE_CHECKING, Any

from fractal_mesospim_shading.errors import ImageFormatError
from fractal_mesospim_shading.images.ngff import (
    ZARR_FORMATS,
    misplaced,
    ngff_content,
    version_of_group,
)
from fractal_mesospim_shading.images.source import Axes, Channel
from fractal_mesospim_shading.images.storage.names import checked_path
from fractal_mesospim_shading.images.storage.places import join_url

if TYPE_CHECKING:
    import numpy as np
    import zarr

    from fractal_mesospim_shading.images.arrays.codecs import Metadata

PIXEL_TYPES = ("uint8", "uint16", "float32")
"""Types of pixels that are read."""

_MOST_BYTES = 2**60
"""More than this is no array, but a wrong number in its metadata."""

_ORDER = "tczyx"
# Sizes of a pixel in any unit; beyond, positions in pixels are no numbers any more.
_SCALES = (1e-30, 1e30)
_MICROMETERS = {
    "angstrom": 1e-4,
    "nanometer": 1e-3,
    "micrometer": 1.0,
    "micron": 1.0,
    "um": 1.0,
    "µm": 1.0,
    "millimeter": 1e3,
    "centimeter": 1e4,
    "meter": 1e6,
}


@dataclass(frozen=True)
class ImageMetadata:
    """What the attributes of an image say.

    Attributes:
        version: of NGFF, `0.4` or `0.5`.
        axes: names in order, such as `czyx`.
        units: unit of each axis, None where it is not given.
        paths: of the arrays of the pyramid, finest first.
        scales: size of a pixel for each array, one number an axis, in the unit of the axis.
        channel_names: (label, wavelength_id) as given under `omero`, in order.
    """

    version: str
    axes: Axes
    units: tuple[str | None, ...]
    paths: tuple[str, ...]
    scales: tuple[tuple[float, ...], ...]
    channel_names: tuple[tuple[str | None, str | None], ...]

    def pixel_size_um(self, level: int = 0) -> dict[str, float]:
        """Size of a pixel along each axis of space, in micrometers.

        An axis without a unit counts as micrometers, as Fractal has it.
        """
        sizes = {}
        for axis, unit, size in zip(self.axes, self.units, self.scales[level], strict=True):
            if axis in "zyx":
                sizes[axis] = size * _MICROMETERS.get((unit or "micrometer").lower(), 1.0)
        return sizes

    def channels(self, shape: Sequence[int]) -> tuple[Channel, ...]:
        """The channels of an array of this shape.

        A channel without a name is called `channel_0`, `channel_1` and so on.

        Raises:
            ImageFormatError: no channel at all, or fewer than the metadata name.
        """
        count = self.axes.length("c", shape)
        if count == 0:
            raise ImageFormatError("The image has no channel (its c axis has length 0).")
        if len(self.channel_names) > count:
            raise ImageFormatError(
                f"The metadata name {len(self.channel_names)} channels, but the image holds "
                f"{count}. Correct the list 'omero.channels'."
            )
        missing = [(None, None)] * (count - len(self.channel_names))
        return tuple(
            Channel(index, label if label else wavelength or f"channel_{index}", wavelength)
            for index, (label, wavelength) in enumerate([*self.channel_names, *missing])
        )


def parse_metadata(attributes: Mapping[str, Any], zarr_format: int, url: str) -> ImageMetadata:
    """Understand the attributes of an image group.

    Args:
        attributes: of the zarr group.
        zarr_format: 2 or 3.
        url: for error messages.

    Raises:
        ImageFormatError: no image, a version that is not read, axes or scales that make no
            sense here.
    """
    content = ngff_content(attributes, zarr_format)
    multiscales = content.get("multiscales")
    if not isinstance(multiscales, list) or not multiscales:
        elsewhere = misplaced(attributes, zarr_format, "multiscales")
        raise ImageFormatError(
            f"'{url}' holds no image: "
            + (elsewhere or "its metadata have no 'multiscales', or an empty one.")
        )
    first = multiscales[0]
    if not isinstance(first, Mapping):
        raise ImageFormatError(f"The 'multiscales' of '{url}' are no list of objects.")
    version = str(first.get("version", version_of_group(attributes, zarr_format)))
    if version not in ZARR_FORMATS:
        raise ImageFormatError(
            f"'{url}' is NGFF version {version}; expected {' or '.join(ZARR_FORMATS)}. "
            "Convert the image first, for instance with ngio or ome-zarr."
        )
    axes, units = _axes(first.get("axes"), url)
    datasets = first.get("datasets")
    if not isinstance(datasets, list) or not datasets:
        raise ImageFormatError(f"The metadata of '{url}' list no arrays ('datasets').")
    common = _scale(first.get("coordinateTransformations"), len(axes), url, required=False)
    paths, scales = [], []
    for dataset in datasets:
        if not isinstance(dataset, Mapping) or not isinstance(dataset.get("path"), str):
            raise ImageFormatError(f"A dataset of '{url}' has no path: {dataset!r}.")
        own = _scale(dataset.get("coordinateTransformations"), len(axes), url, required=True)
        paths.append(checked_path(dataset["path"].rstrip("/"), f"The metadata of '{url}'"))
        scales.append(tuple(a * b for a, b in zip(common, own, strict=True)))
    names = _channel_names(content.get("omero"), url)
    return ImageMetadata(version, axes, units, tuple(paths), tuple(scales), names)


def _axes(axes: Any, url: str) -> tuple[Axes, tuple[str | None, ...]]:
    if not isinstance(axes, list) or not all(
        isinstance(axis, Mapping) and isinstance(axis.get("name"), str) for axis in axes
    ):
        raise ImageFormatError(f"The axes of '{url}' are {axes!r}; expected a list with names.")
    names = [axis["name"] for axis in axes]
    ordered = [name for name in _ORDER if name in names]
    if names != ordered or names[-2:] != ["y", "x"]:
        raise ImageFormatError(
            f"The axes of '{url}' are {', '.join(names) or 'none'}; expected y, x with any of "
            "t, c, z before them, in this order."
        )
    units = tuple(axis["unit"] if isinstance(axis.get("unit"), str) else None for axis in axes)
    return Axes("".join(names)), units


def _scale(transformations: Any, ndim: int, url: str, *, required: bool) -> tuple[float, ...]:
    listed = transformations if isinstance(transformations, list) else []
    known = [item for item in listed if isinstance(item, Mapping)]
    _refuse_endless_translation(known, url)
    scales = [item.get("scale") for item in known if item.get("type") == "scale"]
    if not scales and not required:
        return (1.0,) * ndim
    if len(scales) != 1 or not isinstance(scales[0], list) or len(scales[0]) != ndim:
        raise ImageFormatError(
            f"The scale of an array of '{url}' is {scales}; expected one with {ndim} numbers, "
            "one for each axis."
        )
    try:
        values = tuple(float(value) for value in scales[0])
    except (TypeError, ValueError, OverflowError):
        values = (0.0,)
    least, most = _SCALES
    if not all(least <= value <= most for value in values):
        raise ImageFormatError(
            f"The scale of an array of '{url}' is {scales[0]}; every number must be above 0 (from "
            f"{least:g} to {most:g})."
        )
    return values


def _refuse_endless_translation(transformations: Sequence[Mapping[str, Any]], url: str) -> None:
    for transformation in transformations:
        values = transformation.get("translation")
        numbers = [v for v in values if isinstance(v, float)] if isinstance(values, list) else []
        if not all(math.isfinite(value) for value in numbers):
            raise ImageFormatError(
                f"The translation of an array of '{url}' is {values}; every number must be finite."
            )


def _channel_names(omero: Any, url: str) -> tuple[tuple[str | None, str | None], ...]:
    if not isinstance(omero, Mapping) or omero.get("channels") is None:
        return ()
    channels = omero["channels"]
    if not isinstance(channels, list) or not all(isinstance(c, Mapping) for c in channels):
        raise ImageFormatError(f"The list 'omero.channels' of '{url}' is {channels!r}.")
    return tuple((_text(c.get("label")), _text(c.get("wavelength_id"))) for c in channels)


def _text(value: Any) -> str | None:
    return None if value is None or value == "" else str(value)


def translation_of(
    attributes: Mapping[str, Any], zarr_format: int, count: int
) -> tuple[float, ...] | None:
    """The translation (z, y, x) of the finest level of that many axes; None without one."""
    content = ngff_content(attributes, zarr_format)
    transformations = content["multiscales"][0]["datasets"][0]["coordinateTransformations"]
    for item in transformations:
        if isinstance(item, Mapping) and item.get("type") == "translation":
            values = item.get("translation")
            numbers = isinstance(values, list) and all(isinstance(v, int | float) for v in values)
            if isinstance(values, list) and numbers and len(values) == count:
                return tuple(float(value) for value in values[-3:])
    return None


def unusual_forms(attributes: Mapping[str, Any], zarr_format: int) -> tuple[str, ...]:
    """Lines about attributes of a form that is not NGFF's, and what becomes of them.

    Args:
        attributes: of an image that `parse_metadata` understands.
        zarr_format: 2 or 3.
    """
    content = ngff_content(attributes, zarr_format)
    lines = []
    axes = content["multiscales"][0]["axes"]
    lacking = [axis["name"] for axis in axes if not axis.get("type")]
    if lacking:
        lines.append(
            f"The axes {', '.join(lacking)} of the source have no type; the result's have the "
            "type that their names mean."
        )
    omero = content.get("omero")
    if omero is not None and not isinstance(omero, Mapping):
        lines.append(
            f"The attribute 'omero' is a {type(omero).__name__}, not an object with channels: it "
            "is carried over as it is, and no contrast windows are written."
        )
    elif isinstance(omero, Mapping):
        channels = omero.get("channels") or []
        odd = [i for i, c in enumerate(channels) if not isinstance(c.get("window") or {}, Mapping)]
        if odd:
            lines.append(
                f"The contrast windows of the channels {', '.join(map(str, odd))} are no objects; "
                "they are written anew."
            )
    return tuple(lines)


@dataclass(frozen=True)
class OpenedImage:
    """The group of an image, and the metadata of its arrays.

    Attributes:
        group: with its attributes.
        metadata: what these say.
        arrays: metadata of the arrays, finest first, as far as there are any.
    """

    group: zarr.Group
    metadata: ImageMetadata
    arrays: tuple[Metadata, ...]

    @property
    def is_whole(self) -> bool:
        """Whether all arrays are there that its metadata list."""
        return len(self.arrays) == len(self.metadata.paths)


def checked_type(arrays: Sequence[Metadata], metadata: ImageMetadata, url: str) -> np.dtype[Any]:
    """The type of the pixels, in native byte order.

    Raises:
        ImageFormatError: none that is read, or several; axes or sizes that no image has.
    """
    dtype = arrays[0].dtype.to_native_dtype().newbyteorder("=")
    for array, path in zip(arrays, metadata.paths, strict=True):
        own = array.dtype.to_native_dtype()
        if own.name not in PIXEL_TYPES:
            raise ImageFormatError(
                f"The array '{join_url(url, path)}' has the type {own.name}; expected "
                f"{', '.join(PIXEL_TYPES)}. Convert the image first."
            )
        if array.ndim != len(metadata.axes):
            raise ImageFormatError(
                f"The array '{join_url(url, path)}' has {array.ndim} axes, but the metadata name "
                f"{len(metadata.axes)} ({', '.join(metadata.axes)})."
            )
        if own.newbyteorder("=") != dtype:
            raise ImageFormatError(
                f"The levels of '{url}' differ in type ({dtype.name}, {own.name})."
            )
    refuse_odd_sizes(arrays, metadata.paths, url)
    if 0 in arrays[0].shape and metadata.axes.length("c", arrays[0].shape) != 0:
        raise ImageFormatError(f"The image '{url}' is empty: its shape is {arrays[0].shape}.")
    return dtype


def refuse_odd_sizes(arrays: Sequence[Metadata], paths: Sequence[str], url: str) -> None:
    """Refuse arrays whose metadata declare sizes that no array can have.

    Raises:
        ImageFormatError: chunks of no pixel, or more pixels than can be counted.
    """
    for array, path in zip(arrays, paths, strict=True):
        where = f"'{join_url(url, path)}'"
        unit = array.shards or array.chunks
        if any(size < 1 for size in (*unit, *array.chunks)):
            raise ImageFormatError(
                f"The array {where} has chunks of the shape {unit}; every number must be at least "
                "1. Write the image again."
            )
        if any(u % c for u, c in zip(unit, array.chunks, strict=True)):
            raise ImageFormatError(
                f"The array {where} has shards of the shape {unit}, which are no multiples of its "
                f"chunks, {array.chunks}. Write the image again."
            )
        for shape in (array.shape, unit):
            if prod(shape) * array.dtype.to_native_dtype().itemsize > _MOST_BYTES:
                raise ImageFormatError(
                    f"The array {where} declares a shape of {shape}: more bytes than can be "
                    "counted. Its metadata were changed; write the image again."
                )
