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
from contextlib import suppress
from typing import Any

from fractal_mesospim_shading.engine.placing import ASIDE, RECORD
from fractal_mesospim_shading.errors import OutputWriteError
from fractal_mesospim_shading.images.output import companion_url, finished_at
from fractal_mesospim_shading.images.storage import places
from fractal_mesospim_shading.images.storage.places import StorageOptions
from fractal_mesospim_shading.messages import listed

logger = logging.getLogger(__name__)

REQUEST = "request.json"
SIBLING = "sibling"
BESIDE = "beside"
LOCK = "lock"
SOURCE_FILES = "source_files.npz"

_LOCKS = re.compile(r"lock(\.[0-9a-f]{8})?")
_DRAFT = re.compile(r"\.(request|finish)\.json\.draft")
# In the order in which they go: the journal makes blocks count, the records make the job.
_MEMBERS = ("journal", "image", "profiles", SOURCE_FILES, BESIDE, REQUEST, SIBLING, RECORD)


def job_url(final_url: str) -> str:
    """The hidden folder of the job that makes a result."""
    parent, name = places.parent_and_name(final_url)
    return places.join_url(parent, f".{name}.job")


def image_url(
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
    records = (REQUEST, RECORD)
    if names and not any(name in names for name in records):
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
    path = places.local_path(url)
    return path.is_dir() and all(map(_is_lock, places.list_names(url)))


def leftovers(place: str) -> list[str]:
    """What earlier versions of this package left beside an address, under hidden names.

    A run of them that was killed in its last step left what it replaced, whole or half
    removed.
    """
    if not places.is_local(place):
        return []
    parent, name = places.parent_and_name(place)
    pattern = re.compile(re.escape(f".{name}.") + r"[0-9a-f]{8}\.replaced")
    return [
        places.join_url(parent, other)
        for other in places.list_names(parent)
        if pattern.fullmatch(other)
    ]


def _is_lock(name: str) -> bool:
    return _LOCKS.fullmatch(name) is not None
