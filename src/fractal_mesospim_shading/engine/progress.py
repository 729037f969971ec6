"""How far a run is: as a bar, as calls of a function of somebody else, or as lines of the log."""

from __future__ import annotations

import logging
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from types import TracebackType
from typing import Any

from fractal_mesospim_shading.engine.streams import SteadyStream
from fractal_mesospim_shading.errors import ParameterError
from fractal_mesospim_shading.messages import counted, know_options

know_options("progress")

logger = logging.getLogger(__name__)

Told = Callable[[str, int, int], object]
"""Is told what is done, how much of it is finished, and how much there is."""

_SECONDS = 30.0
"""Between two lines of a log on how far a run is."""

_shown: ContextVar[bool | Told] = ContextVar("shown", default=False)


@contextmanager
def progress_shown(shown: bool | Told | None) -> Iterator[None]:
    """Within this context, show how far a run is.

    Args:
        shown: True for bars on the standard error stream; a function, which is called with what is
            done, how much of it is finished, and how much there is; None or False for neither:
            lines of the log tell it.

    Raises:
        ParameterError: it is none of these.
    """
    if not (shown is None or isinstance(shown, bool) or callable(shown)):
        from fractal_mesospim_shading.options.values import value_text

        raise ParameterError(
            f"`progress` is {value_text(shown)}; expected True, False, or a function of what "
            "is done, how much of it is finished, and how much there is."
        )
    before = _shown.set(shown or False)
    try:
        yield
    finally:
        _shown.reset(before)


class Progress:
    """Counts what is finished of one thing.

    Where no bar is drawn, a line of the log comes at each tenth of the work, but not more often
    than every half minute.
    """

    def __init__(
        self, total: int, done: int = 0, *, doing: str = "Correcting", unit: str = "block"
    ) -> None:
        """Nothing is shown yet.

        Args:
            total: how much there is.
            done: how much of it an earlier run has finished.
            doing: what is done, as the bar and a function are told.
            unit: what is counted.
        """
        self._total, self._done = total, done
        self._doing, self._unit = doing, unit
        self._bar: Any = None
        self._told: Told | None = None
        self._last = time.monotonic()
        self._tenth = 10 * done // max(total, 1)

    def __enter__(self) -> Progress:
        shown = _shown.get()
        if shown is True and sys.stderr is not None:
            from tqdm import tqdm

            self._bar = tqdm(
                total=self._total,
                initial=self._done,
                unit=f" {self._unit}s",
                desc=self._doing,
                file=SteadyStream(sys.stderr),
            )
            return self
        if not isinstance(shown, bool):
            self._told = shown
            shown(self._doing, self._done, self._total)
        return self

    def advance(self) -> None:
        """One more is finished."""
        self._done += 1
        if self._bar is not None:
            self._bar.update()
            return
        if self._told is not None:
            self._told(self._doing, self._done, self._total)
        tenth, now = 10 * self._done // max(self._total, 1), time.monotonic()
        if tenth > self._tenth and now - self._last > _SECONDS:
            of = counted(self._total, self._unit)
            logger.info("%s: %d of %s (%d %%)", self._doing, self._done, of, 10 * tenth)
            self._last, self._tenth = now, tenth

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._bar is not None:
            self._bar.close()
