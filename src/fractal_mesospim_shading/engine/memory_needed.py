"""The memory that a job takes, foreseen from its blocks before it starts."""

from __future__ import annotations

from collections.abc import Sequence
from math import ceil, prod

from fractal_mesospim_shading.engine.plan import CorrectionPlan
from fractal_mesospim_shading.images.arrays.chunk_parts import RUN_BYTES
from fractal_mesospim_shading.images.arrays.chunk_runs import encoded_bytes
from fractal_mesospim_shading.images.arrays.encodings import simple_encoding
from fractal_mesospim_shading.images.arrays.output_file import STAGE_BYTES, past_cache
from fractal_mesospim_shading.images.storage import places
from fractal_mesospim_shading.images.storage.places import split_zip

PROCESS_BYTES = 340 * 2**20
"""What a process takes without pixels: interpreter, libraries, kernels, a report. 240 to 290 MB,
and up to 360 where it is the first and compiles the kernels."""

_WORKER_BYTES = 260 * 2**20
"""The same of a worker process, which makes no report: 200 to 250 MB, and more as it works. The
process that has them computes no blocks: beside it, 340 MiB hold the scheduler (80 to 130 MB)."""

_COPIES = 4.0
"""A block while zarr's pipelines read or write it, in blocks: its pixels, what they make of them
(two and a half), and its means. Measured with chunks of 16 to 480 MB: benchmarks/memory.py."""


def needed_memory(plan: CorrectionPlan, workers: int, *, processes: bool = False) -> int:
    """Bytes that a number of blocks in flight take at most.

    Args:
        plan: the job.
        workers: blocks in flight.
        processes: whether each has a worker process of this machine, which loads libraries, kernels
            and profiles for itself.
    """
    grid = plan.grid
    in_flight = min(workers, prod(grid.counts(0)))
    if plan.kernel is None:
        # Flat-field and dark-field of each channel, float32.
        shared = 2 * 4 * len(plan.source.channels) * prod(plan.source.layout.tile_shape)
    else:
        shared = plan.kernel.shared_bytes
    waiting = sum(_waiting_bytes(plan, level, in_flight) for level in range(len(grid.shapes) - 1))
    more = workers * (_WORKER_BYTES + shared) if processes else 0
    return PROCESS_BYTES + shared + more + in_flight * block_bytes(plan) + waiting


def block_bytes(plan: CorrectionPlan) -> int:
    """Bytes of the largest block of any level, while it is worked on."""
    box, source = plan.grid.boxes[0], plan.source
    shape = [min(b, n) for b, n in zip(box, plan.grid.shapes[0], strict=True)]
    # A flat-field that is not known yet has a gain and a shift for each pixel of a plane.
    painted = 8 * prod(shape[-2:])
    working = painted if plan.kernel is None else plan.kernel.working_bytes(shape, source)
    read = 2 * prod(source.read_units(0)) * source.dtype.itemsize
    if _whole(source.read_units(0), box, plan.grid.shapes[0]):
        # What is in the file as it is decoded; of some encodings that is a part.
        read = min(read // 2, 2 * RUN_BYTES) if source.planes_apart(0) else read // 2
    parents = (_written_bytes(plan, level, 0) for level in range(1, len(plan.grid.shapes)))
    return max(_written_bytes(plan, 0, read) + working, *parents, 0)


def _written_bytes(plan: CorrectionPlan, number: int, read: int) -> int:
    """Bytes of a block of a level from when it is read until its mean is made.

    Args:
        plan: the job.
        number: of the level.
        read: bytes of a chunk that it is read from, as they are in the file and decoded.
    """
    grid, level = plan.grid, plan.target.levels[number]
    pixels = prod(min(b, n) for b, n in zip(grid.boxes[number], level.shape, strict=True))
    held = pixels * _itemsize(plan)
    if number:
        # The last of the means that it is made from; the others have waited for it.
        held += _mean_bytes(plan, number - 1)
    if not _straight(plan):
        return max(int(_COPIES * held), held + read)
    chunk = prod(level.chunks) * max(t.levels[number].dtype.itemsize for t in plan.targets)
    in_order = 0 if _whole(level.chunks, grid.boxes[number], level.shape) else chunk
    stage = STAGE_BYTES if past_cache(prod(level.unit) * level.dtype.itemsize) else 0
    write = in_order + stage + _mean_bytes(plan, number)
    # What was encoded last is kept, apart from what may be used for another block.
    encoding = simple_encoding(level.document)
    return held + max(read, write) + (chunk if encoding is None else encoded_bytes(encoding, chunk))


def _whole(chunk: Sequence[int], box: Sequence[int], shape: Sequence[int]) -> bool:
    """Whether blocks are chunks, and none is cut by the end of the array.

    Others are put in order before they are encoded, or after they were decoded.
    """
    return tuple(chunk) == tuple(box) and all(n % c == 0 for n, c in zip(shape, chunk, strict=True))


def _mean_bytes(plan: CorrectionPlan, level: int) -> int:
    """Bytes of what a block of a level adds to the next."""
    grid = plan.grid
    if level + 1 == len(grid.shapes):
        return 0
    along = zip(grid.boxes[level], grid.factors[level + 1], grid.shapes[level + 1], strict=True)
    return prod(min(ceil(b / f), n) for b, f, n in along) * _itemsize(plan)


def _waiting_bytes(plan: CorrectionPlan, level: int, in_flight: int) -> int:
    """Bytes of means of a level that wait for others: no more than the next level holds."""
    most = prod(plan.grid.shapes[level + 1]) * _itemsize(plan)
    return min(plan.grid.waiting(level, in_flight) * _mean_bytes(plan, level), most)


def _itemsize(plan: CorrectionPlan) -> int:
    """Bytes of a pixel of all images that are written."""
    return sum(target.levels[0].dtype.itemsize for target in plan.targets)


def _straight(plan: CorrectionPlan) -> bool:
    """Whether chunks are read and written without zarr's pipelines."""
    documents = [level.document for target in plan.targets for level in target.levels]
    urls = [plan.source.url, *(target.url for target in plan.targets)]
    plain = all(places.is_local(url) and split_zip(url) is None for url in urls)
    return plain and all(map(simple_encoding, documents))
