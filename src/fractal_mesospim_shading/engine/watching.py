"""Whether the source and the unfinished result stay what they are while a job runs.

Each block's record says what the files were that it read, and how large those are that it
wrote. A run that is continued looks at the records of the earlier one first, and every run
looks at all of them before its result counts: one more look at each file.
"""

from __future__ import annotations

import errno
import json
import logging
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from datetime import datetime
from itertools import product
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from fractal_mesospim_shading.core.blocks import Node, key_in_job, keys_by_part, split_key
from fractal_mesospim_shading.core.threads import in_order
from fractal_mesospim_shading.engine.job import Job
from fractal_mesospim_shading.engine.plan import CorrectionPlan
from fractal_mesospim_shading.engine.records import SOURCE_FILES, Record, packed, unpacked
from fractal_mesospim_shading.errors import (
    ImageFormatError,
    OutputWriteError,
    SourceChangedError,
    SourceReadError,
)
from fractal_mesospim_shading.images.arrays.documents import StoredArray
from fractal_mesospim_shading.images.arrays.file_states import (
    ReadNotes,
    digest_of,
    listed,
    states,
)
from fractal_mesospim_shading.images.arrays.local_states import FileState
from fractal_mesospim_shading.images.arrays.reading import opened
from fractal_mesospim_shading.images.storage import places
from fractal_mesospim_shading.images.storage.places import join_url, reading_errors

logger = logging.getLogger(__name__)

Read = Sequence[Any]
"""Address of an array, ranges of its files, how many were there, digest: see `ReadNotes`."""


T = TypeVar("T")
Item = TypeVar("Item")

_AT_ONCE, _AHEAD = 16, 4096
_READS = ".reads.json"
_BROKEN = {errno.ENOENT, errno.EINVAL, errno.ENOTDIR, errno.EISDIR, errno.ELOOP}


def arrays_read(plan: CorrectionPlan) -> list[StoredArray]:
    """The arrays that the blocks of a plan read, all of their pixels."""
    besides = () if plan.kernel is None else plan.kernel.besides
    return [*plan.source.stored(0), *besides]


def remember_reads(job: Job, name: str, notes: ReadNotes) -> None:
    """Keep what was read for an estimate until the job ends.

    Args:
        job: that makes it.
        name: of the estimate.
        notes: of its reading.
    """
    records = notes.records()
    if records:
        job.remember(name + _READS, json.dumps(records).encode())


class Watch:
    """Looks at the files of a job's sources and of its unfinished result.

    Args:
        job: that is running.
        plans: by the name of the part of the job.
        arrays: that are read, by their addresses.
        present: for arrays that are read as a whole, which files they had when the job began.
    """

    def __init__(
        self,
        job: Job,
        plans: Mapping[str, CorrectionPlan],
        arrays: Mapping[str, StoredArray],
        present: Mapping[str, NDArray[np.bool_]],
    ) -> None:
        self._job = job
        self._plans = plans
        self._arrays = arrays
        self._present = present

    @classmethod
    def begin(
        cls,
        job: Job,
        plans: Mapping[str, CorrectionPlan],
        wholly: Iterable[StoredArray],
        partly: Iterable[StoredArray],
    ) -> Watch:
        """List the files of the sources; of a continued run, look at all that was done.

        Blocks whose files are no longer there as they were written will be made again.

        Args:
            job: new or continued.
            plans: by the name of the part of the job.
            wholly: arrays of which every pixel is read.
            partly: arrays of which some pixels may be read.

        Raises:
            SourceChangedError: the source is not what it was for the earlier run.
            SourceReadError: it cannot be looked at.
        """
        whole = {array.where: array for array in wholly}
        present = {where: found for where, found in _all_listed(whole) if found is not None}
        arrays = {array.where: array for array in partly} | whole
        watch = cls(job, plans, arrays, present)
        if job.continued:
            watch._compare_with_earlier()
            watch.confirm_source()
            watch._drop_lost()
        blocks = sum(plan.grid.total for plan in plans.values())
        content = packed(present, blocks)
        places.write_bytes(places.join_url(job.url, SOURCE_FILES), content, job.options)
        return watch

    def accept(self, record: Record) -> None:
        """Look at the record of a block that was just made.

        Raises:
            SourceChangedError: it missed files that were there when the job began, or found
                such as were not.
        """
        for read in record.get("read", ()):
            where, ranges, count, _ = read
            if where not in self._arrays:
                raise RuntimeError(f"{where} is read, but not watched; please report this")
            present = self._present.get(where)
            if present is None:
                continue
            before = present[tuple(slice(*part) for part in ranges)]
            if int(np.count_nonzero(before)) != count:
                raise self._changed(read)

    def confirm(self) -> None:
        """Look at everything once more, before the result counts.

        Raises:
            SourceChangedError: the source did not stay as it was read.
            OutputWriteError: files of the result are gone, or changed by somebody else.
        """
        self.confirm_source()
        for name, record, written in self._looked_at_results():
            if not written:
                url = self._plans[name].target.url
                raise OutputWriteError(
                    f"Files of the unfinished result {url} were removed or changed by something "
                    f"else while the job ran, among them those of block {record['node']}. Run the "
                    "same command again: the blocks that are lost are made again."
                )

    def confirm_source(self) -> None:
        """Look at the files that were read for all blocks and estimates so far.

        Raises:
            SourceChangedError: one of them is no longer what it was.
            SourceReadError: they cannot be looked at.
        """
        for read, same in _side_by_side(self._is_same, self._all_reads()):
            if not same:
                raise self._changed(read)

    def _all_reads(self) -> Iterator[Read]:
        job = self._job
        folder = places.join_url(job.url, "profiles")
        for name in places.list_names(folder, job.options):
            if name.endswith(_READS):
                yield from json.loads(job.recall(name) or b"[]")
        for record in job.records:
            yield from record.get("read", ())

    def _is_same(self, read: Read) -> bool:
        where, ranges, _, digest = read
        try:
            found = states(opened(self._arrays[where]), ranges)
        except reading_errors() as error:
            if isinstance(error, ImageFormatError) or _is_broken(error):
                return False
            raise SourceReadError(
                f"'{where}' cannot be looked at ({type(error).__name__}: {error}). Restore access, "
                "and run the same command again."
            ) from error
        return digest_of(found) == str(digest)

    def _changed(self, read: Read) -> SourceChangedError:
        """What to say of files that are not what they were."""
        where, ranges, _, _ = read
        return SourceChangedError(
            f"The source changed while the job ran: {self._difference(where, ranges)}. A result "
            "made from both states would be wrong, so it is not finished. See to it that nothing "
            "writes to the source any more, and run it again with `restart`."
        )

    def _difference(self, where: str, ranges: Sequence[Sequence[int]]) -> str:
        try:
            array = opened(self._arrays[where])
            found = states(array, ranges)
        except reading_errors() as error:
            return f"'{where}' can no longer be opened ({error})"
        encode = array.metadata.encode_chunk_key
        keys = [encode(index) for index in product(*(range(*part) for part in ranges))]
        before = self._present.get(where)
        if before is not None:
            known = before[tuple(slice(*part) for part in ranges)].ravel()
            for key, state, was_there in zip(keys, found, known, strict=True):
                if was_there != (state is not None):
                    change = "is gone" if was_there else "has appeared"
                    return f"the file '{join_url(where, key)}' {change}"
        there = [(key, state) for key, state in zip(keys, found, strict=True) if state is not None]
        if not there:
            return f"files of '{where}' are gone"
        key, state = max(there, key=lambda pair: _time_of(pair[1]))
        return f"the file '{join_url(where, key)}', or one beside it, was written{_when(state)}"

    def _compare_with_earlier(self) -> None:
        data = places.read_bytes(places.join_url(self._job.url, SOURCE_FILES), self._job.options)
        earlier = unpacked(data)
        for where, present in self._present.items():
            before = earlier.get(where)
            if before is None or before.shape != present.shape:
                continue
            changed = np.argwhere(before != present)
            if len(changed):
                self._present = earlier
                first = [(int(i), int(i) + 1) for i in changed[0]]
                raise self._changed((where, first, 0, ""))

    def _drop_lost(self) -> None:
        """Take blocks whose files are not as they were written for not done."""
        lost: set[str] = set()
        for name, record, written in self._looked_at_results():
            if not written:
                lost.add(key_in_job(name, record["node"]))
        dropped: set[str] = set()
        done = keys_by_part(self._job.done)
        for name, plan in self._plans.items():
            mine = done[name]
            left = {key for key in mine if key_in_job(name, key) not in lost}
            dropped |= {key_in_job(name, key) for key in mine - plan.grid.settled(left)}
        self._job.drop(dropped)
        if lost:
            logger.warning(
                "%d of the blocks that the earlier run had finished are no longer on the disk as "
                "it wrote them; they are made again. Something else removes or changes files of %s",
                len(lost),
                self._job.url,
            )

    def _looked_at_results(self) -> Iterator[tuple[str, Record, bool]]:
        """Each block on record, and whether its files are there as it wrote them."""

        def is_written(item: tuple[str, Record]) -> bool:
            name, record = item
            plan = self._plans[name]
            node = Node.of_key(record["node"])
            box = plan.grid.box(node)
            try:
                found = [target.on_disk(node.level, box) for target in plan.targets]
            except OSError as error:
                if _is_broken(error):
                    return False
                raise OutputWriteError(
                    f"The unfinished result {plan.target.url} cannot be looked at ({error}). "
                    "Restore access, and run the same command again."
                ) from error
            return found == record.get("written")

        for (name, record), written in _side_by_side(is_written, self._results()):
            yield name, record, written

    def _results(self) -> Iterator[tuple[str, Record]]:
        """The records of each part, with the names of nodes within it."""
        for record in self._job.records:
            name, key = split_key(record["node"])
            yield name, {**record, "node": key}


def _all_listed(
    arrays: Mapping[str, StoredArray],
) -> Iterator[tuple[str, NDArray[np.bool_] | None]]:
    def of_array(item: tuple[str, StoredArray]) -> NDArray[np.bool_] | None:
        try:
            return listed(opened(item[1]))
        except reading_errors() as error:
            raise SourceReadError(
                f"The files of '{item[0]}' cannot be listed ({type(error).__name__}: {error}). "
                "Check that it is there and may be read."
            ) from error

    for (where, _), found in _side_by_side(of_array, arrays.items()):
        yield where, found


def _side_by_side(function: Callable[[Item], T], items: Iterable[Item]) -> Iterator[tuple[Item, T]]:
    """Each item with the result of a function, in order; waiting for storage side by side."""
    return in_order(lambda item: (item, function(item)), items, _AT_ONCE, _AHEAD)


def _is_broken(error: Exception) -> bool:
    return isinstance(error, OSError) and error.errno in _BROKEN


def _time_of(state: FileState) -> float:
    return int(state.version) if state.version.isdecimal() else 0.0


def _when(state: FileState) -> str:
    if not state.version.isdecimal():
        return " again"
    moment = datetime.fromtimestamp(int(state.version) / 1e6)
    return f" at {moment.isoformat(sep=' ', timespec='seconds')}"
