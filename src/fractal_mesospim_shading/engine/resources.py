"""What a run may use: processors and memory."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property, partial
from importlib.util import find_spec, module_from_spec, spec_from_file_location
from math import ceil
from pathlib import Path

from fractal_mesospim_shading.engine.memory_needed import (
    PROCESS_BYTES,
    block_bytes,
    needed_memory,
)
from fractal_mesospim_shading.engine.plan import CorrectionPlan
from fractal_mesospim_shading.errors import MemoryLimitError, ParameterError
from fractal_mesospim_shading.images.arrays.encodings import simple_encoding
from fractal_mesospim_shading.images.storage import places
from fractal_mesospim_shading.options.base import ExecutionOptions

_NEXT = 2.0
"""How much more memory to ask for after a worker of a SLURM job had too little."""

_SMALL_BYTES = 128 * 2**20
"""Blocks that take less than this are computed two at a time on each processor; larger ones gain
nothing by it, and what they take has to be filled with zeros by the system."""


@dataclass(frozen=True)
class Resources:
    """What a run may use.

    Attributes:
        workers: blocks in flight.
        memory: bytes to stay within; with SLURM, of each job.
    """

    workers: int
    memory: int


class Allowance:
    """What the machine and the options allow, looked up once for many plans."""

    def __init__(self, options: ExecutionOptions) -> None:
        """Nothing is looked up yet."""
        self._options = options

    @cached_property
    def processors(self) -> int:
        """Blocks at a time that were asked for, or the processors of this process."""
        return self._options.n_workers or available_cpus()

    @cached_property
    def memory(self) -> int:
        """Bytes to stay within.

        Raises:
            ParameterError: the limit that was asked for is no amount of memory.
        """
        return parse_memory(self._options.memory_limit)


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


def room_to_share(plan: CorrectionPlan, use: Resources) -> int:
    """Bytes that blocks, all in one process, may leave in memory for others of a plan.

    Half of what no block takes, at most: the system reads and writes through memory as well.
    """
    spare = max(0, use.memory - needed_memory(plan, use.workers))
    return min(spare // 2, plan.source.shared_bytes(plan.grid.boxes[0], use.workers))


def _waits(plan: CorrectionPlan) -> bool:
    """Whether blocks wait for a network, or for a disk that is slower than their encoding."""
    urls = (plan.source.url, *(target.url for target in plan.targets))
    encodings = [simple_encoding(target.levels[0].document) for target in plan.targets]
    quick = any(encoding is None or encoding.quick for encoding in encodings)
    return quick or not all(map(places.is_local, urls))


def resources(
    plan: CorrectionPlan, options: ExecutionOptions, allowed: Allowance | None = None
) -> Resources:
    """How many blocks may be in flight, from the processors, what is asked for, and the memory.

    Args:
        plan: the job.
        options: where it runs.
        allowed: by these options, for the next plan as well; None to look it up.

    Raises:
        MemoryLimitError: not even one block fits.
        ParameterError: a Dask scheduler is wanted, and none is named.
    """
    if options.execution == "dask":
        scheduler_address(options)
    allowed = allowed or Allowance(options)
    processes = options.execution == "processes"
    one = needed_memory(plan, 1, processes=processes)
    most = allowed.processors
    small = block_bytes(plan) <= _SMALL_BYTES and options.n_workers is None
    if options.execution == "threads" and small and _waits(plan):
        # One block computes while another waits. Where none does, they take the processor's cache
        # from each other: a seventh more of its time with zstd.
        most *= 2
    if options.execution == "slurm" and options.memory_limit is None:
        # The memory of this machine says nothing about that of a job.
        return Resources(most, max(int(1.3 * one), 4 * 2**30))
    limit = allowed.memory
    if limit < one:
        in_process = " with a worker process of its own (`execution=threads` has none)"
        in_process = in_process if processes else ""
        raise MemoryLimitError(
            f"The memory limit of {limit / 1e9:.2f} GB is too small: one block of this image needs "
            f"{one / 1e9:.2f} GB{in_process}. Raise `memory_limit` to at least "
            f"{one / 1e9 + 0.1:.1f}GB, or write smaller shards (`output_shards`)."
        )
    if options.execution == "slurm":
        return Resources(most, limit)
    needed = partial(needed_memory, plan, processes=processes)
    fitting = (n for n in range(most, 1, -1) if needed(n) <= limit)
    return Resources(next(fitting, 1), limit)


def resources_of(plans: Iterable[CorrectionPlan], options: ExecutionOptions) -> Resources:
    """What suits the plan with the largest blocks; raises what `resources` does."""
    allowed = Allowance(options)
    return min((resources(plan, options, allowed) for plan in plans), key=lambda use: use.workers)


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
    room = parse_memory(options.memory_limit) - PROCESS_BYTES
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
