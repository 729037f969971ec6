"""Unfinished jobs beside an image: what they are, how far they came, and whether they run."""

from __future__ import annotations

import time
from contextlib import suppress
from dataclasses import dataclass
from typing import Literal

from fractal_mesospim_shading.engine.job_folder import LOCK, job_url, read_request
from fractal_mesospim_shading.engine.journal import Journal
from fractal_mesospim_shading.engine.locks import DEAD_SECONDS, Holder
from fractal_mesospim_shading.engine.placing import RECORD
from fractal_mesospim_shading.engine.watching import blocks_planned
from fractal_mesospim_shading.errors import ShadingError
from fractal_mesospim_shading.images.storage import places
from fractal_mesospim_shading.images.storage.places import StorageOptions, connection_errors

State = Literal["running", "stopped"]


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
        for name in places.list_names(parent, options):
            if name.startswith(".") and name.endswith(".job"):
                result = places.join_url(parent, name.removeprefix(".").removesuffix(".job"))
                job = _job(result, options)
                if job is not None and url in (job.source, job.result):
                    found.append(job)
    return found


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
    runs = holder is not None and _lives(holder, age)
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


def _lives(holder: Holder, age: float | None) -> bool:
    if holder.is_neighbour:
        return holder.runs
    return age is None or age < DEAD_SECONDS


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
    if not places.is_local(folder):
        return None
    path = places.local_path(folder)
    try:
        return path.owner()
    except (KeyError, NotImplementedError, OSError):
        return None
