"""Local background correction of an image: its checks and its kernel."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from functools import partial
from typing import Any, cast

import numpy as np

from fractal_mesospim_shading.core.background import (
    BackgroundMethod,
    check_fits,
    check_light,
    remark_on_height,
)
from fractal_mesospim_shading.core.background.apply import Application
from fractal_mesospim_shading.core.layout import TileLayout
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
from fractal_mesospim_shading.engine.zero_look import zero_look
from fractal_mesospim_shading.errors import BackgroundError, ParameterError, Problems
from fractal_mesospim_shading.flatfield.sampling import box_bytes
from fractal_mesospim_shading.images.arrays.documents import Document
from fractal_mesospim_shading.images.labels import LabelImage
from fractal_mesospim_shading.images.mosaic import MosaicImage
from fractal_mesospim_shading.images.output import companion_url
from fractal_mesospim_shading.images.storage.places import StorageOptions
from fractal_mesospim_shading.images.target import TargetImage
from fractal_mesospim_shading.jobs.ending import rehearse
from fractal_mesospim_shading.jobs.preparation import (
    OutputPlan,
    plan_output,
    refuse_common,
    refuse_unfit,
    target_of,
)
from fractal_mesospim_shading.jobs.story import completed_in_place, correct_image
from fractal_mesospim_shading.jobs.work import Counts, JobResult, Part, Work
from fractal_mesospim_shading.local_background.kernel import BackgroundKernel
from fractal_mesospim_shading.local_background.planes import (
    BackgroundCounts,
    PlaneCorrection,
    tell_masks,
)
from fractal_mesospim_shading.options.background import BackgroundOptions, LocalBackgroundOptions
from fractal_mesospim_shading.options.precedence import passed_over_in_method

logger = logging.getLogger(__name__)

_TASK = "correct_background"

_TYPES = {"background_corrected": True}

_TRIAL_PX = 8

BLOCK_BYTES = 32 * 2**20
"""Write units below this size are grouped to one block: neighbourhoods reach over its edges, so
that small blocks read much twice."""

_MOST_BLOCK_BYTES = 2**34
"""Whether blocks of whole tiles are too large is a question of memory alone."""


def correct_background(zarr_url: str, options: BackgroundOptions) -> JobResult:
    """Take the local background of an image away.

    Args:
        zarr_url: of the image.
        options: everything else.

    Raises:
        ShadingError: one readable error; the source is as it was, and so is any earlier
            result. What was finished is continued by the same call.
    """
    earlier = completed_in_place(zarr_url, _TASK, options, _TYPES, BackgroundCounts)
    if earlier is not None:
        return earlier
    storage = options.storage_options
    return correct_image(zarr_url, storage, lambda image: prepare_background(image, options))


def prepare_background(image: MosaicImage, options: BackgroundOptions) -> Work:
    """Check everything that can be checked without reading a pixel.

    Raises:
        ShadingError: one error with all problems.
    """
    problems = Problems()
    history = steps_of(image.attributes())
    dtype = np.dtype(np.float32) if options.output_type == "float32" else image.dtype
    planned = problems.run(
        lambda: plan_output(image, options, dtype=dtype, companions=_kinds(options))
    )
    checked = problems.run(lambda: background_kernel(image, options, dtype))
    if options.save_noise and not options.method.maps_noise:
        problems.errors.append(
            ParameterError("`save_noise` needs the method tile_median; others have no noise map.")
        )
    for line in passed_over_in_method(options.method):
        logger.info("%s", line)
    refuse_common(options, _TASK, image.url, history, problems)
    output, kernel = problems.passed(planned), problems.passed(checked)
    companions = [
        target_of(image, companion_url(output.target.url, kind), options, np.dtype(np.float32))
        for kind in _kinds(options)
    ]
    plan = background_plan(image, output, kernel, companions, options)
    factors = noise_factors(image, kernel.methods)
    work = Work(
        task=_TASK,
        source_url=image.url,
        final_url=output.final_url,
        options=options,
        parts=(Part(plan, output.attributes, facts={"noise_factors": factors} if factors else {}),),
        source_states=(image.state(),),
        companions=_kinds(options),
        details={"zeros": list(kernel.look.rules), **_label_state(kernel)},
        replaces=image.url if options.overwrite_input else None,
        counted=BackgroundCounts,
        members=output.members,
        tell=_teller(image, kernel),
        history=history,
        types=_TYPES,
    )
    refuse_unfit(work, problems)
    workers = estimate_workers(box_bytes(image, 0), options)
    check_outside(image, kernel.layout, options.outside_tiles, workers)
    rehearse(work)
    return work


def background_plan(
    image: MosaicImage,
    output: OutputPlan,
    kernel: BackgroundKernel,
    companions: Sequence[TargetImage],
    options: BackgroundOptions,
) -> CorrectionPlan:
    """The plan, with the largest blocks that memory has room for.

    Blocks of whole tiles are the quickest. A run that is continued keeps the blocks it
    began with, for the names of blocks in its journal mean these.
    """
    plans = [
        CorrectionPlan(
            image,
            (output.target, *companions),
            output.final_url,
            kernel=kernel,
            least_pixels=max(1, BLOCK_BYTES // image.dtype.itemsize),
            align=align,
            most_block_bytes=_MOST_BLOCK_BYTES,
        )
        for align in kernel.regions.alignments(image)
    ]
    if not options.restart:
        begun = _blocks_begun(output.final_url, options.storage_options)
        for plan in plans:
            if list(plan.grid.boxes[0]) == begun:
                return plan
    limit = parse_memory(options.memory_limit)
    fitting = [plan for plan in plans if needed_memory(plan, 1) <= limit]
    if kernel.regions.local:
        workers = options.n_workers or available_cpus()
        room = [plan for plan in fitting if needed_memory(plan, workers) <= limit]
        return (room or fitting or plans[-1:])[0]
    return (fitting or plans[-1:])[0]


def _blocks_begun(final_url: str, storage: StorageOptions) -> list[int] | None:
    """The size of blocks of an unfinished run at this place, if there is one."""
    request = read_request(job_url(final_url), storage) or {}
    blocks = request.get("blocks")
    return blocks.get("") if isinstance(blocks, dict) else None


def _label_state(kernel: BackgroundKernel) -> Document:
    label = kernel.label
    if label is None:
        return {}
    state: Document = {"label_state": label.state()}
    if any(factor != 1 for factor in label.factors):
        state["label_factors"] = list(label.factors)
    return state


def _kinds(options: LocalBackgroundOptions) -> tuple[str, ...]:
    """The kinds of images written beside the result."""
    kinds = {"background": options.save_background, "noise": options.save_noise}
    return tuple(kind for kind, asked in kinds.items() if asked)


def background_kernel(
    image: MosaicImage,
    options: LocalBackgroundOptions,
    dtype: np.dtype[Any],
) -> BackgroundKernel:
    """Everything that the correction of a block needs.

    Raises:
        ShadingError: one error with all problems: a method that does not fit the image, a
            missing mask, a list of the wrong length.
    """
    per_tile = options.tiles == "tile" or (options.tiles == "auto" and not image.layout.is_single)
    height, width = image.levels[0].shape[-2:]
    layout = image.layout if per_tile else TileLayout.single((height, width))
    mask, size = options.mask, image.voxel_size_um
    label, threshold, dilation = None, None, 0
    problems = Problems()
    checked = problems.run(partial(methods_of, image, options, layout.tile_shape))
    if mask.kind != "none":
        pixel = (size["y"] * size["x"]) ** 0.5 if mask.dilation_unit == "micrometers" else 1
        dilation = round(mask.dilation / pixel)
    if mask.kind == "label":
        label = problems.run(partial(LabelImage.open, image, mask.label_name))
    if mask.kind == "threshold":
        threshold = mask.threshold
    methods = problems.passed(checked)
    heights = (remark_on_height(method, image.dtype) for method in methods)
    remarks = [] if label is None else label.remarks
    for remark in dict.fromkeys([*remarks, *filter(None, heights)]):
        logger.info("%s", remark)
    application = Application(
        mode=options.mode,
        weight=options.weight,
        output_offset=options.output_offset,
        reference=options.reference,
        light_background=options.light_background and np.issubdtype(dtype, np.integer),
    )
    return BackgroundKernel(
        axes=image.axes,
        layout=layout,
        methods=methods,
        correction=PlaneCorrection(application, dtype, threshold, dilation, options.add_noise_bias),
        look=zero_look(image, options.zero_is, layout),
        label=label,
        companions=_kinds(options),
        depth=image.axes.length("z", image.levels[0].shape),
        blank_outside=options.outside_tiles == "zero",
    )


def methods_of(
    image: MosaicImage, options: LocalBackgroundOptions, tile_shape: tuple[int, int]
) -> tuple[BackgroundMethod, ...]:
    """The method of each channel, checked against the tile.

    Raises:
        ParameterError: a list for channels of the wrong length.
        BackgroundError: a radius that does not fit.
    """
    size = image.voxel_size_um
    for name, numbers in options.method.per_channel.items():
        if len(numbers) != len(image.channels):
            raise ParameterError(
                f"{name} has {len(numbers)} numbers, but the image has {len(image.channels)} "
                f"channels ({', '.join(c.label for c in image.channels)})."
            )
    methods = []
    for channel in image.channels:
        method = options.method.in_pixels(
            (size["y"], size["x"]),
            channel.index,
            light_background=options.light_background,
            noise_map=options.save_noise,
        )
        check_fits(method, tile_shape)
        check_light(method, light_background=options.light_background)
        if method.depth_px and "z" not in image.axes:
            raise BackgroundError("A radius along z was given, but the image has no z axis.")
        # Parameters that contradict each other show on the smallest plane.
        plane = np.ones((_TRIAL_PX, _TRIAL_PX), image.dtype)
        method.background(plane if not method.depth_px else plane[None])
        methods.append(method)
    return tuple(methods)


def noise_factors(
    image: MosaicImage, methods: Sequence[BackgroundMethod]
) -> dict[str, dict[str, float]]:
    """For `gaussian`: noise of image - background over that of the image, by channel label."""
    factors = {c.label: m.noise_factor for c, m in zip(image.channels, methods, strict=True)}
    return {label: asdict(factor) for label, factor in factors.items() if factor is not None}


def _teller(image: MosaicImage, kernel: BackgroundKernel) -> Callable[[Counts], None]:
    """What says what the counts of an image mean."""
    labels = [channel.label for channel in image.channels]
    methods = dict(zip(labels, kernel.methods, strict=True))

    def tell(counts: Counts) -> None:
        for label, one in counts.items():
            cut = (one.clipped_low + one.clipped_high) / max(one.pixels - one.no_data, 1)
            logger.info("Channel %s: %.2f %% of the pixels were cut off", label, 100 * cut)
        # The counts of this kernel are all of its own kind.
        tell_masks(cast("Mapping[str, BackgroundCounts]", counts), methods, kernel.correction)

    return tell
