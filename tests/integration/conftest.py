"""What whole jobs share: every byte of a folder, and a processor or two."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

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
