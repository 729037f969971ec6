"""Runs of the command line that are killed in the middle of their work."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

SLOW_CLI = str(Path(__file__).parents[1] / "slow_cli.py")
"""The command line with slow blocks, as a script."""


def kill_after(
    blocks: int,
    command: Sequence[str],
    result: Path,
    *,
    python: str = sys.executable,
    small: str = "-",
) -> list[str]:
    """Run a command with slow blocks, and kill it once some are on record.

    Args:
        blocks: that have to be on record.
        command: of the program, with its arguments.
        result: where its result would lie.
        python: interpreter that runs it.
        small: module of the package whose small write units are not grouped; - for none.

    Returns:
        The blocks on record, by their names.
    """
    child = subprocess.Popen([python, SLOW_CLI, "0.05", small, *command, "--n-workers", "1"])
    journal = result.parent / f".{result.name}.job" / "journal" / "blocks.jsonl"
    ended = time.monotonic() + 60
    while not (journal.exists() and journal.read_bytes().count(b"\n") >= blocks):
        assert child.poll() is None, "the run ended before it could be killed"
        assert time.monotonic() < ended
        time.sleep(0.01)
    child.send_signal(signal.SIGKILL)
    child.wait()
    return [json.loads(line)["node"] for line in journal.read_bytes().splitlines(True)[:-1]]
