from __future__ import annotations

from dataclasses import replace
from math import prod
from types import SimpleNamespace

import pytest
from numcodecs import Blosc, Zstd

from fractal_mesospim_shading.engine import resources
from fractal_mesospim_shading.engine.memory_needed import needed_memory
from fractal_mesospim_shading.errors import MemoryLimitError, ParameterError
from fractal_mesospim_shading.images.mosaic import MosaicImage
from fractal_mesospim_shading.jobs.preparation import block_plan, plan_output
from fractal_mesospim_shading.options.base import ExecutionOptions
from fractal_mesospim_shading.options.flatfield import FlatfieldOptions


@pytest.fixture
def plan(make_mosaic):
    image = MosaicImage.open(make_mosaic())
    output = plan_output(image, FlatfieldOptions(output_image_name="out"))
    # A block for each chunk.
    return replace(block_plan(image, output.target, output.final_url), least_pixels=1)


def test_more_workers_than_blocks_need_no_more(plan):
    blocks = prod(plan.grid.counts(0))
    needs = [needed_memory(plan, workers) for workers in range(1, blocks + 1)]
    assert blocks > 2
    assert needs == sorted(set(needs))
    assert needed_memory(plan, 10 * blocks) == needs[-1]


def test_workers_follow_from_processors_and_memory(plan):
    one, two = needed_memory(plan, 1), needed_memory(plan, 2)
    assert two > one
    assert resources.resources(plan, ExecutionOptions(n_workers=7)).workers == 7
    limited = ExecutionOptions(n_workers=7, memory_limit=str(two))
    assert resources.resources(plan, limited).workers == 2
    limited = ExecutionOptions(n_workers=7, memory_limit=str(two - 1))
    assert resources.resources(plan, limited).workers == 1
    with pytest.raises(MemoryLimitError, match="at least"):
        resources.resources(plan, ExecutionOptions(memory_limit=str(one - 1)))


def test_worker_processes_need_memory_of_their_own(plan):
    """Each loads libraries and profiles for itself, so that fewer of them fit."""
    one, two = (needed_memory(plan, n, processes=True) for n in (1, 2))
    shared = needed_memory(plan, 1) - needed_memory(plan, 0)
    assert one > needed_memory(plan, 1) + shared
    assert two - one > 200e6 + needed_memory(plan, 2) - needed_memory(plan, 1)

    def workers(limit: int) -> int:
        options = {"execution": "processes", "n_workers": 7, "memory_limit": str(limit)}
        return resources.resources(plan, ExecutionOptions(**options)).workers

    assert [workers(two), workers(two - 1)] == [2, 1]
    with pytest.raises(MemoryLimitError, match="a worker process of its own.*threads"):
        workers(one - 1)


def test_memory_does_not_depend_on_the_size_of_the_image(make_mosaic):
    needs = []
    for number, z in enumerate((2, 20)):
        image = MosaicImage.open(make_mosaic(f"{number}.zarr", shape=(1, z, 96, 80), channels=None))
        output = plan_output(image, FlatfieldOptions(output_image_name=f"out{number}"))
        needs.append(needed_memory(block_plan(image, output.target, output.final_url), 2))
    # Within the size of a block, nothing is added by more planes.
    assert needs[1] < 1.02 * needs[0]


@pytest.mark.parametrize("text", ["a lot", "GB4", "4 apples"])
def test_amounts_that_are_none(text):
    with pytest.raises(ParameterError, match="memory_limit"):
        resources.parse_memory(text)


def test_the_quota_of_a_container_counts(monkeypatch):
    import dask.system
    import psutil

    monkeypatch.delenv("SLURM_CPUS_PER_TASK", raising=False)
    monkeypatch.setattr(dask.system, "_try_extract_cgroup_cpu_quota", lambda: (50_000, 100_000))
    assert resources.available_cpus() == 1
    monkeypatch.setattr(psutil, "virtual_memory", lambda: SimpleNamespace(total=3 * 2**30))
    assert resources.available_memory() == 3 * 2**30
    monkeypatch.setenv("SLURM_MEM_PER_NODE", "4096")
    assert resources.available_memory() == 3 * 2**30
    monkeypatch.setenv("SLURM_MEM_PER_NODE", "2048")
    assert resources.available_memory() == 2 * 2**30


def test_no_amount_means_the_limit_of_the_machine():
    assert (
        resources.parse_memory(None) == resources.parse_memory("") == resources.available_memory()
    )


@pytest.mark.parametrize(
    ("codec", "each"), [(Blosc("lz4"), 2), (None, 2), (Zstd(3), 1), (Blosc("zstd"), 1)]
)
def test_blocks_that_encode_for_longer_than_they_wait_are_one_a_processor(
    make_mosaic, monkeypatch, codec, each
):
    monkeypatch.setattr(resources, "available_cpus", lambda: 3)
    image = MosaicImage.open(make_mosaic(codec=codec))
    output = plan_output(image, FlatfieldOptions(output_image_name="out"))
    plan = block_plan(image, output.target, output.final_url)
    assert resources.resources(plan, ExecutionOptions()).workers == 3 * each
    assert resources.resources(plan, ExecutionOptions(n_workers=5)).workers == 5
