"""The accuracy benchmark runs and keeps its promises on small tiles."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.slow

SCRIPT = Path(__file__).parents[2] / "benchmarks" / "accuracy.py"


def test_the_variations_are_covered(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    if not SCRIPT.exists():
        pytest.skip("the benchmarks are not part of this installation")
    specification = importlib.util.spec_from_file_location("accuracy_benchmark", SCRIPT)
    assert specification is not None
    assert specification.loader is not None
    module = importlib.util.module_from_spec(specification)
    # dataclasses look their module up here.
    monkeypatch.setitem(sys.modules, specification.name, module)
    specification.loader.exec_module(module)
    module.variation_table(128, 24)
    rows = [line.split("|")[1:-1] for line in capsys.readouterr().out.splitlines() if line]
    verdicts = [row[-1].strip() for row in rows[2:]]
    assert len(verdicts) > 20
    # Two standard deviations: one in twenty may be outside.
    assert verdicts.count("yes") >= len(verdicts) - 3
