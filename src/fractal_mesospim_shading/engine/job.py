"""The life of one job on disk: started, continued, finished, renamed into place.

Everything unfinished lies in one hidden folder beside the result, see `job_folder`. On an
object store, which cannot rename, the image is written under its final name and counts once its
completion mark is there, last of all. Where a finished image stands there, the new one is made in
the folder and copied when it is complete.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Collection, Iterable
from contextlib import suppress
from dataclasses import dataclass, field
from dataclasses import replace as changed
from types import TracebackType
from typing import Any

from fractal_mesospim_shading.engine.job_folder import (
    BESIDE,
    LOCK,
    REQUEST,
    SIBLING,
    begun_in_place,
    clear,
    job_url,
    leave,
    made_in_place,
    moves_of,
    name_left,
    name_unsynced,
    put_in_place,
    read_request,
    refuse_appeared,
    refuse_foreign,
    refuse_link,
    unfinished_url,
)
from fractal_mesospim_shading.engine.locks import JobLock
from fractal_mesospim_shading.engine.mismatch import other_job
from fractal_mesospim_shading.engine.records import (
    RECORD,
    DurableJournal,
    Ending,
    Journal,
    Request,
    differences,
    plain,
    same,
    to_bytes,
)
from fractal_mesospim_shading.errors import (
    BackgroundError,
    JobLockedError,
    OutputExistsError,
    OutputWriteError,
    ShadingError,
)
from fractal_mesospim_shading.images.arrays.reading import forget
from fractal_mesospim_shading.images.output import companion_url, finished_at
from fractal_mesospim_shading.images.storage import local_files, places
from fractal_mesospim_shading.images.storage.places import StorageOptions

logger = logging.getLogger(__name__)


@dataclass
class Job:
    """One run of one job. Use it as a context; `finish` makes its result count.

    Attributes:
        final_url: where people will find the result.
        request: what decides the bytes of the result.
        options: storage options of a remote address.
        companions: kinds of images written beside the result, such as `background`.
        durable: whether the journal waits until a block is on the device.
        continued: whether an earlier run had begun.
        finished: whether an earlier run of this very job had come to its end, so that there
            was nothing left to do but to tidy up, which `start` has done.
        done: keys of the blocks that the journal has.
        records: what the journal says of them.
    """

    final_url: str
    request: Request
    options: StorageOptions = None
    companions: tuple[str, ...] = ()
    durable: bool = False
    continued: bool = False
    finished: bool = False
    done: set[str] = field(default_factory=set)
    records: list[dict[str, Any]] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.url = job_url(self.final_url)
        self.unfinished_url = unfinished_url(self.final_url, self.options, self.companions)
        self._local = places.is_local(self.final_url)
        self._lock = JobLock(places.join_url(self.url, LOCK), self.options)
        journal = places.join_url(self.url, "journal")
        durable = self.durable and self._local
        self._journal = DurableJournal(journal) if durable else Journal(journal, self.options)
        self._tidy = False

    def start(self, *, restart: bool, overwrite: bool = False) -> Job:
        """Take the lock, and continue the unfinished job that lies here, if it is this one.

        A job that was killed in its last step is brought to its end first, whichever it is.

        Args:
            restart: drop an unfinished job instead.
            overwrite: whether a finished result may be replaced.

        Raises:
            JobLockedError: another run is writing.
            JobMismatchError: the unfinished job is another one; the message says how.
            OutputExistsError: the job that was brought to its end was another one, and has left a
                result here.
            OutputWriteError: the folder cannot be written, or holds what is not ours.
        """
        refuse_link(self.url)
        try:
            self._lock.acquire()
        except ShadingError:
            raise
        except OSError as error:
            raise OutputWriteError(
                f"The folder {places.parent_and_name(self.final_url)[0]} cannot be written "
                f"({error}). Set `output_folder` to one that can."
            ) from error
        try:
            refuse_foreign(self.url, self.options)
            ended = self._end_earlier(overwrite=overwrite)
            if ended is not None and not restart and same(ended, self.request):
                self.finished = True
                return self
            if ended is not None and not overwrite and places.exists(self.final_url, self.options):
                raise OutputExistsError(
                    f"An earlier run was stopped when its result was complete; it is at "
                    f"{self.final_url} now. It was made by another command:\n  "
                    + "\n  ".join(differences(plain(ended), plain(self.request)))
                    + "\n- Set `overwrite` to replace it."
                )
            self._begin(restart=restart)
        except BaseException:
            self._let_go()
            raise
        return self

    def _end_earlier(self, *, overwrite: bool) -> Request | None:
        """Bring a job that was killed in its last step to its end; returns what it was."""
        ending = Ending.read(self.url, self.options)
        in_place = begun_in_place(self.final_url, self.options)
        if ending is None and in_place and finished_at(self.final_url, self.options):
            # The mark is the last thing that is written there.
            request = read_request(self.url, self.options) or {}
            ending = Ending(request, made_in_place(self.final_url), placed=True)
        if ending is None:
            return None
        if overwrite:
            ending = changed(ending, moves=tuple(changed(m, replace=True) for m in ending.moves))
        self._tidy = put_in_place(self.url, ending, self.options)
        return ending.request

    def _begin(self, *, restart: bool) -> None:
        found = None if restart else read_request(self.url, self.options)
        if found is not None and not same(found, self.request):
            if self._journal.read():
                raise other_job(self.url, found, self.request)
            logger.info("An earlier run with other parameters had finished no block: it is dropped")
            found = None
        if found is None or not places.exists(self.unfinished_url, self.options):
            for problem in self._clear():
                raise OutputWriteError(f"What an earlier run has left cannot be removed: {problem}")
            if not self._local and self._in_folder:
                places.write_bytes(places.join_url(self.url, SIBLING), b"", self.options)
                logger.info(
                    "%s stays until the new result is complete: for that time the storage needs "
                    "room for both, twice as much as for one.",
                    self.final_url,
                )
            record = places.join_url(self.url, REQUEST)
            places.write_bytes(record, to_bytes(self.request), self.options)
            return
        if self._local:
            places.remove_drafts(self.unfinished_url)
        self.continued = True
        # A block that was made again has a second record; the last one counts.
        self.records = list({record["node"]: record for record in self._journal.read()}.values())
        self.done = {record["node"] for record in self.records}

    @property
    def _in_folder(self) -> bool:
        """Whether the image is made in the folder of the job."""
        return self.unfinished_url == places.join_url(self.url, "image")

    def _unfinished_urls(self) -> list[str]:
        """Of the result in the making, and of the images that go with it."""
        unfinished = self.unfinished_url
        return [unfinished, *(companion_url(unfinished, kind) for kind in self.companions)]

    def _clear(self) -> list[str]:
        """Remove all that is of no known job; returns what cannot be removed, and why.

        On an object store the image may have its final name already. Chunks of an unfinished one
        must not shine through where the new one has none.
        """
        if not self._in_folder:
            ours = begun_in_place(self.final_url, self.options)
            for url in self._unfinished_urls():
                if ours or not finished_at(url, self.options):
                    places.remove(url, self.options)
        return clear(self.url, self.options)

    def check_owned(self) -> None:
        """Look whether the output is still this run's own to write.

        Raises:
            JobLockedError: another run has taken it over; nothing must be touched any more.
        """
        self._lock.check()

    def record(self, record: dict[str, Any], written: Iterable[str] = ()) -> None:
        """Put a finished block on record; from now on it is not made again.

        Args:
            record: of the block.
            written: its local files, for file systems where each has to be synced; looked at
                only where the journal waits for them.
        """
        if self._lock.lost:
            self.check_owned()
        self.records.append(record)
        self.done.add(record["node"])
        self._journal.add(record, written)

    def syncs_elsewhere(self, sync: Callable[[], None] | None) -> None:
        """Name what brings to the device the blocks that workers on other machines wrote."""
        self._journal.sync_elsewhere = sync

    def drop(self, keys: Collection[str]) -> None:
        """Take blocks for not done, so that they are made again."""
        self.records = [record for record in self.records if record["node"] not in keys]
        self.done -= set(keys)

    def remember(self, name: str, data: bytes) -> None:
        """Keep something that a continued run would have to work out again."""
        places.write_bytes(places.join_url(self.url, "profiles", name), data, self.options)

    def recall(self, name: str) -> bytes | None:
        """What an earlier run kept under that name."""
        return places.read_bytes(places.join_url(self.url, "profiles", name), self.options)

    def beside(self, url: str) -> str:
        """Where to write a file that will be found at `url`, beside the finished result."""
        if not self._local:
            return url
        return places.join_url(self.url, BESIDE, places.parent_and_name(url)[1])

    def sync(self) -> None:
        """Wait until everything of the result is on the device, before it is marked complete.

        Raises:
            OutputWriteError: the device failed.
        """
        self._journal.flush()
        if self._local:
            name_unsynced(local_files.sync_tree(places.local_path(self.url)))

    def finish(self, *, replace: str | None = None, overwrite: bool = False) -> str:
        """Put the complete results into their places and remove the rest of the job.

        What is renamed is on the device before, and its new name before anything older goes.

        Args:
            replace: address of a source whose place the result takes.
            overwrite: whether an earlier result may be replaced.

        Returns:
            The address of the result.

        Raises:
            OutputExistsError: something appeared at the place of the result meanwhile.
            OutputWriteError: a renaming failed; the same command does what is left.
            JobLockedError: another run has taken this job over.
        """
        self._journal.flush()
        place = replace or self.final_url
        for url in self._unfinished_urls():
            forget(url)
        if self._local:
            name_unsynced(local_files.sync_groups(places.local_path(self.unfinished_url)))
        self.check_owned()
        if self._in_folder:
            over = overwrite or place == replace
            moves = moves_of(self.final_url, place, self.companions, overwrite, over, self.options)
            ending = Ending(self.request, moves)
            refuse_appeared(self.url, ending.moves, self.options)
            ending.write(self.url, self.options)
        else:
            ending = Ending(self.request, made_in_place(self.final_url), placed=True)
        self._tidy = put_in_place(self.url, ending, self.options)
        return place

    def companion_url(self, kind: str) -> str:
        """Where people will find an image that goes with the result."""
        return companion_url(self.final_url, kind)

    def _let_go(self) -> None:
        """Give the lock back, the last of all, so that nobody enters meanwhile."""
        self._lock.release()
        left = leave(self.url)
        if self._tidy:
            name_left(self.url, left, [])

    def __enter__(self) -> Job:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if kind is None:
            self._let_go()
            return
        forget(self.unfinished_url)
        if self._lock.lost or isinstance(error, JobLockedError):
            # All of it is another run's now.
            self._lock.release()
            return
        with suppress(OSError):
            # What brought us here is what people have to know.
            self._journal.flush()
        kept = any(
            places.exists(places.join_url(self.url, name), self.options)
            for name in ("profiles", RECORD)
        )
        # A background that cannot be used cannot be used when the run is continued.
        if isinstance(error, BackgroundError) or not (self.done or kept):
            with suppress(OSError):
                # Nothing was finished, so nothing is worth keeping.
                self._clear()
        self._tidy = False
        self._let_go()
