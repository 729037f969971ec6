"""What a zarr group is that is no image, and which images to give instead."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from itertools import islice
from typing import Any

import zarr

from fractal_mesospim_shading.images.metadata import misplaced, ngff_content
from fractal_mesospim_shading.images.storage.places import join_url
from fractal_mesospim_shading.images.storage.stores import members_of, subgroup

_SHOWN = 6


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
    content, _ = ngff_content(attributes, zarr_format)
    elsewhere = misplaced(attributes, zarr_format, "multiscales")
    if elsewhere is not None:
        return f"'{url}' is a zarr group but not an OME-Zarr image: {elsewhere}"
    if isinstance(content.get("plate"), Mapping):
        kind, images = "an HCS plate", _plate_images(group, content["plate"])
    elif isinstance(content.get("well"), Mapping):
        kind, images = "a well of an HCS plate", _well_images(content["well"])
    else:
        kind, images = "a container of several images", _member_images(group)
    found = list(islice(images, _SHOWN + 1))
    if not found:
        if kind.startswith("a container"):
            return (
                f"'{url}' is a zarr group but not an OME-Zarr image: its attributes have no "
                "'multiscales', and neither have the groups in it."
            )
        return f"'{url}' is {kind}, and no image was found in it. Give the address of an image."
    listed = ", ".join(f"'{join_url(url, path)}'" for path in found[:_SHOWN])
    more = " and more" if len(found) > _SHOWN else ""
    return f"'{url}' is {kind}, not an image. Give one of its images: {listed}{more}."


def _plate_images(group: zarr.Group, plate: Mapping[str, Any]) -> Iterator[str]:
    for well in plate.get("wells") or []:
        path = well.get("path") if isinstance(well, Mapping) else None
        member = subgroup(group, path) if isinstance(path, str) else None
        if member is not None:
            content, _ = ngff_content(dict(member.attrs), member.metadata.zarr_format)
            inner = content.get("well")
            for image in _well_images(inner if isinstance(inner, Mapping) else {}):
                yield f"{path}/{image}"


def _well_images(well: Mapping[str, Any]) -> Iterator[str]:
    for image in well.get("images") or []:
        if isinstance(image, Mapping) and isinstance(image.get("path"), str):
            yield image["path"]


def _member_images(group: zarr.Group) -> Iterator[str]:
    for name, member in members_of(group).items():
        if isinstance(member, zarr.Group):
            content, _ = ngff_content(dict(member.attrs), member.metadata.zarr_format)
            if content.get("multiscales"):
                yield name
