"""Which workers are refused, and how a run is stopped."""

from __future__ import annotations

import os
import pickle
import signal
import subprocess
import sys

import numpy as np
import pytest

import fractal_mesospim_shading
from fractal_mesospim_shading.engine.process import (
    PackageState,
    _question,
    own_state,
    refuse_differing,
    run_guarded,
)
from fractal_mesospim_shading.errors import MemoryLimitError, StoppedError, WorkerVersionError

OWN = PackageState("1.2.0", "abc", "/here")


def test_equal_packages_are_admitted_wherever_they_lie():
    answers = {"tcp://a": ("1.2.0", "abc", "/here"), "tcp://b": PackageState("1.2.0", "abc", "/c")}
    refuse_differing(OWN, answers)


def test_compiled_installs_have_no_sources_to_compare():
    refuse_differing(OWN, {"tcp://a": ("1.2.0", "", "/frozen")})
    refuse_differing(PackageState("1.2.0", "", "/frozen"), {"tcp://a": ("1.2.0", "abc", "/x")})


def test_a_worker_that_has_just_gone_is_not_of_another_version():
    refuse_differing(OWN, {"tcp://a": OSError("Timed out trying to connect")})


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        (("1.1.0", "abc", "/old"), "version 1.1.0, from /old"),
        (("1.2.0", "abd", "/edited"), "version 1.2.0 as well, but other source files, in /edited"),
        (("", "", "/usr"), "the package is not installed there"),
        (TypeError("code() takes at most 16"), "it could not tell its version (TypeError: code()"),
    ],
)
def test_others_are_named(answer, words):
    answers = {"tcp://good:1": tuple(OWN), "tcp://bad:2": answer}
    with pytest.raises(WorkerVersionError) as caught:
        refuse_differing(OWN, answers)
    (line,) = [line for line in str(caught.value).splitlines() if "tcp://" in line]
    assert line.strip().startswith(f"tcp://bad:2: {words}")
    assert "1.2.0, from /here" in str(caught.value)


def test_of_many_a_few_are_named():
    answers = {f"tcp://w:{n}": ("0.9", "", "/old") for n in range(40)}
    with pytest.raises(WorkerVersionError, match="and 35 more"):
        refuse_differing(OWN, answers)


def test_the_question_travels_by_value_and_finds_this_package():
    """A worker that has no such module can answer it."""
    cloudpickle = pytest.importorskip("cloudpickle")
    sent = cloudpickle.dumps(_question("fractal_mesospim_shading"))
    code = f"import pickle; print(pickle.dumps(pickle.loads({sent!r})()))"
    asked = subprocess.run(
        [sys.executable, "-c", f"import sys; sys.modules[{own_state.__module__!r}] = None; {code}"],
        capture_output=True,
        text=True,
        check=True,
    )
    answer = PackageState(*pickle.loads(eval(asked.stdout)))
    assert answer == own_state()
    assert answer.version
    assert answer.folder == fractal_mesospim_shading.__path__[0]


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
