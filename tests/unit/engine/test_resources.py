from __future__ import annotations

import pickle
import subprocess
import sys
from types import SimpleNamespace

import pytest

import fractal_mesospim_shading
from fractal_mesospim_shading.engine import resources
from fractal_mesospim_shading.engine.resources import (
    PackageState,
    _question,
    own_state,
    refuse_differing,
)
from fractal_mesospim_shading.errors import MemoryLimitError, ParameterError, WorkerVersionError
from fractal_mesospim_shading.images.mosaic import MosaicImage
from fractal_mesospim_shading.jobs.preparation import block_plan, plan_output
from fractal_mesospim_shading.options.base import ExecutionOptions
from fractal_mesospim_shading.options.flatfield import FlatfieldOptions


@pytest.fixture
def plan(make_mosaic):
    image = MosaicImage.open(make_mosaic())
    output = plan_output(image, FlatfieldOptions(output_image_name="out"))
    return block_plan(image, output.target, output.final_url)


def test_workers_follow_from_processors_and_memory(plan):
    one, two = resources.needed_memory(plan, 1), resources.needed_memory(plan, 2)
    assert two > one
    assert resources.resources(plan, ExecutionOptions(n_workers=7)).workers == 7
    limited = ExecutionOptions(n_workers=7, memory_limit=str(two))
    assert resources.resources(plan, limited).workers == 2
    limited = ExecutionOptions(n_workers=7, memory_limit=str(two - 1))
    assert resources.resources(plan, limited).workers == 1
    with pytest.raises(MemoryLimitError, match="at least"):
        resources.resources(plan, ExecutionOptions(memory_limit=str(one - 1)))


def test_memory_does_not_depend_on_the_size_of_the_image(make_mosaic):
    needs = []
    for number, z in enumerate((2, 20)):
        image = MosaicImage.open(make_mosaic(f"{number}.zarr", shape=(1, z, 96, 80), channels=None))
        output = plan_output(image, FlatfieldOptions(output_image_name=f"out{number}"))
        needs.append(resources.needed_memory(block_plan(image, output.target, output.final_url), 2))
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


OWN = PackageState("1.2.0", "abc", "/here")


def test_equal_packages_are_admitted_wherever_they_lie():
    answers = {"tcp://a": ("1.2.0", "abc", "/here"), "tcp://b": PackageState("1.2.0", "abc", "/c")}
    refuse_differing(OWN, answers)


def test_compiled_installs_have_no_sources_to_compare():
    refuse_differing(OWN, {"tcp://a": ("1.2.0", "", "/frozen")})
    refuse_differing(PackageState("1.2.0", "", "/frozen"), {"tcp://a": ("1.2.0", "abc", "/x")})


def test_a_worker_that_has_just_gone_is_not_of_another_version():
    refuse_differing(OWN, {"tcp://a": OSError("Timed out trying to connect")})


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        (("1.1.0", "abc", "/old"), "version 1.1.0, from /old"),
        (("1.2.0", "abd", "/edited"), "version 1.2.0 as well, but other source files, in /edited"),
        (("", "", "/usr"), "the package is not installed there"),
        (TypeError("code() takes at most 16"), "it could not tell its version (TypeError: code()"),
    ],
)
def test_others_are_named(answer, words):
    answers = {"tcp://good:1": tuple(OWN), "tcp://bad:2": answer}
    with pytest.raises(WorkerVersionError) as caught:
        refuse_differing(OWN, answers)
    (line,) = [line for line in str(caught.value).splitlines() if "tcp://" in line]
    assert line.strip().startswith(f"tcp://bad:2: {words}")
    assert "1.2.0, from /here" in str(caught.value)


def test_of_many_a_few_are_named():
    answers = {f"tcp://w:{n}": ("0.9", "", "/old") for n in range(40)}
    with pytest.raises(WorkerVersionError, match="and 35 more"):
        refuse_differing(OWN, answers)


def test_the_question_travels_by_value_and_finds_this_package():
    """A worker that has no such module can answer it."""
    cloudpickle = pytest.importorskip("cloudpickle")
    sent = cloudpickle.dumps(_question("fractal_mesospim_shading"))
    code = f"import pickle; print(pickle.dumps(pickle.loads({sent!r})()))"
    asked = subprocess.run(
        [sys.executable, "-c", f"import sys; sys.modules[{own_state.__module__!r}] = None; {code}"],
        capture_output=True,
        text=True,
        check=True,
    )
    answer = PackageState(*pickle.loads(eval(asked.stdout)))
    assert answer == own_state()
    assert answer.version
    assert answer.folder == fractal_mesospim_shading.__path__[0]
