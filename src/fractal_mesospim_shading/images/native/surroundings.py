"""A container and the files that lie beside it: metadata texts and the project file."""

from __future__ import annotations

import json
import posixpath
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from fractal_mesospim_shading.images.native.meta import MetaFile, parse_meta
from fractal_mesospim_shading.images.native.names import meta_file_name, natural_key
from fractal_mesospim_shading.images.native.xml import XmlView, parse_xml
from fractal_mesospim_shading.images.storage.places import (
    StorageOptions,
    connection_errors,
    filesystem,
    reading_errors,
)

_ZARR_FILES = {"zarr.json", ".zgroup", ".zattrs", ".zmetadata"}


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
            target, listed = parse_xml(fs.cat_file(posixpath.join(parent, xml_file)))
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


def read_meta(
    around: Surroundings, child: str, storage_options: StorageOptions
) -> tuple[MetaFile | None, list[str]]:
    """The metadata file of a group, and what is odd about it.

    A file that says it belongs to another group is not used. The address in it may well be
    that of another container: people rename acquisitions.
    """
    name = meta_file_name(around.name, child)
    if name not in around.beside:
        return None, []
    fs, path = filesystem(around.url, storage_options)
    parent = posixpath.dirname(path.rstrip("/").replace("\\", "/"))
    try:
        meta = parse_meta(fs.cat_file(posixpath.join(parent, name)))
    except connection_errors() as error:
        return None, [f"has a metadata file that cannot be read ({error})"]
    if not meta.entries:
        return None, ["has a metadata file that is empty or holds something else"]
    if not meta.names_group(child):
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
    fs, path = filesystem(url, json.loads(storage_options))
    parent = posixpath.dirname(path.rstrip("/").replace("\\", "/"))
    try:
        return parse_meta(fs.cat_file(posixpath.join(parent, name))).as_dict()
    except connection_errors():
        return {}
