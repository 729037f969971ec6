"""The life of one job on disk: started, continued, finished, renamed into place.

Everything unfinished lies in one hidden folder beside the result:

    .<name>.job/  request.json   what this job is, to be matched by a run that continues it
                  lock           who is writing
                  journal/       which blocks are safely written
                  profiles/      what was estimated, so that it need not be again
                  image/         the result in the making

On an object store, which cannot rename, the image is written under its final name
and counts once its completion mark is there, last of all.
"""

from __future__ import annotations

import json
import os
import uuid
from contextlib import suppress
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any

from fractal_mesospim_shading.errors import (
    BackgroundError,
    JobMismatchError,
    OutputExistsError,
    OutputWriteError,
)
from fractal_mesospim_shading.images import places
from fractal_mesospim_shading.images.journal import JobLock, Journal
from fractal_mesospim_shading.images.output import companion_url
from fractal_mesospim_shading.images.places import StorageOptions
from fractal_mesospim_shading.images.target import forget

Request = dict[str, Any]


def job_url(final_url: str) -> str:
    """The hidden folder of the job that makes a result."""
    parent, name = places.parent_and_name(final_url)
    return places.join(parent, f".{name}.job")


def image_url(final_url: str) -> str:
    """Where the image lies while it is being made."""
    return places.join(job_url(final_url), "image") if places.is_local(final_url) else final_url


@dataclass
class Job:
    """One run of one job. Use it as a context; `finish` makes its result count.

    Attributes:
        final_url: where people will find the result.
        request: what decides the bytes of the result.
        options: storage options of a remote address.
        companions: kinds of images written beside the result, such as `background`.
        continued: whether an earlier run had begun.
        done: keys of the blocks that the journal has.
        records: what the journal says of them.
    """

    final_url: str
    request: Request
    options: StorageOptions = None
    companions: tuple[str, ...] = ()
    continued: bool = False
    done: set[str] = field(default_factory=set)
    records: list[dict[str, Any]] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.url = job_url(self.final_url)
        self.image_url = image_url(self.final_url)
        self._lock = JobLock(places.join(self.url, "lock"), self.options)
        self._journal = Journal(places.join(self.url, "journal"), self.options)

    def start(self, *, restart: bool) -> Job:
        """Take the lock, and continue the unfinished job that lies here, if it is this one.

        Raises:
            JobLockedError: another run is writing.
            JobMismatchError: the unfinished job is another one; the message says how.
            OutputWriteError: the folder cannot be written.
        """
        try:
            self._lock.acquire()
        except OSError as error:
            raise OutputWriteError(
                f"The folder {places.parent_and_name(self.final_url)[0]} cannot be written "
                f"({error}). Set `output_folder` to one that can."
            ) from error
        try:
            self._begin(restart=restart)
        except BaseException:
            self._lock.release()
            raise
        return self

    def _begin(self, *, restart: bool) -> None:
        path = places.join(self.url, "request.json")
        found = None if restart else places.read_bytes(path, self.options)
        if found is None or not places.exists(self.image_url, self.options):
            self._clear()
            places.write_bytes(path, _json(self.request), self.options)
            return
        earlier, now = json.loads(found), json.loads(_json(self.request))
        if earlier != now:
            raise JobMismatchError(
                f"An unfinished job lies at {self.url}, and it is not this one:\n  "
                + "\n  ".join(differences(earlier, now))
                + "\nRun it again with its own parameters to continue it; `restart` drops it."
            )
        if places.is_local(self.image_url):
            places.remove_drafts(self.image_url)
        self.continued = True
        self.records = self._journal.read()
        self.done = {record["node"] for record in self.records}

    def _clear(self) -> None:
        """Remove all that is of no known job."""
        self._clear_folder()
        # On an object store the image has its final name already. Chunks of an earlier one
        # must not shine through where the new one has none.
        self._remove_images()

    def _remove_images(self) -> None:
        for made in (self.image_url, *(companion_url(self.image_url, k) for k in self.companions)):
            places.remove(made, self.options)

    def record(self, record: dict[str, Any]) -> None:
        """Put a finished block on record; from now on it is not made again."""
        self._journal.add(record)
        self.records.append(record)
        self.done.add(record["node"])

    def remember(self, name: str, data: bytes) -> None:
        """Keep something that a continued run would have to work out again."""
        places.write_bytes(places.join(self.url, "profiles", name), data, self.options)

    def recall(self, name: str) -> bytes | None:
        """What an earlier run kept under that name."""
        return places.read_bytes(places.join(self.url, "profiles", name), self.options)

    def finish(self, *, replace: str | None = None, overwrite: bool = False) -> str:
        """Rename the complete image into place and remove the rest of the job.

        Args:
            replace: address of a source whose place the result takes.
            overwrite: whether an earlier result may be replaced.

        Returns:
            The address of the result.

        Raises:
            OutputExistsError: something appeared at the place of the result meanwhile.
        """
        self._journal.flush()
        place = replace or self.final_url
        moves = [
            (companion_url(self.image_url, kind), self.companion_url(kind))
            for kind in self.companions
        ]
        moves.append((self.image_url, place))
        for made, _ in moves:
            forget(made)
        if places.is_local(self.final_url):
            for made, wanted in moves:
                if places.exists(made):
                    self._place(made, wanted, replace=overwrite or wanted == replace)
        self._remove()
        return place

    def companion_url(self, kind: str) -> str:
        """Where people will find an image that goes with the result."""
        return companion_url(self.final_url, kind)

    def _place(self, made: str, wanted: str, *, replace: bool) -> None:
        if places.exists(wanted) and not replace:
            raise OutputExistsError(
                f"Something has appeared at {wanted} while the job ran. Move it away and "
                "run the same command again: only the last step is left to do."
            )
        try:
            old = _swap(made, wanted)
        except OSError as error:
            raise OutputWriteError(
                f"The finished result cannot be renamed to {wanted}: {error}. Restore access "
                "and run the same command again: only the last step is left to do."
            ) from error
        if old is not None:
            places.remove(old)

    def _clear_folder(self) -> None:
        """Empty the folder but for the lock; the request goes first, as it makes the job."""
        places.remove(places.join(self.url, "request.json"), self.options)
        for name in places.list_names(self.url, self.options):
            if not name.startswith("lock"):
                places.remove(places.join(self.url, name), self.options)

    def _remove(self) -> None:
        """Remove the job; the lock goes last, so that nobody enters meanwhile."""
        self._clear_folder()
        self._lock.release()
        if places.is_local(self.url):
            with suppress(OSError):
                os.rmdir(places.local_path(self.url))

    def __enter__(self) -> Job:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if kind is None:
            return
        forget(self.image_url)
        with suppress(OSError):
            # What brought us here is what people have to know.
            self._journal.flush()
        # A background that cannot be used cannot be used when the run is continued.
        hopeless = isinstance(error, BackgroundError)
        worth = self.done or places.exists(places.join(self.url, "profiles"), self.options)
        if worth and not hopeless:
            self._lock.release()
        elif places.exists(places.join(self.url, "lock"), self.options):
            # Nothing was finished, so nothing is worth keeping.
            if not places.is_local(self.image_url):
                self._remove_images()
            self._remove()


def _swap(new: str, place: str) -> str | None:
    """Rename a folder into a place; what was there gets another name, which is returned."""
    old = None
    if places.exists(place):
        parent, name = places.parent_and_name(place)
        old = places.join(parent, f".{name}.{uuid.uuid4().hex[:8]}.replaced")
        os.rename(places.local_path(place), places.local_path(old))
    try:
        os.rename(places.local_path(new), places.local_path(place))
    except OSError:
        if old is not None:
            os.rename(places.local_path(old), places.local_path(place))
        raise
    return old


def restore_replaced(place: str) -> None:
    """Undo a replacement that was killed between its two renamings.

    Without this, what was to be replaced would be found under a hidden name only.
    """
    if not places.is_local(place) or places.exists(place):
        return
    parent, name = places.parent_and_name(place)
    hidden = [
        other
        for other in places.list_names(parent)
        if other.startswith(f".{name}.") and other.endswith(".replaced")
    ]
    if len(hidden) == 1:
        os.rename(places.local_path(places.join(parent, hidden[0])), places.local_path(place))


def differences(earlier: Any, now: Any, where: str = "") -> list[str]:
    """Lines that say in what two requests differ."""
    if isinstance(earlier, dict) and isinstance(now, dict):
        lines: list[str] = []
        for key in sorted(earlier.keys() | now.keys()):
            path = f"{where}.{key}" if where else key
            lines += differences(earlier.get(key), now.get(key), path)
        return lines
    if earlier == now:
        return []
    return [f"{where}: unfinished job {_short(earlier)}, now {_short(now)}"]


def _short(value: Any) -> str:
    text = json.dumps(value)
    return text if len(text) <= 80 else text[:77] + "..."


def _json(value: Any) -> bytes:
    return json.dumps(value, indent=2, sort_keys=True).encode()
