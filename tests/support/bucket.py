"""Images in a bucket of a local S3 server."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from fsspec.core import url_to_fs

Options = dict[str, Any]


@contextmanager
def served_bucket(name: str) -> Iterator[tuple[str, Options]]:
    """The address of a bucket of a local S3 server, and the options to reach it."""
    pytest.importorskip("s3fs")
    server_module = pytest.importorskip("moto.server")
    server = server_module.ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    options: Options = {
        "key": "key",
        "secret": "secret",
        "client_kwargs": {"endpoint_url": f"http://{host}:{port}"},
    }
    filesystem, _ = url_to_fs(f"s3://{name}", **options)
    # All servers of a process share what they hold.
    filesystem.makedirs(name, exist_ok=True)
    try:
        yield f"s3://{name}", options
    finally:
        server.stop()


def remote_tree(url: str, options: Options) -> dict[str, bytes]:
    """Every file below an address with its content."""
    filesystem, path = url_to_fs(url, **options)
    filesystem.invalidate_cache()
    return {name[len(path) + 1 :]: filesystem.cat_file(name) for name in filesystem.find(path)}


def upload(folder: Path, url: str, options: Options) -> None:
    """Copy a folder to an address."""
    filesystem, path = url_to_fs(url, **options)
    filesystem.put(str(folder) + "/", path + "/", recursive=True)
