"""One small job opens, reads and runs no more than it has to.

The numbers are in `counted.json`: `start` was measured at revision db86c71; `now` may only become
smaller. `python benchmarks/counting.py --details` says what each of them consists of.
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[2] / "benchmarks" / "counting.py"
COUNTED = json.loads((Path(__file__).parent / "counted.json").read_text())


@pytest.fixture(scope="module")
def counts() -> dict[str, int]:
    """What the job counts now, in a process of its own."""
    run = subprocess.run([sys.executable, str(SCRIPT)], capture_output=True, text=True, check=True)
    counted: dict[str, int] = json.loads(run.stdout.splitlines()[-1])
    return counted


@pytest.mark.parametrize("name", COUNTED["now"])
def test_no_count_grows(counts: dict[str, int], name: str) -> None:
    assert counts[name] <= COUNTED["now"][name]


@pytest.mark.parametrize("name", ["groups_opened", "arrays_opened", "metadata_files_read"])
def test_half_of_the_start_is_enough(name: str) -> None:
    assert COUNTED["now"][name] <= COUNTED["start"][name] // 2
