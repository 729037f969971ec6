"""Large arrays lie in files that no folder lists; where there is no room, in memory."""

from __future__ import annotations

import os
import tempfile

import numpy as np
import pytest

from fractal_mesospim_shading.images.storage import large_arrays
from fractal_mesospim_shading.images.storage.large_arrays import LEAST_BYTES, large_zeros

needs_room_set_aside = pytest.mark.skipif(
    not hasattr(os, "posix_fallocate"), reason="no system call sets room aside"
)


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """An empty folder for temporary files."""
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    return tmp_path


def _in_memory(array) -> bool:
    while isinstance(array.base, np.ndarray):
        array = array.base
    return array.base is None


@pytest.mark.parametrize("dtype", [np.float64, np.uint16, "float32"])
def test_it_is_an_array_of_zeros_that_can_be_written(dtype, folder, monkeypatch):
    for least in (1, LEAST_BYTES):
        monkeypatch.setattr(large_arrays, "LEAST_BYTES", least)
        array = large_zeros((3, 4, 5), dtype)
        assert array.shape == (3, 4, 5)
        assert array.dtype == np.dtype(dtype)
        assert array.flags.c_contiguous
        assert not array.any()
        array[1] = 7
        assert array.sum() == 7 * 20


@needs_room_set_aside
def test_a_large_one_lies_in_a_file_without_a_name(folder, monkeypatch):
    monkeypatch.setattr(large_arrays, "LEAST_BYTES", 80)
    assert _in_memory(large_zeros((9,), np.float64))
    assert not _in_memory(large_zeros((10,), np.float64))
    assert not list(folder.iterdir())


def test_without_room_it_lies_in_memory(folder, monkeypatch):
    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(large_arrays, "LEAST_BYTES", 1)
    monkeypatch.setattr(os, "posix_fallocate", full, raising=False)
    assert _in_memory(large_zeros((10,), np.float64))


def test_without_planes_it_is_empty(monkeypatch):
    monkeypatch.setattr(large_arrays, "LEAST_BYTES", 0)
    assert large_zeros((0, 4), np.float32).shape == (0, 4)
