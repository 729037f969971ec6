"""What a run may use: processors and memory."""

from __future__ import annotations

import os
import shutil
from dataclasses import dataclass
from importlib.util import find_spec, module_from_spec, spec_from_file_location
from math import ceil, prod
from pathlib import Path

from fractal_mesospim_shading.engine.plan import CorrectionPlan
from fractal_mesospim_shading.errors import MemoryLimitError, ParameterError
from fractal_mesospim_shading.images.arrays.encodings import simple_encoding
from fractal_mesospim_shading.images.storage import places
from fractal_mesospim_shading.images.storage.places import split_zip
from fractal_mesospim_shading.options.base import ExecutionOptions

_BASE_BYTES = 400 * 2**20
"""What the process holds before the first block: interpreter, libraries, kernels."""

_COPIES = 4.0
"""A block while it is worked on: its pixels, what zarr's pipelines make of them (two and a half),
and its means. Measured with chunks of 16 to 480 MB: benchmarks/memory.py."""

_FEW_COPIES = 1.5
"""The same where chunks go straight between file and block: its pixels and its means. One chunk
comes with it, as it is decoded from or encoded to."""

_WAITING = 2.0
"""Means that wait for their siblings, in blocks, over all levels."""

_NEXT = 2.0
"""How much more memory to ask for after a worker of a SLURM job had too little."""

_SMALL_BYTES = 256 * 2**20
"""Blocks that take less than this are computed two at a time on each processor."""


@dataclass(frozen=True)
class Resources:
    """What a run may use.

    Attributes:
        workers: blocks in flight.
        memory: bytes to stay within; with SLURM, of each job.
    """

    workers: int
    memory: int


def available_cpus() -> int:
    """Processors this process may use: of the SLURM job, else of this process and its container."""
    slurm = os.environ.get("SLURM_CPUS_PER_TASK", "")
    if slurm.isdigit() and int(slurm) > 0:
        return int(slurm)
    from dask.system import cpu_count

    return int(cpu_count())


def available_memory() -> int:
    """Bytes this process may use: of the SLURM job, the container and the machine, the least."""
    limits = [_memory_limit()]
    megabytes = os.environ.get("SLURM_MEM_PER_NODE", "")
    per_cpu = os.environ.get("SLURM_MEM_PER_CPU", "")
    if megabytes.isdigit() and int(megabytes) > 0:
        limits.append(int(megabytes) * 2**20)
    elif per_cpu.isdigit() and int(per_cpu) > 0:
        limits.append(int(per_cpu) * 2**20 * available_cpus())
    return min(limits)


def _memory_limit() -> int:
    """What Dask knows of it, by that module alone: all of `distributed` takes 0.3 s to import."""
    package = find_spec("distributed")
    folders = package.submodule_search_locations if package is not None else None
    for folder in folders or ():
        spec = spec_from_file_location("distributed_system", Path(folder, "system.py"))
        if spec is not None and spec.loader is not None:
            module = module_from_spec(spec)
            spec.loader.exec_module(module)
            return int(module.memory_limit())
    raise ModuleNotFoundError("distributed is not installed")


def parse_memory(text: str | None) -> int:
    """Bytes of a text such as 4GB; the machine's or job's own limit where it is None.

    Raises:
        ParameterError: no amount of memory.
    """
    return parse_amount(text, "memory_limit") if text and text.strip() else available_memory()


def parse_amount(text: str | int, option: str) -> int:
    """Bytes of a text such as 4GB, which is the value of an option.

    Raises:
        ParameterError: no amount of bytes.
    """
    from dask.utils import parse_bytes

    try:
        limit = int(parse_bytes(str(text)))
        if limit < 0:
            raise ValueError("below 0")
        return limit
    except (ValueError, OverflowError):
        raise ParameterError(
            f"`{option}` is {text!r}; expected an amount such as 4GB or 1500MiB."
        ) from None


def needed_memory(plan: CorrectionPlan, workers: int) -> int:
    """Bytes that a number of blocks in flight take at most."""
    level = plan.target.levels[0]
    shape = [min(b, n) for b, n in zip(plan.grid.boxes[0], level.shape, strict=True)]
    block = prod(shape) * sum(target.levels[0].dtype.itemsize for target in plan.targets)
    plane = prod(shape[-2:])
    source = prod(plan.source.read_units(0)) * plan.source.dtype.itemsize
    chunk = prod(min(c, n) for c, n in zip(level.chunks, shape, strict=True)) * level.dtype.itemsize
    copies = _FEW_COPIES * block + chunk if _straight(plan) else _COPIES * block
    per_worker = max(copies, block + 2.0 * source) + 8 * plane
    if plan.kernel is None:
        # Flat-field and dark-field of each channel, float32.
        shared = 2 * 4 * len(plan.source.channels) * prod(plan.source.layout.tile_shape)
    else:
        shared = plan.kernel.shared_bytes
        per_worker += plan.kernel.working_bytes(shape, plan.source)
    waiting = _WAITING * block if len(plan.target.levels) > 1 else 0
    return int(_BASE_BYTES + shared + workers * per_worker + waiting)


def room_to_share(plan: CorrectionPlan, use: Resources) -> int:
    """Bytes that blocks, all in one process, may leave in memory for others of a plan.

    Half of what no block takes, at most: the system reads and writes through memory as well.
    """
    spare = max(0, use.memory - needed_memory(plan, use.workers))
    return min(spare // 2, plan.source.shared_bytes(plan.grid.boxes[0], use.workers))


def _straight(plan: CorrectionPlan) -> bool:
    """Whether chunks are read and written without zarr's pipelines."""
    documents = [level.document for target in plan.targets for level in target.levels]
    urls = [plan.source.url, *(target.url for target in plan.targets)]
    plain = all(places.is_local(url) and split_zip(url) is None for url in urls)
    return plain and all(map(simple_encoding, documents))


def _waits(plan: CorrectionPlan) -> bool:
    """Whether blocks wait for a network, or for a disk that is slower than their encoding."""
    urls = (plan.source.url, *(target.url for target in plan.targets))
    encodings = [simple_encoding(target.levels[0].document) for target in plan.targets]
    quick = any(encoding is None or encoding.quick for encoding in encodings)
    return quick or not all(map(places.is_local, urls))


def resources(plan: CorrectionPlan, options: ExecutionOptions) -> Resources:
    """How many blocks may be in flight, from the processors, what is asked for, and the memory.

    Raises:
        MemoryLimitError: not even one block fits.
        ParameterError: a Dask scheduler is wanted, and none is named.
    """
    if options.execution == "dask":
        scheduler_address(options)
    one = needed_memory(plan, 1)
    each = max(1, needed_memory(plan, 2) - one)
    most = options.n_workers or available_cpus()
    small = each <= _SMALL_BYTES and options.n_workers is None
    if options.execution == "threads" and small and _waits(plan):
        # One block computes while another waits. Where none does, they take the processor's cache
        # from each other: a seventh more of its time with zstd.
        most *= 2
    if options.execution == "slurm" and options.memory_limit is None:
        # The memory of this machine says nothing about that of a job.
        return Resources(most, max(int(1.3 * one), 4 * 2**30))
    limit = parse_memory(options.memory_limit)
    if limit < one:
        raise MemoryLimitError(
            f"The memory limit of {limit / 1e9:.2f} GB is too small: one block of this image needs "
            f"{one / 1e9:.2f} GB. Raise `memory_limit` to at least {one / 1e9 + 0.1:.1f}GB, or "
            "write smaller shards (`output_shards`)."
        )
    if options.execution == "slurm":
        return Resources(most, limit)
    return Resources(max(1, min(most, 1 + (limit - one) // each)), limit)


def more_memory(plan: CorrectionPlan, options: ExecutionOptions, use: Resources) -> str:
    """What to ask for when a worker had too little memory, as a part of a sentence."""
    if options.execution == "slurm":
        more = ceil(_NEXT * use.memory / 1e9)
        return f"each job had {use.memory / 1e9:.1f} GB, so ask for `memory_limit={more}GB` next"
    one = f"{needed_memory(plan, 1) / 1e9:.1f} GB"
    if options.execution == "dask":
        return f"one of a single thread needs about {one} for this image"
    return f"each needs about {one} for this image, so ask for fewer by `n_workers`"


def estimate_workers(each: int, options: ExecutionOptions) -> int:
    """How many boxes of planes, of so many bytes each, may be read at a time for an estimate."""
    room = parse_memory(options.memory_limit) - _BASE_BYTES
    most = options.n_workers or available_cpus()
    return max(1, min(most, int(room // (3 * each))))


def scheduler_address(options: ExecutionOptions) -> str:
    """The address of the Dask scheduler that blocks are sent to.

    Raises:
        ParameterError: none is given.
    """
    address = options.scheduler_address or os.environ.get("DASK_SCHEDULER_ADDRESS")
    if not address:
        raise ParameterError(
            "`execution=dask` needs the address of a scheduler: give `scheduler_address`, such "
            "as tcp://host:8786, or set DASK_SCHEDULER_ADDRESS."
        )
    return address


def refuse_no_jobqueue() -> None:
    """Refuse SLURM jobs where the library that makes them is not installed.

    Raises:
        ParameterError: it is not.
    """
    if find_spec("dask_jobqueue") is None:
        raise ParameterError(
            "`execution=slurm` needs dask-jobqueue: pip install 'fractal-mesospim-shading[slurm]'."
        )


def refuse_no_workers(options: ExecutionOptions) -> None:
    """Refuse a place to run that is not there, before anything is read.

    Raises:
        ParameterError: SLURM jobs are wanted where none can be made.
    """
    if options.execution != "slurm":
        return
    refuse_no_jobqueue()
    if shutil.which("sbatch") is None:
        raise ParameterError(
            "`execution=slurm` needs the program sbatch, and there is none here. Run it where jobs "
            "can be submitted, or choose another `execution`."
        )
