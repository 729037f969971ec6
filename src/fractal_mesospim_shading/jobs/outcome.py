"""What a job says of itself once its pixels are complete: whether it worked, and its report."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field

from fractal_mesospim_shading.core.seam_growth import SeamGrowth
from fractal_mesospim_shading.engine.job import Job
from fractal_mesospim_shading.engine.zero_look import tell_zeros
from fractal_mesospim_shading.flatfield.channel_gains import ImageGains
from fractal_mesospim_shading.flatfield.models import Models
from fractal_mesospim_shading.flatfield.sampling import PlaneChoice
from fractal_mesospim_shading.images.arrays.documents import Document
from fractal_mesospim_shading.jobs.certifying import Checks, check_overlaps
from fractal_mesospim_shading.jobs.evidence import Looked, gathered
from fractal_mesospim_shading.jobs.judging import judge_offsets, judge_seams
from fractal_mesospim_shading.jobs.steps import Counts
from fractal_mesospim_shading.jobs.work import Work
from fractal_mesospim_shading.messages import heard_so_far
from fractal_mesospim_shading.options.base import asked_of
from fractal_mesospim_shading.views.background_report import (
    BackgroundDone,
    write_background_report,
)
from fractal_mesospim_shading.views.evidence import Evidence
from fractal_mesospim_shading.views.reporting import (
    BackgroundToReport,
    ImageDone,
    JobDone,
    write_flatfield_report,
)
from fractal_mesospim_shading.views.verdict import Verdict, judged

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Outcome:
    """How a job came out.

    Attributes:
        looked: what it has found out about its models.
        evidence: what the verdict rests on, by label of the model.
        verdict: whether it worked; None where nothing is judged.
    """

    looked: Looked
    evidence: Mapping[str, Evidence] = field(default_factory=dict)
    verdict: Verdict | None = None

    def tell(self) -> None:
        """Say whether it worked, why, and what to do."""
        for level, line in () if self.verdict is None else self.verdict.log_lines():
            logger.log(level, "%s", line)


def judge_job(
    work: Work,
    models: Sequence[Models],
    gains: Sequence[ImageGains],
    job: Job,
    counts: Sequence[Counts],
) -> Outcome:
    """Say what the counts of each step and the pixels of a complete result mean.

    Args:
        work: that was done.
        models, gains: of each choice of planes.
        job: that has the records of all blocks.
        counts: of each step.
    """
    work.tell(counts[0])
    if work.then is not None:
        work.then.tell(counts[1])
    offsets = judge_offsets(work, models, job, counts[0])
    if work.corrections:
        tell_zeros(counts[0])
    checks: tuple[Checks, ...] = tuple({} for _ in work.choices)
    growths: dict[str, SeamGrowth] = {}
    with _only_warning("The comparison of overlaps"):
        checks = check_overlaps(work.choices, models, gains)
    with _only_warning("The comparison of the tile seams"):
        telling = [any(check.says_enough for check in own.values()) for own in checks]
        growths = judge_seams(work, models, gains, telling)
    every = {label: check for own in checks for label, check in own.items()}
    looked = Looked(every, offsets, growths, counts[0])
    if work.judge is not None:
        return Outcome(looked, verdict=work.judge(counts[0], len(heard_so_far())))
    return with_verdict(work.choices, models, looked)


def with_verdict(
    choices: Sequence[PlaneChoice], models: Sequence[Models], looked: Looked
) -> Outcome:
    """Whether models fit, by all that was found out; no verdict without models.

    Args:
        choices: of planes.
        models: of these.
        looked: what was found out.
    """
    if not choices:
        return Outcome(looked)
    with _only_warning("The verdict"):
        evidence = gathered(choices, models, looked)
        verdict = judged(list(evidence.values()), len(heard_so_far()))
        return Outcome(looked, evidence, verdict)
    return Outcome(looked)


def judge_models(choices: Sequence[PlaneChoice], models: Sequence[Models]) -> Outcome:
    """Whether models fit the images that they were estimated from, by overlaps, before any use.

    Args:
        choices: of planes.
        models: of these.
    """
    checks: tuple[Checks, ...] = ()
    with _only_warning("The comparison of overlaps"):
        checks = check_overlaps(choices, models, [{} for _ in choices])
    every = {label: check for own in checks for label, check in own.items()}
    return with_verdict(choices, models, Looked(every))


def report_models(
    folder: str,
    sources: Sequence[str],
    choices: Sequence[PlaneChoice],
    models: Sequence[Models],
    outcome: Outcome,
    seconds: float,
    asked: Document,
) -> str | None:
    """Write the report of models that were estimated, beside their folder.

    Args:
        folder: of the models.
        sources: addresses of the images.
        choices: of planes.
        models: of these.
        outcome: from `judge_models`.
        seconds: that the estimate took.
        asked: options that were given, as JSON.

    Returns:
        Its address; None where it could not be made.
    """
    logger.info("Writing the report")
    with _only_warning("The report"):
        done = JobDone(
            task="estimate_flatfield",
            sources=tuple(sources),
            images=images_done(choices, models, [{} for _ in choices]),
            checks=outcome.looked.checks,
            evidence=outcome.evidence,
            verdict=outcome.verdict,
            counts={},
            output_offset=0.0,
            seconds=seconds,
            asked=asked,
        )
        return write_flatfield_report(folder, done, str)
    return None


def report_job(
    work: Work,
    models: Sequence[Models],
    gains: Sequence[ImageGains],
    counts: Sequence[Counts],
    outcome: Outcome,
    seconds: float,
    written_to: Callable[[str], str],
) -> str | None:
    """Write the report of a complete result, to be placed beside it with the result itself.

    Args:
        work: that was done.
        models, gains: of each choice of planes.
        counts: of each step.
        outcome: of the job.
        seconds: that it took.
        written_to: where to write the file that goes to an address.

    Returns:
        Its address; None where none is wanted, or could be made.
    """
    if not work.reported:
        return None
    url = work.replaces or work.final_url
    if not work.choices:
        with _only_warning("The report"):
            return write_background_report(
                url, _background_done(work, counts[0], outcome, seconds), written_to
            )
        return None
    background = None
    if work.then is not None:
        then = work.then
        background = BackgroundToReport(then.titles, counts[1], then.output_offset)
    logger.info("Writing the report")
    with _only_warning("The report"):
        done = JobDone(
            task=work.task,
            sources=(work.source_url,),
            images=images_done(work.choices, models, gains),
            checks=outcome.looked.checks,
            evidence=outcome.evidence,
            verdict=outcome.verdict,
            counts=counts[0],
            output_offset=work.choices[0].options.output_offset,
            seconds=seconds,
            asked={**work.addresses, **asked_of(work.options)},
            shown=None if work.shown is None else (work.shown, work.parts[0].plan.target),
            background=background,
            truth=work.truth,
        )
        return write_flatfield_report(url, done, written_to)
    return None


def _background_done(
    work: Work, counts: Counts, outcome: Outcome, seconds: float
) -> BackgroundDone:
    """What a job that takes backgrounds away has done."""
    first = work.parts[0].plan
    return BackgroundDone(
        task=work.task,
        sources=(work.source_url,),
        images=tuple(part.plan.source for part in work.parts),
        verdict=outcome.verdict,
        counts=counts,
        titles=work.titles,
        output_offset=work.options.output_offset,
        seconds=seconds,
        asked={**work.addresses, **asked_of(work.options)},
        shown=None if work.shown is None else (work.shown, first.target),
    )


def images_done(
    choices: Sequence[PlaneChoice], models: Sequence[Models], gains: Sequence[ImageGains]
) -> tuple[ImageDone, ...]:
    """The images of a job, with what they were corrected with."""
    return tuple(
        ImageDone(choice.image, own, own_gains, choice.prefix)
        for choice, own, own_gains in zip(choices, models, gains, strict=True)
    )


@contextmanager
def _only_warning(what: str) -> Iterator[None]:
    """What comes after the pixels may fail as it likes: the result is complete without it."""
    try:
        yield
    except Exception as error:  # noqa: BLE001 - whatever it is, it is no reason to fail
        logger.warning(
            "%s could not be made (%s: %s). The result is complete all the same.",
            what,
            type(error).__name__,
            error,
        )
