"""What whole jobs share: every byte of a folder, and a processor or two."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.support.bucket import served_bucket
from tests.support.native_samples import NativeSample, extract_sample, state_of_files


@pytest.fixture
def state() -> Callable[[Path], dict[str, tuple[int, bytes]]]:
    """`state(folder)`: every byte and every modification time."""
    return state_of_files


@pytest.fixture(scope="session")
def native_v04(
    tmp_path_factory: pytest.TempPathFactory, unpack: Callable[[str, Path], None]
) -> NativeSample:
    """The sample of version 0.4, which has a project file."""
    return extract_sample("v04", tmp_path_factory.mktemp("native_v04"), unpack)


@pytest.fixture
def two_threads(monkeypatch: pytest.MonkeyPatch) -> None:
    """The machine's other processors are for other tests."""
    monkeypatch.setenv("SLURM_CPUS_PER_TASK", str(min(2, os.cpu_count() or 1)))


@pytest.fixture(scope="module")
def bucket() -> Iterator[tuple[str, dict[str, Any]]]:
    """The address of a bucket of a local S3 server, and the options to reach it."""
    with served_bucket("images") as served:
        yield served
