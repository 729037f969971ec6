"""Small images in every form that the package reads, made from nothing but a description.

Metadata, arrays, a pyramid by block means, and the tables of tiles. It is for images whose pixels
are at hand; a result takes its metadata from its source.
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
from numpy.typing import ArrayLike, NDArray
from zarr import codecs
from zarr.errors import ContainsArrayError, ContainsGroupError

from fractal_mesospim_shading.core.layout import TileLayout
from fractal_mesospim_shading.core.pyramid import block_mean
from fractal_mesospim_shading.errors import OutputExistsError, ParameterError
from fractal_mesospim_shading.images.arrays.documents import Box
from fractal_mesospim_shading.images.ngff import ZARR_FORMATS, axis_type, converted_attributes
from fractal_mesospim_shading.images.roi_tables import write_roi_tables
from fractal_mesospim_shading.images.storage.places import StorageOptions, normalise_url
from fractal_mesospim_shading.images.storage.stores import open_store
from fractal_mesospim_shading.synthetic.world import grid_layout

Planes = Callable[[tuple[int, ...], int, int], NDArray[Any]]
"""Planes [z0, z1) at a place along the axes before z, as (z, y, x)."""

_SLAB_BYTES = 64 * 2**20
_COLORS = ("00FFFF", "FF00FF", "FFFF00", "00FF00")
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
        if self.ngff_version not in ZARR_FORMATS:
            raise ParameterError(
                f"`ngff_version` is {self.ngff_version!r}; expected one of "
                f"{', '.join(ZARR_FORMATS)}."
            )
        return ZARR_FORMATS[self.ngff_version]


def write_image(
    url: str | os.PathLike[str],
    array: ArrayLike,
    *,
    channels: Sequence[str] | None = None,
    tile_shape: tuple[int, int] | None = None,
    missing: Sequence[int] = (),
    original_um: Mapping[int, Sequence[float]] | None = None,
    attributes: Mapping[str, Any] | None = None,
    overwrite: bool = False,
    storage_options: StorageOptions = None,
    **style: Any,
) -> str:
    """Write an array as an OME-Zarr image.

    Args:
        url: of the new image.
        array: pixels, one axis for each letter of `axes`.
        channels: labels; None writes no channel metadata.
        tile_shape: (y, x); writes the tables of a full grid of tiles of this size. None
            writes no tables.
        missing: numbers of tiles that the table leaves out; their pixels are written as given.
        original_um: for `write_roi_tables`.
        attributes: more attributes of the group, kept beside those of NGFF.
        overwrite: replace what is there.
        storage_options: for a remote address.
        style: fields of `ImageStyle`.

    Returns:
        The address.

    Raises:
        OutputExistsError: there is already something.
        ParameterError: axes, channels or tiles do not fit the array.
    """
    pixels = np.asarray(array)
    form = ImageStyle(**style)
    if pixels.ndim != len(form.axes):
        raise ParameterError(
            f"The array has shape {pixels.shape}, but the axes are '{form.axes}'; expected one "
            "axis for each letter."
        )
    count = pixels.shape[form.axes.index("c")] if "c" in form.axes else 1
    if channels is not None and len(channels) != count:
        raise ParameterError(f"{len(channels)} channel labels for {count} channels.")
    layout = None if tile_shape is None else grid_layout(pixels.shape[-2:], tile_shape, missing)
    depth = 1 if "z" not in form.axes else pixels.shape[-3]
    kind = np.dtype(form.dtype) if form.dtype else pixels.dtype.newbyteorder("=")

    def planes(lead: tuple[int, ...], start: int, stop: int) -> NDArray[Any]:
        return np.asarray(pixels[lead]).reshape(depth, *pixels.shape[-2:])[start:stop]

    return new_image(
        url,
        pixels.shape,
        kind,
        planes,
        form,
        layout=layout,
        original_um=original_um,
        channels=channels,
        attributes=attributes,
        overwrite=overwrite,
        storage_options=storage_options,
    )


def new_image(
    url: str | os.PathLike[str],
    shape: Sequence[int],
    kind: np.dtype[Any],
    planes: Planes,
    form: ImageStyle,
    *,
    layout: TileLayout | None,
    original_um: Mapping[int, Sequence[float]] | None,
    channels: Sequence[str] | None,
    attributes: Mapping[str, Any] | None = None,
    overwrite: bool,
    storage_options: StorageOptions,
) -> str:
    """Make an image and fill it slab by slab, coarser levels from memory.

    Args:
        url, original_um, channels, attributes, overwrite, storage_options: see `write_image`.
        shape: of level 0, one number for each axis.
        kind: type of the stored pixels, native byte order.
        planes: gives the pixels of level 0.
        form: how it lies on disk.
        layout: of the tables of tiles; None writes none.

    Raises:
        OutputExistsError: there is already something, and it must not be replaced.
    """
    address = normalise_url(url)
    store, path = open_store(address, storage_options, mode="w")
    mode: Literal["w", "w-"] = "w" if overwrite else "w-"
    try:
        group = zarr.open_group(store, path=path, mode=mode, zarr_format=form.zarr_format)
    except (ContainsGroupError, ContainsArrayError, FileExistsError) as error:
        raise OutputExistsError(
            f"There is already something at '{os.fspath(url)}'. Choose another name, or allow "
            "it to be replaced (`overwrite`)."
        ) from error
    group.attrs.put({**_attributes(form, channels, kind), **(attributes or {})})
    _fill(list(_arrays(group, tuple(shape), kind, form)), planes, form, kind)
    if layout is not None:
        depth = shape[form.axes.index("z")] if "z" in form.axes else 1
        size_um = dict(zip("zyx", form.pixel_size_um, strict=True))
        write_roi_tables(address, layout, size_um, depth, original_um, storage_options)
    return os.fspath(url)


def _fill(
    arrays: Sequence[zarr.Array[Any]], planes: Planes, form: ImageStyle, kind: np.dtype[Any]
) -> None:
    shape = arrays[0].shape
    has_z = "z" in form.axes
    factors = [factor if has_z else (1, *factor[1:]) for factor in form.factors]
    depth = shape[-3] if has_z else 1
    whole = prod(factor[0] for factor in factors)
    chunk = (arrays[0].shards or arrays[0].chunks)[-3] if has_z else 1
    most = _SLAB_BYTES // (shape[-2] * shape[-1] * kind.itemsize)
    # At least a layer of chunks, however large: to add planes to a chunk is to encode it again.
    thickness = lcm(whole, chunk)
    thickness *= max(1, most // thickness)
    before = shape[: -3 if has_z else -2]
    for lead in itertools.product(*(range(n) for n in before)):
        for start in range(0, depth, thickness):
            slab = _cast(planes(lead, start, min(start + thickness, depth)), kind)
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
    last = tuple(sizes)[-len(shape) :]
    return (1,) * (len(shape) - len(last)) + last


def _codec(form: ImageStyle) -> Any:
    settings: dict[str, dict[str, Any]] = {
        "zstd": {"level": 1},
        "blosc": {"cname": "lz4", "clevel": 5, "shuffle": "shuffle"},
        "gzip": {"level": 1},
    }
    if not isinstance(form.codec, str):
        return form.codec
    if form.codec not in settings:
        raise ParameterError(f"codec is {form.codec!r}; expected one of {', '.join(settings)}.")
    if form.zarr_format == 3:
        return {"name": form.codec, "configuration": settings[form.codec]}
    # zarr v2 knows the kinds of shuffle by number.
    settings["blosc"]["shuffle"] = 1
    return {"id": form.codec, **settings[form.codec]}


def _attributes(
    form: ImageStyle, channels: Sequence[str] | None, kind: np.dtype[Any]
) -> dict[str, Any]:
    """Those of NGFF: axes, scales, channels."""
    axes = []
    for axis in form.axes:
        entry = {"name": axis, "type": axis_type(axis)}
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
    return converted_attributes({"ome": {"version": "0.5", **content}}, 3, form.zarr_format)


def _channel(index: int, label: str, kind: np.dtype[Any]) -> dict[str, Any]:
    top = int(np.iinfo(kind).max) if np.issubdtype(kind, np.integer) else 65535
    return {
        "label": label,
        "wavelength_id": f"A{index + 1:02d}_C01",
        "color": _COLORS[index % len(_COLORS)],
        "active": True,
        "window": {"min": 0, "max": top, "start": 0, "end": min(top, 2000)},
    }


def _cast(pixels: NDArray[Any], kind: np.dtype[Any]) -> NDArray[Any]:
    """Pixels of another type: rounded and clipped where that type is an integer."""
    if np.issubdtype(kind, np.integer) and pixels.dtype.newbyteorder("=") != kind:
        limits = np.iinfo(kind)
        pixels = np.clip(np.rint(pixels), limits.min, limits.max)
    return np.ascontiguousarray(pixels, dtype=kind)
