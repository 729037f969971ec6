"""Jobs that were killed in their last step: found again, and brought to their end."""

from __future__ import annotations

import logging
from contextlib import suppress

from fractal_mesospim_shading.engine.job import Job
from fractal_mesospim_shading.engine.job_folder import (
    LOCK,
    begun_in_place,
    holds_lock_alone,
    job_url,
    leave,
    leftovers,
)
from fractal_mesospim_shading.engine.locks import JobLock
from fractal_mesospim_shading.engine.placing import RECORD, Ending
from fractal_mesospim_shading.engine.request import Request
from fractal_mesospim_shading.errors import ImageNotFoundError, ShadingError
from fractal_mesospim_shading.images.storage import places
from fractal_mesospim_shading.images.storage.places import StorageOptions

logger = logging.getLogger(__name__)


def left_to_its_job(final_url: str, options: StorageOptions = None) -> bool:
    """Whether what lies at the address of a result is for `Job.start` to judge.

    That is so where a job was stopped in its last step, and on an object store also where
    it was stopped before, for there unfinished work has its final name already.
    """
    record = places.join_url(job_url(final_url), RECORD)
    return places.exists(record, options) or begun_in_place(final_url, options)


def sweep(final_url: str) -> None:
    """Remove the empty folder of a job that was killed after it had removed all else."""
    url = job_url(final_url)
    if not places.is_local(url) or places.is_link(url) or not holds_lock_alone(url):
        return
    lock = JobLock(places.join_url(url, LOCK))
    with suppress(ShadingError, OSError):
        lock.acquire()
        lock.release()
        leave(url)


def settle(place: str) -> Request | None:
    """Bring a job to its end that was killed while its result took the place of a local image.

    Without this, an image whose place was to be taken would be found in the job's folder only.

    Args:
        place: address of the image.

    Returns:
        What the job was, None where there is none.

    Raises:
        JobLockedError: it is at work.
        ImageNotFoundError: there is nothing, but an earlier version of this package has left
            something under a hidden name.
    """
    if not places.is_local(place):
        return None
    parent, name = places.parent_and_name(place)
    for folder in places.list_names(parent):
        if folder.startswith(".") and folder.endswith(".job"):
            ending = _ending_in(places.join_url(parent, folder))
            if ending is not None and name in [move.place for move in ending.moves]:
                final = places.join_url(parent, folder.removeprefix(".").removesuffix(".job"))
                with Job(final, ending.request).start(restart=False) as job:
                    return ending.request if job.finished else None
    left = leftovers(place)
    if left and places.exists(place):
        logger.info(
            "Beside %s lies %s, which a run of an earlier version has left when it was killed. It "
            "is not touched; remove it if it is of no use.",
            place,
            ", ".join(left),
        )
    elif left:
        raise ImageNotFoundError(
            f"There is nothing at {place}. Beside it lies {', '.join(left)}: a run of an earlier "
            "version was killed while it replaced that image. It may be whole, or half removed; "
            "look at it, and rename it yourself."
        )
    return None


def _ending_in(url: str) -> Ending | None:
    """The record of a job; one that cannot be read is the concern of that job alone."""
    if places.is_link(url):
        return None
    try:
        return Ending.read(url)
    except (ShadingError, OSError):
        return None
