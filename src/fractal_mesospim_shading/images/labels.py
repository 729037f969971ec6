"""A label image of an OME-Zarr, as a mask for the image it belongs to."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

import numpy as np
import zarr
from numpy.typing import NDArray

from fractal_mesospim_shading.errors import ImageFormatError, ParameterError
from fractal_mesospim_shading.images.codecs import open_array
from fractal_mesospim_shading.images.metadata import parse_metadata
from fractal_mesospim_shading.images.mosaic import MosaicImage
from fractal_mesospim_shading.images.reading import fingerprint, opened_array, read_array
from fractal_mesospim_shading.images.source import Box
from fractal_mesospim_shading.images.stores import join_url, open_group


@dataclass(frozen=True)
class LabelImage:
    """A label image at full resolution, with the axes of its image but for c.

    Attributes:
        url: of its group.
        path: of its finest array.
        axes: its own, such as `zyx`.
        image_axes: of the image it masks.
        per_channel: whether it has objects of their own for each channel.
        fingerprint: of its array.
        storage_options: for remote addresses, as JSON.
    """

    url: str
    path: str
    axes: str
    image_axes: str
    per_channel: bool
    fingerprint: str
    storage_options: str

    @classmethod
    def open(cls, image: MosaicImage, name: str) -> LabelImage:
        """Find a label image by name.

        Raises:
            ParameterError: there is none of that name.
            ImageFormatError: it has another shape than the image.
        """
        storage = json.loads(image.storage_options)
        labels = open_group(image.url, storage).get("labels")
        plain = not {"", ".", ".."} & set(name.split("/"))
        group = labels.get(name) if isinstance(labels, zarr.Group) and plain else None
        if not isinstance(group, zarr.Group):
            present = sorted(labels.group_keys()) if isinstance(labels, zarr.Group) else []
            raise ParameterError(
                f"There is no label image '{name}' in {image.url}; it has "
                f"{', '.join(present) or 'none'}."
            )
        url = join_url(image.url, "labels", name)
        metadata = parse_metadata(dict(group.attrs), group.metadata.zarr_format, url)
        array = open_array(url, metadata.paths[0], storage)
        sizes = dict(zip(image.axes, image.levels[0].shape, strict=True))
        expected = tuple(sizes.get(axis, 1) for axis in metadata.axes)
        shape = array.shape
        fits = len(shape) == len(expected) and all(
            n == e or (axis == "c" and n == 1)
            for axis, n, e in zip(metadata.axes, shape, expected, strict=True)
        )
        if not fits or not set("yx") <= set(metadata.axes):
            raise ImageFormatError(
                f"The label image '{name}' has the shape {shape} ({','.join(metadata.axes)}), but "
                f"the image has {image.levels[0].shape} ({','.join(image.axes)}); expected equal "
                "sizes along each axis."
            )
        return cls(
            url=url,
            path=metadata.paths[0],
            axes=metadata.axes,
            image_axes=image.axes,
            per_channel="c" in metadata.axes and shape[metadata.axes.index("c")] > 1,
            fingerprint=fingerprint(array),
            storage_options=image.storage_options,
        )

    def read(self, box: Box) -> NDArray[np.bool_]:
        """Where objects are, for a box of the image.

        Args:
            box: one slice for each axis of the image; one channel, one time point.

        Returns:
            bool, (z, y, x); a label image without z masks every plane alike.
        """
        where = dict(zip(self.image_axes, box, strict=True))
        own = tuple(
            slice(0, 1) if axis == "c" and not self.per_channel else where.get(axis, slice(0, 1))
            for axis in self.axes
        )
        pixels = read_array(self.array(), join_url(self.url, self.path), own)
        objects = np.asarray(pixels > 0)
        planes = objects.reshape((-1, *objects.shape[-2:]))
        depth = where["z"].stop - where["z"].start if "z" in where else 1
        return np.broadcast_to(planes, (depth, *planes.shape[1:]))

    def array(self) -> zarr.Array[Any]:
        """Its array, opened once in each process."""
        return opened_array(self.url, self.path, self.storage_options, self.fingerprint)
