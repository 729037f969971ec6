from __future__ import annotations

import pickle
import subprocess
import sys

import pytest

import fractal_mesospim_shading
from fractal_mesospim_shading.engine.worker_versions import (
    PackageState,
    _question,
    own_state,
    refuse_differing,
)
from fractal_mesospim_shading.errors import WorkerVersionError

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
