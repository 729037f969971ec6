from __future__ import annotations

import os
import signal

import numpy as np
import pytest

from fractal_mesospim_shading.engine import compute
from fractal_mesospim_shading.errors import MemoryLimitError, ParameterError, StoppedError
from fractal_mesospim_shading.images.mosaic import MosaicImage
from fractal_mesospim_shading.jobs.flatfield import block_plan
from fractal_mesospim_shading.jobs.preparation import plan_output
from fractal_mesospim_shading.options.base import ExecutionOptions
from fractal_mesospim_shading.options.flatfield import FlatfieldOptions


@pytest.fixture
def plan(make_mosaic):
    image = MosaicImage.open(make_mosaic())
    output = plan_output(image, FlatfieldOptions(), name="out")
    return block_plan(image, output)


def test_workers_follow_from_processors_wish_and_memory(plan):
    one, two = compute.needed_memory(plan, 1), compute.needed_memory(plan, 2)
    assert two > one
    assert compute.resources(plan, ExecutionOptions(n_workers=7)).workers == 7
    limited = ExecutionOptions(n_workers=7, memory_limit=str(two))
    assert compute.resources(plan, limited).workers == 2
    limited = ExecutionOptions(n_workers=7, memory_limit=str(two - 1))
    assert compute.resources(plan, limited).workers == 1
    with pytest.raises(MemoryLimitError, match="at least"):
        compute.resources(plan, ExecutionOptions(memory_limit=str(one - 1)))


def test_memory_does_not_depend_on_the_size_of_the_image(make_mosaic):
    needs = []
    for number, z in enumerate((2, 20)):
        image = MosaicImage.open(make_mosaic(f"{number}.zarr", shape=(1, z, 96, 80), channels=None))
        output = plan_output(image, FlatfieldOptions(), name=f"out{number}")
        needs.append(compute.needed_memory(block_plan(image, output), 2))
    # Within the size of a block, nothing is added by more planes.
    assert needs[1] < 1.02 * needs[0]


@pytest.mark.parametrize("text", ["a lot", "GB4", "4 apples"])
def test_amounts_that_are_none(text):
    with pytest.raises(ParameterError, match="memory_limit"):
        compute.parse_memory(text)


def test_sigterm_becomes_an_orderly_stop():
    before = signal.getsignal(signal.SIGTERM)
    with pytest.raises(StoppedError, match="run the same command again"), compute.run_guarded():
        os.kill(os.getpid(), signal.SIGTERM)
        signal.pause()
    assert signal.getsignal(signal.SIGTERM) is before


def test_no_amount_means_the_limit_of_the_machine():
    assert compute.parse_memory(None) == compute.parse_memory("") == compute.available_memory()


def test_what_comes_after_a_signal_is_its_consequence():
    with pytest.raises(StoppedError), compute.run_guarded():
        try:
            signal.raise_signal(signal.SIGTERM)
        finally:
            # A second one, and what the dying helpers leave behind, change nothing.
            signal.raise_signal(signal.SIGTERM)
            raise OSError("connection closed")


def test_memory_that_does_not_suffice_is_said():
    with pytest.raises(MemoryLimitError, match="did not suffice.*n_workers"):
        with compute.run_guarded():
            np.empty(2**50)
    own = MemoryLimitError("one block needs 2 GB")
    with pytest.raises(MemoryLimitError, match="one block needs"), compute.run_guarded():
        raise own
