"""Images in a bucket of a local S3 server."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from fsspec.core import url_to_fs

Options = dict[str, Any]


def remote_tree(url: str, options: Options) -> dict[str, bytes]:
    """Every file below an address with its content."""
    filesystem, path = url_to_fs(url, **options)
    filesystem.invalidate_cache()
    return {name[len(path) + 1 :]: filesystem.cat_file(name) for name in filesystem.find(path)}


def upload(folder: Path, url: str, options: Options) -> None:
    """Copy a folder to an address."""
    filesystem, path = url_to_fs(url, **options)
    filesystem.put(str(folder) + "/", path + "/", recursive=True)
