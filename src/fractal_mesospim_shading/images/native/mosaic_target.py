"""What the image looks like that a native acquisition is imported to."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import ceil
from typing import Any

from fractal_mesospim_shading.errors import ParameterError
from fractal_mesospim_shading.images.arrays.codecs import open_array
from fractal_mesospim_shading.images.arrays.documents import Document, document_of, output_document
from fractal_mesospim_shading.images.native.mosaic import NativeMosaic
from fractal_mesospim_shading.images.storage.places import StorageOptions, join_url
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
    mosaic: NativeMosaic, style: ImportStyle, options: StorageOptions
) -> tuple[TargetLevel, ...]:
    """The arrays of an imported mosaic: halved along y and x from level to level.

    Chunks divide the tile, so that no chunk belongs to two tiles and each chunk of the
    source is read once.

    Raises:
        ParameterError: chunks or shards that are no sizes.
    """
    first = mosaic.placed[0].stack
    source = document_of(
        open_array(join_url(mosaic.url, first.group), first.levels[0].path, options)
    )
    sharded = style.zarr_format == 3 and (
        style.shards is not None or first.levels[0].shards is not None
    )
    chunks = _chunks(mosaic, style)
    result: list[TargetLevel] = []
    shape = mosaic.shape
    for level in range(style.levels):
        if level:
            smaller = (ceil(shape[2] / 2), ceil(shape[3] / 2))
            if min(smaller) < min(_SMALLEST_PLANE, *mosaic.shape[2:]):
                break
            shape = (shape[0], shape[1], *smaller)
        fitted = tuple(min(c, n) for c, n in zip(chunks, shape, strict=True))
        shards = _shards(mosaic, style, fitted, shape) if sharded else None
        document = output_document(
            source,
            zarr_format=style.zarr_format,
            shape=shape,
            chunks=fitted,
            shards=shards,
            dtype=mosaic.dtype,
            dimension_names=list("czyx"),
        )
        document["attributes"] = {}
        if style.zarr_format == 3:
            document["dimension_names"] = list("czyx")
        scale = (1.0, mosaic.voxel_um[0], *(v * 2**level for v in mosaic.voxel_um[1:]))
        result.append(TargetLevel(str(level), shape, fitted, shards, scale, document))
    return tuple(result)


def _chunks(mosaic: NativeMosaic, style: ImportStyle) -> tuple[int, ...]:
    if style.chunks is not None:
        if len(style.chunks) != 3 or any(c < 1 for c in style.chunks):
            raise ParameterError(
                f"`chunks` is {list(style.chunks)}; expected three positive numbers for z, y, x."
            )
        return (1, *style.chunks)
    source = mosaic.levels[0].chunks
    tile = mosaic.layout.tile_shape
    return (1, source[1], *(_divisor(n, c) for n, c in zip(tile, source[2:], strict=True)))


def _divisor(size: int, most: int) -> int:
    """The largest divisor of a size up to a limit; the limit itself where that is tiny."""
    found = max(d for d in range(1, most + 1) if size % d == 0)
    return found if found >= most // 4 or found == size else most


def _shards(
    mosaic: NativeMosaic, style: ImportStyle, chunks: tuple[int, ...], shape: tuple[int, ...]
) -> tuple[int, ...]:
    if style.shards is None:
        limit = (shape[0], shape[1], *mosaic.layout.tile_shape)
        return own_shards(chunks, limit, mosaic.dtype.itemsize)
    if len(style.shards) != 3 or any(
        s < 1 or s % c for s, c in zip(style.shards, chunks[1:], strict=True)
    ):
        raise ParameterError(
            f"`output_shards` is {list(style.shards)}; expected three multiples of the chunk "
            f"{list(chunks[1:])} (z, y, x)."
        )
    return (1, *style.shards)


def import_attributes(
    mosaic: NativeMosaic, levels: Sequence[TargetLevel], zarr_format: int, name: str
) -> Document:
    """NGFF metadata of an imported mosaic: axes, scales, channels with names and colours."""
    from ome_zarr.axes import Axes
    from ome_zarr.format import FormatV04, FormatV05

    fmt = FormatV04() if zarr_format == 2 else FormatV05()
    kinds = {"c": "channel", "z": "space", "y": "space", "x": "space"}
    axes = Axes(
        [
            {"name": axis, "type": kinds[axis]}
            | ({"unit": "micrometer"} if kinds[axis] == "space" else {})
            for axis in "czyx"
        ],
        fmt=fmt,
    ).to_list()
    datasets = [
        {
            "path": level.path,
            "coordinateTransformations": [{"type": "scale", "scale": list(level.scale)}],
        }
        for level in levels
    ]
    multiscale: Document = {"name": name, "axes": axes, "datasets": datasets}
    omero: Document = {"channels": _channels(mosaic)}
    if zarr_format == 2:
        return {"multiscales": [{"version": "0.4", **multiscale}], "omero": omero}
    return {"ome": {"version": "0.5", "multiscales": [multiscale], "omero": omero}}


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


def acquisition_facts(mosaic: NativeMosaic) -> dict[str, Any]:
    """What is worth keeping of the acquisition's metadata."""
    return {
        "rotation": mosaic.rotation,
        "side": mosaic.side,
        "z_start_um": mosaic.z_start_um,
        "stacks": [
            {
                "tile": placed.tile,
                "channel": placed.channel,
                "group": placed.stack.group,
                "laser": placed.stack.laser,
                "filter": placed.stack.filter,
                "side": placed.stack.side,
                "zoom": placed.stack.zoom,
                "stage_um": {
                    "x": placed.stack.x_um,
                    "y": placed.stack.y_um,
                    "z_start": placed.stack.z_start_um,
                    "z_end": placed.stack.z_end_um,
                },
                "planes_planned": placed.stack.planes_planned,
                "planes_found": placed.stack.planes_found,
                "first_plane": placed.first_plane,
                "processors": list(placed.stack.processors),
            }
            for placed in mosaic.placed
        ],
    }
