"""What benchmarks of the bare correction share: images with a measured model, and its command."""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from benchmark_images import ImageSetting, made_apart
from throughput import BARE, THREADS, ours, use_processors


@dataclass(frozen=True)
class BareRuns:
    """Where to measure, and how often.

    Attributes:
        folder: for images and results.
        repeats: of each measurement.
    """

    folder: Path
    repeats: int

    @property
    def output(self) -> Path:
        """The folder of the result."""
        return self.folder / "output"

    def prepared(self, setting: ImageSetting) -> tuple[Path, list[str]]:
        """An image, and the command that applies its model and does nothing else."""
        image = made_apart(setting, self.folder)
        models = str(image.parents[1] / "models")
        return image, ours(str(image), str(self.output), models, *BARE)


@contextmanager
def bare_runs(description: str, repeats: int) -> Iterator[BareRuns]:
    """Read the command line, and take the processors of measurements.

    Args:
        description: what is measured, in its first line.
        repeats: where the command line names no number.
    """
    parser = argparse.ArgumentParser(description=description.partition("\n")[0])
    parser.add_argument("--folder", type=Path, help="for images and results (default: temporary)")
    parser.add_argument("--repeats", type=int, default=repeats)
    given = parser.parse_args()
    use_processors(THREADS)
    with tempfile.TemporaryDirectory(dir=given.folder) as temporary:
        yield BareRuns(Path(temporary), given.repeats)
