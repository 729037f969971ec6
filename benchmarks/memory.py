"""Peak memory of a correction, measured and foreseen, by image size and by chunk size.

    python benchmarks/memory.py --folder /somewhere/with/room
    python benchmarks/memory.py --sizes 1 4 16

Larger images are the smallest one with its chunk files linked as further planes or
channels: the work is the same as on other pixels, but nothing has to be made. Peak is that
of the whole process tree on two processors, foreseen what the program reckons with
beforehand.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import tempfile
from dataclasses import replace
from pathlib import Path

from benchmark_images import ImageSetting, attributes_of, made_apart, settings
from measuring import measured, settle
from throughput import BARE, THREADS, ours, use_processors

MICROSCOPE = ImageSetting(
    "chunks-of-480-MB", "0.4", "lz4", (57, 2048, 2048), grid=(2, 2), planes=57, levels=4
)


def enlarged(image: Path, setting: ImageSetting, times: int, axis: str, folder: Path) -> Path:
    """An image of zarr 2 with the chunks of another one again and again along an axis."""
    target = folder / f"{setting.name}-{times}{axis}" / "image.zarr" / "0"
    shutil.rmtree(target.parents[1], ignore_errors=True)
    target.mkdir(parents=True)
    channels = times if axis == "c" else 1
    larger = replace(setting, channels=channels)
    (target / ".zgroup").write_text((image / ".zgroup").read_text())
    (target / ".zattrs").write_text(json.dumps(attributes_of(larger)))
    shutil.copytree(image / "tables", target / "tables")
    for level in range(setting.levels):
        array = target / str(level)
        array.mkdir()
        document = json.loads((image / str(level) / ".zarray").read_text())
        document["shape"]["cz".index(axis)] *= times
        (array / ".zarray").write_text(json.dumps(document))
        for part in range(times):
            source = image / str(level) / "0" / "0"
            place = array / (f"{part}/0" if axis == "c" else f"0/{part}")
            shutil.copytree(source, place, copy_function=os.link)
    for channel in range(channels):
        models = image.parents[1] / "models" / "channel 0"
        shutil.copytree(models, target.parents[1] / "models" / f"channel {channel}")
    return target


def foreseen(image: Path) -> int:
    """Bytes that the program reckons with."""
    from fractal_mesospim_shading.images.mosaic import MosaicImage
    from fractal_mesospim_shading.jobs.flatfield import prepare_flatfield
    from fractal_mesospim_shading.jobs.outlook import outlook
    from fractal_mesospim_shading.options.flatfield import FlatfieldOptions

    options = FlatfieldOptions(models_folder=str(image.parents[1] / "models"))
    source = MosaicImage.open(str(image))
    return outlook(prepare_flatfield(source, options)).memory_bytes


def row(name: str, image: Path, gigabytes: float, output: Path) -> str:
    """Correct an image, and describe it in a line of the table."""
    shutil.rmtree(output, ignore_errors=True)
    reckoned = foreseen(image)
    settle()
    run = measured(ours(str(image), str(output), str(image.parents[1] / "models"), *BARE))
    shutil.rmtree(output, ignore_errors=True)
    return (
        f"| {name} | {gigabytes:.1f} | {run.peak / 1e9:.2f} | {reckoned / 1e9:.2f} "
        f"| {run.wall:.1f} | {run.cpu:.1f} |"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--folder", type=Path, help="for images and results (default: temporary)")
    parser.add_argument("--sizes", type=int, nargs="*", default=[1, 4], help="in GB")
    parser.add_argument("--no-chunks", action="store_true", help="only the sizes")
    given = parser.parse_args()
    use_processors(THREADS)
    print("| image | GB | peak GB | foreseen GB | wall s | CPU s |\n|---|---|---|---|---|---|")
    with tempfile.TemporaryDirectory() as temporary:
        folder = given.folder or Path(temporary)
        output = folder / "output"
        basis = settings((1, 2))[0]
        image = made_apart(basis, folder)
        for times, axis in [*((size, "z") for size in given.sizes), (4, "c")]:
            larger = enlarged(image, basis, times, axis, folder)
            name = "4 channels" if axis == "c" else f"{times * basis.planes} planes"
            size_gb = times * basis.raw_bytes / 1e9
            print(row(f"chunks of 128 MiB, {name}", larger, size_gb, output), flush=True)
            shutil.rmtree(larger.parents[1])
        if given.no_chunks:
            return
        for setting in [*settings((1, 2))[2:4], settings((1, 2))[-1], MICROSCOPE]:
            image = made_apart(setting, folder)
            print(row(setting.name, image, setting.raw_bytes / 1e9, output), flush=True)


if __name__ == "__main__":
    main()
