"""Where a result goes, and what its arrays look like."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from math import prod
from typing import Any

import numpy as np

from fractal_mesospim_shading.errors import FolderError, OutputExistsError, ParameterError
from fractal_mesospim_shading.images.arrays.documents import Document, native_dtype, output_document
from fractal_mesospim_shading.images.mark_texts import origin_line
from fractal_mesospim_shading.images.mosaic import MARK, is_finished
from fractal_mesospim_shading.images.source import Level
from fractal_mesospim_shading.images.storage import places
from fractal_mesospim_shading.images.storage.names import (
    from_template,
    refuse_bad_name,
    refuse_long_name,
)
from fractal_mesospim_shading.images.storage.places import StorageOptions, normalise_url
from fractal_mesospim_shading.images.target import TargetLevel, own_shards

SUFFIXES = (".ome.zarr.zip", ".zarr.zip", ".ome.zarr", ".zarr")

_ROOTS = ("zarr.json", ".zattrs", ".zgroup")
_COPIED_AT_ONCE = 1000


def split_name(name: str) -> tuple[str, str]:
    """The name of an image and the ending that is taken off and put back as a whole."""
    for suffix in SUFFIXES:
        if name.endswith(suffix) and name != suffix:
            return name.removesuffix(suffix), suffix.removesuffix(".zip")
    return name, ""


def output_url(source_url: str, template: str, folder: str | None) -> str:
    """The address of a result.

    Args:
        source_url: of the image.
        template: name of the result; `{image_name}` stands for the source's name
            without its ending.
        folder: where to put it; None for beside the source.

    Raises:
        ParameterError: the name is none, or too long, or one that no result may have; it
            leads elsewhere, is the source's own, or lies within the source.
    """
    parent, name = places.parent_and_name(source_url)
    stem, suffix = split_name(name)
    wished, _ = split_name(from_template(template, stem, "output_image_name"))
    refuse_bad_name(wished, "output_image_name")
    base = normalise_url(folder) if folder else parent
    target = places.join_url(base, wished + suffix)
    refuse_long_name(target, "output_image_name", "output_folder")
    if _are_one(target, source_url):
        raise ParameterError(
            f"The result would be written onto its own source, {source_url}. Give another "
            "`output_image_name`; `overwrite_input` lets the result take the source's place."
        )
    if f"{_resolved(target)}/".startswith(f"{_resolved(source_url)}/"):
        raise ParameterError(
            f"The result {target} would lie within its own source. Give another `output_folder`."
        )
    return target


def companion_url(url: str, kind: str) -> str:
    """The address of an image that goes with another: the name with the kind appended."""
    parent, name = places.parent_and_name(url)
    stem, suffix = split_name(name)
    return places.join_url(parent, f"{stem}_{kind}{suffix}")


def models_folder_url(final_url: str, source_url: str) -> str:
    """The folder for the models that a result was made with: beside it, named by its source."""
    parent, _ = places.parent_and_name(final_url)
    _, name = places.parent_and_name(source_url)
    return places.join_url(parent, f"{split_name(name)[0]}_shading_models")


def _are_one(one: str, other: str) -> bool:
    """Whether two addresses are of one thing, also where a file system ignores capitals."""
    if _resolved(one) == _resolved(other):
        return True
    try:
        return (
            places.is_local(one)
            and places.is_local(other)
            and os.path.samefile(places.local_path(one), places.local_path(other))
        )
    except OSError:
        return False


def _resolved(url: str) -> str:
    return os.path.realpath(places.local_path(url)) if places.is_local(url) else url.rstrip("/")


def refuse_existing(
    url: str,
    options: places.StorageOptions,
    *,
    overwrite: bool,
    name_option: str = "output_image_name",
) -> None:
    """Refuse a result that is there already.

    Args:
        url: of the result.
        options: of a remote address.
        overwrite: whether it may be replaced.
        name_option: the parameter that gives another name.

    Raises:
        OutputExistsError: it exists and is not to be replaced, or is no image at all.
    """
    if not places.exists(url, options):
        return
    attributes = _group_attributes(url, options)
    if attributes is None:
        raise OutputExistsError(
            f"There is something at {url} that is no OME-Zarr image; it is not replaced, whatever "
            f"`overwrite` says. Move it away, or choose another `{name_option}`."
        )
    if not places.is_local(url) and not is_finished(attributes):
        # Where nothing can be renamed, unfinished work has its final name already.
        return
    if not overwrite:
        mark = attributes.get(MARK)
        told = f", complete ({origin_line(mark)})" if isinstance(mark, dict) and mark else ""
        raise OutputExistsError(
            f"There is already something at {url}{told}. Choose another `{name_option}`, or set "
            "`overwrite` to replace it once the new result is complete."
        )


def mark_of(url: str, options: places.StorageOptions = None) -> Document:
    """What this package has written down in an image that it made; empty where there is nothing."""
    mark = (_group_attributes(url, options) or {}).get(MARK)
    return mark if isinstance(mark, dict) else {}


def finished_at(url: str, options: places.StorageOptions = None) -> bool:
    """Whether a finished image lies at an address, or one that this package has not made."""
    attributes = _group_attributes(url, options)
    return attributes is not None and is_finished(attributes)


def _group_attributes(url: str, options: places.StorageOptions) -> Document | None:
    """Attributes of a zarr group, None where there is none."""
    group = places.read_bytes(places.join_url(url, "zarr.json"), options)
    content = places.read_bytes(places.join_url(url, ".zattrs"), options)
    try:
        if group is not None:
            return dict(json.loads(group).get("attributes", {}))
        if places.read_bytes(places.join_url(url, ".zgroup"), options) is None:
            return None
        return dict(json.loads(content or b"{}"))
    except ValueError:
        return None


def refuse_unwritable(url: str, folder_option: str = "output_folder") -> None:
    """Refuse a folder that cannot be written, before any work is done.

    Raises:
        FolderError: names `output_folder`, or what else gives the folder.
    """
    if not places.is_local(url):
        return
    folder = places.local_path(url).parent
    existing = next(path for path in (folder, *folder.parents) if path.exists())
    if not existing.is_dir() or not os.access(existing, os.W_OK | os.X_OK):
        raise FolderError(
            f"The folder {folder} cannot be written. Set `{folder_option}` to one that can."
        )


def target_levels(
    levels: Sequence[Level],
    documents: Sequence[Document],
    *,
    zarr_format: int,
    axes: str,
    shards: Sequence[int] | None,
    dtype: np.dtype[Any] | None = None,
) -> tuple[TargetLevel, ...]:
    """The arrays of a result with the pyramid, chunks and codec of its source.

    Args:
        levels, documents: of the source.
        zarr_format: of the result.
        axes: names in order.
        shards: shape for the last axes, as the user gave it; None: sharded where the
            source is.
        dtype: of the result, where it differs.

    Raises:
        ParameterError: shards that are no multiple of the chunk, or with zarr v2.
    """
    if shards is not None and zarr_format == 2:
        raise ParameterError(
            "`output_shards` needs OME-Zarr 0.5; the result would be 0.4. Give `ngff_version=0.5`."
        )
    if shards is not None:
        _checked_shards(shards, levels[0])
    result = []
    for level, document in zip(levels, documents, strict=True):
        kind = native_dtype(document) if dtype is None else np.dtype(dtype)
        chunks = tuple(min(c, max(n, 1)) for c, n in zip(level.chunks, level.shape, strict=True))
        chosen = None
        if shards is not None:
            chosen = _given_shards(shards, chunks, level.shape)
        elif level.shards is not None and zarr_format == 3:
            chosen = own_shards(chunks, level.shape, kind.itemsize)
        output = output_document(
            document,
            zarr_format=zarr_format,
            shape=level.shape,
            chunks=chunks,
            shards=chosen,
            dtype=kind,
            dimension_names=list(axes),
        )
        result.append(TargetLevel(level.path, level.shape, chunks, chosen, level.scale, output))
    return tuple(result)


def _checked_shards(given: Sequence[int], level: Level) -> None:
    """Refuse shards that are no multiples of the chunk at full resolution."""
    if not 1 <= len(given) <= len(level.chunks) or any(w < 1 for w in given):
        raise ParameterError(
            f"`output_shards` is {list(given)}; expected up to {len(level.chunks)} positive "
            "numbers, for the last axes of the image."
        )
    chunks = level.chunks[-len(given) :]
    if any(w % c for w, c in zip(given, chunks, strict=True)):
        raise ParameterError(
            f"`output_shards` is {list(given)}; each number must be a multiple of the chunk, "
            f"{list(chunks)}."
        )


def _given_shards(
    given: Sequence[int], chunks: tuple[int, ...], shape: tuple[int, ...]
) -> tuple[int, ...]:
    """The shards of a level; coarse levels have smaller chunks than the finest may."""
    full = (*chunks[: len(chunks) - len(given)], *given)
    # No larger than the array, rounded up to whole chunks.
    return tuple(
        min(max(w // c, 1), -(-n // c)) * c for w, c, n in zip(full, chunks, shape, strict=True)
    )


def pixel_bytes(levels: Sequence[TargetLevel]) -> int:
    """Bytes of all pixels of all levels, before compression."""
    return sum(prod(level.shape) * level.dtype.itemsize for level in levels)


def replace_remote(made: str, place: str, options: StorageOptions) -> None:
    """Replace an image of an object store by one that is complete beside it.

    The old one is first marked as unfinished, so that nobody takes the mixture of
    both for an image; the copy of the new one's own mark is the last step. All steps may be done
    again.

    Args:
        made: the complete image.
        place: of the old one; there may be nothing.
        options: of the storage.

    Raises:
        OutputWriteError: the storage fails.
    """
    new = places.relative_files(made, options)
    if not new:
        return
    _take_mark_off(place, options)
    for name in places.relative_files(place, options):
        if name not in set(new) and name not in _ROOTS:
            places.remove(places.join_url(place, name), options)
    pairs = [(places.join_url(made, n), places.join_url(place, n)) for n in new if n not in _ROOTS]
    for start in range(0, len(pairs), _COPIED_AT_ONCE):
        places.copy_remote(pairs[start : start + _COPIED_AT_ONCE], options)
    for name in _ROOTS:
        if name not in new:
            places.remove(places.join_url(place, name), options)
    for name in _ROOTS:
        if name in new:
            places.copy_remote(
                [(places.join_url(made, name), places.join_url(place, name))], options
            )


def _take_mark_off(place: str, options: StorageOptions) -> None:
    """Mark an image as unfinished, in the metadata of both versions of zarr."""
    unfinished = {MARK: {"complete": False}}
    group = _document(places.join_url(place, "zarr.json"), options)
    if group is not None:
        group["attributes"] = {**group.get("attributes", {}), **unfinished}
        places.write_bytes(places.join_url(place, "zarr.json"), json.dumps(group).encode(), options)
    attributes = _document(places.join_url(place, ".zattrs"), options)
    if attributes is not None or (group is None and places.exists(place, options)):
        content = json.dumps({**(attributes or {}), **unfinished}).encode()
        places.write_bytes(places.join_url(place, ".zattrs"), content, options)


def _document(url: str, options: StorageOptions) -> dict[str, Any] | None:
    content = places.read_bytes(url, options)
    try:
        return None if content is None else dict(json.loads(content))
    except (ValueError, TypeError):
        return {}
