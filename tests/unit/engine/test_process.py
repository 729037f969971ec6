"""How a run is stopped."""

from __future__ import annotations

import os
import signal

import numpy as np
import pytest

from fractal_mesospim_shading.engine.process import run_guarded
from fractal_mesospim_shading.errors import MemoryLimitError, StoppedError


def test_sigterm_becomes_an_orderly_stop():
    before = signal.getsignal(signal.SIGTERM)
    with pytest.raises(StoppedError, match="run the same command again"), run_guarded():
        os.kill(os.getpid(), signal.SIGTERM)
        signal.pause()
    assert signal.getsignal(signal.SIGTERM) is before


def test_what_comes_after_a_signal_is_its_consequence():
    with pytest.raises(StoppedError), run_guarded():
        try:
            signal.raise_signal(signal.SIGTERM)
        finally:
            # A second one, and what the dying helpers leave behind, change nothing.
            signal.raise_signal(signal.SIGTERM)
            raise OSError("connection closed")


def test_memory_that_does_not_suffice_is_said():
    with pytest.raises(MemoryLimitError, match="did not suffice.*n_workers"):
        with run_guarded():
            np.empty(2**50)
    own = MemoryLimitError("one block needs 2 GB")
    with pytest.raises(MemoryLimitError, match="one block needs"), run_guarded():
        raise own
