"""What a job needs to take local backgrounds away: kernels, blocks, and what is said of them."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Any, Protocol, cast

import numpy as np

from fractal_mesospim_shading.core.kernel_cache import scratch_folder
from fractal_mesospim_shading.engine.job_folder import job_url, read_request
from fractal_mesospim_shading.engine.memory_needed import needed_memory
from fractal_mesospim_shading.engine.plan import CorrectionPlan, Kernel
from fractal_mesospim_shading.engine.resources import available_cpus, parse_memory
from fractal_mesospim_shading.errors import OutputWriteError, ParameterError, Problems
from fractal_mesospim_shading.images.arrays.documents import Document
from fractal_mesospim_shading.images.labels import LabelImage, has_label
from fractal_mesospim_shading.images.mosaic import MosaicImage
from fractal_mesospim_shading.images.native.collection import TileCollection
from fractal_mesospim_shading.images.native.mosaic import NativeMosaic
from fractal_mesospim_shading.images.native.stack import listed
from fractal_mesospim_shading.images.storage.places import join_url
from fractal_mesospim_shading.jobs.containers import GroupImage
from fractal_mesospim_shading.jobs.steps import Counts
from fractal_mesospim_shading.jobs.work import Part
from fractal_mesospim_shading.local_background.job_kernel import (
    background_kernel,
    for_channels,
    noise_factors,
    remarks_on,
)
from fractal_mesospim_shading.local_background.kernel import BackgroundKernel
from fractal_mesospim_shading.local_background.planes import BackgroundCounts, tell_masks
from fractal_mesospim_shading.local_background.regions import Regions
from fractal_mesospim_shading.local_background.room import filed_bytes
from fractal_mesospim_shading.local_background.scratch import free_bytes
from fractal_mesospim_shading.options.background import BackgroundOptions
from fractal_mesospim_shading.options.precedence import passed_over_in_method
from fractal_mesospim_shading.views.background_verdict import judged_background
from fractal_mesospim_shading.views.evidence import BackgroundEvidence
from fractal_mesospim_shading.views.verdict import Verdict

logger = logging.getLogger(__name__)

TASK = "correct_background"

TYPES = {"background_corrected": True}

BLOCK_BYTES = 32 * 2**20
"""Write units below this size are grouped to one block: neighbourhoods reach over its edges, so
that small blocks read much twice."""

_MOST_BLOCK_BYTES = 2**34
"""Whether blocks of whole tiles are too large is a question of memory alone."""


class RegionKernel(Kernel, Protocol):
    """A kernel that reads around its blocks."""

    @property
    def regions(self) -> Regions:
        """What has to be read for a block."""


def image_kernel(
    image: MosaicImage, options: BackgroundOptions, held: Mapping[str, bool], problems: Problems
) -> BackgroundKernel | None:
    """The kernel of an image, with the label image of its mask.

    Args:
        image: the source.
        options: what is asked for.
        held: by channel label, whether it holds pixels without data, where that is known.
        problems: that take the errors; with one, there is no kernel.
    """
    _refuse_no_noise(options, problems)
    dtype = result_type(image.dtype, options)
    kernel = problems.run(partial(background_kernel, image, options, dtype, held))
    label = problems.run(partial(_label_of, image, options))
    return None if kernel is None else replace(kernel, label=label)


class GroupKernels:
    """The kernels of the images in a container.

    Attributes:
        made: by the name of their group.
    """

    def __init__(
        self,
        collection: TileCollection,
        mosaics: Sequence[NativeMosaic],
        options: BackgroundOptions,
        problems: Problems,
    ) -> None:
        """Check the options against the container; what is wrong goes to the problems."""
        _refuse_no_noise(options, problems)
        self._options = options
        self._lacking = _refuse_unlabelled(collection, mosaics, options, problems)
        self._wholes = [
            problems.run(partial(_mosaic_kernel, collection, mosaic, options)) for mosaic in mosaics
        ]
        self.made: dict[str, BackgroundKernel] = {}

    def make(
        self, name: str, group: GroupImage, held: Mapping[str, bool]
    ) -> BackgroundKernel | None:
        """The kernel of a group; None where something is wrong with what was asked for.

        Args:
            name: of the group.
            group: its image.
            held: by channel label, whether it holds pixels without data, where that is known.
        """
        whole, options = self._wholes[group.mosaic], self._options
        if whole is None or name in self._lacking:
            return None
        kernel = whole.of_stack(group.image, group.channels, options.zero_is, held)
        self.made[name] = replace(kernel, label=_label_of(group.image, options))
        return self.made[name]


def tell_remarks(
    kernels: Iterable[BackgroundKernel], dtype: np.dtype[Any], options: BackgroundOptions
) -> None:
    """Say what a person should know of what was asked for.

    Args:
        kernels: of all images.
        dtype: of their pixels.
        options: what was asked for.
    """
    remarks = [line for kernel in kernels for line in remarks_on(kernel, dtype)]
    for line in (*dict.fromkeys(remarks), *passed_over_in_method(options.method)):
        logger.info("%s", line)


def _mosaic_kernel(
    collection: TileCollection, mosaic: NativeMosaic, options: BackgroundOptions
) -> BackgroundKernel:
    """What is done to the stacks of a mosaic, each of which is a tile."""
    labels = [channel.label for channel in collection.channels]
    own = [collection.channels.index(channel) for channel in mosaic.native_channels]
    chosen = options.model_copy(
        update={"method": for_channels(options.method, labels, own), "tiles": "tile"}
    )
    return background_kernel(mosaic, chosen, result_type(mosaic.dtype, options))


def _refuse_unlabelled(
    collection: TileCollection,
    mosaics: Sequence[NativeMosaic],
    options: BackgroundOptions,
    problems: Problems,
) -> frozenset[str]:
    """Refuse stacks without the label image of the mask: they would be corrected in another way.

    Returns:
        The groups that lack it.
    """
    if options.mask.kind != "label":
        return frozenset()
    name = options.mask.label_name
    groups = list(dict.fromkeys(placed.stack.group for m in mosaics for placed in m.placed))
    urls = {group: join_url(collection.url, group) for group in groups}
    lacking = [g for g in groups if not has_label(urls[g], name, options.storage_options)]
    if lacking:
        problems.errors.append(
            ParameterError(
                f"{len(lacking)} of the {len(groups)} images in {collection.url} have no label "
                f"image '{name}': {listed(lacking)}. Each needs one (of zeros where there is no "
                "object); or mask by a threshold."
            )
        )
    return frozenset(lacking)


def background_plan(
    plan: CorrectionPlan,
    kernel: RegionKernel,
    options: BackgroundOptions,
    begun: Sequence[int] | None,
    dtype: np.dtype[Any] | None = None,
) -> CorrectionPlan:
    """The plan of an image, with the largest blocks that memory has room for.

    Blocks of whole tiles are the quickest. A run that is continued keeps the blocks it
    began with, for the names of blocks in its journal mean these.

    Args:
        plan: without a kernel.
        kernel: of the image.
        options: with the limit of memory.
        begun: the size of blocks of an unfinished run at the place of the result.
        dtype: that pixels are read in; None for that of the source.

    Raises:
        OutputWriteError: planes that go through files have no room there.
    """
    plans = [
        replace(
            plan,
            kernel=kernel,
            least_pixels=max(1, BLOCK_BYTES // plan.source.dtype.itemsize),
            align=align,
            most_block_bytes=_MOST_BLOCK_BYTES,
        )
        for align in kernel.regions.alignments(plan.source)
    ]
    same = (one for one in plans if begun is not None and one.grid.boxes[0] == tuple(begun))
    chosen = next(same, None) or _fitting(plans, kernel.regions, options)
    return _with_temporary(chosen, kernel.regions, dtype or plan.source.dtype)


def _fitting(
    plans: Sequence[CorrectionPlan], regions: Regions, options: BackgroundOptions
) -> CorrectionPlan:
    """The first plan that memory has room for."""
    limit = parse_memory(options.memory_limit)
    needed = partial(needed_memory, processes=options.execution == "processes")
    fitting = [one for one in plans if needed(one, 1) <= limit]
    if regions.local:
        workers = options.n_workers or available_cpus()
        fitting = [one for one in fitting if needed(one, workers) <= limit] or fitting
    return (fitting or plans[-1:])[0]


def _with_temporary(plan: CorrectionPlan, regions: Regions, dtype: np.dtype[Any]) -> CorrectionPlan:
    """A plan with the room that its planes need in temporary files.

    Raises:
        OutputWriteError: there is less.
    """
    needed = filed_bytes(regions, plan.grid.boxes[0], dtype, plan.source.read_grain())
    if needed and needed > (free := free_bytes()):
        folder = scratch_folder()
        raise OutputWriteError(
            "These backgrounds follow from whole planes, which do not fit into memory; in "
            f"temporary files they take {needed / 1e9:.1f} GB, but {folder} has {free / 1e9:.1f} "
            "GB free. Set the environment variable TMPDIR to a folder of a disk with more room, "
            "or raise `memory_limit`."
        )
    return replace(plan, temporary_bytes=needed)


def blocks_begun(final_url: str, options: BackgroundOptions) -> Mapping[str, Sequence[int]]:
    """The size of blocks of an unfinished run at this place, for each image; empty without one."""
    if options.restart:
        return {}
    request = read_request(job_url(final_url), options.storage_options) or {}
    blocks = request.get("blocks")
    return blocks if isinstance(blocks, dict) else {}


def result_type(dtype: np.dtype[Any], options: BackgroundOptions) -> np.dtype[Any]:
    """The type of the result of an image of a type."""
    return np.dtype(np.float32) if options.output_type == "float32" else dtype


def _label_of(image: MosaicImage, options: BackgroundOptions) -> LabelImage | None:
    """The label image of the mask; None where there is another mask or none."""
    mask = options.mask
    return LabelImage.open(image, mask.label_name) if mask.kind == "label" else None


def label_state(kernel: BackgroundKernel) -> Document:
    """What decides bytes besides the options: the label image of a mask."""
    label = kernel.label
    if label is None:
        return {}
    state: Document = {"label_state": label.state()}
    if any(factor != 1 for factor in label.factors):
        state["label_factors"] = list(label.factors)
    return state


def label_states(kernels: Mapping[str, BackgroundKernel]) -> Document:
    """What decides bytes besides the options: the label images of a container, by their group."""
    states = {name: label_state(kernel) for name, kernel in kernels.items() if kernel.label}
    return {"labels": states} if states else {}


def noise_facts(labels: Sequence[str], kernel: BackgroundKernel) -> Document:
    """What provenance says of the noise, where it is known; the channels under these labels."""
    factors = noise_factors(labels, kernel.methods)
    return {"noise_factors": factors} if factors else {}


def _refuse_no_noise(options: BackgroundOptions, problems: Problems) -> None:
    if options.save_noise and not options.method.maps_noise:
        problems.errors.append(
            ParameterError("`save_noise` needs the method tile_median; others have no noise map.")
        )


def judge_counts(counts: Counts, warnings: int) -> Verdict:
    """Whether the backgrounds of a job fit, by its counts.

    Args:
        counts: by the label that results show.
        warnings: how many lines of the log ask for a look.
    """
    evidence = []
    for label, one in counts.items():
        # The counts of these kernels are all of their own kind.
        counted = cast("BackgroundCounts", one)
        known = max(one.pixels - one.no_data, 1)
        cut, saturated = (one.clipped_low + one.clipped_high) / known, one.saturated / known
        evidence.append(BackgroundEvidence(label, cut, counted.unestimated, saturated))
    return judged_background(evidence, warnings)


def titles_of(done: Sequence[tuple[Part, BackgroundKernel]]) -> dict[str, str]:
    """What the methods are called, by the label that results show."""
    return {
        part.prefix + part.labels.get(channel.label, channel.label): method.title
        for part, kernel in done
        for channel, method in zip(part.plan.source.channels, kernel.methods, strict=True)
    }


def teller(done: Sequence[tuple[Part, BackgroundKernel]]) -> Callable[[Counts], None]:
    """What says what the counts of all images mean, which these kernels correct."""
    kernels = {
        part.prefix + part.labels.get(channel.label, channel.label): (method, kernel.correction)
        for part, kernel in done
        for channel, method in zip(part.plan.source.channels, kernel.methods, strict=True)
    }

    def tell(counts: Counts) -> None:
        for label, one in counts.items():
            cut = (one.clipped_low + one.clipped_high) / max(one.pixels - one.no_data, 1)
            logger.info("Channel %s: %.2f %% of the pixels were cut off", label, 100 * cut)
        for label, (method, correction) in kernels.items():
            # The counts of this kernel are all of its own kind.
            counted = cast("BackgroundCounts", counts[label])
            tell_masks({label: counted}, {label: method}, correction)

    return tell
