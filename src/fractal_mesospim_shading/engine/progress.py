"""How far a run is: a bar in a terminal, now and then a plain line in a log."""

from __future__ import annotations

import logging
import sys
import time
from types import TracebackType
from typing import Any

from fractal_mesospim_shading.engine.streams import SteadyStream, is_terminal

logger = logging.getLogger(__name__)

_SECONDS = 30.0


class Progress:
    """Counts finished blocks.

    In a terminal it draws a bar. Elsewhere it logs a line at each tenth of the work,
    but not more often than every half minute.
    """

    def __init__(self, total: int, done: int = 0, what: str = "blocks") -> None:
        self._total = total
        self._done = done
        self._what = what
        self._bar: Any = None
        self._last = time.monotonic()
        self._tenth = 10 * done // max(total, 1)

    def __enter__(self) -> Progress:
        if is_terminal(sys.stderr):
            from tqdm import tqdm

            self._bar = tqdm(
                total=self._total,
                initial=self._done,
                unit=" " + self._what,
                desc="Correcting",
                file=SteadyStream(sys.stderr),
            )
        else:
            logger.info("%d %s to write", self._total - self._done, self._what)
        return self

    def advance(self) -> None:
        """One more is finished."""
        self._done += 1
        if self._bar is not None:
            self._bar.update()
            return
        tenth, now = 10 * self._done // max(self._total, 1), time.monotonic()
        if tenth > self._tenth and (now - self._last > _SECONDS or self._done == self._total):
            logger.info("%d of %d %s (%d %%)", self._done, self._total, self._what, 10 * tenth)
            self._last, self._tenth = now, tenth

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._bar is not None:
            self._bar.close()
