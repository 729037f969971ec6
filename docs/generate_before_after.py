"""Draw the picture of the README: the mosaic of `mesospim-shading demo`, before and after.

    python docs/generate_before_after.py

The picture goes to docs/images/before_after.png. Both halves show the mean of the same planes, in
counts above the camera offset, on the same scale; tiles lie where they lie in the sample.
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

import numpy as np
import zarr
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import LogNorm
from matplotlib.figure import Figure

from fractal_mesospim_shading.synthetic.demo import run_demo
from fractal_mesospim_shading.synthetic.world import LightSheetWorld

TARGET = Path(__file__).parent / "images" / "before_after.png"
# What a thick optical section of the sample would show; one plane alone is mostly noise.
PLANES = slice(16, 24)


def mean_plane(url: str, offset: float) -> np.ndarray:
    """Counts above the offset in the first channel, averaged over some planes."""
    level = zarr.open_array(f"{url}/0", mode="r")
    return np.asarray(level[0, PLANES]).mean(axis=0) - offset


def main() -> None:
    """Run the demo in a folder of its own, and draw what went in and what came out."""
    with tempfile.TemporaryDirectory() as folder:
        run = run_demo(folder)
        planes = [
            mean_plane(run.url, run.truth.world.offset),
            mean_plane(run.result.image_url, 0),
        ]
        world = run.truth.world
    draw([in_place(plane, world) for plane in planes])


def in_place(mosaic: np.ndarray, world: LightSheetWorld) -> np.ndarray:
    """The tiles of a mosaic where they lie in the sample: what neighbours share is shown once."""
    height, width = world.tile_shape
    origins = {number: world.tile_origin(number) for number in world.tile_numbers}
    last_y, last_x = max(origins.values())
    placed = np.empty((last_y + height, last_x + width), dtype=mosaic.dtype)
    for number, (y, x) in origins.items():
        row, column = world.tile_row_column(number)
        tile = mosaic[row * height : (row + 1) * height, column * width : (column + 1) * width]
        placed[y : y + height, x : x + width] = tile
    return placed


def draw(planes: list[np.ndarray]) -> None:
    """Two halves on one logarithmic scale, which shows medium and sample at once."""
    figure = Figure(figsize=(8.4, 3.15), layout="constrained")
    FigureCanvasAgg(figure)
    panels = figure.subplots(1, 2)
    titles = ("as it was taken", "flat-field corrected")
    for panel, plane, title in zip(panels, planes, titles, strict=True):
        shown = panel.imshow(plane, cmap="gray", norm=LogNorm(28, 1000, clip=True))
        panel.set_axis_off()
        panel.set_title(title, fontsize=11)
    bar = figure.colorbar(shown, ax=panels, shrink=0.85, ticks=(30, 60, 100, 300, 1000))
    bar.set_label("counts above the camera offset")
    bar.ax.minorticks_off()
    bar.ax.set_yticklabels(("30", "60", "100", "300", "1000"))
    TARGET.parent.mkdir(exist_ok=True)
    figure.savefig(TARGET, dpi=100, metadata={"Software": None})
    sys.stdout.write(f"{TARGET}: {TARGET.stat().st_size / 1000:.0f} kB\n")


if __name__ == "__main__":
    main()
