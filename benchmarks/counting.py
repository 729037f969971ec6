"""Count what one small job opens, reads and runs: groups, arrays, metadata files, modules.

    python benchmarks/counting.py             # the four numbers, as JSON
    python benchmarks/counting.py --details   # where in the package each of them comes from

The job corrects one image of three blocks with a measured model, in the process that counts and on
its threads (the default execution). A group or an array counts each time zarr makes an
object for it, whichever function asked; a metadata file each time it is opened for reading and is
there. A module of the package counts where a function of it runs; what runs while a module is
imported does not.

`tests/integration/counted.json` holds the numbers that `test_counted.py` keeps to.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
import threading
from collections import Counter
from dataclasses import asdict, dataclass, field
from pathlib import Path
from types import CodeType, FrameType
from typing import Any

import numpy as np

import fractal_mesospim_shading as shading
from fractal_mesospim_shading.synthetic.images import write_image

PACKAGE = str(Path(shading.__file__).parent) + os.sep
METADATA = {"zarr.json", ".zarray", ".zattrs", ".zgroup", ".zmetadata"}
LABELS = ("488 nm",)
TILE = (512, 512)
_FUNCTION = 0x1
"""CO_OPTIMIZED: the code of a function, and not of a module or a class."""


@dataclass(frozen=True)
class Counted:
    """The four numbers of a job."""

    groups_opened: int
    arrays_opened: int
    metadata_files_read: int
    modules_run: int


@dataclass
class Watcher:
    """Counts while it is entered, in all threads that are started meanwhile.

    Attributes:
        groups, arrays, files: by place in the package, or by path.
        modules: that ran, with the function that was the first.
    """

    groups: Counter[str] = field(default_factory=Counter)
    arrays: Counter[str] = field(default_factory=Counter)
    files: Counter[str] = field(default_factory=Counter)
    modules: dict[str, str] = field(default_factory=dict)
    on: bool = False

    def install(self) -> None:
        """Hook into zarr, the opening of files, and the calls of functions; for good."""
        from zarr.core.array import AsyncArray
        from zarr.core.group import AsyncGroup

        self._wrap(AsyncGroup, self.groups)
        self._wrap(AsyncArray, self.arrays)
        sys.addaudithook(self._audit)

    def __enter__(self) -> Watcher:
        self.on = True
        threading.setprofile(self._profile)
        sys.setprofile(self._profile)
        return self

    def __exit__(self, *_: object) -> None:
        sys.setprofile(None)
        threading.setprofile(None)  # type: ignore[arg-type]
        self.on = False

    def result(self) -> Counted:
        """The numbers so far."""
        return Counted(
            self.groups.total(), self.arrays.total(), self.files.total(), len(self.modules)
        )

    def _wrap(self, kind: Any, counts: Counter[str]) -> None:
        """Count the objects that are made of a class."""
        plain = kind.__init__

        def counting(node: Any, *args: Any, **kwargs: Any) -> None:
            plain(node, *args, **kwargs)
            if self.on:
                counts[str(node.store_path)] += 1

        kind.__init__ = counting

    def _audit(self, event: str, args: tuple[Any, ...]) -> None:
        if event != "open" or not self.on:
            return
        path, mode, flags = args
        if not isinstance(path, str | bytes | os.PathLike):
            return
        text = os.fsdecode(path)
        reads = flags & os.O_ACCMODE == os.O_RDONLY if mode is None else mode.startswith("r")
        relative = not os.path.isabs(text)
        if os.path.basename(text) in METADATA and reads and (relative or os.path.exists(text)):
            self.files[text] += 1

    def _profile(self, frame: FrameType, event: str, argument: Any) -> None:
        if event != "call":
            return
        code = frame.f_code
        name = code.co_filename
        if name not in self.modules and name.startswith(PACKAGE) and not _at_import(frame):
            self.modules[name] = code.co_qualname


def _at_import(frame: FrameType | None) -> bool:
    """Whether code runs because a module of the package is being imported."""
    if frame is not None and not frame.f_code.co_flags & _FUNCTION:
        return True
    while frame is not None:
        if _is_module(frame.f_code):
            return True
        frame = frame.f_back
    return False


def _is_module(code: CodeType) -> bool:
    return code.co_name == "<module>" and code.co_filename.startswith(PACKAGE)


def write_source(folder: Path) -> tuple[Path, Path]:
    """An image of three blocks at full resolution, and its model.

    Returns:
        The image and the folder of models.
    """
    image, models = folder / "brain.zarr", folder / "models"
    pixels = np.full((1, 24, 1024, 1024), 400, np.uint16)
    pixels += np.arange(1024, dtype=np.uint16) % 7
    style = {"chunks": (8, 1024, 1024), "codec": "blosc"}
    write_image(image, pixels, channels=LABELS, tile_shape=TILE, **style)
    for label in LABELS:
        (models / label).mkdir(parents=True)
        flatfield = 1 - 0.2 * np.linspace(-1, 1, TILE[1]) ** 2 * np.ones(TILE)
        np.savez(models / label / "profiles.npz", flatfield=flatfield)
    return image, models


def count_job(folder: Path) -> Watcher:
    """Run the job below a folder and count."""
    image, models = write_source(folder)
    counter = Watcher()
    counter.install()
    with counter:
        shading.correct_flatfield(
            str(image), models_folder=str(models), camera_offset=100, report=False
        )
    return counter


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--details", action="store_true", help="say what was counted")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="counting_") as name:
        folder = Path(name).resolve()
        counter = count_job(folder)
        if given.details:
            for title in ("groups", "arrays", "files"):
                print(f"# {title}")
                for path, number in sorted(getattr(counter, title).items()):
                    print(f"{number:4} {path.replace(str(folder), '')}")
            print("# modules")
            for path, function in sorted(counter.modules.items()):
                print(f"     {path.removeprefix(PACKAGE)}: {function}")
    print(json.dumps(asdict(counter.result())))
    return 0


if __name__ == "__main__":
    sys.exit(main())
