"""Flat-field and local background in one reading and one writing.

The background kernel reads a `CorrectedImage` in place of the source, so that its numbers are those
of the background task on a float32 result of the flat-field task, whatever the blocks.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from math import prod

from fractal_mesospim_shading.core.correct import PixelCounts
from fractal_mesospim_shading.engine.plan import Processed
from fractal_mesospim_shading.errors import ParameterError, Problems
from fractal_mesospim_shading.flatfield.corrected import DTYPE, CorrectedImage
from fractal_mesospim_shading.flatfield.kernel import FlatfieldKernel
from fractal_mesospim_shading.images.arrays.documents import Box, StoredArray
from fractal_mesospim_shading.images.mosaic import MosaicImage
from fractal_mesospim_shading.images.native.collection import TileCollection
from fractal_mesospim_shading.images.native.mosaic import NativeMosaic
from fractal_mesospim_shading.images.source import MultitileImage
from fractal_mesospim_shading.jobs.background_parts import (
    TASK,
    TYPES,
    GroupKernels,
    background_plan,
    blocks_begun,
    image_kernel,
    label_states,
    noise_facts,
    tell_remarks,
    teller,
)
from fractal_mesospim_shading.jobs.following import Following
from fractal_mesospim_shading.jobs.steps import SecondStep
from fractal_mesospim_shading.jobs.work import Part, Work
from fractal_mesospim_shading.local_background.job_kernel import background_kernel, companion_kinds
from fractal_mesospim_shading.local_background.kernel import BackgroundKernel
from fractal_mesospim_shading.local_background.planes import BackgroundCounts
from fractal_mesospim_shading.local_background.regions import Regions
from fractal_mesospim_shading.options.background import BackgroundOptions, BackgroundStep
from fractal_mesospim_shading.options.base import ExecutionOptions, parameters_of
from fractal_mesospim_shading.options.flatfield import FlatfieldOptions, ImportOptions

_KERNELS_BYTES = 64 * 2**20
"""Libraries and kernels of the second step, beside those of one."""


@dataclass(frozen=True)
class OnePassKernel:
    """Flat-field correction, and the local background of what it gives.

    Attributes:
        background: the second step.
        shared_bytes: what all blocks of a process share: flat-field and dark-field of each model,
            and what two steps take to load.
        flatfield: the first step; None until the models are known.
    """

    background: BackgroundKernel
    shared_bytes: int
    flatfield: FlatfieldKernel | None = None

    @property
    def regions(self) -> Regions:
        """What has to be read for a block."""
        return self.background.regions

    @property
    def besides(self) -> Sequence[StoredArray]:
        """The label image."""
        return self.background.besides

    @property
    def companions(self) -> Sequence[str]:
        """Those of the second step."""
        return self.background.companions

    @property
    def zero_is_no_data(self) -> Mapping[int, bool]:
        """By channel, for the contrast windows; what is not known yet is settled at the end."""
        rules = self.background.look.rules
        return {channel: rule == "no_data" for channel, rule in enumerate(rules)}

    def working_bytes(self, block: Sequence[int], source: MultitileImage) -> int:
        """What a block needs beside the pixels that it writes."""
        background, grain = self.background, source.read_grain()
        regions = background.regions
        # The raw pixels of what is read, with its gains and shifts; and either step may look at
        # the zeros of a tile.
        raw = regions.pixels_read(block, DTYPE, grain) * source.dtype.itemsize
        looks = 2 * background.look.working_bytes(source)
        return (
            raw
            + 8 * regions.largest_area(block)
            + looks
            + background.reading_bytes(block, DTYPE, grain)
        )

    def process(self, source: MultitileImage, box: Box) -> Processed:
        if self.flatfield is None:
            raise RuntimeError("The kernel has no models yet; estimate or load them first.")
        between = CorrectedImage(source, self.flatfield, box)
        look = self.background.look
        if "margins" in look.rules:
            look = replace(look, held=between.holds_no_data)
        done = replace(self.background, look=look).process(between, box)
        return replace(done, noise=between.noise, before=between.counts)


@dataclass(frozen=True)
class BackgroundFollowing(Following):
    """A local background that is taken away in the same pass.

    Attributes:
        step: what the background task would be asked for.
    """

    step: BackgroundOptions = field(default_factory=BackgroundOptions)

    @classmethod
    def of(cls, options: FlatfieldOptions | ImportOptions) -> BackgroundFollowing:
        """What was asked for."""
        values = {**dict(options), **dict(options.background or ())}
        shared = (
            "zero_is",
            "input_roi_table",
            "outside_tiles",
            "restart",
            *ExecutionOptions.model_fields,
        )
        names = [n for n in (*BackgroundStep.model_fields, *shared) if n in values]
        step = BackgroundOptions(**{name: values[name] for name in names})
        return cls(companion_kinds(step), step.output_type == "float32", step)

    @property
    def tasks(self) -> tuple[str, ...]:
        """Those that do the same by themselves."""
        return (TASK,)

    @property
    def types(self) -> dict[str, bool]:
        """What it adds to those of the result in Fractal's image list."""
        return TYPES

    @property
    def counted(self) -> tuple[type[PixelCounts], ...]:
        """Kind of the counts of each step."""
        return (PixelCounts, BackgroundCounts)

    def kernel(self, image: MosaicImage, problems: Problems) -> BackgroundKernel | None:
        """The second step of an image; None where something is wrong with it."""
        kernel = image_kernel(image, self.step, self.passed_on(image), problems)
        if kernel is not None:
            tell_remarks([kernel], image.dtype, self.step)
        return kernel

    def mosaic_kernel(self, mosaic: NativeMosaic, problems: Problems) -> BackgroundKernel | None:
        """The second step of an import; None where something is wrong with it."""
        with problems.collected():
            _refuse_in_imports(self.step)
        step, held = self.step, self.passed_on(mosaic)
        kernel = problems.run(
            lambda: background_kernel(mosaic, step, self.dtype or mosaic.dtype, held)
        )
        if kernel is not None:
            tell_remarks([kernel], mosaic.dtype, self.step)
        return kernel

    def group_kernels(
        self, collection: TileCollection, mosaics: Sequence[NativeMosaic], problems: Problems
    ) -> GroupKernels | None:
        """The second steps of the images of a container."""
        return GroupKernels(collection, mosaics, self.step, problems)

    def passed_on(self, image: MultitileImage) -> dict[str, bool]:
        """What a background correction is told of zeros: some may be no data, as they turn up."""
        auto = self.step.zero_is == "auto"
        return {channel.label: True for channel in image.channels} if auto else {}

    def added_to(self, work: Work, kernels: Mapping[str, BackgroundKernel] | None) -> Work:
        """The work of a flat-field correction with the second step behind it."""
        if kernels is None:
            return work
        begun = blocks_begun(work.final_url, self.step)
        parts = tuple(
            _both(part, kernels[part.name], self.step, begun.get(part.name)) for part in work.parts
        )
        done = [(part, kernels[part.name]) for part in parts]
        then = SecondStep(
            TASK,
            parameters_of(self.step),
            BackgroundCounts,
            teller(done),
            self.step.zero_is == "auto",
            {
                part.prefix + part.labels.get(channel.label, channel.label): method.title
                for part, kernel in done
                for channel, method in zip(part.plan.source.channels, kernel.methods, strict=True)
            },
            self.step.output_offset,
        )
        return replace(
            work,
            parts=parts,
            then=then,
            companions=self.kinds,
            details={**work.details, **label_states(kernels)},
            types={**work.types, **self.types},
        )


def _refuse_in_imports(step: BackgroundOptions) -> None:
    """Refuse what takes a finished image.

    Raises:
        ParameterError: a mask of labels, or images beside the result.
    """
    lines = []
    if step.mask.kind == "label":
        lines.append(f"a mask of the label image '{step.mask.label_name}' (stacks have none yet)")
    lines += [f"save_{kind}" for kind in companion_kinds(step)]
    if lines:
        raise ParameterError(
            f"`background` of an import can do nothing with {' or '.join(lines)}. Leave it out, "
            "or import first and correct the background of the image."
        )


def _both(
    part: Part,
    kernel: BackgroundKernel,
    options: BackgroundOptions,
    begun: Sequence[int] | None,
) -> Part:
    """A part of a flat-field correction with the second step behind the first."""
    image = part.plan.source
    shared = 2 * DTYPE.itemsize * len(image.model_groups) * prod(image.layout.tile_shape)
    both = OnePassKernel(kernel, shared + _KERNELS_BYTES)
    labels = [part.labels.get(channel.label, channel.label) for channel in image.channels]
    return replace(
        part,
        plan=background_plan(part.plan, both, options, begun, DTYPE),
        joined=partial(_joined, both),
        facts_then={**part.facts_then, **noise_facts(labels, kernel)},
    )


def _joined(both: OnePassKernel, first: FlatfieldKernel) -> OnePassKernel:
    return replace(both, flatfield=first)
