"""Does the Rust pipeline of zarrs pay where chunks do not go straight between file and block?

    python benchmarks/pipelines.py

Each kind of array is written and read whole, and read in a part of its chunks, by both pipelines in
turn. What counts is CPU time, the least of several rounds, as a ratio to zarr's own pipeline: below
1 zarrs is cheaper. `ours` says whether such arrays go through `chunk_files` anyhow, past both.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numcodecs
import numpy as np
import zarr
from zarr.codecs import BloscCodec, GzipCodec, ZstdCodec

from fractal_mesospim_shading.images.arrays.chunk_files import chunk_files

SHAPE = (64, 512, 512)
CHUNK = (16, 256, 256)
PIPELINES = {
    "zarr": "zarr.core.codec_pipeline.BatchedCodecPipeline",
    "zarrs": "zarrs.ZarrsCodecPipeline",
}
V2 = {"zarr_format": 2, "chunks": CHUNK}
V3 = {"zarr_format": 3, "chunks": CHUNK}
SHARDED = {"zarr_format": 3, "chunks": (16, 64, 64), "shards": (16, 256, 256)}
KINDS: dict[str, dict[str, Any]] = {
    "gzip 1, v2": {**V2, "compressors": numcodecs.GZip(1)},
    "gzip 5, v2": {**V2, "compressors": numcodecs.GZip(5)},
    "zlib 1, v2": {**V2, "compressors": numcodecs.Zlib(1)},
    "zlib 5, v2": {**V2, "compressors": numcodecs.Zlib(5)},
    "bz2 1, v2": {**V2, "compressors": numcodecs.BZ2(1)},
    "blosc, v2": {**V2, "compressors": numcodecs.Blosc()},
    "gzip 5, v3": {**V3, "compressors": GzipCodec(level=5)},
    "zstd, v3": {**V3, "compressors": ZstdCodec(level=1)},
    "gzip 5, v3 sharded": {**SHARDED, "compressors": GzipCodec(level=5)},
    "blosc, v3 sharded": {**SHARDED, "compressors": BloscCodec()},
    "none, v3 sharded": {**SHARDED, "compressors": None},
}


def pixels() -> np.ndarray:
    """Shading, and the noise of a camera: about as compressible as an image."""
    rng = np.random.default_rng(0)
    light = 300 + 200 * np.sin(np.linspace(0, 3, SHAPE[2]))
    return rng.poisson(light, SHAPE).astype(np.uint16)


def opened(path: Path, pipeline: str) -> zarr.Array[Any]:
    """The array with a pipeline, one thread for each call as in a block."""
    threads = 1 if pipeline == "zarrs" else 64
    with zarr.config.set(
        {"codec_pipeline.path": PIPELINES[pipeline], "threading.max_workers": threads}
    ):
        return zarr.open_array(str(path), mode="r+")


def cpu_of(work: Callable[[], object]) -> float:
    """Seconds of processor time of the process, all its threads."""
    before = time.process_time()
    work()
    return time.process_time() - before


def least(path: Path, rounds: int, work: Callable[[zarr.Array[Any]], object]) -> dict[str, float]:
    """The least CPU time of each pipeline, taken in turn."""
    arrays = {name: opened(path, name) for name in PIPELINES}
    for array in arrays.values():
        work(array)
    times: dict[str, list[float]] = {name: [] for name in arrays}
    for number in range(rounds):
        for name in list(arrays)[:: 1 if number % 2 else -1]:
            times[name].append(cpu_of(lambda array=arrays[name]: work(array)))
    return {name: min(values) for name, values in times.items()}


def same_bytes(path: Path, data: np.ndarray) -> bool:
    """Whether both pipelines write the same files."""
    contents = []
    for name in PIPELINES:
        opened(path, name)[...] = data
        files = sorted(file for file in path.rglob("*") if file.is_file())
        contents.append([_timeless(file.read_bytes()) for file in files])
    return contents[0] == contents[1]


def _timeless(content: bytes) -> bytes:
    return content[:4] + bytes(4) + content[8:] if content[:3] == b"\x1f\x8b\x08" else content


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=5)
    given = parser.parse_args()
    data = pixels()
    print(f"{'array':20} {'write':>7} {'read':>7} {'part':>7}  bytes  ours")
    with tempfile.TemporaryDirectory(prefix="pipelines_") as folder:
        for number, (name, settings) in enumerate(KINDS.items()):
            path = Path(folder, str(number))
            zarr.create_array(str(path), shape=SHAPE, dtype="uint16", **settings)[...] = data
            ratios = []
            for work in (
                lambda array: array.__setitem__(..., data),
                lambda array: array[...],
                lambda array: array[5:7, 100:400, 100:400],
            ):
                seconds = least(path, given.rounds, work)
                ratios.append(seconds["zarrs"] / seconds["zarr"])
            equal = "same" if same_bytes(path, data) else "other"
            ours = "yes" if chunk_files(opened(path, "zarr")) is not None else "no"
            print(f"{name:20}" + "".join(f" {r:7.2f}" for r in ratios) + f"  {equal:5}  {ours}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
