"""Local background correction of an image: its checks, its kernel, its story."""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from fractal_mesospim_shading.background_params import (
    BackgroundOptions,
    LabelMask,
    LocalBackgroundOptions,
    ThresholdMask,
    method_parameters,
)
from fractal_mesospim_shading.compute import (
    available_cpus,
    needed_memory,
    parse_memory,
    resources,
    run_guarded,
)
from fractal_mesospim_shading.core.background import BackgroundMethod, check_fits, make_method
from fractal_mesospim_shading.core.background.apply import Application
from fractal_mesospim_shading.core.correct import PixelCounts
from fractal_mesospim_shading.core.layout import TileLayout
from fractal_mesospim_shading.errors import BackgroundError, ParameterError
from fractal_mesospim_shading.finishing import complete, provenance, totals
from fractal_mesospim_shading.images import places
from fractal_mesospim_shading.images.carrying import copy_tables_and_labels
from fractal_mesospim_shading.images.documents import document_of, fill_value
from fractal_mesospim_shading.images.labels import LabelImage
from fractal_mesospim_shading.images.mosaic import MosaicImage
from fractal_mesospim_shading.images.output import companion_url, refuse_existing, target_levels
from fractal_mesospim_shading.images.stores import normalise_url
from fractal_mesospim_shading.images.target import TargetImage
from fractal_mesospim_shading.job import Job, job_url, restore_replaced
from fractal_mesospim_shading.local_kernel import BackgroundKernel
from fractal_mesospim_shading.params import parameters_of
from fractal_mesospim_shading.plan import CorrectionPlan
from fractal_mesospim_shading.plane_correction import BackgroundCounts, PlaneCorrection
from fractal_mesospim_shading.preparation import (
    OutputPlan,
    Problems,
    array_state,
    make_request,
    marked,
    open_source,
    options_of,
    plan_output,
    refuse_full_disk,
    refuse_second_replacement,
)
from fractal_mesospim_shading.running import run

logger = logging.getLogger(__name__)

_TASK = "correct_background"

_TRIAL_PX = 8

BLOCK_BYTES = 32 * 2**20
"""Write units below this size are grouped to one block: neighbourhoods reach over its edges, so
that small blocks read much twice."""

_MOST_BLOCK_BYTES = 2**34
"""Whether blocks of whole tiles are too large is a question of memory alone."""


@dataclass(frozen=True)
class BackgroundResultImages:
    """What a background correction left.

    Attributes:
        image_url: address of the corrected image.
        source_url: address of the image it was made from.
        companions: addresses of the background and noise images, by kind.
        counts: by channel label.
        noise_factors: noise of the result over that of the image, by channel label, for
            `gaussian`: exact, and as smlmlp publishes it.
    """

    image_url: str
    source_url: str
    companions: dict[str, str]
    counts: dict[str, PixelCounts]
    noise_factors: dict[str, dict[str, float]]


@dataclass(frozen=True)
class BackgroundWork:
    """A background correction, checked, with no pixel read yet."""

    image: MosaicImage
    options: BackgroundOptions
    output: OutputPlan
    kernel: BackgroundKernel
    companions: dict[str, TargetImage]

    @cached_property
    def plan(self) -> CorrectionPlan:
        """The plan, with the largest blocks that memory has room for.

        Blocks of whole tiles are the quickest. A run that is continued keeps the blocks it
        began with, for the names of blocks in its journal mean these.
        """
        plans = [self._plan(align) for align in self.kernel.regions.alignments(self.image)]
        begun = _blocks_begun(self.output.final_url, self.output.target.storage_options)
        for plan in plans:
            if not self.options.restart and list(plan.grid.boxes[0]) == begun:
                return plan
        limit = parse_memory(self.options.memory_limit)
        fitting = [plan for plan in plans if needed_memory(plan, 1) <= limit]
        if self.kernel.regions.local:
            workers = self.options.n_workers or available_cpus()
            room = [plan for plan in fitting if needed_memory(plan, workers) <= limit]
            return (room or fitting or plans[-1:])[0]
        return (fitting or plans[-1:])[0]

    def _plan(self, align: tuple[int, ...]) -> CorrectionPlan:
        return CorrectionPlan(
            self.image,
            (self.output.target, *self.companions.values()),
            self.output.final_url,
            kernel=self.kernel,
            wish=max(1, BLOCK_BYTES // self.image.dtype.itemsize),
            align=align,
            most_block_bytes=_MOST_BLOCK_BYTES,
        )

    def request(self) -> dict[str, Any]:
        """What a continued run must match."""
        details: dict[str, Any] = {
            "parameters": parameters_of(self.options),
            "blocks": list(self.plan.grid.boxes[0]),
        }
        label = self.kernel.label
        if label is not None:
            details["label_state"] = array_state(label.url, label.path, label.array())
        return make_request(_TASK, self.image, self.output, details)


def _blocks_begun(final_url: str, storage: Any) -> Any:
    """The size of blocks of an unfinished run at this place, if there is one."""
    request = places.read_bytes(places.join(job_url(final_url), "request.json"), storage)
    return None if request is None else json.loads(request).get("blocks")


def correct_background(zarr_url: str, options: BackgroundOptions) -> BackgroundResultImages:
    """Take the local background of an image away.

    Args:
        zarr_url: of the image.
        options: everything else.

    Raises:
        ShadingError: one readable error; the source is as it was, and so is any earlier
            result. What was finished is continued by the same call.
    """
    started = time.monotonic()
    restore_replaced(normalise_url(zarr_url))
    image = open_source(zarr_url, options)
    work = prepare_background(image, options)
    target, storage = work.output.target, options_of(options)
    with (
        run_guarded(),
        Job(
            work.output.final_url, work.request(), storage, companions=tuple(work.companions)
        ).start(restart=options.restart) as job,
    ):
        for written in work.plan.targets:
            written.create(marked(work.output.attributes, {}, complete=False))
        run(work.plan, options, job)
        counts, histograms = totals(image.channels, job.records, counted=BackgroundCounts)
        _report(counts)
        copy_tables_and_labels(image.url, target.url, storage, storage)
        parameters = parameters_of(options)
        factors = noise_factors(image, work.kernel.methods)
        mark = provenance(_TASK, parameters, {}, counts)
        if factors:
            mark["noise_factors"] = factors
        for kind, companion in work.companions.items():
            own = totals(image.channels, job.records, f"channels_{kind}", BackgroundCounts)[1]
            note = {**provenance(_TASK, parameters, {}, {}), "content": kind}
            complete(companion, work.output.attributes, image.channels, own, note)
        complete(target, work.output.attributes, image.channels, histograms, mark)
        url = job.finish(
            replace=image.url if options.overwrite_input else None, overwrite=options.overwrite
        )
    logger.info("Done in %.0f s: %s", time.monotonic() - started, url)
    companions = {kind: job.companion_url(kind) for kind in work.companions}
    return BackgroundResultImages(url, image.url, companions, counts, factors)


def image_list_updates(result: BackgroundResultImages) -> list[dict[str, Any]]:
    """The entry of a corrected image for Fractal's image list."""
    update: dict[str, Any] = {
        "zarr_url": result.image_url,
        "types": {"background_corrected": True},
    }
    if result.image_url != result.source_url:
        update["origin"] = result.source_url
    return [update]


def prepare_background(image: MosaicImage, options: BackgroundOptions) -> BackgroundWork:
    """Check everything that can be checked without reading a pixel.

    Raises:
        ShadingError: one error with all problems.
    """
    problems = Problems()
    dtype = np.dtype(np.float32) if options.output_type == "float32" else image.dtype
    output = problems.run(
        lambda: plan_output(
            image,
            options,
            name=options.output_image_name,
            overwrite_input=options.overwrite_input,
            dtype=dtype,
        )
    )
    # Raw 0 stands for missing tiles and chunks only where these read as 0.
    zero = fill_value(document_of(image.array(0))) == 0
    kernel = problems.run(lambda: background_kernel(image, options, dtype, zero_is_no_data=zero))
    if options.save_noise and options.method.method != "tile_median":
        problems.errors.append(
            ParameterError("`save_noise` needs the method tile_median; others have no noise map.")
        )
    companions: dict[str, TargetImage] = {}
    if output is not None:
        companions = _companions(image, options, output)
        for kind in companions:
            with problems.collected():
                refuse_existing(
                    companion_url(output.final_url, kind),
                    options_of(options),
                    overwrite=options.overwrite,
                )
        with problems.collected():
            refuse_full_disk(image, output, companions.values())
    with problems.collected():
        refuse_second_replacement(_TASK, image, overwrite_input=options.overwrite_input)
    problems.raise_all()
    if output is None or kernel is None:
        raise RuntimeError("a failed check left no error")
    work = BackgroundWork(image, options, output, kernel, companions)
    resources(work.plan, options)
    return work


def _companions(
    image: MosaicImage, options: BackgroundOptions, output: OutputPlan
) -> dict[str, TargetImage]:
    """The images written beside the result: background, noise."""
    kinds = []
    if options.save_background:
        kinds.append("background")
    if options.save_noise:
        kinds.append("noise")
    found = {}
    for kind in kinds:
        levels = target_levels(
            image.levels,
            [document_of(image.array(level)) for level in range(len(image.levels))],
            zarr_format=output.target.zarr_format,
            axes=image.axes,
            shards=options.output_shards,
            dtype=np.dtype(np.float32),
        )
        url = companion_url(output.target.url, kind)
        found[kind] = TargetImage(url, output.target.zarr_format, levels, options_of(options))
    return found


def background_kernel(
    image: MosaicImage,
    options: LocalBackgroundOptions,
    dtype: np.dtype[Any],
    *,
    zero_is_no_data: bool,
) -> BackgroundKernel:
    """Everything that the correction of a block needs.

    Raises:
        ShadingError: one error with all problems: a method that does not fit the image, a
            mask that is not there, a list of the wrong length.
    """
    per_tile = options.tiles == "tile" or (options.tiles == "auto" and not image.layout.is_single)
    height, width = image.levels[0].shape[-2:]
    layout = image.layout if per_tile else TileLayout.single((height, width))
    mask, threshold, dilation = options.mask, None, 0
    label: LabelImage | None = None
    size = image.voxel_size_um
    problems = Problems()
    methods = problems.run(lambda: methods_of(image, options, layout.tile_shape))
    if isinstance(mask, LabelMask | ThresholdMask):
        pixel = (size["y"] * size["x"]) ** 0.5
        dilation = round(mask.dilation / (pixel if mask.dilation_unit == "micrometers" else 1))
    if isinstance(mask, LabelMask):
        name = mask.label_name
        label = problems.run(lambda: LabelImage.open(image, name))
    if isinstance(mask, ThresholdMask):
        threshold = mask.threshold
    problems.raise_all()
    if methods is None:
        raise RuntimeError("a failed check left no error")
    application = Application(
        mode=options.mode,
        weight=options.weight,
        output_offset=options.output_offset,
        reference=options.reference,
        light_background=options.light_background and np.issubdtype(dtype, np.integer),
    )
    kinds = {
        "background": getattr(options, "save_background", False),
        "noise": getattr(options, "save_noise", False),
    }
    return BackgroundKernel(
        axes=image.axes,
        layout=layout,
        methods=methods,
        correction=PlaneCorrection(
            application, dtype, zero_is_no_data, threshold, dilation, options.add_noise_bias
        ),
        label=label,
        companions=tuple(kind for kind, wanted in kinds.items() if wanted),
        depth=image.levels[0].shape[image.axes.index("z")] if "z" in image.axes else 1,
    )


def methods_of(
    image: MosaicImage, options: LocalBackgroundOptions, tile_shape: tuple[int, int]
) -> tuple[BackgroundMethod, ...]:
    """The method of each channel, checked against the tile.

    Raises:
        ParameterError: a list for channels of the wrong length.
        BackgroundError: a radius that does not fit.
    """
    model: Any = options.method
    size = image.voxel_size_um
    for name in ("radius_per_channel", "value_per_channel"):
        given = getattr(model, name, None)
        if given is not None and len(given) != len(image.channels):
            raise ParameterError(
                f"{name} has {len(given)} numbers, but the image has {len(image.channels)} "
                f"channels ({', '.join(c.label for c in image.channels)})."
            )
    methods = []
    for channel in image.channels:
        name, parameters = method_parameters(
            model, (size["y"], size["x"]), channel.index, options.light_background
        )
        if name == "tile_median" and getattr(options, "save_noise", False):
            parameters["noise_map"] = True
        method = make_method(name, **parameters)
        check_fits(method, tile_shape)
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
    found = {}
    for channel, method in zip(image.channels, methods, strict=True):
        factor = getattr(method, "noise_factor", None)
        if factor is not None:
            found[channel.label] = {"exact": factor.exact, "published": factor.published}
    return found


def _report(counts: Mapping[str, PixelCounts]) -> None:
    for label, found in counts.items():
        clipped = (found.clipped_low + found.clipped_high) / max(found.pixels - found.no_data, 1)
        logger.info("Channel %s: %.2f %% of the pixels were cut off", label, 100 * clipped)
        if isinstance(found, BackgroundCounts) and found.unestimated:
            logger.warning(
                "Channel %s: %d planes of tiles had no pixel outside of the mask; they passed "
                "through unchanged. Check the mask.",
                label,
                found.unestimated,
            )
