"""The end of a job: its results go to their places, what stood there goes, the folder goes.

What is going to be done is written down before the first step, in the job's own folder,
so that whoever comes after a kill does the rest and nothing else. On a file system
each result is renamed into its place, after what stood there was renamed into the job's
folder; that is removed when all results are in place and on the device. An object store
cannot rename: see `replace_remote`.
"""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from fractal_mesospim_shading.errors import OutputExistsError, OutputWriteError
from fractal_mesospim_shading.images.mosaic import MARK
from fractal_mesospim_shading.images.storage import local_files, places
from fractal_mesospim_shading.images.storage.places import StorageOptions

Request = dict[str, Any]

RECORD = "finish.json"
ASIDE = "replaced"
_ROOTS = ("zarr.json", ".zattrs", ".zgroup")
_COPIED_AT_ONCE = 1000


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

    def place(self, job_url: str) -> str:
        """The address of the result."""
        return places.join_url(places.parent_and_name(job_url)[0], self.moves[-1].place)


def _leads_nowhere_else(move: Move) -> bool:
    parts = [*move.made.split("/"), move.place]
    return not any(part in ("", ".", "..") or "/" in part or "\\" in part for part in parts)


def refuse_appeared(job_url: str, moves: Sequence[Move], options: StorageOptions = None) -> None:
    """Refuse to put results where something stands that may not be replaced.

    Raises:
        OutputExistsError: names it.
    """
    parent, _ = places.parent_and_name(job_url)
    for move in moves:
        place = places.join_url(parent, move.place)
        if not move.replace and places.exists(place, options):
            raise _appeared(place)


def _appeared(place: str) -> OutputExistsError:
    return OutputExistsError(
        f"Something has appeared at {place} while the job ran. Move it away and run the same "
        "command again: only the last step is left to do."
    )


def place_local(job_url: str, moves: Sequence[Move]) -> list[str]:
    """Rename results into their places, as far as that is not done.

    Returns:
        Folders that their file system cannot sync.

    Raises:
        OutputExistsError: something has appeared where a result goes.
        OutputWriteError: a renaming failed; what stood there is back in its place.
    """
    folder = places.local_path(job_url)
    for number, move in enumerate(moves):
        made, place = folder / move.made, folder.parent / move.place
        aside = folder / ASIDE / str(number)
        if os.path.lexists(made):
            _put(made, place, aside, replace=move.replace)
        elif os.path.lexists(aside) and not os.path.lexists(place):
            raise OutputWriteError(
                f"The result is no longer at {place}, where an earlier run had put it. What stood "
                f"there before is {aside}. Move one of them to {place}, or remove {folder}."
            )
    unsynced = [path for path in (folder.parent, folder) if not local_files.sync_folder(path)]
    return [str(path) for path in unsynced]


def _put(made: Path, place: Path, aside: Path, *, replace: bool) -> None:
    moved = False
    try:
        if made.is_file():
            if place.is_dir():
                raise _appeared(str(place))
            os.replace(made, place)
            return
        if os.path.lexists(place):
            if not replace or os.path.lexists(aside):
                raise _appeared(str(place))
            aside.parent.mkdir(exist_ok=True)
            os.rename(place, aside)
            moved = True
        os.rename(made, place)
    except OutputExistsError:
        raise
    except OSError as error:
        if moved:
            os.rename(aside, place)
        raise OutputWriteError(
            f"The finished result cannot be renamed to {place}: {error}. Restore access and run "
            "the same command again: only the last step is left to do."
        ) from error


def replace_remote(made: str, place: str, options: StorageOptions) -> None:
    """Replace an image of an object store by one that is complete beside it.

    The old one is first marked as unfinished, so that nobody takes the mixture of
    both for an image; the copy of the new one's own mark is the last step. All steps may be done
    again.

    Args:
        made: the complete image.
        place: of the old one; there may be nothing.
        options: of the storage.

    Raises:
        OutputWriteError: the storage fails.
    """
    new = places.relative_files(made, options)
    if not new:
        return
    _take_mark_off(place, options)
    for name in places.relative_files(place, options):
        if name not in set(new) and name not in _ROOTS:
            places.remove(places.join_url(place, name), options)
    pairs = [(places.join_url(made, n), places.join_url(place, n)) for n in new if n not in _ROOTS]
    for start in range(0, len(pairs), _COPIED_AT_ONCE):
        places.copy_remote(pairs[start : start + _COPIED_AT_ONCE], options)
    for name in _ROOTS:
        if name not in new:
            places.remove(places.join_url(place, name), options)
    for name in _ROOTS:
        if name in new:
            places.copy_remote(
                [(places.join_url(made, name), places.join_url(place, name))], options
            )


def _take_mark_off(place: str, options: StorageOptions) -> None:
    """Mark an image as unfinished, in the metadata of both versions of zarr."""
    unfinished = {MARK: {"complete": False}}
    group = _document(places.join_url(place, "zarr.json"), options)
    if group is not None:
        group["attributes"] = {**group.get("attributes", {}), **unfinished}
        places.write_bytes(places.join_url(place, "zarr.json"), json.dumps(group).encode(), options)
    attributes = _document(places.join_url(place, ".zattrs"), options)
    if attributes is not None or (group is None and places.exists(place, options)):
        content = json.dumps({**(attributes or {}), **unfinished}).encode()
        places.write_bytes(places.join_url(place, ".zattrs"), content, options)


def _document(url: str, options: StorageOptions) -> dict[str, Any] | None:
    content = places.read_bytes(url, options)
    try:
        return None if content is None else dict(json.loads(content))
    except (ValueError, TypeError):
        return {}
