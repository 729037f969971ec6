"""What a job writes down: its request, which blocks are done, and what is left to do at its end.

Chunks that exist prove nothing: a killed writer leaves torn ones. A record in the journal,
made after the chunks of a block are written, is the only proof.
"""

from __future__ import annotations

import io
import json
import time
import zipfile
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fractal_mesospim_shading.errors import OutputWriteError
from fractal_mesospim_shading.images.storage import local_files, places
from fractal_mesospim_shading.images.storage.local_files import open_own
from fractal_mesospim_shading.images.storage.places import StorageOptions

Request = dict[str, Any]
"""Everything that decides the bytes of a result, as JSON."""

Record = dict[str, Any]

RECORD = "finish.json"
SOURCE_FILES = "source_files.npz"

_TOGETHER, _TOGETHER_SECONDS = 64, 5.0
"""Records whose blocks are brought to the device at a time, where the journal waits for that."""


def same(earlier: Request, now: Request) -> bool:
    """Whether two requests are of the same job."""
    return plain(earlier) == plain(now)


def plain(request: Request) -> Request:
    """A request as it comes back from its file."""
    found: Request = json.loads(to_bytes(request))
    return found


def to_bytes(request: Request) -> bytes:
    """A request as it lies in its file."""
    return json.dumps(request, indent=2, sort_keys=True).encode()


def differences(earlier: Any, now: Any, *where: str) -> list[str]:
    """Lines that say in what two requests differ.

    Args:
        earlier, now: requests, or parts of them.
        where: keys that lead to these parts.
    """
    if isinstance(earlier, dict) and isinstance(now, dict):
        lines: list[str] = []
        for key in sorted(earlier.keys() | now.keys()):
            lines += differences(earlier.get(key), now.get(key), *where, key)
        return lines
    if earlier == now:
        return []
    return [f"{_place(where)}: unfinished job {_short(earlier)}, now {_short(now)}"]


def _place(keys: Sequence[str]) -> str:
    """Where in a request something stands; parameters as the options that they are."""
    if keys[:1] != ("parameters",) or len(keys) < 2:
        return ".".join(keys)
    option, *inner = keys[1:]
    return f"'{'.'.join(inner)}' of `{option}`" if inner else f"`{option}`"


def _short(value: Any) -> str:
    text = json.dumps(value)
    return text if len(text) <= 80 else text[:77] + "..."


class Journal:
    """Records of finished blocks, one JSON document each, in order of completion.

    On a local file system one file that grows; on an object store, which cannot
    append, one small object for every few records.

    Args:
        url: of the folder.
        options: of a remote address.
        batch: records in an object.
        durable: wait until each record is on the device.
    """

    def __init__(
        self,
        url: str,
        options: StorageOptions = None,
        batch: int = 16,
        *,
        durable: bool = False,
    ) -> None:
        self._url = url
        self._options = options
        self._batch = batch
        self._durable = durable
        self._waiting: list[Record] = []
        self._local = places.is_local(url)
        self._parts = 0
        self.sync_elsewhere: Callable[[], None] | None = None

    def read(self) -> list[Record]:
        """All records; what a kill or a crash of the machine left incomplete is cut off."""
        parts = self._contents()
        if self._local:
            whole, length = _whole_records(parts[0])
            if length < len(parts[0]):
                places.write_bytes(places.join_url(self._url, "blocks.jsonl"), parts[0][:length])
            return whole
        self._parts = len(parts)
        return [json.loads(line) for part in parts for line in part.splitlines()]

    def nodes(self) -> set[str]:
        """Names of the blocks on record, for somebody who only looks: nothing is cut off."""
        return {record["node"] for part in self._contents() for record in _whole_records(part)[0]}

    def _contents(self) -> list[bytes]:
        """What each file holds."""
        names = ["blocks.jsonl"]
        if not self._local:
            names = places.list_names(self._url, self._options)
        urls = [places.join_url(self._url, name) for name in names]
        return [places.read_bytes(url, self._options) or b"" for url in urls]

    def add(self, record: Record, written: Iterable[str] = ()) -> None:
        """Write a record; it counts once this returns (or after `flush`, when remote).

        Args:
            record: of a block.
            written: its local files, for where each has to be synced by itself.
        """
        self._waiting.append(record)
        if self._local or len(self._waiting) >= self._batch:
            self.flush()

    def flush(self) -> None:
        """Write what is waiting.

        Raises:
            OutputWriteError: the disk is full, or something else of that kind.
        """
        if not self._waiting:
            return
        # Handed over first: what cannot be written now is not tried again later.
        data, self._waiting = _lines(self._waiting), []
        if self._local:
            path = places.local_path(self._url) / "blocks.jsonl"
            _append(path, data, durable=self._durable)
        else:
            name = f"{self._parts:08d}.jsonl"
            places.write_bytes(places.join_url(self._url, name), data, self._options)
            self._parts += 1


class DurableJournal(Journal):
    """A journal in the folder of a local job that waits until blocks are on the device.

    Attributes:
        sync_elsewhere: brings there what workers on other machines wrote.
    """

    def __init__(self, url: str) -> None:
        super().__init__(url, durable=True)
        self._not_on_device: list[tuple[Record, Iterable[str]]] = []
        self._since = 0.0

    def add(self, record: Record, written: Iterable[str] = ()) -> None:
        """Keep a record until its block is on the device."""
        if not self._not_on_device:
            self._since = time.monotonic()
        self._not_on_device.append((record, written))
        late = time.monotonic() - self._since > _TOGETHER_SECONDS
        if late or len(self._not_on_device) >= _TOGETHER:
            self.flush()

    def flush(self) -> None:
        """Write what waits, after its blocks are on the device."""
        waiting, self._not_on_device = self._not_on_device, []
        if waiting:
            if self.sync_elsewhere is not None:
                self.sync_elsewhere()
            folder = places.local_path(self._url).parent
            whole = local_files.file_system(folder) in local_files.WHOLE
            if not (whole and local_files.sync_machine(folder)):
                local_files.sync_files(path for _, written in waiting for path in written)
            for record, _ in waiting:
                super().add(record)
        super().flush()


def _lines(records: Iterable[Record]) -> bytes:
    return "".join(json.dumps(record, sort_keys=True) + "\n" for record in records).encode()


def _whole_records(data: bytes) -> tuple[list[Record], int]:
    """The records up to the first line that is none, and how many bytes they take."""
    records: list[Record] = []
    length = 0
    for line in data.splitlines(keepends=True):
        try:
            record = json.loads(line)
        except ValueError:
            break
        if not line.endswith(b"\n") or not isinstance(record, dict):
            break
        records.append(record)
        length += len(line)
    return records, length


def _append(path: Path, data: bytes, *, durable: bool) -> None:
    """Add to a file all of the data or, on a full disk, nothing."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with open(path, "ab", buffering=0, opener=open_own) as file:
            before = file.tell()
            try:
                rest = memoryview(data)
                while rest:
                    rest = rest[file.write(rest) :]
                if durable:
                    local_files.flush(file.fileno())
            except OSError:
                file.truncate(before)
                raise
        if durable and not before:
            local_files.sync_folder(path.parent)
    except OutputWriteError:
        raise
    except OSError as error:
        raise OutputWriteError(
            f"The journal {path} cannot be written: {error}. What was finished is kept: make room "
            "or restore access, and run the same command again."
        ) from error


@dataclass(frozen=True)
class Move:
    """One result on its way to its place.

    Attributes:
        made: where it was made, within the job's folder.
        place: its name in the folder that the job's folder lies in.
        replace: whether something may stand there.
    """

    made: str
    place: str
    replace: bool


@dataclass(frozen=True)
class Ending:
    """What is left to do of a job whose results are complete.

    Attributes:
        request: of the job.
        moves: in the order in which they are made; the last one is the result itself.
        placed: whether all are made, so that only what is left has to be removed.
    """

    request: Request
    moves: tuple[Move, ...]
    placed: bool = False

    @classmethod
    def read(cls, job_url: str, options: StorageOptions = None) -> Ending | None:
        """What a job has written down; None where it has not come so far.

        Raises:
            OutputWriteError: the record is damaged, or no record of ours.
        """
        content = places.read_bytes(places.join_url(job_url, RECORD), options)
        if content is None:
            return None
        try:
            found = json.loads(content)
            moves = tuple(
                Move(str(m["made"]), str(m["place"]), m["replace"] is True) for m in found["moves"]
            )
            if not moves or not all(map(_leads_nowhere_else, moves)):
                raise ValueError("it names other folders")
            return cls(dict(found["request"]), moves, found.get("placed") is True)
        except (ValueError, KeyError, TypeError) as error:
            raise OutputWriteError(
                f"{places.join_url(job_url, RECORD)} cannot be understood ({error}). Nothing is "
                f"touched. Look at {job_url}, and move away what is of no use."
            ) from error

    def write(self, job_url: str, options: StorageOptions = None) -> None:
        """Write it down, on the device where that is possible."""
        content = json.dumps(asdict(self), indent=2, sort_keys=True).encode()
        places.write_bytes(places.join_url(job_url, RECORD), content, options)
        if places.is_local(job_url):
            local_files.sync_folder(places.local_path(job_url))


def _leads_nowhere_else(move: Move) -> bool:
    parts = [*move.made.split("/"), move.place]
    return not any(part in ("", ".", "..") or "/" in part or "\\" in part for part in parts)


def blocks_planned(folder: str, options: StorageOptions = None) -> int | None:
    """How many blocks the job of a folder has in all; None where it has not said so."""
    blocks = _loaded(places.read_bytes(places.join_url(folder, SOURCE_FILES), options)).get(
        "blocks"
    )
    return None if blocks is None else int(blocks)


def packed(present: Mapping[str, NDArray[np.bool_]], blocks: int) -> bytes:
    """Arrays of truth values by name, and how many blocks there are, as bytes."""
    content: dict[str, Any] = {"names": np.array(list(present), dtype=np.str_), "blocks": blocks}
    for number, array in enumerate(present.values()):
        content[f"shape_{number}"] = np.array(array.shape)
        content[f"bits_{number}"] = np.packbits(array)
    buffer = io.BytesIO()
    np.savez_compressed(buffer, **content)
    return buffer.getvalue()


def unpacked(data: bytes | None) -> dict[str, NDArray[np.bool_]]:
    """The arrays of `packed`; none where it cannot be understood."""
    content = _loaded(data)
    found = {}
    for number, name in enumerate(content.get("names", ())):
        shape = tuple(int(n) for n in content[f"shape_{number}"])
        bits = np.unpackbits(content[f"bits_{number}"], count=int(np.prod(shape)))
        found[str(name)] = bits.astype(np.bool_).reshape(shape)
    return found


def _loaded(data: bytes | None) -> dict[str, NDArray[Any]]:
    try:
        with np.load(io.BytesIO(data or b"")) as content:
            return dict(content)
    except (ValueError, KeyError, EOFError, OSError, zipfile.BadZipFile):
        return {}
