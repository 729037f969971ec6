"""What earlier runs have left: their marks in an image, and jobs beside it that did not end."""

from __future__ import annotations

import logging
import re
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Literal

from fractal_mesospim_shading.engine.job import Job
from fractal_mesospim_shading.engine.job_folder import (
    LOCK,
    begun_in_place,
    holds_lock_alone,
    job_url,
    leave,
    read_request,
)
from fractal_mesospim_shading.engine.locks import JobLock
from fractal_mesospim_shading.engine.process import DEAD_SECONDS, Holder
from fractal_mesospim_shading.engine.records import RECORD, Ending, Journal, Request, blocks_planned
from fractal_mesospim_shading.errors import ImageNotFoundError, ShadingError
from fractal_mesospim_shading.images.mark_texts import origin_line
from fractal_mesospim_shading.images.mosaic import MARK
from fractal_mesospim_shading.images.storage import places
from fractal_mesospim_shading.images.storage.places import StorageOptions, connection_errors
from fractal_mesospim_shading.options.background import BackgroundOptions
from fractal_mesospim_shading.options.base import parameters_of
from fractal_mesospim_shading.options.flatfield import FlatfieldOptions, ImportOptions

logger = logging.getLogger(__name__)

Correction = Literal["flatfield", "background"]

State = Literal["running", "stopped"]

_OPTIONS = {"correct_flatfield": FlatfieldOptions, "correct_background": BackgroundOptions}

_NAMES: dict[Correction, str] = {"flatfield": "flat-field", "background": "local background"}


@dataclass(frozen=True)
class Step:
    """One job whose result an image is, or comes from.

    Attributes:
        task: name of the task.
        version: of this package.
        corrects: what it corrected; None for a plain import.
        text: one line on it, with the parameters that were not left as they are by default.
    """

    task: str
    version: str
    corrects: Correction | None
    text: str


def correction_of(task: str, *, with_models: bool) -> Correction | None:
    """What a job corrects.

    Args:
        task: name of the task.
        with_models: whether it has flat-field models.
    """
    if task == "correct_background":
        return "background"
    return "flatfield" if task == "correct_flatfield" or with_models else None


def steps_of(attributes: Mapping[str, Any]) -> tuple[Step, ...]:
    """The jobs that an image has gone through, the first one first.

    Args:
        attributes: of its group, or of a container.
    """
    steps: list[Step] = []
    for mark in _marks(attributes):
        acquisition = mark.get("acquisition")
        if isinstance(acquisition, Mapping):
            # What was imported may have been a corrected container.
            steps += steps_of({MARK: acquisition.get("corrected_before")})
        if isinstance(mark.get("task"), str):
            steps.append(_step(mark))
    return tuple(steps)


def not_corrected(attributes: Mapping[str, Any]) -> dict[str, str]:
    """Channels of a result that were copied as they were, with the reason, by label."""
    marks = _marks(attributes)
    return {
        label: str(model.get("reason", ""))
        for mark in (*marks[-1:], *marks[:-1])
        if isinstance(mark.get("models"), dict)
        for label, model in mark["models"].items()
        if isinstance(model, dict) and model.get("corrected") is False
    }


def _marks(attributes: Mapping[str, Any]) -> list[dict[str, Any]]:
    """What the jobs that an image has gone through say of themselves, the first one first."""
    mark = attributes.get(MARK)
    if not isinstance(mark, Mapping):
        return []
    history = mark.get("history")
    marks = [*(history if isinstance(history, list) else ()), mark]
    return [dict(each) for each in marks if isinstance(each, Mapping)]


def tell_history(url: str, steps: Sequence[Step], corrections: Sequence[Correction]) -> None:
    """Warn of an image that is corrected in the same way a second time; else name its steps.

    Args:
        url: of the source.
        steps: that it has gone through.
        corrections: that are going to be made; none by a plain import.
    """
    repeated = [each for each in corrections if each in {step.corrects for step in steps}]
    for correction in repeated:
        logger.warning(
            "%s is a result of this package already: its %s was corrected before (%s). It is "
            "corrected a second time; was the original meant?",
            url,
            _NAMES[correction],
            "; ".join(f"{s.task}, version {s.version}" for s in steps if s.corrects == correction),
        )
    if steps and not repeated:
        logger.info("%s was made %s", url, "; then ".join(step.text for step in steps))


def _step(mark: dict[str, Any]) -> Step:
    task, version = str(mark["task"]), str(mark.get("version"))
    given = mark.get("parameters")
    parameters = dict(given) if isinstance(given, Mapping) else {}
    with_models = parameters.get("correct_flatfield") is True
    usual = parameters_of(_OPTIONS.get(task, ImportOptions)())
    text = origin_line({**mark, "task": task, "version": version}, usual)
    return Step(task, version, correction_of(task, with_models=with_models), text)


@dataclass(frozen=True)
class UnfinishedJob:
    """A job that has not come to its end.

    Attributes:
        folder: where its work lies.
        task: name of the task.
        source: what it is made from.
        result: where its result will be.
        blocks_done: how many blocks its journal names.
        blocks: how many there are in all; None where that is not known yet.
        at_end: whether all is written, and only the last step is left.
        state: whether it runs.
        holder: who runs it; None where nobody does.
        sign_of_life_s: seconds since its last sign of life; None where there is none.
        user: whose folder it is; None where that is not known.
    """

    folder: str
    task: str
    source: str
    result: str
    blocks_done: int
    blocks: int | None
    at_end: bool
    state: State
    holder: str | None
    sign_of_life_s: float | None
    user: str | None

    def text(self) -> str:
        """One line for a person."""
        blocks = "?" if self.blocks is None else str(self.blocks)
        done = f"{self.blocks_done} of {blocks} blocks"
        if self.at_end:
            done = "all blocks, with the last step left to do"
        who = f", of user {self.user}" if self.user else ""
        line = f"{self.task} to {self.result}: {done}{who}"
        if self.state == "stopped":
            return f"{line}; it has stopped, and the same command goes on with it"
        life = ""
        if self.sign_of_life_s is not None:
            life = f", last sign of life {self.sign_of_life_s:.0f} s ago"
        return f"{line}; it is running ({self.holder}{life})"


def jobs_beside(url: str, options: StorageOptions = None) -> list[UnfinishedJob]:
    """The unfinished jobs that read an image or write to its address; nothing is touched.

    Those whose results go to another folder are not found.

    Args:
        url: of the image.
        options: of a remote address.
    """
    parent, _ = places.parent_and_name(url)
    found = []
    # A place that cannot be listed shows none.
    with suppress(*connection_errors(), ShadingError):
        for result in _results_of_jobs(parent, options):
            job = _job(result, options)
            if job is not None and url in (job.source, job.result):
                found.append(job)
    return found


def _results_of_jobs(parent: str, options: StorageOptions = None) -> Iterator[str]:
    """Where the results of the jobs of a folder will be."""
    for name in places.list_names(parent, options):
        if name.startswith(".") and name.endswith(".job"):
            yield places.join_url(parent, name.removeprefix(".").removesuffix(".job"))


def _job(result: str, options: StorageOptions) -> UnfinishedJob | None:
    folder = job_url(result)
    if places.is_local(folder) and places.is_link(folder):
        return None
    request = read_request(folder, options)
    at_end = places.exists(places.join_url(folder, RECORD), options)
    if request is None and not at_end:
        return None
    about = request or {}
    lock = places.join_url(folder, LOCK)
    holder = Holder.parse(places.read_bytes(lock, options))
    age = _age(lock, options) if holder is not None else None
    alive = age is None or age < DEAD_SECONDS
    runs = holder is not None and (holder.runs if holder.is_neighbour else alive)
    return UnfinishedJob(
        folder=folder,
        task=str(about.get("task", "a job")),
        source=str(about.get("source", "")),
        result=result,
        blocks_done=len(Journal(places.join_url(folder, "journal"), options).nodes()),
        blocks=blocks_planned(folder, options),
        at_end=at_end,
        state="running" if runs else "stopped",
        holder=holder.describe() if holder is not None and runs else None,
        sign_of_life_s=age if runs else None,
        user=_user(folder),
    )


def _age(lock: str, options: StorageOptions) -> float | None:
    """Seconds since the last sign of life, by this machine's clock: to look at, not to act on."""
    try:
        if places.is_local(lock):
            last: float | None = places.local_path(lock).stat().st_mtime
        else:
            last = places.modified(lock, options)
    except FileNotFoundError:
        return None
    return None if last is None else max(0.0, time.time() - last)


def _user(folder: str) -> str | None:
    if places.is_local(folder):
        with suppress(KeyError, NotImplementedError, OSError):
            return places.local_path(folder).owner()
    return None


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
    for final in _results_of_jobs(parent):
        ending = _ending_in(job_url(final))
        if ending is not None and name in [move.place for move in ending.moves]:
            with Job(final, ending.request).start(restart=False) as job:
                return ending.request if job.finished else None
    left = _leftovers(parent, name)
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
    if not places.is_link(url):
        with suppress(ShadingError, OSError):
            return Ending.read(url)
    return None


def _leftovers(parent: str, name: str) -> list[str]:
    """What earlier versions of this package left beside a local address, under hidden names.

    A run of them that was killed in its last step left what it replaced, whole or half
    removed.
    """
    pattern = re.compile(re.escape(f".{name}.") + r"[0-9a-f]{8}\.replaced")
    names = places.list_names(parent)
    return [places.join_url(parent, other) for other in names if pattern.fullmatch(other)]
