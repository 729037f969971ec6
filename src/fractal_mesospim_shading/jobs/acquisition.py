"""Open a native acquisition for a job: what is said about it, and what a rerun must match."""

from __future__ import annotations

import hashlib
import logging
import os
from collections.abc import Iterator, Sequence
from math import prod
from typing import Any

from fractal_mesospim_shading.errors import ParameterError
from fractal_mesospim_shading.images.mosaic import MARK
from fractal_mesospim_shading.images.native.collection import TileCollection
from fractal_mesospim_shading.images.native.mosaic import NativeMosaic
from fractal_mesospim_shading.images.native.signs import SignOptions
from fractal_mesospim_shading.images.native.state import (
    container_attributes,
    refuse_unfinished,
)
from fractal_mesospim_shading.images.output import pixel_bytes
from fractal_mesospim_shading.images.storage import places
from fractal_mesospim_shading.images.target import TargetLevel
from fractal_mesospim_shading.jobs.preparation import options_of

logger = logging.getLogger(__name__)

_SAMPLED_FILES = 512
_METADATA_FILES = {".zarray", ".zattrs", "zarr.json"}


def open_collection(container: str, options: Any) -> TileCollection:
    """Open an acquisition with what the user knows about its axes.

    Raises:
        ShadingError: it cannot be read, or is an unfinished result of this package.
    """
    refuse_unfinished(container, container_attributes(container, options_of(options)))
    signs = SignOptions(getattr(options, "sign_x", None), getattr(options, "sign_y", None))
    exclude = getattr(options, "exclude_groups", None) or ()
    return TileCollection.open(
        container, options_of(options), signs=signs, exclude_groups=tuple(exclude)
    )


def log_facts(collection: TileCollection) -> None:
    """Say what is suspicious in an acquisition, and which orientation is used."""
    for line in collection.warnings:
        logger.warning("%s", line)
    logger.info("%s", collection.orientation.text)


def earlier_mark(collection: TileCollection, options: Any) -> dict[str, Any] | None:
    """Our mark in a container that is a result of this package; None in an original."""
    mark = container_attributes(collection.url, options_of(options)).get(MARK)
    return mark if isinstance(mark, dict) else None


def source_state(mosaic: NativeMosaic) -> str:
    """Fingerprint of an acquisition: its metadata, and size and time of some chunk files."""
    digest = hashlib.sha256()
    for placed in mosaic.placed:
        stack = placed.stack
        digest.update(repr((placed.tile, placed.channel, placed.first_plane)).encode())
        digest.update(repr((stack.group, stack.fingerprint, stack.shape)).encode())
    digest.update(repr(mosaic.layout).encode())
    for path in _some_files(mosaic):
        state = os.stat(path)
        digest.update(f"{state.st_size},{state.st_mtime_ns}".encode())
    return digest.hexdigest()


def refuse_inside(url: str, container: str) -> None:
    """Refuse a result that would lie within an acquisition: nothing is written there.

    Raises:
        ParameterError: it would.
    """
    inner, outer = (
        os.path.realpath(places.local_path(u)) if places.is_local(u) else u.rstrip("/")
        for u in (url, container)
    )
    if f"{inner}/".startswith(f"{outer}/"):
        raise ParameterError(
            f"{url} would lie within the acquisition '{container}', which is only read. Set "
            "`zarr_dir` to another folder."
        )


def expected_bytes(mosaic: NativeMosaic, levels: Sequence[TargetLevel]) -> int:
    """Bytes of what is written, from the sizes of some chunk files of the acquisition."""
    finest = mosaic.placed[0].stack.levels[0]
    unit = prod(finest.shards or finest.chunks) * mosaic.dtype.itemsize
    sizes = [
        os.stat(path).st_size
        for path in _some_files(mosaic)
        if os.path.basename(path) not in _METADATA_FILES
    ]
    share = min(1.0, sum(sizes) / len(sizes) / unit) if sizes else 1.0
    return int(pixel_bytes(levels) * share)


def _some_files(mosaic: NativeMosaic) -> Iterator[str]:
    if not places.is_local(mosaic.url):
        return
    each = max(1, _SAMPLED_FILES // max(len(mosaic.placed), 1))
    for placed in mosaic.placed:
        folder = places.local_path(mosaic.url) / placed.stack.group / placed.stack.levels[0].path
        found = 0
        for root, folders, files in os.walk(folder):
            folders.sort()
            for name in sorted(files):
                yield os.path.join(root, name)
                found += 1
                if found >= each:
                    break
            if found >= each:
                break
