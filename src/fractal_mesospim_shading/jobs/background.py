"""Local background correction of an image, or stack by stack of a native acquisition."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Any, cast

import numpy as np

from fractal_mesospim_shading.engine.earlier import steps_of
from fractal_mesospim_shading.engine.job_folder import job_url, read_request
from fractal_mesospim_shading.engine.outside_tiles import check_outside
from fractal_mesospim_shading.engine.plan import CorrectionPlan
from fractal_mesospim_shading.engine.resources import (
    available_cpus,
    estimate_workers,
    needed_memory,
    parse_memory,
)
from fractal_mesospim_shading.engine.zero_look import no_data_held, tell_held
from fractal_mesospim_shading.errors import ParameterError, Problems
from fractal_mesospim_shading.flatfield.sampling import box_bytes
from fractal_mesospim_shading.images.arrays.documents import Document
from fractal_mesospim_shading.images.labels import LabelImage, has_label
from fractal_mesospim_shading.images.mosaic import MosaicImage
from fractal_mesospim_shading.images.native.collection import TileCollection
from fractal_mesospim_shading.images.native.mosaic import NativeMosaic
from fractal_mesospim_shading.images.native.stack import listed
from fractal_mesospim_shading.images.output import companion_url
from fractal_mesospim_shading.images.storage.places import join_url
from fractal_mesospim_shading.jobs.containers import (
    ContainerCorrection,
    GroupImage,
    container_work,
    planned_for,
)
from fractal_mesospim_shading.jobs.ending import rehearse
from fractal_mesospim_shading.jobs.preparation import (
    plan_output,
    refuse_common,
    refuse_unfit,
    target_of,
)
from fractal_mesospim_shading.jobs.story import completed_in_place, correct
from fractal_mesospim_shading.jobs.work import Counts, JobResult, Part, Work
from fractal_mesospim_shading.local_background.job_kernel import (
    background_kernel,
    companion_kinds,
    for_channels,
    noise_factors,
    remarks_on,
)
from fractal_mesospim_shading.local_background.kernel import BackgroundKernel
from fractal_mesospim_shading.local_background.planes import (
    BackgroundCounts,
    tell_masks,
)
from fractal_mesospim_shading.options.background import BackgroundOptions
from fractal_mesospim_shading.options.precedence import passed_over_in_method

logger = logging.getLogger(__name__)

_TASK = "correct_background"

_TYPES = {"background_corrected": True}

BLOCK_BYTES = 32 * 2**20
"""Write units below this size are grouped to one block: neighbourhoods reach over its edges, so
that small blocks read much twice."""

_MOST_BLOCK_BYTES = 2**34
"""Whether blocks of whole tiles are too large is a question of memory alone."""


def correct_background(zarr_url: str, options: BackgroundOptions) -> JobResult:
    """Take the local background of an image away, or of all stacks of a native acquisition.

    Args:
        zarr_url: of the image, or of the container.
        options: everything else.

    Raises:
        ShadingError: one readable error; the source is as it was, and so is any earlier
            result. What was finished is continued by the same call.
    """
    earlier = completed_in_place(zarr_url, _TASK, options, _TYPES, BackgroundCounts)
    if earlier is not None:
        return earlier
    return correct(lambda: plan_background(zarr_url, options))


def plan_background(zarr_url: str, options: BackgroundOptions) -> Work:
    """The work of a correction, once everything is checked; nothing is written."""
    return planned_for(
        zarr_url,
        options,
        lambda image: prepare_background(image, options),
        lambda collection: prepare_container(collection, options),
    )


def prepare_background(image: MosaicImage, options: BackgroundOptions) -> Work:
    """Check everything that can be checked without reading a pixel.

    Raises:
        ShadingError: one error with all problems.
    """
    problems = Problems()
    history = steps_of(image.attributes())
    dtype, kinds = _result_type(image.dtype, options), companion_kinds(options)
    planned = problems.run(lambda: plan_output(image, options, dtype=dtype, companions=kinds))
    held = no_data_held(image) if options.zero_is == "auto" else {}
    checked = problems.run(lambda: background_kernel(image, options, dtype, held))
    label = problems.run(partial(_label_of, image, options))
    _refuse_no_noise(options, problems)
    refuse_common(options, _TASK, image.url, history, problems)
    output = problems.passed(planned)
    kernel = replace(problems.passed(checked), label=label)
    tell_held(held)
    for line in (*remarks_on(kernel, image.dtype), *passed_over_in_method(options.method)):
        logger.info("%s", line)
    beside = [
        target_of(image, companion_url(output.target.url, kind), options, np.dtype(np.float32))
        for kind in kinds
    ]
    plan = CorrectionPlan(image, (output.target, *beside), output.final_url)
    begun = _blocks_begun(output.final_url, options)
    part = Part(
        background_plan(plan, kernel, options, begun.get("")),
        output.attributes,
        facts=_facts([channel.label for channel in image.channels], kernel),
    )
    work = Work(
        task=_TASK,
        source_url=image.url,
        final_url=output.final_url,
        options=options,
        parts=(part,),
        source_states=(image.state(),),
        companions=kinds,
        details={"zeros": list(kernel.look.rules), **_label_state(kernel)},
        replaces=image.url if options.overwrite_input else None,
        counted=BackgroundCounts,
        members=output.members,
        tell=_teller([(part, kernel)]),
        history=history,
        types=_TYPES,
    )
    refuse_unfit(work, problems)
    workers = estimate_workers(box_bytes(image, 0), options)
    check_outside(image, kernel.layout, options.outside_tiles, workers)
    rehearse(work)
    return work


def prepare_container(collection: TileCollection, options: BackgroundOptions) -> Work:
    """Check everything that can be checked without reading a pixel.

    Raises:
        ShadingError: one error with all problems.
    """
    problems = Problems()
    mosaics = problems.run(collection.mosaics) or ()
    _refuse_no_noise(options, problems)
    lacking = _refuse_unlabelled(collection, mosaics, options, problems)
    wholes = [problems.run(partial(_mosaic_kernel, collection, m, options)) for m in mosaics]
    kernels: dict[str, BackgroundKernel] = {}
    held: dict[str, bool] = {}

    def made(part: Part, group: GroupImage) -> Part:
        whole, image = wholes[group.mosaic], group.image
        if whole is None or part.name in lacking:
            return part
        known = no_data_held(image, group.names) if options.zero_is == "auto" else {}
        for name, some in known.items():
            said = part.prefix + group.names[name]
            held[said] = held.get(said, False) or some
        kernel = whole.of_stack(image, group.channels, options.zero_is, known)
        kernels[part.name] = replace(kernel, label=_label_of(image, options))
        return replace(part, facts=_facts(group.labels, kernel))

    dtype = np.dtype(np.float32) if options.output_type == "float32" else None
    correction = ContainerCorrection(_TASK, _TYPES, made, dtype, companion_kinds(options))
    work = container_work(collection, mosaics, options, problems, correction)
    tell_held(held)
    remarks = [line for k in kernels.values() for line in remarks_on(k, mosaics[0].dtype)]
    for line in (*dict.fromkeys(remarks), *passed_over_in_method(options.method)):
        logger.info("%s", line)
    begun = _blocks_begun(work.final_url, options)
    parts = tuple(
        replace(
            part, plan=background_plan(part.plan, kernels[part.name], options, begun.get(part.name))
        )
        for part in work.parts
    )
    states = {name: _label_state(kernel) for name, kernel in kernels.items() if kernel.label}
    zeros = {name: list(kernel.look.rules) for name, kernel in kernels.items()}
    work = replace(
        work,
        parts=parts,
        details={"zeros": zeros, **({"labels": states} if states else {})},
        counted=BackgroundCounts,
        tell=_teller([(part, kernels[part.name]) for part in parts]),
    )
    refuse_unfit(work, problems)
    rehearse(work)
    return work


def _mosaic_kernel(
    collection: TileCollection, mosaic: NativeMosaic, options: BackgroundOptions
) -> BackgroundKernel:
    """What is done to the stacks of a mosaic, each of which is a tile."""
    labels = [channel.label for channel in collection.channels]
    own = [collection.channels.index(channel) for channel in mosaic.native_channels]
    chosen = options.model_copy(
        update={"method": for_channels(options.method, labels, own), "tiles": "tile"}
    )
    return background_kernel(mosaic, chosen, _result_type(mosaic.dtype, options))


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
    kernel: BackgroundKernel,
    options: BackgroundOptions,
    begun: Sequence[int] | None,
) -> CorrectionPlan:
    """The plan of an image, with the largest blocks that memory has room for.

    Blocks of whole tiles are the quickest. A run that is continued keeps the blocks it
    began with, for the names of blocks in its journal mean these.

    Args:
        plan: without a kernel.
        kernel: of the image.
        options: with the limit of memory.
        begun: the size of blocks of an unfinished run at the place of the result.
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
    for one in plans:
        if begun is not None and list(one.grid.boxes[0]) == list(begun):
            return one
    limit = parse_memory(options.memory_limit)
    fitting = [one for one in plans if needed_memory(one, 1) <= limit]
    if kernel.regions.local:
        workers = options.n_workers or available_cpus()
        room = [one for one in fitting if needed_memory(one, workers) <= limit]
        return (room or fitting or plans[-1:])[0]
    return (fitting or plans[-1:])[0]


def _blocks_begun(final_url: str, options: BackgroundOptions) -> Mapping[str, Sequence[int]]:
    """The size of blocks of an unfinished run at this place, for each image; empty without one."""
    if options.restart:
        return {}
    request = read_request(job_url(final_url), options.storage_options) or {}
    blocks = request.get("blocks")
    return blocks if isinstance(blocks, dict) else {}


def _result_type(dtype: np.dtype[Any], options: BackgroundOptions) -> np.dtype[Any]:
    return np.dtype(np.float32) if options.output_type == "float32" else dtype


def _label_of(image: MosaicImage, options: BackgroundOptions) -> LabelImage | None:
    """The label image of the mask; None where there is another mask or none."""
    mask = options.mask
    return LabelImage.open(image, mask.label_name) if mask.kind == "label" else None


def _label_state(kernel: BackgroundKernel) -> Document:
    label = kernel.label
    if label is None:
        return {}
    state: Document = {"label_state": label.state()}
    if any(factor != 1 for factor in label.factors):
        state["label_factors"] = list(label.factors)
    return state


def _facts(labels: Sequence[str], kernel: BackgroundKernel) -> Document:
    factors = noise_factors(labels, kernel.methods)
    return {"noise_factors": factors} if factors else {}


def _refuse_no_noise(options: BackgroundOptions, problems: Problems) -> None:
    if options.save_noise and not options.method.maps_noise:
        problems.errors.append(
            ParameterError("`save_noise` needs the method tile_median; others have no noise map.")
        )


def _teller(done: Sequence[tuple[Part, BackgroundKernel]]) -> Callable[[Counts], None]:
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
