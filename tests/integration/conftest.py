"""What whole jobs share: every byte of a folder, and a processor or two."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

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


@pytest.fixture(scope="module")
def bucket() -> Iterator[tuple[str, dict[str, Any]]]:
    """The address of a bucket of a local S3 server, and the options to reach it."""
    pytest.importorskip("s3fs")
    server_module = pytest.importorskip("moto.server")
    server = server_module.ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    options = {
        "key": "key",
        "secret": "secret",
        "client_kwargs": {"endpoint_url": f"http://{host}:{port}"},
    }
    from fsspec.core import url_to_fs

    filesystem, _ = url_to_fs("s3://images", **options)
    # All servers of a process share what they hold.
    filesystem.makedirs("images", exist_ok=True)
    yield "s3://images", options
    server.stop()
