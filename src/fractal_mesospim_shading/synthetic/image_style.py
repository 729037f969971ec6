"""New images from nothing but a description: metadata, arrays and pyramid.

This is for images whose pixels are at hand, such as synthetic ones; the result of a
correction takes its metadata from its source and is written by `target`.
"""

from __future__ import annotations

import itertools
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from math import lcm, prod
from typing import Any, Literal

import numpy as np
import zarr
from numpy.typing import NDArray
from zarr import codecs
from zarr.errors import ContainsArrayError, ContainsGroupError

from fractal_mesospim_shading.core.pyramid import block_mean
from fractal_mesospim_shading.errors import OutputExistsError, ParameterError
from fractal_mesospim_shading.images.arrays.documents import Box
from fractal_mesospim_shading.images.storage.places import StorageOptions, normalise_url
from fractal_mesospim_shading.images.storage.stores import open_store

Planes = Callable[[tuple[int, ...], int, int], NDArray[Any]]
"""Planes [z0, z1) at a place along the axes before z, as (z, y, x)."""

_SLAB_BYTES = 64 * 2**20
_COLORS = ("00FFFF", "FF00FF", "FFFF00", "00FF00")
_KINDS = {"t": "time", "c": "channel"}
_UNITS = {"t": "second", "z": "micrometer", "y": "micrometer", "x": "micrometer"}


@dataclass(frozen=True)
class ImageStyle:
    """How an image lies on disk.

    Attributes:
        ngff_version: `0.4` (zarr v2) or `0.5` (zarr v3).
        axes: of the array, such as `czyx`, `zyx`, `yx`, `tczyx`.
        dtype: of the stored pixels; None keeps the type given. Values outside an integer
            type are clipped.
        chunks, shards: for the last axes, 1 for those before; never larger than the level.
        factors: for each further level, by how much z, y and x shrink.
        ragged: what becomes of pixels that fill no whole coarse pixel: `floor` drops
            them, `ceil` gives them a pixel.
        codec: `zstd`, `blosc`, `gzip`, None for no compression, or a codec object.
        byte_order: `<` or `>`.
        memory_order: of zarr v2, `C` or `F`.
        separator: between the numbers of a chunk's name, `/` or `.`.
        fill_value: of chunks that are not there; chunks that hold nothing else stay unwritten.
        pixel_size_um: (z, y, x) at full resolution.
    """

    ngff_version: str = "0.4"
    axes: str = "czyx"
    dtype: str | None = None
    chunks: tuple[int, ...] = (8, 64, 64)
    shards: tuple[int, ...] | None = None
    factors: tuple[tuple[int, int, int], ...] = ((1, 2, 2), (1, 2, 2))
    ragged: str = "floor"
    codec: Any = "zstd"
    byte_order: Literal["<", ">"] = "<"
    memory_order: str = "C"
    separator: str = "/"
    fill_value: float = 0
    pixel_size_um: tuple[float, float, float] = (5.0, 1.3, 1.3)

    @property
    def zarr_format(self) -> Literal[2, 3]:
        """2 for NGFF 0.4, 3 for 0.5."""
        formats: dict[str, Literal[2, 3]] = {"0.4": 2, "0.5": 3}
        if self.ngff_version not in formats:
            raise ParameterError(
                f"`ngff_version` is {self.ngff_version!r}; expected one of {', '.join(formats)}."
            )
        return formats[self.ngff_version]


def new_group(
    url: str | os.PathLike[str], form: ImageStyle, overwrite: bool, options: StorageOptions
) -> zarr.Group:
    """Make the group of a new image.

    Raises:
        OutputExistsError: there is already something, and it must not be replaced.
    """
    store, path = open_store(normalise_url(url), options, mode="w")
    try:
        return zarr.open_group(
            store, path=path, mode="w" if overwrite else "w-", zarr_format=form.zarr_format
        )
    except (ContainsGroupError, ContainsArrayError, FileExistsError) as error:
        raise OutputExistsError(
            f"There is already something at '{os.fspath(url)}'. Choose another name, or allow "
            "it to be replaced (`overwrite`)."
        ) from error


def image_attributes(
    form: ImageStyle,
    channels: Sequence[str] | None,
    more: Mapping[str, Any],
    kind: np.dtype[Any],
) -> dict[str, Any]:
    """Attributes of a new image: axes, scales, channels.

    Args:
        form: how it lies on disk.
        channels: labels; None leaves the channels undescribed.
        more: kept beside those of NGFF.
        kind: type of the pixels, for the windows of the channels.
    """
    axes = []
    for axis in form.axes:
        entry = {"name": axis, "type": _KINDS.get(axis, "space")}
        axes.append({**entry, "unit": _UNITS[axis]} if axis in _UNITS else entry)
    datasets = []
    size = {"t": 1.0, "c": 1.0, **dict(zip("zyx", form.pixel_size_um, strict=True))}
    for level, factor in enumerate(((1, 1, 1), *form.factors)):
        size.update({a: size[a] * f for a, f in zip("zyx", factor, strict=True)})
        scale = {"type": "scale", "scale": [size[axis] for axis in form.axes]}
        datasets.append({"path": str(level), "coordinateTransformations": [scale]})
    multiscale: dict[str, Any] = {"name": "image", "axes": axes, "datasets": datasets}
    content: dict[str, Any] = {"multiscales": [multiscale]}
    if channels is not None:
        content["omero"] = {"channels": [_channel(*item, kind) for item in enumerate(channels)]}
    if form.zarr_format == 3:
        return {"ome": {"version": "0.5", **content}, **more}
    for part in (multiscale, content.get("omero", {})):
        part["version"] = "0.4"
    return {**content, **more}


def _channel(index: int, label: str, kind: np.dtype[Any]) -> dict[str, Any]:
    top = int(np.iinfo(kind).max) if np.issubdtype(kind, np.integer) else 65535
    return {
        "label": label,
        "wavelength_id": f"A{index + 1:02d}_C01",
        "color": _COLORS[index % len(_COLORS)],
        "active": True,
        "window": {"min": 0, "max": top, "start": 0, "end": min(top, 2000)},
    }


def write_levels(
    group: zarr.Group, shape: Sequence[int], kind: np.dtype[Any], form: ImageStyle, planes: Planes
) -> None:
    """Make the arrays of the pyramid and fill them slab by slab, coarser ones from memory.

    Args:
        group: a new image.
        shape: of level 0, one number for each axis.
        kind: type of the pixels, native byte order.
        form: how it lies on disk.
        planes: gives the pixels of level 0, of type `kind`.
    """
    arrays = list(_arrays(group, tuple(shape), kind, form))
    has_z = "z" in form.axes
    factors = [factor if has_z else (1, *factor[1:]) for factor in form.factors]
    depth = shape[-3] if has_z else 1
    whole = prod(factor[0] for factor in factors)
    chunk = (arrays[0].shards or arrays[0].chunks)[-3] if has_z else 1
    most = _SLAB_BYTES // (shape[-2] * shape[-1] * kind.itemsize)
    thickness = lcm(whole, chunk)
    thickness = thickness * (most // thickness) if thickness <= most else whole
    before = shape[: -3 if has_z else -2]
    for lead in itertools.product(*(range(n) for n in before)):
        for start in range(0, depth, thickness):
            slab = planes(lead, start, min(start + thickness, depth))
            _put(arrays[0], lead, start, slab, has_z)
            position = start
            for array, factor in zip(arrays[1:], factors, strict=True):
                position //= factor[0]
                length = _coarse(slab.shape[0], factor[0], form.ragged)
                if length == 0:
                    break
                slab = block_mean(slab, factor, (length, *array.shape[-2:]))
                _put(array, lead, position, slab, has_z)


def _put(
    array: zarr.Array[Any], lead: tuple[int, ...], start: int, slab: NDArray[Any], has_z: bool
) -> None:
    place: Box = tuple(slice(i, i + 1) for i in lead)
    if has_z:
        place = (*place, slice(start, start + slab.shape[0]))
    whole = (slice(None), slice(None))
    array[(*place, *whole)] = slab.reshape((1,) * len(lead) + slab.shape[0 if has_z else 1 :])


def _coarse(length: int, factor: int, ragged: str) -> int:
    return -(-length // factor) if ragged == "ceil" else length // factor


def _arrays(
    group: zarr.Group, shape: tuple[int, ...], kind: np.dtype[Any], form: ImageStyle
) -> Iterator[zarr.Array[Any]]:
    if form.ragged not in ("floor", "ceil"):
        raise ParameterError(f"ragged is {form.ragged!r}; expected floor or ceil.")
    for level in range(len(form.factors) + 1):
        if level:
            factor = (1, 1, *form.factors[level - 1])[-len(shape) :]
            pairs = zip(shape, factor, strict=True)
            shape = tuple(_coarse(n, f, form.ragged) for n, f in pairs)
        chunks = tuple(min(c, n) for c, n in zip(_whole(form.chunks, shape), shape, strict=True))
        settings: dict[str, Any] = {"compressors": _codec(form)}
        if form.shards is not None:
            triples = zip(_whole(form.shards, shape), chunks, shape, strict=True)
            settings["shards"] = tuple(min(-(-s // c), -(-n // c)) * c for s, c, n in triples)
        if form.zarr_format == 3:
            settings["dimension_names"] = tuple(form.axes)
            if kind.itemsize > 1:
                endian = "little" if form.byte_order == "<" else "big"
                settings["serializer"] = codecs.BytesCodec(endian=endian)
        else:
            settings["order"] = form.memory_order
        key = {"name": "default" if form.zarr_format == 3 else "v2", "separator": form.separator}
        yield group.create_array(
            str(level),
            shape=shape,
            chunks=chunks,
            dtype=kind.newbyteorder(form.byte_order) if form.zarr_format == 2 else kind,
            fill_value=form.fill_value,
            chunk_key_encoding=key,  # type: ignore[arg-type]
            **settings,
        )


def _whole(sizes: Sequence[int], shape: Sequence[int]) -> tuple[int, ...]:
    """Sizes for all axes from those of the last ones."""
    wanted = tuple(sizes)[-len(shape) :]
    return (1,) * (len(shape) - len(wanted)) + wanted


def _codec(form: ImageStyle) -> Any:
    if not isinstance(form.codec, str):
        return form.codec
    settings: dict[str, dict[str, Any]] = {
        "zstd": {"level": 1},
        "blosc": {"cname": "lz4", "clevel": 5, "shuffle": "shuffle"},
        "gzip": {"level": 1},
    }
    if form.codec not in settings:
        raise ParameterError(f"codec is {form.codec!r}; expected one of {', '.join(settings)}.")
    chosen = settings[form.codec]
    if form.zarr_format == 3:
        return {"name": form.codec, "configuration": chosen}
    if form.codec == "blosc":
        # zarr v2 knows the kinds of shuffle by number.
        chosen["shuffle"] = 1
    return {"id": form.codec, **chosen}
