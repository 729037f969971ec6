"""Draw the mosaic of `native.md`: a sample acquisition before and after, and where tiles lie.

    python docs/generate_native.py CONTAINER [--camera-offset 100] [--z-levels 1,4]

The picture goes to docs/images/native_mosaic.png.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from pathlib import Path

import anndata
import numpy as np
import zarr
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import PowerNorm
from matplotlib.figure import Figure

from fractal_mesospim_shading import import_mesospim

TARGET = Path(__file__).parent / "images" / "native_mosaic.png"


def placed(image: np.ndarray, url: str) -> np.ndarray:
    """The tiles of a plane at their places on the stage; where two overlap, their mean."""
    table = anndata.read_zarr(f"{url}/tables/FOV_ROI_table").to_df()
    width = table["len_x_micrometer"].iloc[0]
    columns = round(table["x_micrometer"].max() / width) + 1
    pixel = width * columns / image.shape[1]
    shape = [round(float(table[f"len_{axis}_micrometer"].iloc[0]) / pixel) for axis in "yx"]
    last = [round(table[f"{axis}_micrometer_original"].max() / pixel) for axis in "yx"]
    total = np.zeros([a + b for a, b in zip(last, shape, strict=True)])
    number = np.zeros_like(total)
    for _, row in table.iterrows():
        y, x = (round(row[f"{axis}_micrometer"] / pixel) for axis in "yx")
        y2, x2 = (round(row[f"{axis}_micrometer_original"] / pixel) for axis in "yx")
        total[y2 : y2 + shape[0], x2 : x2 + shape[1]] += image[y : y + shape[0], x : x + shape[1]]
        number[y2 : y2 + shape[0], x2 : x2 + shape[1]] += 1
    return total / np.maximum(number, 1)


def main() -> None:
    """Import a sample twice, and draw both."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("container")
    parser.add_argument("--camera-offset", type=float, default=100)
    parser.add_argument("--z-levels", default="1,4")
    given = parser.parse_args()
    options = {"camera_offset": given.camera_offset, "z_levels": given.z_levels}
    with tempfile.TemporaryDirectory() as folder:
        (before,) = import_mesospim(given.container, folder)
        (after,) = import_mesospim(given.container, folder, correct_flatfield=True, **options)
        planes = []
        for result, offset in ((before, given.camera_offset), (after, 0)):
            array = zarr.open_array(f"{result.image_url}/0", mode="r")
            plane = np.asarray(array[0, array.shape[1] // 2]).astype(float) - offset
            planes.append((plane, placed(plane, result.image_url)))
    draw(planes)


def draw(planes: list[tuple[np.ndarray, np.ndarray]]) -> None:
    """Rows: edge to edge, and placed; columns: before and after."""
    figure = Figure(figsize=(8.4, 5.7), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots(2, 2)
    high = float(np.percentile(planes[1][0], 99))
    titles = ("as it was taken, offset subtracted", "flat-field corrected")
    sides = ("edge to edge, as stored", "placed by *_micrometer_original")
    for column, (title, pair) in enumerate(zip(titles, planes, strict=True)):
        for row, plane in enumerate(pair):
            panel = axes[row][column]
            shown = panel.imshow(plane, cmap="gray", norm=PowerNorm(0.6, 0, high))
            panel.set_xticks([])
            panel.set_yticks([])
            if row == 0:
                panel.set_title(title, fontsize=11)
            if column == 0:
                panel.set_ylabel(sides[row], fontsize=10)
    figure.colorbar(shown, ax=axes, label="counts", shrink=0.6)
    TARGET.parent.mkdir(exist_ok=True)
    figure.savefig(TARGET, dpi=88, metadata={"Software": None})
    sys.stdout.write(f"{TARGET}: {TARGET.stat().st_size / 1000:.0f} kB\n")


if __name__ == "__main__":
    main()
