"""What an earlier run of the same command has finished, and what its result says of itself."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import replace

from fractal_mesospim_shading.core.correct import PixelCounts
from fractal_mesospim_shading.engine.earlier import settle
from fractal_mesospim_shading.engine.records import plain
from fractal_mesospim_shading.images.mark_texts import origin_line
from fractal_mesospim_shading.images.output import mark_of
from fractal_mesospim_shading.images.storage.places import StorageOptions, normalise_url
from fractal_mesospim_shading.jobs.steps import Counts
from fractal_mesospim_shading.jobs.work import CorrectionOptions, JobResult
from fractal_mesospim_shading.options.base import parameters_of

logger = logging.getLogger(__name__)


def completed_in_place(
    url: str,
    task: str,
    options: CorrectionOptions,
    types: Mapping[str, bool],
    counted: Sequence[type[PixelCounts]] = (PixelCounts,),
) -> JobResult | None:
    """What an earlier run of the same command put into the place of its source, and was stopped.

    A job that was stopped while its result took the place of an image is brought to its end
    first, whichever it is.

    Args:
        url: of the source.
        task: name of the task.
        options: what is asked for.
        types: of the result, for Fractal's image list.
        counted: kind of the counts of each step.

    Returns:
        None where there is none, and the work has to be done.
    """
    address = normalise_url(url)
    ended = settle(address)
    if ended is None or not options.overwrite_input or options.restart:
        return None
    asked = plain({"task": task, "source": address, "parameters": parameters_of(options)})
    if any(ended.get(name) != value for name, value in asked.items()):
        return None
    result = JobResult(address, address, types=dict(types))
    return with_counts(result, told_counts(address, counted))


def told_counts(
    url: str, counted: Sequence[type[PixelCounts]], storage: StorageOptions = None
) -> list[Counts]:
    """The counts in the provenance of a result that is there already; how it was made is said.

    Args:
        url: of the result.
        counted: kind of the counts of each step that made it.
        storage: options of a remote address.
    """
    mark = mark_of(url, storage)
    logger.info(
        "%s is complete: an earlier run of the same command had finished it, and was stopped "
        "while it tidied up (%s). What it had left is removed.",
        url,
        origin_line(mark),
    )
    marks = [*mark.get("history", ()), mark][-len(counted) :]
    return [
        {label: kind(**numbers) for label, numbers in own.get("pixels", {}).items()}
        for own, kind in zip(marks, counted, strict=True)
    ]


def with_counts(result: JobResult, counts: Sequence[Counts]) -> JobResult:
    """A result with the counts of each step that made it."""
    first, *second = counts
    return replace(result, counts=first, background_counts=second[0] if second else {})
