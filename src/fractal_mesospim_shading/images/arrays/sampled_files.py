"""What some chunk files of an array tell of all: its state, and how much room it takes."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from math import prod
from typing import Any

import numpy as np
import zarr
from zarr.storage import LocalStore

from fractal_mesospim_shading.images.arrays.file_states import file_counts

SAMPLED_FILES = 512
"""Chunk files of an array that its state, and the size of a result, are told from."""


_GOLDEN = (5**0.5 - 1) / 2


def files_state(array: zarr.Array[Any]) -> bytes:
    """Size and time of some chunk files of an array, for a fingerprint; empty where remote."""
    total = prod(file_counts(array))
    every = range(0, total, max(1, total // SAMPLED_FILES))
    return b"".join(
        b"absent" if state is None else f"{state.st_size},{state.st_mtime_ns}".encode()
        for state in _files(array, every)
    )


def stored_share(array: zarr.Array[Any], most: int = SAMPLED_FILES) -> float:
    """Bytes of the chunk files of an array over those of its pixels, told from some.

    It may be above 1 where chunks reach beyond the array.

    Args:
        array: whose files are looked at; 1 where it is remote or empty.
        most: of them.
    """
    stored = stored_bytes(array, most)
    return 1.0 if stored is None else stored / array.nbytes


def stored_bytes(array: zarr.Array[Any], most: int = SAMPLED_FILES) -> int | None:
    """Bytes of the chunk files of an array, told from some; None where it is remote or empty.

    Args:
        array: whose files are looked at.
        most: of them.
    """
    total = prod(file_counts(array))
    # At equal distances all might lie in the same columns of chunks.
    some = range(total) if total <= most else (int(total * (k * _GOLDEN % 1)) for k in range(most))
    sizes = [state.st_size if state else 0 for state in _files(array, some)]
    return round(float(np.mean(sizes)) * total) if sizes else None


def _files(array: zarr.Array[Any], numbers: Iterable[int]) -> Iterator[os.stat_result | None]:
    """What the file system says of chunk files by their number; None for one not there."""
    if not isinstance(array.store, LocalStore):
        return
    folder, counts = array.store.root / array.path, file_counts(array)
    for number in numbers:
        index = tuple(int(i) for i in np.unravel_index(number, counts))
        try:
            yield os.stat(folder / array.metadata.encode_chunk_key(index))
        except OSError:
            yield None


def files_below(folder: os.PathLike[str]) -> Iterator[str]:
    """All files in a folder and in those below, folder by folder, in order of their names."""
    for root, folders, files in os.walk(folder):
        folders.sort()
        yield from (os.path.join(root, name) for name in sorted(files))
