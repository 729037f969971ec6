"""A label image of an OME-Zarr, as a mask for the image it belongs to.

It has the size of the image, or is coarser by the ratio of their scales, as segmentations of
a coarser level of the pyramid are; a single plane, channel or time point masks all alike.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from typing import Any

import numpy as np
import zarr
from numpy.typing import NDArray

from fractal_mesospim_shading.errors import ImageFormatError, ParameterError
from fractal_mesospim_shading.images.arrays.documents import Box, StoredArray
from fractal_mesospim_shading.images.arrays.reading import (
    describe_array,
    fingerprint,
    opened,
    read_array,
)
from fractal_mesospim_shading.images.arrays.sampled_files import files_state
from fractal_mesospim_shading.images.metadata import ImageMetadata, parse_metadata, refuse_odd_sizes
from fractal_mesospim_shading.images.mosaic import MosaicImage
from fractal_mesospim_shading.images.source import Axes
from fractal_mesospim_shading.images.storage.names import what_is_wrong
from fractal_mesospim_shading.images.storage.places import StorageOptions, join_url
from fractal_mesospim_shading.images.storage.stores import (
    members_of,
    open_group,
    subgroup,
    understood,
)

_SAME_RATIO = 0.01
"""Scales are often rounded; a ratio this close to a whole number is one."""


@dataclass(frozen=True)
class LabelImage:
    """The finest level of a label image.

    Attributes:
        name: of the label image.
        stored: its finest array.
        axes: its own, such as `zyx`.
        image_axes: of the image it masks.
        shape: of its array.
        factors: how many pixels of the image one of its own is long, for each of its axes.
    """

    name: str
    stored: StoredArray
    axes: Axes
    image_axes: Axes
    shape: tuple[int, ...]
    factors: tuple[float, ...]

    @classmethod
    def open(cls, image: MosaicImage, name: str) -> LabelImage:
        """Find a label image by name.

        Raises:
            ParameterError: there is none of that name.
            ImageFormatError: its size does not fit the image.
        """
        with understood(join_url(image.url, "labels", name)):
            return cls._read(image, name)

    @classmethod
    def _read(cls, image: MosaicImage, name: str) -> LabelImage:
        labels, group = _found(image.url, name, json.loads(image.storage_options))
        if group is None:
            present = _group_names(labels) if labels is not None else []
            raise ParameterError(
                f"There is no label image '{name}' in {image.url}; it has "
                f"{', '.join(present) or 'none'}."
            )
        url = join_url(image.url, "labels", name)
        metadata = parse_metadata(dict(group.attrs), group.metadata.zarr_format, url)
        array = describe_array(group, metadata.paths[0])
        refuse_odd_sizes([array], metadata.paths[:1], url)
        factors = _factors(image, metadata, array.shape)
        if factors is None or not set("yx") <= set(metadata.axes):
            own, other = metadata.pixel_size_um(), image.metadata.pixel_size_um()
            raise ImageFormatError(
                f"The label image '{name}' has the shape {array.shape} "
                f"({','.join(metadata.axes)}) and pixels of {_sizes(own)}, but the image has "
                f"{image.levels[0].shape} ({','.join(image.axes)}) and {_sizes(other)}; expected "
                "equal sizes along each axis, or smaller ones by the ratio of the pixels."
            )
        return cls(
            name=name,
            stored=StoredArray(url, metadata.paths[0], image.storage_options, fingerprint(array)),
            axes=metadata.axes,
            image_axes=image.axes,
            shape=tuple(array.shape),
            factors=factors,
        )

    @property
    def remarks(self) -> list[str]:
        """What a person should know where it has not the size of the image."""
        coarser, single = [], []
        for axis, length, factor in zip(self.axes, self.shape, self.factors, strict=True):
            if factor != 1 and axis != "c":
                single += [axis] if length == 1 else []
                coarser += [f"{factor:g} along {axis}"] if length > 1 else []
        said = []
        if coarser:
            said.append(
                f"The label image '{self.name}' is coarser than the image, by {', '.join(coarser)}."
            )
        if single:
            said.append(
                f"The label image '{self.name}' has a length of 1 along {', '.join(single)}: it "
                "masks all alike."
            )
        return said

    def read(self, box: Box) -> NDArray[np.bool_]:
        """Where objects are, for a box of the image.

        Args:
            box: one slice for each axis of the image; one channel, one time point.

        Returns:
            bool, (z, y, x); a label image without z masks every plane alike.
        """
        where = dict(zip(self.image_axes, box, strict=True))
        parts, places = [], []
        for axis, length, factor in zip(self.axes, self.shape, self.factors, strict=True):
            span = where.get(axis, slice(0, 1))
            # By the centres of the pixels; the last one is held where it is cut short.
            centres = np.arange(span.start, span.stop) + 0.5
            own = np.minimum(np.floor(centres / factor).astype(np.int64), length - 1)
            parts.append(slice(int(own[0]), int(own[-1]) + 1))
            places.append(own - own[0])
        pixels = read_array(self.array(), self.stored.where, tuple(parts))
        objects = np.asarray(pixels > 0)
        if any(factor != 1 for factor in self.factors):
            objects = objects[np.ix_(*places)]
        planes = objects.reshape((-1, *objects.shape[-2:]))
        depth = where["z"].stop - where["z"].start if "z" in where else 1
        return np.broadcast_to(planes, (depth, *planes.shape[1:]))

    def array(self) -> zarr.Array[Any]:
        """Its array, opened once in each process."""
        return opened(self.stored)

    def state(self) -> str:
        """Fingerprint: its shape, and size and time of some of its chunk files."""
        array = self.array()
        content = json.dumps([array.shape, array.chunks, str(array.dtype)])
        return hashlib.sha256(content.encode() + files_state(array)).hexdigest()


def has_label(url: str, name: str, storage_options: StorageOptions = None) -> bool:
    """Whether an image has a label image of a name.

    Args:
        url: of the image.
        name: of the label image.
        storage_options: for remote addresses.
    """
    with understood(join_url(url, "labels", name)):
        return _found(url, name, storage_options)[1] is not None


def _found(
    url: str, name: str, storage_options: StorageOptions
) -> tuple[zarr.Group | None, zarr.Group | None]:
    """The group of label images, and the one of a name in it."""
    labels = subgroup(open_group(url, storage_options), "labels")
    plain = not any(what_is_wrong(part) for part in name.split("/"))
    return labels, subgroup(labels, name) if labels is not None and plain else None


def _group_names(labels: zarr.Group) -> list[str]:
    return [name for name, item in members_of(labels).items() if isinstance(item, zarr.Group)]


def _factors(
    image: MosaicImage, metadata: ImageMetadata, shape: tuple[int, ...]
) -> tuple[float, ...] | None:
    """How many pixels of the image one of the label image is long; None where it does not fit."""
    lengths = dict(zip(image.axes, image.levels[0].shape, strict=True))
    own, other = metadata.pixel_size_um(), image.metadata.pixel_size_um()
    factors: list[float] = []
    for axis, length in zip(metadata.axes, shape, strict=True):
        expected = lengths.get(axis, 1)
        ratio = own[axis] / other[axis] if axis in own and axis in other else 1.0
        whole = round(ratio)
        if abs(ratio - whole) <= _SAME_RATIO * ratio:
            ratio = float(whole)
        if length == expected:
            factors.append(1.0)
        elif length == 1 and axis in "tcz":
            factors.append(float(expected))
        elif ratio > 1 and abs(length * ratio - expected) < ratio:
            factors.append(ratio)
        else:
            return None
    return tuple(factors)


def _sizes(pixel_um: dict[str, float]) -> str:
    return " x ".join(f"{size:g}" for size in pixel_um.values()) + " um"
