"""A container and the files that lie beside it: metadata texts and the project file.

The project file is that of BigStitcher, which mesoSPIM-control writes for NGFF 0.4 containers.
"""

from __future__ import annotations

import json
import math
import posixpath
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any
from xml.etree import ElementTree

from fractal_mesospim_shading.images.native.meta import MetaFile, parse_meta
from fractal_mesospim_shading.images.native.stack import (
    BesideName,
    natural_key,
    parse_meta_file_name,
    projection_file_name,
)
from fractal_mesospim_shading.images.storage.places import (
    StorageOptions,
    connection_errors,
    filesystem,
    reading_errors,
)

_Affine = tuple[tuple[float, ...], ...]
_GRID = "translation to regular grid"
_IDENTITY: _Affine = ((1.0, 0.0, 0.0, 0.0), (0.0, 1.0, 0.0, 0.0), (0.0, 0.0, 1.0, 0.0))
_ZARR_FILES = {"zarr.json", ".zgroup", ".zattrs", ".zmetadata"}


@dataclass(frozen=True)
class XmlView:
    """One stack as the project file describes it; None where it does not say.

    Attributes:
        group: name of the group in the container.
        setup: number of the view setup.
        channel, side, angle, tile: names of its attributes.
        voxel_um: size of a voxel as (x, y, z).
        shift_px: place as (x, y) in pixels, in the orientation of the image.
    """

    group: str
    setup: int
    channel: str | None
    side: str | None
    angle: str | None
    tile: str | None
    voxel_um: tuple[float, float, float] | None
    shift_px: tuple[float, float] | None


def parse_xml(data: bytes) -> tuple[str | None, tuple[XmlView, ...]]:
    """Read a project file.

    Args:
        data: content of the file.

    Returns:
        The name of the container it points at, and its stacks.

    Raises:
        ValueError: it is not XML, or numbers in it cannot be read.
    """
    try:
        root = ElementTree.fromstring(data)
    except ElementTree.ParseError as error:
        raise ValueError(f"it is not valid XML ({error})") from error
    names = _attribute_names(root)
    setups = {int(_text(item, "id") or -1): item for item in root.iter("ViewSetup")}
    shifts = _shifts(root)
    views = []
    for item in root.iter("zgroup"):
        setup, point = int(item.get("setup", -1)), item.get("tp", item.get("timepoint", "0"))
        path = item.get("path") or _text(item, "path") or f"s{setup}-t{point}.zarr"
        description = setups.get(setup)
        attributes = _attributes(description)
        views.append(
            XmlView(
                group=path.rstrip("/").rpartition("/")[2],
                setup=setup,
                channel=names.get(("channel", attributes.get("channel"))),
                side=names.get(("illumination", attributes.get("illumination"))),
                angle=names.get(("angle", attributes.get("angle"))),
                tile=names.get(("tile", attributes.get("tile"))),
                voxel_um=_voxel(description),
                shift_px=shifts.get(setup),
            )
        )
    loader = next(iter(root.iter("ImageLoader")), None)
    container = _text(loader, "zarr") if loader is not None else None
    return (
        container.replace("\\", "/").rstrip("/").rpartition("/")[2] if container else None
    ), tuple(views)


def _text(item: ElementTree.Element | None, path: str) -> str | None:
    text = item.findtext(path) if item is not None else None
    return text.strip() if text and text.strip() else None


def _numbers(item: ElementTree.Element | None, path: str) -> list[float]:
    """The numbers of an element, separated by white space; all of them must be finite."""
    numbers = [float(part) for part in (_text(item, path) or "").split()]
    if not all(math.isfinite(number) for number in numbers):
        raise ValueError(f"'{path}' holds a number that is not finite")
    return numbers


def _attribute_names(root: ElementTree.Element) -> dict[tuple[str, str | None], str]:
    names = {}
    for group in root.iter("Attributes"):
        kind = (group.get("name") or "").lower()
        for item in group:
            name = _text(item, "name")
            if name is not None:
                names[kind, _text(item, "id")] = name
    return names


def _attributes(setup: ElementTree.Element | None) -> dict[str, str | None]:
    listed = setup.find("attributes") if setup is not None else None
    return {item.tag: (item.text or "").strip() for item in listed} if listed is not None else {}


def _voxel(setup: ElementTree.Element | None) -> tuple[float, float, float] | None:
    sizes = _numbers(setup, "voxelSize/size")
    return (sizes[0], sizes[1], sizes[2]) if len(sizes) == 3 else None


def _shifts(root: ElementTree.Element) -> dict[int, tuple[float, float]]:
    shifts = {}
    for registration in root.iter("ViewRegistration"):
        whole = _IDENTITY
        for transform in registration.iter("ViewTransform"):
            # White space in the numbers includes line breaks.
            numbers = _numbers(transform, "affine")
            if len(numbers) != 12:
                continue
            affine = (tuple(numbers[:4]), tuple(numbers[4:8]), tuple(numbers[8:]))
            if (_text(transform, "Name") or "").lower() == _GRID:
                # What the stage said; later steps of a stitcher stand before it.
                whole = affine
                break
            whole = _after(whole, affine)
        shifts[int(registration.get("setup", -1))] = (whole[0][3], whole[1][3])
    return shifts


def _after(outer: _Affine, inner: _Affine) -> _Affine:
    """The affine that applies `inner` first."""
    rows = []
    for row in outer:
        mixed = [sum(row[k] * inner[k][column] for k in range(3)) for column in range(4)]
        mixed[3] += row[3]
        rows.append(tuple(mixed))
    return tuple(rows)


@dataclass(frozen=True)
class Surroundings:
    """A container and the files beside it.

    Attributes:
        url: of the container.
        name: its last part.
        children: names in the container, in natural order, zarr's own files left out.
        beside: names in the folder that holds the container.
        views: what the project file says, by group; empty without a usable one.
        xml_file: name of the project file, if there is one.
        warnings: about the project file.
    """

    url: str
    name: str
    children: tuple[str, ...]
    beside: frozenset[str]
    views: Mapping[str, XmlView]
    xml_file: str | None
    warnings: tuple[str, ...]

    @cached_property
    def texts(self) -> Mapping[str, Mapping[BesideName, str]]:
        """Names of metadata files by the group that they are about, and what else they say."""
        texts: dict[str, dict[BesideName, str]] = defaultdict(dict)
        for name in sorted(self.beside):
            about = parse_meta_file_name(self.name, name)
            if about is not None:
                texts[about.group][about] = name
        return texts

    def text_name(self, about: BesideName) -> str | None:
        """Name of a metadata file; None where there is none."""
        return self.texts.get(about.group, {}).get(about)

    def projection_name(self, about: BesideName) -> str | None:
        """Name of a maximum projection; None where there is none."""
        name = projection_file_name(self.name, about)
        return name if name in self.beside else None


def look_around(url: str, storage_options: StorageOptions) -> Surroundings:
    """List a container and its folder, and read the project file.

    Args:
        url: of the container, normalised.
        storage_options: for remote addresses.
    """
    fs, path = filesystem(url, storage_options)
    path = path.rstrip("/").replace("\\", "/")
    name = url.rstrip("/").replace("\\", "/").rpartition("/")[2]
    children = tuple(sorted(set(_names(fs, path)) - _ZARR_FILES, key=natural_key))
    parent = posixpath.dirname(path)
    beside = frozenset(_names(fs, parent)) if parent != path else frozenset()
    xml_file = f"{name}.xml" if f"{name}.xml" in beside else None
    views: dict[str, XmlView] = {}
    warnings: list[str] = []
    if xml_file:
        try:
            target, listed = parse_xml(read_beside(url, xml_file, storage_options))
            views = {view.group: view for view in listed}
            if target not in (None, name):
                warnings.append(
                    f"The project file '{xml_file}' points at '{target}', not at '{name}'. The "
                    "container was probably renamed; the places in the file are used all the same."
                )
        except reading_errors() as error:
            warnings.append(
                f"The project file '{xml_file}' cannot be read and is not used: {error}."
            )
    return Surroundings(url, name, children, beside, views, xml_file, tuple(warnings))


def _names(fs: Any, path: str) -> list[str]:
    try:
        entries = fs.ls(path, detail=False)
    except (FileNotFoundError, NotADirectoryError, PermissionError):
        return []
    names = [str(entry).replace("\\", "/").rstrip("/").rpartition("/")[2] for entry in entries]
    return [name for name in names if name]


def read_beside(url: str, name: str, storage_options: StorageOptions) -> bytes:
    """A file that lies beside a container.

    Raises:
        OSError and what else connections raise: it cannot be read.
    """
    fs, path = filesystem(url, storage_options)
    parent = posixpath.dirname(path.rstrip("/").replace("\\", "/"))
    data: bytes = fs.cat_file(posixpath.join(parent, name))
    return data


def names_below(url: str, storage_options: StorageOptions) -> list[str]:
    """What a folder holds; nothing where there is none."""
    fs, path = filesystem(url, storage_options)
    return _names(fs, path.rstrip("/").replace("\\", "/"))


def read_meta(
    around: Surroundings, about: BesideName, storage_options: StorageOptions
) -> tuple[MetaFile | None, list[str]]:
    """A metadata file, and what is odd about it.

    A file that says it belongs to another group is not used. The address in it may well be
    that of another container: people rename acquisitions.

    Args:
        around: the container.
        about: what the name of the file says.
        storage_options: for remote addresses.
    """
    name = around.text_name(about)
    if name is None:
        return None, []
    try:
        meta = parse_meta(read_beside(around.url, name, storage_options))
    except connection_errors() as error:
        return None, [f"has a metadata file that cannot be read ({error})"]
    if not meta.entries:
        return None, ["has a metadata file that is empty or holds something else"]
    if not meta.names_group(about.group):
        return None, [f"has a metadata file that belongs to '{meta.group}'; it is not used"]
    notes = []
    named = meta.names_container(around.name)
    if named is None:
        notes.append(
            "has a metadata file in an encoding that is not known, so that the name of its "
            "container cannot be read; it is used"
        )
    elif not named:
        notes.append(
            f"has a metadata file that was written for the container '{meta.container}'; if that "
            "is another acquisition and not this one renamed, remove the file"
        )
    if meta.unreadable_numbers:
        notes.append(
            "has a metadata file with numbers that cannot be read "
            f"({', '.join(meta.unreadable_numbers)}); what they say is taken from elsewhere"
        )
    return meta, notes


def read_meta_text(url: str, name: str, storage_options: str) -> dict[str, dict[str, str]]:
    """The entries of a metadata file by section and key; empty where it cannot be read.

    Args:
        url: of the container.
        name: of the file beside it.
        storage_options: as JSON.
    """
    try:
        return parse_meta(read_beside(url, name, json.loads(storage_options))).as_dict()
    except connection_errors():
        return {}
