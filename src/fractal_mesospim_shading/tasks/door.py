"""Give a task function the arguments of an options model.

Fractal reads the arguments of a task from the signature of its function. The options
models are the one definition of all arguments, so the signature is made from them.
"""

from __future__ import annotations

import functools
import inspect
import logging
import sys
from collections.abc import Callable
from typing import Annotated, Any

from pydantic import BaseModel, BeforeValidator, Field

from fractal_mesospim_shading.errors import ParameterError, ShadingError
from fractal_mesospim_shading.messages import Door, through
from fractal_mesospim_shading.options.base import ordered_fields
from fractal_mesospim_shading.options.values import asked_for

logger = logging.getLogger(__name__)

TaskFunction = Callable[..., Any]


def task_arguments(
    model: type[BaseModel], first: dict[str, str]
) -> Callable[[TaskFunction], TaskFunction]:
    """A decorator: `function(*first, options)` becomes `function(first=..., option=...)`.

    Args:
        model: options; fields that are excluded from dumps are for other doors only.
        first: names and descriptions of the arguments that Fractal sets itself.
    """

    def decorate(function: TaskFunction) -> TaskFunction:
        keyword = inspect.Parameter.KEYWORD_ONLY
        parameters = [
            inspect.Parameter(
                name, keyword, annotation=Annotated[_TYPES.get(name, str), Field(description=text)]
            )
            for name, text in first.items()
        ]
        for name in ordered_fields(model):
            info = model.model_fields[name]
            if info.exclude:
                continue
            described: Any = Field(description=info.description, discriminator=info.discriminator)
            # Limits are shown in the form; conversions are the model's own business.
            limits = [item for item in info.metadata if not isinstance(item, BeforeValidator)]
            kind: Any = Annotated
            annotation = kind[(info.annotation, described, *limits)]
            default = inspect.Parameter.empty if info.is_required() else info.default
            parameters.append(
                inspect.Parameter(name, keyword, default=default, annotation=annotation)
            )

        @functools.wraps(function)
        def task(**arguments: Any) -> Any:
            given = {name: arguments.pop(name) for name in list(arguments) if name in first}
            missing = [name for name in first if name not in given]
            if missing:
                raise TypeError(f"missing argument: {', '.join(missing)}")
            with through(Door.TASK):
                try:
                    _refuse_hidden(model, arguments)
                    return function(*(given[name] for name in first), asked_for(model, arguments))
                except ShadingError as error:
                    # Shown by whoever called the task, outside of this door.
                    error.args = (str(error),)
                    raise

        task.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
        task.__annotations__ = {p.name: p.annotation for p in parameters}
        del task.__wrapped__
        return task

    return decorate


def run_as_program(task: TaskFunction) -> None:
    """Run a task as a Fractal server starts it: a program with files of arguments and results.

    An error of ours is one line of the log, since a server shows the whole log of a unit as the
    error of its job. Where it came from is told to who asks for it by FRACTAL_TASK_LOG_LEVEL=DEBUG.
    """
    from fractal_task_tools.task_wrapper import run_fractal_task

    from fractal_mesospim_shading.engine.streams import steady_streams

    with steady_streams():
        try:
            run_fractal_task(task_function=task)
        except ShadingError as error:
            logger.debug("The error came from here:", exc_info=True)
            logger.error("%s", error)
            sys.exit(error.exit_code)


def _refuse_hidden(model: type[BaseModel], arguments: dict[str, Any]) -> None:
    """Refuse options that are for other doors only: a server's users must not have them."""
    hidden = [name for name in arguments if getattr(model.model_fields.get(name), "exclude", None)]
    if hidden:
        lines = "".join(f"\n  {name}: the task has no such parameter." for name in hidden)
        raise ParameterError(f"Some parameters are wrong.{lines}")


_TYPES: dict[str, Any] = {"zarr_urls": list[str], "init_args": dict[str, Any]}
