"""What this package has done to an image before, from the marks that it leaves."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from fractal_mesospim_shading.images.mosaic import MARK
from fractal_mesospim_shading.options.background import BackgroundOptions
from fractal_mesospim_shading.options.base import parameters_of
from fractal_mesospim_shading.options.flatfield import FlatfieldOptions, ImportOptions

logger = logging.getLogger(__name__)

Correction = Literal["flatfield", "background"]

_MOST_TEXT = 300

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
    mark = attributes.get(MARK)
    if not isinstance(mark, Mapping):
        return ()
    history = mark.get("history")
    marks = [*(history if isinstance(history, list) else ()), mark]
    steps: list[Step] = []
    for each in marks:
        if not isinstance(each, Mapping):
            continue
        acquisition = each.get("acquisition")
        if isinstance(acquisition, Mapping):
            # What was imported may have been a corrected container.
            steps += steps_of({MARK: acquisition.get("corrected_before")})
        if isinstance(each.get("task"), str):
            steps.append(_step(dict(each)))
    return tuple(steps)


def tell_history(url: str, steps: Sequence[Step], correction: Correction | None) -> None:
    """Warn of an image that is corrected in the same way a second time; else name its steps.

    Args:
        url: of the source.
        steps: that it has gone through.
        correction: that is going to be made; None for a plain import.
    """
    again = [step for step in steps if step.corrects == correction is not None]
    if again and correction is not None:
        logger.warning(
            "%s is a result of this package already: its %s was corrected before (%s). It is "
            "corrected a second time; was the original meant?",
            url,
            _NAMES[correction],
            "; ".join(f"{step.task}, version {step.version}" for step in again),
        )
    elif steps:
        logger.info("%s was made %s", url, "; then ".join(step.text for step in steps))


def _step(mark: dict[str, Any]) -> Step:
    task, version = str(mark["task"]), str(mark.get("version"))
    given = mark.get("parameters")
    parameters = dict(given) if isinstance(given, Mapping) else {}
    with_models = parameters.get("correct_flatfield") is True
    text = f"by {task}, version {version}"
    usual = _defaults(task)
    chosen = [f"{key} {value}" for key, value in parameters.items() if usual.get(key) != value]
    if chosen:
        text = f"{text}: {', '.join(chosen)[:_MOST_TEXT]}"
    return Step(task, version, correction_of(task, with_models=with_models), text)


def _defaults(task: str) -> dict[str, Any]:
    """The parameters of a task where nothing is said."""
    if task == "correct_flatfield":
        return parameters_of(FlatfieldOptions())
    if task == "correct_background":
        return parameters_of(BackgroundOptions())
    return parameters_of(ImportOptions())


def not_corrected(attributes: Mapping[str, Any]) -> dict[str, str]:
    """Channels of a result that were copied as they were, with the reason, by label."""
    mark = attributes.get(MARK)
    if not isinstance(mark, dict):
        return {}
    marks = [mark, *mark.get("history", [])]
    return {
        label: str(model.get("reason", ""))
        for one in marks
        if isinstance(one, dict) and isinstance(one.get("models"), dict)
        for label, model in one["models"].items()
        if isinstance(model, dict) and model.get("corrected") is False
    }
