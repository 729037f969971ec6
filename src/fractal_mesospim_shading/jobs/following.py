"""What follows on a flat-field correction in the same pass: nothing, or a local background."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from fractal_mesospim_shading.core.correct import PixelCounts
from fractal_mesospim_shading.errors import Problems
from fractal_mesospim_shading.images.source import MultitileImage
from fractal_mesospim_shading.jobs.work import Part, Work
from fractal_mesospim_shading.options.background import BackgroundOptions
from fractal_mesospim_shading.options.flatfield import FlatfieldOptions, ImportOptions
from fractal_mesospim_shading.options.precedence import given

if TYPE_CHECKING:
    from fractal_mesospim_shading.images.mosaic import MosaicImage
    from fractal_mesospim_shading.images.native.collection import TileCollection
    from fractal_mesospim_shading.images.native.mosaic import NativeMosaic
    from fractal_mesospim_shading.jobs.background_parts import GroupKernels
    from fractal_mesospim_shading.local_background.kernel import BackgroundKernel


@dataclass(frozen=True)
class Following:
    """What follows on a flat-field correction, and what the result looks like: here nothing.

    Attributes:
        kinds: of the images written beside the result.
        floats: whether the result is float32.
    """

    kinds: tuple[str, ...] = ()
    floats: bool = False

    @property
    def tasks(self) -> tuple[str, ...]:
        """Those that do the same by themselves."""
        return ()

    @property
    def types(self) -> dict[str, bool]:
        """What it adds to those of the result in Fractal's image list."""
        return {}

    @property
    def counted(self) -> tuple[type[PixelCounts], ...]:
        """Kind of the counts of each step."""
        return (PixelCounts,)

    @property
    def dtype(self) -> np.dtype[Any] | None:
        """The type of the result; None for that of the source."""
        return np.dtype(np.float32) if self.floats else None

    def kernel(self, image: MosaicImage, problems: Problems) -> BackgroundKernel | None:
        """The second step of an image; None where there is none, or something is wrong with it."""
        return None

    def mosaic_kernel(self, mosaic: NativeMosaic, problems: Problems) -> BackgroundKernel | None:
        """The second step of an import; None where there is none, or something is wrong with it."""
        return None

    def group_kernels(
        self, collection: TileCollection, mosaics: Sequence[NativeMosaic], problems: Problems
    ) -> GroupKernels | None:
        """The second steps of the images of a container; None where there are none."""
        return None

    def passed_on(self, image: MultitileImage) -> dict[str, bool]:
        """What the second step is told of zeros: channels some of whose zeros may be no data."""
        return {}

    def added_to(self, work: Work, kernels: Mapping[str, BackgroundKernel] | None) -> Work:
        """The work of a flat-field correction with the second step behind it.

        Args:
            work: with targets of the type of the result, and those of the images beside it.
            kernels: of the second step, by the name of the part; None where there is none, or
                something is wrong with it.
        """
        return replace(work, parts=tuple(map(_in_float32, work.parts))) if self.floats else work


def following(options: FlatfieldOptions | ImportOptions) -> Following:
    """What was asked for; what takes a background away is loaded only then."""
    if options.background is None:
        return Following(floats=options.output_type == "float32")
    from fractal_mesospim_shading.jobs.one_pass import BackgroundFollowing

    return BackgroundFollowing.of(options)


def named(options: FlatfieldOptions) -> FlatfieldOptions:
    """The options with the name that a result would have after both tasks, where none is given."""
    own = "output_image_name"
    if options.background is None or options.overwrite_input or given(options, (own,)):
        return options
    second = str(BackgroundOptions.model_fields[own].default)
    name = second.replace("{image_name}", options.output_image_name)
    return options.model_copy(update={own: name})


def _in_float32(part: Part) -> Part:
    """A part of a flat-field correction whose result is float32."""
    from fractal_mesospim_shading.flatfield.corrected import Float32Kernel

    kernel = Float32Kernel.of(part.plan.source)
    return replace(
        part,
        plan=replace(part.plan, kernel=kernel),
        joined=lambda flatfield: replace(kernel, flatfield=flatfield),
    )
