"""What is made from an acquisition besides pixels.

Of an image it is imported to: arrays, channels, colours. Of a corrected container: its mark, and
the files beside it.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Sequence, Set
from dataclasses import dataclass, field
from html import escape
from math import ceil
from typing import Any

import numpy as np

from fractal_mesospim_shading.errors import (
    ImageFormatError,
    OutputExistsError,
    ParameterError,
    SourceReadError,
)
from fractal_mesospim_shading.images.arrays.documents import Document, document_of, output_document
from fractal_mesospim_shading.images.arrays.reading import open_array
from fractal_mesospim_shading.images.mosaic import MARK, is_finished
from fractal_mesospim_shading.images.native.collection import TileCollection
from fractal_mesospim_shading.images.native.meta import decode
from fractal_mesospim_shading.images.native.mosaic import NativeMosaic
from fractal_mesospim_shading.images.native.stack import (
    BesideName,
    meta_file_name,
    parse_meta_file_name,
)
from fractal_mesospim_shading.images.native.surroundings import read_beside
from fractal_mesospim_shading.images.ngff import axis_type, image_attributes
from fractal_mesospim_shading.images.storage import places
from fractal_mesospim_shading.images.storage.names import USUAL_NAME_BYTES
from fractal_mesospim_shading.images.storage.places import StorageOptions, join_url, normalise_url
from fractal_mesospim_shading.images.storage.stores import open_group
from fractal_mesospim_shading.images.target import TargetLevel, own_shards

_SMALLEST_PLANE = 64
_COLORS = {
    405: "0000FF",
    445: "00A0FF",
    458: "00C8FF",
    488: "00FF00",
    515: "80FF00",
    561: "FF8000",
    594: "FF4000",
    638: "FF0000",
    640: "FF0000",
    647: "FF0000",
}


@dataclass(frozen=True)
class ImportStyle:
    """Choices of the user for an imported image.

    Attributes:
        zarr_format: 2 or 3.
        levels: of the pyramid.
        chunks: (z, y, x), None for chunks that suit the tiles and the source.
        shards: (z, y, x), None for shards of our own where the source has some.
    """

    zarr_format: int
    levels: int
    chunks: Sequence[int] | None
    shards: Sequence[int] | None


def import_levels(
    mosaic: NativeMosaic,
    style: ImportStyle,
    options: StorageOptions,
    dtype: np.dtype[Any] | None = None,
) -> tuple[TargetLevel, ...]:
    """The arrays of an imported mosaic: halved along y and x from level to level.

    Chunks divide the tile, so that no chunk belongs to two tiles and each chunk of the
    source is read once.

    Args:
        mosaic: that is imported.
        style: of the image.
        options: of a remote address.
        dtype: of the pixels where it is not the acquisition's.

    Raises:
        ParameterError: chunks or shards that are no sizes.
    """
    first = mosaic.placed[0].stack
    array = open_array(join_url(mosaic.url, first.group), first.levels[0].path, options)
    source = document_of(array.metadata)
    sharded = style.zarr_format == 3 and (
        style.shards is not None or first.levels[0].shards is not None
    )
    chunks, kind = _chunks(mosaic, style), mosaic.dtype if dtype is None else dtype
    result: list[TargetLevel] = []
    shape = mosaic.shape
    for level in range(style.levels):
        if level:
            smaller = (ceil(shape[-2] / 2), ceil(shape[-1] / 2))
            if min(smaller) < min(_SMALLEST_PLANE, *mosaic.shape[-2:]):
                break
            shape = (*shape[:-2], *smaller)
        fitted = tuple(min(c, n) for c, n in zip(chunks, shape, strict=True))
        shards = _shards(mosaic, style, fitted, shape, kind) if sharded else None
        document = output_document(
            source,
            zarr_format=style.zarr_format,
            shape=shape,
            chunks=fitted,
            shards=shards,
            dtype=kind,
            dimension_names=list(mosaic.axes),
        )
        document["attributes"] = {}
        if style.zarr_format == 3:
            document["dimension_names"] = list(mosaic.axes)
        fine = mosaic.levels[0].scale
        scale = (*fine[:-2], *(v * 2**level for v in fine[-2:]))
        result.append(TargetLevel(str(level), shape, fitted, shards, scale, document))
    return tuple(result)


def _chunks(mosaic: NativeMosaic, style: ImportStyle) -> tuple[int, ...]:
    lead = (1,) * len(mosaic.shape[:-3])
    if style.chunks is not None:
        if len(style.chunks) != 3 or any(c < 1 for c in style.chunks):
            raise ParameterError(
                f"`chunks` is {list(style.chunks)}; expected three positive numbers for z, y, x."
            )
        return (*lead, *style.chunks)
    source = mosaic.levels[0].chunks
    tile = mosaic.layout.tile_shape
    return (*lead, source[-3], *(_divisor(n, c) for n, c in zip(tile, source[-2:], strict=True)))


def _divisor(size: int, most: int) -> int:
    """The largest divisor of a size up to a limit; the limit itself where that is tiny."""
    divisor = max(d for d in range(1, most + 1) if size % d == 0)
    return divisor if divisor >= most // 4 or divisor == size else most


def _shards(
    mosaic: NativeMosaic,
    style: ImportStyle,
    chunks: tuple[int, ...],
    shape: tuple[int, ...],
    dtype: np.dtype[Any],
) -> tuple[int, ...]:
    if style.shards is None:
        limit = (*shape[:-2], *mosaic.layout.tile_shape)
        return own_shards(chunks, limit, dtype.itemsize)
    if len(style.shards) != 3 or any(
        s < 1 or s % c for s, c in zip(style.shards, chunks[-3:], strict=True)
    ):
        raise ParameterError(
            f"`output_shards` is {list(style.shards)}; expected three multiples of the chunk "
            f"{list(chunks[-3:])} (z, y, x)."
        )
    return (*chunks[:-3], *style.shards)


def import_attributes(
    mosaic: NativeMosaic, levels: Sequence[TargetLevel], zarr_format: int, name: str
) -> Document:
    """NGFF metadata of an imported mosaic: axes, scales, channels with names and colours."""
    axes = [
        *({"name": axis, "type": axis_type(axis)} for axis in mosaic.axes[:-3]),
        *({"name": axis, "type": "space", "unit": "micrometer"} for axis in "zyx"),
    ]
    datasets = [
        {
            "path": level.path,
            "coordinateTransformations": [{"type": "scale", "scale": list(level.scale)}],
        }
        for level in levels
    ]
    multiscale: Document = {"name": name, "axes": axes, "datasets": datasets}
    omero: Document = {"channels": _channels(mosaic)}
    return image_attributes(multiscale, omero, zarr_format)


def _channels(mosaic: NativeMosaic) -> list[Document]:
    channels = []
    for channel, native in zip(mosaic.channels, mosaic.native_channels, strict=True):
        wavelength = native.wavelength_nm
        nearest = min(_COLORS, key=lambda nm: abs(nm - (wavelength or 488)))
        channels.append(
            {
                "label": channel.label,
                "wavelength_id": channel.wavelength_id,
                "color": _COLORS[nearest],
                "active": True,
            }
        )
    return channels


@dataclass(frozen=True)
class Companion:
    """A file to be written beside a result.

    Attributes:
        url: where it goes.
        data: its content.
    """

    url: str
    data: bytes = field(repr=False)


def plan_companions(
    collection: TileCollection,
    groups: Set[str],
    final_url: str,
    storage: StorageOptions,
    *,
    overwrite: bool,
) -> tuple[Companion, ...]:
    """Metadata texts and the BigStitcher file, under the names that go with a result.

    The maximum projections beside the original are of uncorrected pixels and stay behind.

    Args:
        collection: the original.
        groups: names of the stacks that the result holds.
        final_url: of the result.
        storage: for remote addresses.
        overwrite: whether files of other content may be replaced.

    Raises:
        SourceReadError: a file of the original cannot be read.
        ParameterError: a name would be longer than file systems allow.
        OutputExistsError: there is a file of that name with another content.
    """
    _, source_name = places.parent_and_name(collection.url)
    folder, name = places.parent_and_name(final_url)
    companions = []
    texts = {s.meta_file: s.group for s in collection.stacks if s.group in groups and s.meta_file}
    for meta_file, group in texts.items():
        text = decode(_read(collection.url, meta_file, storage))
        about = parse_meta_file_name(source_name, meta_file) or BesideName(group)
        url = places.join_url(folder, meta_file_name(name, about))
        companions.append(Companion(url, text.with_name(source_name, name)))
    if collection.xml_file is not None:
        xml = _read(collection.url, collection.xml_file, storage)
        url = places.join_url(folder, f"{name}.xml")
        companions.append(Companion(url, _pointing_at(xml, name)))
    for companion in companions:
        _refuse(companion, storage, overwrite=overwrite)
    return tuple(companions)


def _read(container: str, name: str, storage: StorageOptions) -> bytes:
    """A file beside a container, which may lie in an archive with it."""
    try:
        return read_beside(container, name, storage)
    except FileNotFoundError as error:
        raise SourceReadError(
            f"'{name}' is listed beside the acquisition '{container}' but is not there: it was "
            "removed meanwhile, or is a link to nothing. Put it back, or remove it."
        ) from error
    except places.connection_errors() as error:
        raise SourceReadError(
            f"'{name}' beside the acquisition '{container}' cannot be read: {error}."
        ) from error


def _refuse(companion: Companion, storage: StorageOptions, *, overwrite: bool) -> None:
    _, name = places.parent_and_name(companion.url)
    if len(os.fsencode(name)) > USUAL_NAME_BYTES:
        raise ParameterError(
            f"The file '{name}', which goes with the result, would have a longer name than file "
            f"systems allow ({USUAL_NAME_BYTES} bytes). Give a shorter `output_image_name`."
        )
    if overwrite:
        return
    present = places.read_bytes(companion.url, storage)
    if present is not None and present != companion.data:
        raise OutputExistsError(
            f"There is a file {companion.url} already, and it is not the one that goes with this "
            "result. Move it away, give another `output_image_name`, or set `overwrite` to "
            "replace it."
        )


def _pointing_at(xml: bytes, name: str) -> bytes:
    """A BigStitcher file with the container of a name beside it; all else stays to the letter."""

    def pointing(tag: re.Match[bytes]) -> bytes:
        start: bytes = tag[1].replace(b'"absolute"', b'"relative"')
        return start + escape(name, quote=False).encode() + tag[2]

    return re.sub(rb"(<zarr\b[^>]*>)[^<]*(</zarr>)", pointing, xml)


def container_attributes(url: str, storage_options: StorageOptions = None) -> Document:
    """The attributes of the container's own group; the microscope writes none.

    Raises:
        ImageNotFoundError, ImageFormatError: there is no zarr group.
    """
    group = open_group(normalise_url(url), storage_options)
    attributes: Document = json.loads(json.dumps(dict(group.attrs)))
    return attributes


def refuse_unfinished(url: str, attributes: Document) -> None:
    """Refuse what a run of this package left before its end.

    Raises:
        ImageFormatError: it is such a container.
    """
    if not is_finished(attributes):
        raise ImageFormatError(
            f"The container '{url}' is unfinished: the run that wrote it broke off. Run it again "
            "to its end, or remove it."
        )


def earlier_correction(attributes: Document) -> str | None:
    """One line where the container is a corrected one already; None where it is not."""
    mark = attributes.get(MARK)
    if not isinstance(mark, dict):
        return None
    made = f"{mark.get('task')}, version {mark.get('version')}"
    if mark.get("content"):
        return f"This container holds no images but the {mark['content']} of some ({made})."
    return (
        f"This container is a result of this package already ({made}), not what the microscope "
        "wrote."
    )
