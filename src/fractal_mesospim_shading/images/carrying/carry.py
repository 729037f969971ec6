"""Carry over to a result what its source holds besides the corrected pyramid.

Between images of the same zarr version every file is copied as it is. Where the version
changes, groups and arrays are written anew with the same content, chunk by chunk, and
files that are no zarr (csv, parquet, notes) are copied. Folders that hold groups or arrays
but no metadata of their own are groups, and get it.

Memory stays at some megabytes for each file in flight, whatever the size of a member; a
file appears under its name once it is whole, so that a continued run copies none twice.
"""

from __future__ import annotations

import hashlib
import itertools
import json
import logging
import threading
import time
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Protocol

import numpy as np

from fractal_mesospim_shading.errors import ImageFormatError
from fractal_mesospim_shading.images.arrays.documents import write_attributes
from fractal_mesospim_shading.images.arrays.reading import chunk_boxes, open_array
from fractal_mesospim_shading.images.carrying.converting import (
    Node,
    create_converted,
    node_of,
    source_array,
)
from fractal_mesospim_shading.images.carrying.copying import (
    copy_file,
    open_target,
    unreadable,
    unwritable,
)
from fractal_mesospim_shading.images.carrying.members import (
    MemberPlan,
    Step,
    beside_chunks,
    list_members,
)
from fractal_mesospim_shading.images.ngff import converted_attributes
from fractal_mesospim_shading.images.storage import places
from fractal_mesospim_shading.images.storage.folders import Entry, Folder, files_below
from fractal_mesospim_shading.images.storage.places import StorageOptions, join_url, reading_errors

logger = logging.getLogger(__name__)

_LOCAL_THREADS = 4
_REMOTE_THREADS = 8
_LOG_SECONDS = 30.0
_WATCH_SECONDS = 2.0
_REMEMBER_SECONDS = 10.0


class Notebook(Protocol):
    """Where a job keeps what a continued run would have to do again."""

    def remember(self, name: str, data: bytes) -> None:
        """Keep something under a name."""

    def recall(self, name: str) -> bytes | None:
        """What an earlier run kept under that name."""


def carry_members(
    plan: MemberPlan,
    target_url: str,
    target_options: StorageOptions = None,
    notebook: Notebook | None = None,
    watch: Callable[[], None] | None = None,
) -> tuple[str, ...]:
    """Copy everything that a plan lists into a result, which must exist as a group.

    What an earlier run of the same job copied whole, from files that are still as they were,
    is not copied again.

    Args:
        plan: from `plan_members`.
        target_url: the result.
        target_options: for a remote target.
        notebook: of the job, for arrays that are converted; None starts them anew.
        watch: called between files and chunks, at most every few seconds; may raise.

    Returns:
        The paths carried over.

    Raises:
        SourceReadError: a file or a chunk of the source cannot be read.
        ImageFormatError: a name or a link of the source leads out of it.
        OutputWriteError: no permission, or no space.
    """
    left = dict(plan.left)
    with _Carrier(plan, target_url, target_options, notebook, watch) as carrier:
        for path in plan.groups_between:
            carrier.write_group_between(path)
        # What has appeared since the plan was made is carried over as well.
        for member in list_members(plan) if plan.listable else ():
            for step in member.steps():
                if step.path not in left:
                    carrier.take(step)
    return plan.members


class _Carrier:
    """Does one step after the other; files are copied side by side."""

    def __init__(
        self,
        plan: MemberPlan,
        url: str,
        options: StorageOptions,
        notebook: Notebook | None,
        watch: Callable[[], None] | None,
    ) -> None:
        self._plan = plan
        self._url = url
        self._options = options
        self._notebook = notebook
        self._target = open_target(url, options)
        self._stop = threading.Event()
        self._threads = _LOCAL_THREADS if places.is_local(url) else _REMOTE_THREADS
        self._pool = ThreadPoolExecutor(self._threads, thread_name_prefix="carry")
        self._waiting: deque[Future[int]] = deque()
        self._groups: dict[str, Node] = {}
        self._progress = _Progress(plan.expected_bytes, watch)

    def __enter__(self) -> _Carrier:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        try:
            while self._waiting and kind is None:
                self._progress.add(self._waiting.popleft().result())
        finally:
            if kind is not None or self._waiting:
                self._stop.set()
            self._pool.shutdown(wait=True, cancel_futures=True)

    def write_group_between(self, path: str) -> None:
        """Metadata of a group on the way to the corrected arrays."""
        folder = self._plan.open()
        for name in path.split("/"):
            folder = folder.below(name)
        self._write_group(path, node_of(folder))

    def take(self, step: Step) -> None:
        """Do one step.

        Raises:
            ImageFormatError: of what is refused.
        """
        if step.kind == "refused" and step.entry is not None:
            raise ImageFormatError(step.entry.problem)
        if step.kind == "group":
            if step.node is not None:
                self._groups[step.path] = step.node
            if step.node is None or step.is_converted(self._plan.zarr_format):
                self._write_group(step.path, step.node)
        elif step.kind == "array" and step.is_converted(self._plan.zarr_format):
            self._convert(step)
        elif step.kind == "array":
            for folder, path, entry in files_below(step.folder, f"{step.path}/"):
                self.take(Step(entry.kind, path, folder, step.node, entry))
        elif step.kind == "file" and step.entry is not None:
            if not step.is_superseded(self._plan.zarr_format):
                self._copy(step.folder, step.path, step.entry)

    def _write_group(self, path: str, node: Node | None) -> None:
        """Metadata of a group, from those of the other version or from nothing."""
        into = self._plan.zarr_format
        source, version = ({}, into) if node is None else (node.attributes, node.zarr_format)
        attributes = converted_attributes(source, version, into)
        write_attributes(join_url(self._url, path), into, attributes, self._options)

    def _copy(self, folder: Folder, path: str, entry: Entry) -> None:
        copy = self._pool.submit(copy_file, folder, path, entry, self._target, self._stop)
        self._waiting.append(copy)
        if len(self._waiting) > 2 * self._threads:
            self._progress.add(self._waiting.popleft().result())

    def _convert(self, step: Step) -> None:
        """Write an array anew, chunk by chunk, from where an earlier run broke off."""
        if step.node is None:
            raise RuntimeError("an array without metadata")
        where, options = join_url(step.folder.url), self._plan.storage_options
        source = source_array(self._plan.url, step.path, step.node, options)
        mark = _Bookmark(self._notebook, step)
        if mark.done:
            target = open_array(self._url, step.path, self._options, mode="r+")
        else:
            axes = self._plan.axes_of(step.path, self._groups)
            target = create_converted(source, self._url, step.path, axes, self._options)
        for box in itertools.islice(chunk_boxes(source.shape, source.chunks), mark.done, None):
            try:
                values = np.asarray(source[box])
            except reading_errors() as error:
                raise unreadable(where, error) from error
            try:
                target[box] = values
            except reading_errors() as error:
                raise unwritable(join_url(self._url, step.path), error) from error
            mark.advance()
            self._progress.add(values.nbytes, files=0)
        mark.keep()
        for member in beside_chunks(step.folder, step.node, step.path, flat=True):
            for inner in member.steps():
                self.take(inner)


class _Bookmark:
    """How many chunks of an array were converted from its present state."""

    def __init__(self, notebook: Notebook | None, step: Step) -> None:
        self._notebook = notebook
        self._name = f"carried-{hashlib.sha256(step.path.encode()).hexdigest()[:16]}.json"
        self._state = _state_of_array(step)
        self._kept = time.monotonic()
        kept = notebook.recall(self._name) if notebook is not None else None
        content = json.loads(kept) if kept else {}
        self.done = int(content["chunks"]) if content.get("state") == self._state else 0

    def advance(self) -> None:
        """One more is written."""
        self.done += 1
        if time.monotonic() - self._kept > _REMEMBER_SECONDS:
            self.keep()

    def keep(self) -> None:
        """Put the number on record."""
        self._kept = time.monotonic()
        if self._notebook is not None:
            content = {"state": self._state, "chunks": self.done}
            self._notebook.remember(self._name, json.dumps(content).encode())


def _state_of_array(step: Step) -> str:
    """Changes with the metadata of an array, and with number, sizes and times of its files."""
    node = step.node
    document = {**node.document, "attributes": node.attributes} if node is not None else None
    digest = hashlib.sha256(json.dumps(document).encode())
    number = total = newest = 0
    for folder, _, entry in files_below(step.folder):
        if entry.kind == "file":
            state = folder.state(entry)
            number, total = number + 1, total + state.size
            newest = max(newest, state.changed_ns or 0)
    digest.update(f"{number},{total},{newest}".encode())
    return digest.hexdigest()


class _Progress:
    """Says now and then how far the copying is, and lets the job look after itself."""

    def __init__(self, expected_bytes: int, watch: Callable[[], None] | None) -> None:
        self._expected = expected_bytes
        self._watch = watch
        self._bytes = self._files = 0
        self._said = self._watched = time.monotonic()

    def add(self, size: int, files: int = 1) -> None:
        """Something was copied."""
        self._bytes += size
        self._files += files
        now = time.monotonic()
        if self._watch is not None and now - self._watched > _WATCH_SECONDS:
            self._watched = now
            self._watch()
        if now - self._said > _LOG_SECONDS:
            self._said = now
            logger.info(
                "Carried over %d files, %.1f of about %.1f GB",
                self._files,
                self._bytes / 1e9,
                max(self._expected, self._bytes) / 1e9,
            )
