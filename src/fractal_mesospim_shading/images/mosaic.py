"""A Fractal image: one OME-Zarr whose planes are mosaics of tiles."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping, Sequence
from copy import deepcopy
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import zarr
from numpy.typing import NDArray

from fractal_mesospim_shading.core.layout import TileLayout
from fractal_mesospim_shading.errors import ImageFormatError, ParameterError
from fractal_mesospim_shading.images.arrays.chunk_files import decoded_in_parts
from fractal_mesospim_shading.images.arrays.documents import Box, Document, StoredArray, document_of
from fractal_mesospim_shading.images.arrays.reading import (
    describe_array,
    fingerprint,
    opened,
    read_array,
)
from fractal_mesospim_shading.images.arrays.sampled_files import files_state, stored_share
from fractal_mesospim_shading.images.light_path import of_import
from fractal_mesospim_shading.images.metadata import (
    ImageMetadata,
    OpenedImage,
    checked_type,
    parse_metadata,
    unusual_forms,
)
from fractal_mesospim_shading.images.ngff import explain_group, misplaced, ngff_content
from fractal_mesospim_shading.images.roi_tables import FOV_TABLE
from fractal_mesospim_shading.images.source import (
    Axes,
    Channel,
    ChunkFrame,
    Grid,
    Level,
    ModelGroup,
    SharingNothing,
)
from fractal_mesospim_shading.images.storage.places import StorageOptions, join_url, normalise_url
from fractal_mesospim_shading.images.storage.stores import open_group, understood
from fractal_mesospim_shading.images.tile_tables import tiles_of

MARK = "mesospim_shading"
"""Attribute that this package leaves on what it writes; its `complete` comes last."""


@dataclass(frozen=True)
class MosaicImage(SharingNothing):
    """One c,z,y,x (z,y,x; y,x; with t in front) image whose planes are made of tiles.

    Open it with `MosaicImage.open`. It holds metadata only and can be pickled; arrays
    are opened when they are first read, once for each process.

    Attributes:
        url: address it was opened from.
        metadata: axes, units, scales and version of NGFF.
        channels: in the order of the c axis.
        levels: the pyramid, finest first.
        layout: tiles at full resolution.
        origins_px: where each tile really was, from the columns `*_micrometer_original`.
        dtype: of the pixels, in native byte order.
        notes: lines that a person should read, such as an unusual order of the tiles.
        finished: False where a run of this package broke off before its end.
        zarr_format: 2 or 3.
        storage_options: for remote addresses, as JSON; may hold secrets, so never shown.
        fingerprints: one for each level, of the metadata of its array.
        documents: the metadata of these arrays.
        kept_attributes: of the group, as they were when it was opened.
    """

    url: str
    metadata: ImageMetadata
    channels: tuple[Channel, ...]
    levels: tuple[Level, ...]
    layout: TileLayout
    origins_px: dict[int, tuple[float, float]] | None
    dtype: np.dtype[Any]
    notes: tuple[str, ...]
    finished: bool
    zarr_format: int
    storage_options: str = field(repr=False)
    fingerprints: tuple[str, ...]
    documents: tuple[Document, ...] = field(repr=False, compare=False)
    kept_attributes: Document = field(repr=False, compare=False)

    @classmethod
    def open(
        cls,
        url: str | os.PathLike[str],
        storage_options: StorageOptions = None,
        roi_table: str = FOV_TABLE,
        *,
        allow_unfinished: bool = False,
    ) -> MosaicImage:
        """Read the metadata of an image and the table of its tiles.

        Args:
            url: of the image group: a path, an address of fsspec, or a zip archive.
            storage_options: what fsspec needs for a remote address; plain JSON values.
            roi_table: name of the table of its fields of view.
            allow_unfinished: open what an interrupted run left, to look at it.

        Raises:
            ImageNotFoundError: nothing at the address.
            ImageFormatError: not an image that can be read here; the message says why.
            ParameterError: it has no table of that name.
            LayoutError: its table of tiles does not describe a mosaic.
        """
        address = normalise_url(url)
        with understood(address):
            return cls._read(address, storage_options, roi_table, allow_unfinished)

    @classmethod
    def of(
        cls, image: OpenedImage, url: str, storage_options: StorageOptions = None
    ) -> MosaicImage:
        """An image that was opened before; no metadata are read but those of its tiles.

        Args:
            image: what was read of it.
            url: its address.
            storage_options: for a remote one.

        Raises:
            ShadingError: as `open`.
        """
        if not image.is_whole:
            return cls.open(url, storage_options)
        address = normalise_url(url)
        with understood(address):
            _refuse_unfinished(dict(image.group.attrs), address)
            return cls._of(image, address, storage_options, FOV_TABLE)

    @classmethod
    def _read(
        cls, address: str, storage_options: StorageOptions, roi_table: str, allow_unfinished: bool
    ) -> MosaicImage:
        # Before anything is opened: it refuses what cannot be passed on.
        _as_json(storage_options)
        group = open_group(address, storage_options)
        attributes = dict(group.attrs)
        zarr_format = group.metadata.zarr_format
        if not ngff_content(attributes, zarr_format).get("multiscales"):
            raise ImageFormatError(explain_group(group, address))
        if not allow_unfinished:
            _refuse_unfinished(attributes, address)
        metadata = parse_metadata(attributes, zarr_format, address)
        arrays = tuple(describe_array(group, path) for path in metadata.paths)
        opened_image = OpenedImage(group, metadata, arrays)
        return cls._of(opened_image, address, storage_options, roi_table)

    @classmethod
    def _of(
        cls, image: OpenedImage, address: str, storage_options: StorageOptions, roi_table: str
    ) -> MosaicImage:
        group, metadata, arrays = image.group, image.metadata, image.arrays
        attributes, zarr_format = dict(group.attrs), group.metadata.zarr_format
        dtype = checked_type(arrays, metadata, address)
        levels = tuple(
            Level(path, array.shape, array.chunks, array.shards, scale)
            for path, array, scale in zip(metadata.paths, arrays, metadata.scales, strict=True)
        )
        sizes = metadata.pixel_size_um()
        height, width = levels[0].shape[-2:]
        pixel_um = (sizes["y"], sizes["x"])
        tiles = tiles_of(group, address, roi_table, pixel_um, (height, width), storage_options)
        notes = tiles.notes
        nameless = misplaced(attributes, zarr_format, "omero")
        if nameless is not None:
            notes = (*notes, f"The channels have no names: {nameless}")
        return cls(
            url=address,
            metadata=metadata,
            channels=metadata.channels(levels[0].shape),
            levels=levels,
            layout=tiles.layout,
            origins_px=tiles.origins_px,
            dtype=dtype,
            notes=(*notes, *unusual_forms(attributes, zarr_format)),
            finished=is_finished(attributes),
            zarr_format=zarr_format,
            storage_options=_as_json(storage_options),
            fingerprints=tuple(fingerprint(array) for array in arrays),
            documents=tuple(document_of(array) for array in arrays),
            kept_attributes=attributes,
        )

    @property
    def axes(self) -> Axes:
        """Its axes in order."""
        return self.metadata.axes

    @property
    def voxel_size_um(self) -> dict[str, float]:
        """Size of a pixel at full resolution along each axis of space, in micrometers."""
        return self.metadata.pixel_size_um()

    def attributes(self) -> dict[str, Any]:
        """All attributes of the image group, as they were when it was opened."""
        return deepcopy(self.kept_attributes)

    def array(self, level: int) -> zarr.Array[Any]:
        """The zarr array of a level, opened once in each process.

        Raises:
            ImageFormatError: the array is not the one that was there when the image was opened.
        """
        return opened(self.stored(level)[0])

    def stored(self, level: int) -> tuple[StoredArray]:
        """The array of a level."""
        path, expected = self.levels[level].path, self.fingerprints[level]
        return (StoredArray(self.url, path, self.storage_options, expected),)

    def read(self, level: int, box: Box) -> NDArray[Any]:
        """Read a box of a level.

        Args:
            level: 0 is full resolution.
            box: one slice with start and stop for each axis.

        Returns:
            Pixels in native byte order, C order. A chunk that is not there holds the fill
            value.

        Raises:
            SourceReadError: a chunk is there but cannot be read; the message names it.
        """
        where = join_url(self.url, self.levels[level].path)
        pixels = read_array(self.array(level), where, box)
        return np.ascontiguousarray(pixels, dtype=self.dtype)

    def read_units(self, level: int) -> Sequence[int]:
        """Shape of the smallest piece that is decoded as a whole: the (inner) chunk."""
        return self.levels[level].chunks

    def planes_apart(self, level: int) -> bool:
        """As the encoding of the level allows it."""
        return decoded_in_parts(self.array(level))

    @property
    def grids(self) -> tuple[Grid, ...]:
        """Itself alone."""
        return (Grid.alone(self.url, self.layout),)

    def chunk_frame(self, channel: int, tile: int) -> ChunkFrame:
        """The whole image, whatever the tile."""
        shape = self.levels[0].shape
        depth = self.axes.length("z", shape)
        return ChunkFrame((0, 0, 0), ((0, depth), (0, shape[-2]), (0, shape[-1])))

    def read_grain(self) -> Sequence[int]:
        """The chunk of level 0, no larger than the array."""
        pairs = zip(self.levels[0].chunks, self.levels[0].shape, strict=True)
        return tuple(min(chunk, max(size, 1)) for chunk, size in pairs)

    @property
    def suffix(self) -> str:
        """Empty: it stands alone."""
        return ""

    @property
    def model_groups(self) -> tuple[ModelGroup, ...]:
        """One for each channel."""
        planes = dict.fromkeys(
            (tile.number for tile in self.layout.tiles),
            (0, self.axes.length("z", self.levels[0].shape)),
        )
        mark, sizes = self.kept_attributes.get(MARK), self.voxel_size_um
        return tuple(
            ModelGroup(
                channel.label,
                channel,
                None,
                planes,
                light_path=of_import(mark, channel.index, (sizes["y"], sizes["x"])),
            )
            for channel in self.channels
        )

    def state(self) -> str:
        """Fingerprint: its metadata, and size and time of some of its chunk files."""
        digest = hashlib.sha256(json.dumps(self.attributes(), sort_keys=True).encode())
        digest.update("".join(self.fingerprints).encode())
        digest.update(repr(self.layout).encode())
        digest.update(files_state(self.array(0)))
        return digest.hexdigest()

    def stored_share(self) -> float:
        """Bytes of its chunk files over those of its pixels, told from some files."""
        return stored_share(self.array(0))


def is_finished(attributes: Mapping[str, Any]) -> bool:
    """Whether an image has no mark of ours, or the one that says it is complete."""
    mark = attributes.get(MARK)
    return not isinstance(mark, Mapping) or mark.get("complete") is True


def _refuse_unfinished(attributes: Mapping[str, Any], address: str) -> None:
    if not is_finished(attributes):
        raise ImageFormatError(
            f"The image '{address}' is unfinished: the run that wrote it broke off. "
            "Run it again to its end, or remove it."
        )


def _as_json(storage_options: StorageOptions) -> str:
    try:
        return json.dumps(dict(storage_options or {}), sort_keys=True)
    except (TypeError, ValueError, RecursionError) as error:
        raise ParameterError(
            f"The `storage_options` hold something that is no plain value ({error}); expected "
            "texts, numbers, lists and dictionaries, which can be passed to other processes."
        ) from error
