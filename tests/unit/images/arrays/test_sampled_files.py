"""What some chunk files tell of all."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import zarr

from fractal_mesospim_shading.images.arrays.sampled_files import (
    files_below,
    files_state,
    stored_bytes,
    stored_share,
)


def written(folder: Path, shape: tuple[int, ...], columns: slice) -> zarr.Array:
    """An array of chunks of 2 x 2 x 2, of which some columns hold pixels."""
    pixels = np.zeros(shape, np.uint16)
    pixels[..., columns] = 1
    array = zarr.create_array(
        folder / "a", shape=shape, chunks=(2, 2, 2), dtype="u2", compressors=None, fill_value=0
    )
    array[:] = pixels
    return array


def on_disk(folder: Path) -> int:
    """Bytes of all chunk files."""
    return sum(Path(name).stat().st_size for name in files_below(folder / "a" / "c"))


@pytest.mark.parametrize("columns", [slice(0, 2), slice(2, 16), slice(16, 18), slice(0, 32)])
def test_columns_of_chunks_count_by_their_number(tmp_path: Path, columns: slice) -> None:
    """There are 16 x 16 x 16: each eighth, as 512 would be, lies in two of the columns."""
    array = written(tmp_path, (32, 32, 32), columns)
    assert stored_bytes(array, 64) == pytest.approx(on_disk(tmp_path), abs=0.03 * array.nbytes)
    assert stored_bytes(array) == pytest.approx(on_disk(tmp_path), abs=0.005 * array.nbytes)


def test_few_files_are_all_looked_at(tmp_path: Path) -> None:
    array = written(tmp_path, (7, 5, 9), slice(0, 3))
    assert stored_bytes(array) == on_disk(tmp_path) > 0


def test_chunks_that_reach_beyond_the_array_take_their_room(tmp_path: Path) -> None:
    array = written(tmp_path, (3, 3, 3), slice(0, 3))
    assert stored_share(array) == 64 / 27


def test_nothing_is_told_of_what_is_empty_or_elsewhere(tmp_path: Path) -> None:
    empty = zarr.create_array(tmp_path / "b", shape=(0, 4), chunks=(2, 2), dtype="u2")
    elsewhere = zarr.create_array(
        zarr.storage.MemoryStore(), shape=(4, 4), chunks=(2, 2), dtype="u2"
    )
    for array in (empty, elsewhere):
        assert stored_bytes(array) is None
        assert stored_share(array) == 1
        assert files_state(array) == b""
