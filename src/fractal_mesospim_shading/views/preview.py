"""Background methods side by side on one plane, so that a person can choose by eye."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fractal_mesospim_shading.core.background import (
    METHODS,
    BackgroundMethod,
    make_method,
    method_named,
    method_of_radius,
    remark_on_height,
)
from fractal_mesospim_shading.core.correct import PixelCounts
from fractal_mesospim_shading.engine.progress import Progress
from fractal_mesospim_shading.engine.zero_look import about_blocks
from fractal_mesospim_shading.errors import BackgroundError, ParameterError
from fractal_mesospim_shading.images.labels import LabelImage
from fractal_mesospim_shading.images.source import PixelSource
from fractal_mesospim_shading.images.storage.places import StorageOptions
from fractal_mesospim_shading.local_background.job_kernel import background_kernel, for_channels
from fractal_mesospim_shading.local_background.planes import BackgroundCounts
from fractal_mesospim_shading.messages import counted, know_options, rendered
from fractal_mesospim_shading.options.background import LocalBackgroundOptions
from fractal_mesospim_shading.options.precedence import refuse_idle
from fractal_mesospim_shading.options.values import validated
from fractal_mesospim_shading.views.preview_figures import background_preview, write_picture
from fractal_mesospim_shading.views.preview_plane import (
    KeptPixels,
    PlaneFound,
    PlaneWanted,
    find_plane,
)

know_options("methods", "radius")

logger = logging.getLogger(__name__)

MethodText = str | Mapping[str, Any]
"""A method as a person gives it: `median:25`, JSON, or its parameters."""


def write_preview(
    source_url: str,
    output: str,
    *,
    methods: MethodText | Sequence[MethodText] | None = None,
    radius: float | str | None = None,
    channel: str | int | None = None,
    tile: int | None = None,
    z: int | None = None,
    mosaic: str | None = None,
    storage_options: StorageOptions = None,
    **options: Any,
) -> str:
    """Write a picture of several methods on one plane of one tile, as the task corrects it.

    A method that does not fit the plane is left out, which is said in the picture and as a
    warning.

    Args:
        source_url: of the image, or of an acquisition, of which a plane of one stack is shown.
        output: PNG file to write.
        methods: names, each with a radius after a colon if wanted (for `constant` with its
            counts), in pixels or as `15um`; or all their parameters. All methods where None.
        radius: of methods that name none, the same; for `tile_median` the side of the squares
            is four times as large.
        channel: label, wavelength or index; None for the first.
        tile: number; None for one in the middle of the mosaic.
        z: plane; None for the middle.
        mosaic: which one of an acquisition with several (angles, sides), as `info` names it.
        storage_options: for a remote address.
        options: of the background task: mask, mode, weight, zeros, and so on.

    Returns:
        The file written.

    Raises:
        ParameterError: a channel, mosaic or plane that does not exist, or a wrong option.
        BackgroundError: a method that does not exist, or none that fits the plane.
        LayoutError: a tile that does not exist.
    """
    _check_numbers(tile=tile, z=z)
    several = isinstance(methods, Sequence) and not isinstance(methods, str)
    named: Any = methods if several or methods is None else [methods]
    wished = [_wished(one, radius, options) for one in named or METHODS]
    wanted, table = PlaneWanted(channel, tile, z, mosaic), wished[0].input_roi_table
    found = find_plane(source_url, wanted, storage_options, table)
    logger.info("Comparing %s: %s", counted(len(wished), "method"), found.name)
    pixels = KeptPixels(found.image)
    results, notes = _compared(found, wished, pixels)
    plane = pixels.read(0, found.box)
    picture = background_preview(
        plane.reshape(plane.shape[-2:]),
        results,
        title=found.name,
        pixel_size_um=found.image.voxel_size_um["x"],
        note="\n".join(notes),
    )
    return write_picture(output, picture)


@dataclass(frozen=True)
class _Shown:
    """What the task makes of a plane with one method."""

    method: BackgroundMethod
    background: NDArray[Any]
    result: NDArray[Any]
    counts: BackgroundCounts


def _compared(
    found: PlaneFound, wished: Sequence[LocalBackgroundOptions], pixels: PixelSource
) -> tuple[dict[str, tuple[NDArray[Any], NDArray[Any]]], list[str]]:
    """Background and result of each method that fits, and what has to be said of the others."""
    results: dict[str, tuple[NDArray[Any], NDArray[Any]]] = {}
    refused: list[BackgroundError] = []
    notes: list[str] = []
    blocks = 0
    with Progress(len(wished), doing="Comparing methods", unit="method") as progress:
        for options in wished:
            try:
                one = _shown(found, options, pixels)
            except BackgroundError as error:
                refused.append(error)
                notes.append(f"Left out: {error}")
                logger.warning("%s It is left out of the picture.", error)
            else:
                results[one.method.title] = (one.background, one.result)
                notes += _notes(one, found.image.dtype)
                blocks = one.counts.zero_blocks
            progress.advance()
    if not results:
        raise refused[0]
    if blocks:
        logger.info("%s", about_blocks(blocks))
        notes.append(rendered(about_blocks(blocks)))
    return results, notes


def _shown(found: PlaneFound, options: LocalBackgroundOptions, pixels: PixelSource) -> _Shown:
    """The plane as the task corrects it.

    Raises:
        BackgroundError: the method does not fit.
    """
    image = found.image
    method = for_channels(options.method, found.labels, found.own)
    dtype = image.dtype if options.output_type == "source" else np.dtype(np.float32)
    asked = options.model_copy(update={"method": method, "save_background": True})
    kernel = background_kernel(image, asked, dtype, found.held)
    mask = options.mask
    label = LabelImage.open(image, mask.label_name) if mask.kind == "label" else None
    logger.info("%s", kernel.methods[found.channel].title)
    done = replace(kernel, label=label).process(pixels, found.box)
    result, background = (made.reshape(made.shape[-2:]) for made in done.pixels[:2])
    counts: PixelCounts = done.counts[found.channel]
    # The counts of this kernel are all of its own kind.
    own = BackgroundCounts(**vars(counts))
    return _Shown(kernel.methods[found.channel], background, result, own)


def _notes(one: _Shown, dtype: np.dtype[Any]) -> list[str]:
    """What has to be said of a method."""
    notes = []
    remark = remark_on_height(one.method, dtype)
    if remark is not None:
        logger.info("%s", remark)
        notes.append(f"{one.method.title}: its height is in counts, see the log.")
    if one.counts.no_data == one.counts.pixels:
        notes.append(f"{one.method.title}: the plane holds no data; it is as it was.")
    if one.counts.unestimated:
        left = one.counts.most_dilation if one.counts.eaten else None
        why = "" if left is None else f" (a dilation of up to {left} px leaves some)"
        notes.append(f"{one.method.title}: no pixel to estimate from{why}; it is as it was.")
    return notes


def _check_numbers(**numbers: int | None) -> None:
    """Refuse what is no whole number.

    Raises:
        ParameterError: with the name and the value.
    """
    for name, number in numbers.items():
        if number is not None and not isinstance(number, int | np.integer):
            raise ParameterError(f"`{name}` is {number!r}; expected a whole number.")


def _wished(
    method: MethodText, radius: float | str | None, options: Mapping[str, Any]
) -> LocalBackgroundOptions:
    """What the task would be asked for; a method that names no radius gets the common one."""
    if isinstance(method, str) and not method.lstrip().startswith("{"):
        name = method_named(method.partition(":")[0])
        if name not in METHODS:
            make_method(name)
        if radius is not None and ":" not in method and METHODS[name].short_in_radii:
            method = method_of_radius(method, str(radius))
    elif not isinstance(method, str | Mapping):
        raise ParameterError(f"{method!r}: expected the name of a method, such as median:25.")
    wished = validated(LocalBackgroundOptions, {**options, "method": method})
    refuse_idle(wished)
    return wished
