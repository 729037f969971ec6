"""The kernel of one image from what was asked for: methods of its channels, objects, zeros."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

import numpy as np

from fractal_mesospim_shading.core.background import (
    BackgroundMethod,
    check_fits,
    check_light,
    remark_on_height,
)
from fractal_mesospim_shading.core.background.apply import Application
from fractal_mesospim_shading.core.layout import TileLayout
from fractal_mesospim_shading.engine.zero_look import zero_look
from fractal_mesospim_shading.errors import BackgroundError, ParameterError
from fractal_mesospim_shading.images.source import MultitileImage
from fractal_mesospim_shading.local_background.kernel import BackgroundKernel
from fractal_mesospim_shading.local_background.planes import PlaneCorrection
from fractal_mesospim_shading.options.background import LocalBackgroundOptions

_TRIAL_PX = 8


def background_kernel(
    image: MultitileImage,
    options: LocalBackgroundOptions,
    dtype: np.dtype[Any],
    held: Mapping[str, bool] | None = None,
) -> BackgroundKernel:
    """Everything that the correction of a block of an image needs, but the label image of a mask.

    Args:
        image: of any kind.
        options: what was asked for.
        dtype: of the result: uint8, uint16 or float32.
        held: by channel label, whether the image holds pixels without data, where that is known.

    Raises:
        ParameterError: a list for channels of the wrong length.
        BackgroundError: a method that does not fit the image.
    """
    per_tile = options.tiles == "tile" or (options.tiles == "auto" and not image.layout.is_single)
    height, width = image.levels[0].shape[-2:]
    layout = image.layout if per_tile else TileLayout.single((height, width))
    return BackgroundKernel(
        axes=image.axes,
        layout=layout,
        methods=methods_of(image, options, layout.tile_shape),
        correction=plane_correction(image, options, dtype),
        look=zero_look(image, options.zero_is, layout, held),
        label=None,
        companions=companion_kinds(options),
        depth=image.axes.length("z", image.levels[0].shape),
        blank_outside=options.outside_tiles == "zero",
    )


def companion_kinds(options: LocalBackgroundOptions) -> tuple[str, ...]:
    """The kinds of images written beside the result."""
    kinds = {"background": options.save_background, "noise": options.save_noise}
    return tuple(kind for kind, asked in kinds.items() if asked)


def plane_correction(
    image: MultitileImage, options: LocalBackgroundOptions, dtype: np.dtype[Any]
) -> PlaneCorrection:
    """What is done to each plane, whatever the method of its channel."""
    mask, size = options.mask, image.voxel_size_um
    dilation = 0
    if mask.kind != "none":
        pixel = (size["y"] * size["x"]) ** 0.5 if mask.dilation_unit == "micrometers" else 1
        dilation = round(mask.dilation / pixel)
    application = Application(
        mode=options.mode,
        weight=options.weight,
        output_offset=options.output_offset,
        reference=options.reference,
        light_background=options.light_background and np.issubdtype(dtype, np.integer),
    )
    threshold = mask.threshold if mask.kind == "threshold" else None
    return PlaneCorrection(application, dtype, threshold, dilation, options.add_noise_bias)


def methods_of(
    image: MultitileImage, options: LocalBackgroundOptions, tile_shape: tuple[int, int]
) -> tuple[BackgroundMethod, ...]:
    """The method of each channel, checked against the tile.

    Raises:
        ParameterError: a list for channels of the wrong length.
        BackgroundError: a radius that does not fit.
    """
    size, labels = image.voxel_size_um, [channel.label for channel in image.channels]
    given = for_channels(options.method, labels, range(len(labels)))
    methods = []
    for channel in image.channels:
        method = given.in_pixels(
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


def for_channels(
    method: BackgroundMethod, labels: Sequence[str], chosen: Sequence[int]
) -> BackgroundMethod:
    """The same method for an image with some of the channels that its lists are given for.

    Args:
        method: as it was asked for.
        labels: of the channels that it was asked for.
        chosen: those that the image has, in its order.

    Raises:
        ParameterError: a list of another length.
    """
    lists: dict[str, list[float]] = {}
    for name, numbers in method.per_channel.items():
        if len(numbers) != len(labels):
            raise ParameterError(
                f"{name} has {len(numbers)} numbers, but the image has {len(labels)} channels "
                f"({', '.join(labels)})."
            )
        lists[name] = [numbers[channel] for channel in chosen]
    return method.model_copy(update=lists)


def noise_factors(
    labels: Sequence[str], methods: Sequence[BackgroundMethod]
) -> dict[str, dict[str, float]]:
    """For `gaussian`: noise of image - background over that of the image, by channel label."""
    factors = {label: m.noise_factor for label, m in zip(labels, methods, strict=True)}
    return {label: asdict(factor) for label, factor in factors.items() if factor is not None}


def remarks_on(kernel: BackgroundKernel, dtype: np.dtype[Any]) -> list[str]:
    """What a person should know of the label image and the methods of a kernel.

    Args:
        kernel: of an image.
        dtype: of its pixels.
    """
    heights = (remark_on_height(method, dtype) for method in kernel.methods)
    remarks = [] if kernel.label is None else kernel.label.remarks
    return list(dict.fromkeys([*remarks, *filter(None, heights)]))
