"""NGFF attributes of a group by version: where they stand, what they list, how they are rewritten.

Known are version 0.4 (attributes of a zarr v2 group) and 0.5 (under the key `ome` of a
zarr v3 group): https://ngff.openmicroscopy.org/0.5/. No other module tells them apart.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from itertools import islice
from typing import TYPE_CHECKING, Any, Literal

import zarr

from fractal_mesospim_shading.errors import ImageFormatError
from fractal_mesospim_shading.images.arrays.documents import Document
from fractal_mesospim_shading.images.storage.places import join_url
from fractal_mesospim_shading.images.storage.stores import members_of, subgroup
from fractal_mesospim_shading.messages import shown

if TYPE_CHECKING:
    from ome_zarr.format import Format

ZARR_FORMATS: dict[str, Literal[2, 3]] = {"0.4": 2, "0.5": 3}
"""Versions of NGFF that are read and written, each with its version of zarr."""

_NGFF_KEYS = (
    "multiscales",
    "omero",
    "labels",
    "image-label",
    "plate",
    "well",
    "bioformats2raw.layout",
)
_VERSIONED = ("multiscales", "omero", "image-label", "plate", "well")
_SHOWN = 6


def ngff_content(attributes: Mapping[str, Any], zarr_format: int) -> Mapping[str, Any]:
    """The NGFF part of a group's attributes, where its version has it."""
    if zarr_format == 2:
        return attributes
    content = attributes.get("ome")
    return content if isinstance(content, Mapping) else {}


def with_content(attributes: Document, zarr_format: int, content: Document) -> Document:
    """The attributes with another NGFF part, where its version has it."""
    return {**attributes, "ome": content} if zarr_format == 3 else content


def version_of_group(attributes: Mapping[str, Any], zarr_format: int) -> str:
    """The version that a group is of as a whole; 0.4 states it in each part alone."""
    version = ngff_version_of(zarr_format)
    content = ngff_content(attributes, zarr_format)
    return version if zarr_format == 2 else str(content.get("version", version))


def misplaced(attributes: Mapping[str, Any], zarr_format: int, key: str) -> str | None:
    """Where else a part of the metadata stands, if it is not where its version has it.

    Args:
        attributes: of the zarr group.
        zarr_format: 2 or 3.
        key: such as `multiscales`.

    Returns:
        A sentence; None where it is nowhere, or in its place.
    """
    if key in ngff_content(attributes, zarr_format):
        return None
    right = "at the top" if zarr_format == 2 else "under 'ome'"
    version = ngff_version_of(zarr_format)
    place = None
    if key in attributes:
        place = "at the top of the attributes"
    for name, inner in attributes.items():
        if isinstance(inner, Mapping) and key in inner:
            place = f"under '{shown(name)}'"
    if place is None:
        return None
    return (
        f"'{key}' stands {place}; OME-Zarr {version} (zarr v{zarr_format}) has it {right}. Move "
        "it there."
    )


def zarr_format_of(version: str, source_format: int) -> int:
    """The zarr version of a result: that of its NGFF version, or the source's.

    Args:
        version: `0.4`, `0.5`, or `source`.
        source_format: zarr version of the source, 2 or 3.
    """
    formats = {**ZARR_FORMATS, "source": source_format}
    if version not in formats:
        raise ImageFormatError(f"NGFF version {version!r} cannot be written.")
    return formats[version]


def image_attributes(multiscale: Document, omero: Document, zarr_format: int) -> Document:
    """Attributes of a new image: its pyramid and its channels, where their version has them."""
    version = ngff_version_of(zarr_format)
    if zarr_format == 2:
        own = {"version": version}
        return {"multiscales": [{**own, **multiscale}], "omero": {**own, **omero}}
    return {"ome": {"version": version, "multiscales": [multiscale], "omero": omero}}


def ngff_version_of(zarr_format: int) -> str:
    """The NGFF version that groups of a zarr version hold."""
    return next(version for version, number in ZARR_FORMATS.items() if number == zarr_format)


def ome_zarr_format(zarr_format: int) -> Format:
    """The same as ome-zarr knows it."""
    from ome_zarr.format import FormatV04, FormatV05

    return FormatV04() if zarr_format == 2 else FormatV05()


def converted_attributes(
    attributes: Mapping[str, Any], source_format: int, zarr_format: int
) -> dict[str, Any]:
    """Attributes of a group as they belong into a group of a zarr version.

    NGFF 0.5 (zarr v3) keeps its metadata under the key `ome` and states the version
    there and nowhere else; 0.4 (zarr v2) keeps them at the top and states it in each part.
    Attributes that NGFF does not know stay at the top. Within one version nothing changes.

    Args:
        attributes: of the source.
        source_format: zarr version of the source, 2 or 3.
        zarr_format: 2 or 3, of the group they are for.
    """
    if source_format == zarr_format:
        return dict(attributes)
    others = {key: value for key, value in attributes.items() if key not in (*_NGFF_KEYS, "ome")}
    inner = attributes.get("ome")
    known = {key: value for key, value in attributes.items() if key in _NGFF_KEYS}
    if isinstance(inner, Mapping):
        nested = {key: value for key, value in inner.items() if key != "version"}
        # What NGFF keeps at the top of the old version is meant there, whatever `ome` holds.
        known = nested | known if source_format == 2 else known | nested
    elif inner is not None:
        others["ome"] = inner
    version = ngff_version_of(zarr_format)
    known = {key: _restated(key, value, version) for key, value in known.items()}
    if zarr_format == 2:
        # What is called alike inside and outside of `ome` stays where it is.
        alike = {key: value for key, value in known.items() if others.get(key, value) != value}
        return known | others | ({"ome": alike} if alike else {})
    return others | ({"ome": {"version": version, **known}} if known else {})


def _restated(key: str, value: Any, version: str) -> Any:
    """One part of the metadata with its version where that version of NGFF has it."""
    if key not in _VERSIONED:
        return value
    if isinstance(value, list) and key == "multiscales":
        return [_restated(key, item, version) for item in value]
    if not isinstance(value, Mapping):
        return value
    rest = {name: item for name, item in value.items() if name != "version"}
    return rest if version == "0.5" else {**rest, "version": version}


def result_attributes(
    attributes: Mapping[str, Any], source_format: int, zarr_format: int
) -> dict[str, Any]:
    """Attributes of a result: those of its source, for its zarr version.

    Axes without a type get the one that their name means. NGFF 0.4 asks for a type but does
    not demand it; ome-zarr reads no image without.

    Args:
        attributes: of the source.
        source_format: zarr version of the source, 2 or 3.
        zarr_format: of the result.
    """
    result = converted_attributes(attributes, source_format, zarr_format)
    content = dict(ngff_content(result, zarr_format))
    first, *others = content["multiscales"]
    axes = [{**axis, "type": axis.get("type") or axis_type(axis["name"])} for axis in first["axes"]]
    if axes == first["axes"]:
        return result
    content["multiscales"] = [{**first, "axes": axes}, *others]
    return with_content(result, zarr_format, content)


def axis_type(name: str) -> str:
    """The type of an axis by its name, as NGFF has it."""
    return {"t": "time", "c": "channel"}.get(name, "space")


def first_pyramid_only(attributes: Document, zarr_format: int) -> Document:
    """Attributes of an image that holds nothing but the first pyramid of a source."""
    content = dict(ngff_content(attributes, zarr_format))
    content["multiscales"] = content["multiscales"][:1]
    return with_content(attributes, zarr_format, content)


def with_windows(
    attributes: Document, zarr_format: int, windows: Sequence[Document], labels: Sequence[str]
) -> Document:
    """Attributes whose omero channels have new contrast windows; all else is kept.

    Args:
        attributes: of the group. An `omero` that is no object is left alone.
        zarr_format: 2 or 3.
        windows: `min`, `max`, `start`, `end` for each channel.
        labels: of the channels, for images without omero.
    """
    content = dict(ngff_content(attributes, zarr_format))
    given = content.get("omero")
    if given is not None and not isinstance(given, dict):
        return dict(attributes)
    of_version = {"version": ngff_version_of(zarr_format)} if zarr_format == 2 else {}
    omero: Document = dict(of_version if given is None else given)
    channels = [dict(channel) for channel in omero.get("channels") or []]
    channels += [{} for _ in range(len(windows) - len(channels))]
    colors = ("FFFFFF",) if len(windows) == 1 else ("00FF00", "FF00FF", "00FFFF", "FFFF00")
    for i, (channel, window) in enumerate(zip(channels, windows, strict=True)):
        channel.setdefault("label", labels[i])
        channel.setdefault("color", colors[i % len(colors)])
        channel.setdefault("active", True)
        earlier = channel.get("window")
        channel["window"] = {**(earlier if isinstance(earlier, dict) else {}), **window}
    omero["channels"] = channels
    content["omero"] = omero
    return with_content(attributes, zarr_format, content)


def other_pyramids(attributes: Mapping[str, Any]) -> tuple[tuple[str, ...], ...]:
    """Paths of the arrays of each pyramid that an image lists besides its first."""
    multiscales = _content_in_any_form(attributes).get("multiscales")
    listed = multiscales[1:] if isinstance(multiscales, list) else []
    return tuple(tuple(_dataset_paths(entry)) for entry in listed)


def axis_names(attributes: Mapping[str, Any]) -> dict[str, tuple[str, ...]]:
    """Names of the axes of each array that the attributes of a group list."""
    multiscales = _content_in_any_form(attributes).get("multiscales")
    axes_of: dict[str, tuple[str, ...]] = {}
    for entry in multiscales if isinstance(multiscales, list) else []:
        axes = entry.get("axes") if isinstance(entry, Mapping) else None
        named = isinstance(axes, list) and all(isinstance(axis, Mapping) for axis in axes)
        if isinstance(axes, list) and named:
            names = tuple(str(axis.get("name")) for axis in axes)
            axes_of.update(dict.fromkeys(_dataset_paths(entry), names))
    return axes_of


def _content_in_any_form(attributes: Mapping[str, Any]) -> Mapping[str, Any]:
    """The NGFF part of attributes of either version."""
    inner = attributes.get("ome")
    return inner if isinstance(inner, Mapping) and "multiscales" in inner else attributes


def _dataset_paths(multiscale: Any) -> list[str]:
    datasets = multiscale.get("datasets") if isinstance(multiscale, Mapping) else None
    if not isinstance(datasets, list):
        return []
    paths = (entry.get("path") for entry in datasets if isinstance(entry, Mapping))
    return [path.strip("/") for path in paths if isinstance(path, str)]


def explain_group(group: zarr.Group, url: str) -> str:
    """The error message for a group that is not an image.

    Args:
        group: without multiscales metadata.
        url: its address.

    Returns:
        What it is (plate, well, container of images, or none of these), and addresses of
        images in it.
    """
    attributes, zarr_format = dict(group.attrs), group.metadata.zarr_format
    content = ngff_content(attributes, zarr_format)
    elsewhere = misplaced(attributes, zarr_format, "multiscales")
    if elsewhere is not None:
        return f"'{url}' is a zarr group but not an OME-Zarr image: {elsewhere}"
    if isinstance(content.get("plate"), Mapping):
        kind, images = "an HCS plate", _plate_images(group, content["plate"])
    elif isinstance(content.get("well"), Mapping):
        kind, images = "a well of an HCS plate", _well_images(content["well"])
    else:
        kind, images = "a container of several images", _member_images(group)
    paths = list(islice(images, _SHOWN + 1))
    if not paths:
        if kind.startswith("a container"):
            return (
                f"'{url}' is a zarr group but not an OME-Zarr image: its attributes have no "
                "'multiscales', and neither have the groups in it."
            )
        return f"'{url}' is {kind}, and no image was found in it. Give the address of an image."
    listed = ", ".join(f"'{join_url(url, path)}'" for path in paths[:_SHOWN])
    more = " and more" if len(paths) > _SHOWN else ""
    return f"'{url}' is {kind}, not an image. Give one of its images: {listed}{more}."


def group_content(group: zarr.Group) -> Mapping[str, Any]:
    """The NGFF part of the attributes of an open group."""
    return ngff_content(dict(group.attrs), group.metadata.zarr_format)


def _plate_images(group: zarr.Group, plate: Mapping[str, Any]) -> Iterator[str]:
    for well in plate.get("wells") or []:
        path = well.get("path") if isinstance(well, Mapping) else None
        member = subgroup(group, path) if isinstance(path, str) else None
        if member is not None:
            inner = group_content(member).get("well")
            for image in _well_images(inner if isinstance(inner, Mapping) else {}):
                yield f"{path}/{image}"


def _well_images(well: Mapping[str, Any]) -> Iterator[str]:
    for image in well.get("images") or []:
        if isinstance(image, Mapping) and isinstance(image.get("path"), str):
            yield image["path"]


def _member_images(group: zarr.Group) -> Iterator[str]:
    for name, member in members_of(group).items():
        if isinstance(member, zarr.Group) and group_content(member).get("multiscales"):
            yield name
