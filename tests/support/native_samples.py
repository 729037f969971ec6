"""The samples that the real microscope software wrote, with what is known of them."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import zarr
from numpy.typing import NDArray

LABELS = ("488 nm", "561 nm")


@dataclass(frozen=True)
class NativeSample:
    """An acquisition of known truth, and what follows from the truth alone."""

    folder: Path
    container: Path
    truth: dict[str, Any]
    flats: dict[str, NDArray[np.float64]]

    @property
    def z_levels(self) -> list[int]:
        """Planes of the corner tiles outside these hold no sample, by the truth."""
        return [2, 15] if self.truth["variant"] == "v04" else [1, 4]

    def raw(self, group: str) -> NDArray[np.uint16]:
        """The pixels of a stack, read with plain zarr."""
        return np.asarray(zarr.open_array(str(self.container / group / "0"), mode="r")[...])

    def places(self) -> dict[str, tuple[int, int, int]]:
        """Group -> (channel, row, column), by the true places."""
        stacks = self.truth["acquisitions"]
        xs = sorted({stack["x0_px"] for stack in stacks})
        ys = sorted({stack["y0_px"] for stack in stacks})
        return {
            s["group"]: (LABELS.index(s["laser"]), ys.index(s["y0_px"]), xs.index(s["x0_px"]))
            for s in stacks
        }

    def mosaic(self, change: Callable[[NDArray[Any], int], NDArray[Any]] | None = None) -> Any:
        """The tiles edge to edge; each stack may be changed, given its pixels and channel."""
        height, width = self.truth["tile_shape_yx"]
        parts = {}
        for group, place in self.places().items():
            pixels = self.raw(group)
            parts[place] = change(pixels, place[0]) if change else pixels
        depth = max(len(part) for part in parts.values())
        result = np.zeros((2, depth, 3 * height, 3 * width), next(iter(parts.values())).dtype)
        for (channel, row, column), part in parts.items():
            y, x = row * height, column * width
            result[channel, : len(part), y : y + height, x : x + width] = part
        return result


def state_of_files(folder: Path) -> dict[str, tuple[int, bytes]]:
    """Modification time and content of every file, modification time of every folder."""
    found = {}
    for path in sorted(folder.rglob("*")):
        content = b"" if path.is_dir() else path.read_bytes()
        found[path.relative_to(folder).as_posix()] = (path.stat().st_mtime_ns, content)
    return found


def extract_sample(name: str, folder: Path, unpack: Callable[[str, Path], None]) -> NativeSample:
    unpack(f"native_{name}", folder)
    home = folder / name
    (container,) = (p for p in home.iterdir() if p.suffix == ".zarr")
    with np.load(home / "truth.npz") as content:
        truth = json.loads(str(content["truth"]))
        flats = {f"{n} nm": content[f"flatfield_{n}"].astype(float) for n in (488, 561)}
    return NativeSample(home, container, truth, flats)
