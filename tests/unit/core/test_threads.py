"""Buffers that are used again: never two arrays in one, and none kept afterwards."""

from __future__ import annotations

import gc

import numpy as np
import pytest
import scipy.linalg  # noqa: F401  brings a library of its own
from threadpoolctl import threadpool_info, threadpool_limits

from fractal_mesospim_shading.core.overlaps.gains import solve_gains
from fractal_mesospim_shading.core.overlaps.pedestal import pedestal
from fractal_mesospim_shading.core.overlaps.refine import refine_flatfield
from fractal_mesospim_shading.core.overlaps.residual import pair_residuals
from fractal_mesospim_shading.core.threads import (
    Kept,
    empty_array,
    forget_runs,
    freed_memory_kept,
    linear_algebra_by_one_thread,
)

MANY = (3, 1024, 1024)


def _address(array):
    return array.__array_interface__["data"][0]


@pytest.mark.slow
def test_a_buffer_is_used_again_when_its_array_is_gone():
    with freed_memory_kept:
        first = empty_array(MANY, np.uint16)
        place = _address(first)
        view = first[1:, ::2]
        del first
        gc.collect()
        # A view holds it still.
        second = empty_array(MANY, np.uint16)
        assert _address(second) != place
        del view
        gc.collect()
        third = empty_array(MANY, np.uint16)
        assert _address(third) == place


@pytest.mark.parametrize("dtype", ["uint8", "uint16", "float32"])
def test_live_arrays_never_share_memory(dtype):
    rng = np.random.default_rng(0)
    live: list[tuple[np.ndarray, int]] = []
    with freed_memory_kept:
        for number in range(60):
            shape = (int(rng.integers(1, 9)), 1024, 1024)
            array = empty_array(shape, dtype)
            assert array.shape == shape
            assert array.flags.c_contiguous
            assert array.flags.writeable
            array[...] = number
            live.append((array, number))
            del array
            while len(live) > 4:
                live.pop(int(rng.integers(len(live))))
            assert all((kept == value).all() for kept, value in live)
    assert all((kept == value).all() for kept, value in live)


def test_small_arrays_and_others_are_plain():
    assert empty_array(MANY, np.uint16).base is None
    with freed_memory_kept:
        assert empty_array((4, 4), np.uint16).base is None
        assert empty_array((0, 5, 5), np.float32).shape == (0, 5, 5)


def _threads_of_products():
    return [pool["num_threads"] for pool in threadpool_info() if pool["user_api"] == "blas"]


def test_products_of_matrices_by_one_thread_and_put_back():
    with threadpool_limits(2, user_api="blas"):
        # Not 2 where a library was loaded while the process was tied to one processor.
        before = _threads_of_products()
        with linear_algebra_by_one_thread, linear_algebra_by_one_thread:
            assert set(_threads_of_products()) == {1}
        assert _threads_of_products() == before


@pytest.mark.parametrize("function", [pair_residuals, pedestal, refine_flatfield, solve_gains])
def test_what_solves_for_overlaps_takes_one_thread(function, monkeypatch):
    """Whatever else it is given, it has entered before it looks."""

    class Looked(Exception):
        pass

    class Given:
        def _look(self, *_):
            assert set(_threads_of_products()) == {1}
            raise Looked

        __iter__ = __len__ = __getitem__ = __bool__ = _look

        def __getattr__(self, name):
            return self._look()

    count = function.__wrapped__.__code__.co_argcount
    with threadpool_limits(2, user_api="blas"), pytest.raises(Looked):
        function(*[Given()] * count)


def test_what_is_kept_for_a_run_ends_with_it():
    for_good, for_a_run = Kept(9), Kept(9, with_run=True)
    assert for_good.get("a", lambda: 1) == for_a_run.get("a", lambda: 1) == 1
    forget_runs()
    assert for_good.get("a", lambda: 2) == 1
    assert for_a_run.get("a", lambda: 2, number=9) == 2
    # What was dropped counts no more.
    assert for_a_run.get("b", lambda: 3, number=0) == 3
    assert for_a_run.get("a", lambda: 4) == 2
