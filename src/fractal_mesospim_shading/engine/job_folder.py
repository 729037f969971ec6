"""The hidden folder of a job: what in it is the job's own, and what is not touched.

Nothing in it is removed or renamed but what a job makes there, and that only where the
job's own record lies beside it. Links are never followed out of it.
"""

from __future__ import annotations

import json
import logging
import os
import re
import stat
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

from fractal_mesospim_shading.engine.records import RECORD, SOURCE_FILES, Ending, Move
from fractal_mesospim_shading.errors import OutputExistsError, OutputWriteError
from fractal_mesospim_shading.images.output import companion_url, finished_at, replace_remote
from fractal_mesospim_shading.images.storage import local_files, places
from fractal_mesospim_shading.images.storage.places import StorageOptions
from fractal_mesospim_shading.messages import listed

logger = logging.getLogger(__name__)

REQUEST = "request.json"
SIBLING = "sibling"
BESIDE = "beside"
LOCK = "lock"
ASIDE = "replaced"


_LOCKS = re.compile(r"lock(\.[0-9a-f]{8})?")
_DRAFT = re.compile(r"\.(request|finish)\.json\.draft")
# In the order in which they go: the journal makes blocks count, the records make the job.
_MEMBERS = ("journal", "image", "profiles", SOURCE_FILES, BESIDE, REQUEST, SIBLING, RECORD)


def job_url(final_url: str) -> str:
    """The hidden folder of the job that makes a result."""
    parent, name = places.parent_and_name(final_url)
    return places.join_url(parent, f".{name}.job")


def unfinished_url(
    final_url: str, options: StorageOptions = None, companions: tuple[str, ...] = ()
) -> str:
    """Where the image lies while it is being made.

    On an object store, which cannot rename, it is made under its final name and counts
    once its mark is there; but beside it where that name, or that of an image that goes with it,
    is taken by a finished image, which has to stay until the new one is complete.

    Args:
        final_url: where people will find it.
        options: of a remote address.
        companions: kinds of images written beside it.
    """
    beside = places.join_url(job_url(final_url), "image")
    if places.is_local(final_url):
        return beside
    if places.exists(places.join_url(job_url(final_url), SIBLING), options):
        return beside
    if begun_in_place(final_url, options) and not finished_at(final_url, options):
        return final_url
    urls = [final_url, *(companion_url(final_url, kind) for kind in companions)]
    return beside if any(finished_at(url, options) for url in urls) else final_url


def begun_in_place(final_url: str, options: StorageOptions = None) -> bool:
    """Whether a job on an object store is making its result under the final name."""
    if places.is_local(final_url):
        return False
    url = job_url(final_url)
    begun = places.exists(places.join_url(url, REQUEST), options)
    return begun and not places.exists(places.join_url(url, SIBLING), options)


def read_request(url: str, options: StorageOptions = None) -> dict[str, Any] | None:
    """What the job of a folder is; None where there is no such record, or none of ours."""
    content = places.read_bytes(places.join_url(url, REQUEST), options)
    try:
        found = json.loads(content or b"null")
    except ValueError:
        return None
    return found if isinstance(found, dict) else None


def refuse_link(url: str) -> None:
    """Refuse a folder that is a link or no folder, before anything is written into it.

    Raises:
        OutputWriteError: says what it is.
    """
    if not places.is_local(url):
        return
    try:
        mode = os.lstat(places.local_path(url)).st_mode
    except FileNotFoundError:
        return
    if not stat.S_ISDIR(mode):
        kind = "a link" if stat.S_ISLNK(mode) else "no folder"
        raise OutputWriteError(
            f"{url} is {kind}; unfinished work is kept in a folder of that name. Nothing is "
            "touched. Look at it, and move it away."
        )


def refuse_foreign(url: str, options: StorageOptions = None) -> None:
    """Refuse a folder that holds what no job of ours has made.

    Raises:
        OutputWriteError: names what is there.
    """
    names = [
        name
        for name in places.list_names(url, options)
        if not (_is_lock(name) or name == SIBLING or _DRAFT.fullmatch(name))
    ]
    links = [name for name in names if places.is_link(places.join_url(url, name))]
    if links:
        raise OutputWriteError(
            f"{url} holds unfinished work, and in it {listed(links, 5)} is a link. Nothing is "
            "touched. Look where it leads, and remove it."
        )
    if names and REQUEST not in names and RECORD not in names:
        raise OutputWriteError(
            f"{url} is where unfinished work is kept, but it holds no record of a job of this "
            f"package ({REQUEST}), only {listed(names, 5)}. Nothing is touched. Move it away."
        )
    if REQUEST in names and RECORD not in names and read_request(url, options) is None:
        raise OutputWriteError(
            f"{places.join_url(url, REQUEST)}, the record of an unfinished job, cannot be "
            f"understood. Nothing is touched. Move {url} away."
        )


def clear(url: str, options: StorageOptions = None, *, replaced: bool = False) -> list[str]:
    """Remove what a job has made in its folder, but for the lock; its records go last.

    Args:
        url: of the folder.
        options: of a remote address.
        replaced: also remove what its results have replaced.

    Returns:
        What could not be removed, and why.
    """
    names = places.list_names(url, options)
    failed = []
    for member in (*((ASIDE,) if replaced else ()), *_MEMBERS):
        for name in names:
            if name == member or (member == "image" and name.startswith("image_")):
                try:
                    places.remove(places.join_url(url, name), options)
                except OSError as error:
                    failed.append(str(error))
        if failed:
            break
    for name in names:
        if _DRAFT.fullmatch(name):
            with suppress(OSError):
                places.remove(places.join_url(url, name), options)
    return failed


def leave(url: str) -> list[str]:
    """Remove the folder of a job whose lock is given back, if it is empty.

    Returns:
        Names of what is in it still.
    """
    if not places.is_local(url):
        return []
    path = places.local_path(url)
    names = places.list_names(url)
    for name in names:
        # What a run that was killed while it looked at the lock has left.
        if _is_lock(name) and name != LOCK:
            with suppress(OSError):
                (path / name).unlink()
    with suppress(OSError):
        os.rmdir(path)
        return []
    return [name for name in names if not _is_lock(name)]


def name_left(url: str, left: list[str], failed: list[str]) -> None:
    """Say what of the folder of a finished job stays."""
    if failed:
        logger.warning(
            "The result is complete, but what it has replaced, or what was needed for it, cannot "
            "be removed (%s). Remove %s yourself.",
            failed[0],
            url,
        )
    elif left:
        logger.warning(
            "%s stays, for it holds what this job has not made: %s. Move it away.",
            url,
            listed(left, 5),
        )


def holds_lock_alone(url: str) -> bool:
    """Whether a local folder of a job is there, with nothing in it but a lock."""
    return places.local_path(url).is_dir() and all(map(_is_lock, places.list_names(url)))


def _is_lock(name: str) -> bool:
    return _LOCKS.fullmatch(name) is not None


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
    return [str(path) for path in (folder.parent, folder) if not local_files.sync_folder(path)]


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


def made_in_place(final_url: str) -> tuple[Move, ...]:
    """What there is to do for a result that was made under its final name."""
    return (Move("image", places.parent_and_name(final_url)[1], True),)


def moves_of(
    final_url: str,
    place: str,
    companions: Sequence[str],
    overwrite: bool,
    replace: bool,
    options: StorageOptions = None,
) -> tuple[Move, ...]:
    """Where each result of a job goes, the image itself last.

    Args:
        final_url: the address that the job is named after.
        place: of the image.
        companions: kinds of images written beside it.
        overwrite, replace: whether these, and whether the image may replace others.
        options: of a remote address.
    """
    moves = [
        Move(f"image_{kind}", places.parent_and_name(companion_url(final_url, kind))[1], overwrite)
        for kind in companions
    ]
    parent, _ = places.parent_and_name(final_url)
    for name in places.list_names(places.join_url(job_url(final_url), BESIDE), options):
        path = places.local_path(places.join_url(parent, name))
        if places.exists(str(path)) and not path.is_file():
            # No reason to hold the result back.
            logger.warning("%s is not written: something else is in its place.", path)
            continue
        moves.append(Move(f"{BESIDE}/{name}", name, True))
    return (*moves, Move("image", places.parent_and_name(place)[1], replace))


def put_in_place(url: str, ending: Ending, options: StorageOptions = None) -> bool:
    """Put results into their places, and remove the job but for its lock; whether all has gone."""
    if not ending.placed:
        if places.is_local(url):
            name_unsynced(place_local(url, ending.moves))
        else:
            parent, _ = places.parent_and_name(url)
            for move in ending.moves:
                made = places.join_url(url, move.made)
                replace_remote(made, places.join_url(parent, move.place), options)
        replace(ending, placed=True).write(url, options)
    failed = clear(url, options, replaced=True)
    name_left(url, [], failed)
    return not failed


def name_unsynced(folders: Sequence[str]) -> None:
    """Say which folders could not be brought to the device."""
    if folders:
        logger.info(
            "The file system of %s cannot sync folders (%d of them): a power cut within the next "
            "half minute may take away what was written last.",
            folders[0],
            len(folders),
        )
