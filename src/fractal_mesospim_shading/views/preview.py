"""Background methods side by side on one plane, so that a person can choose by eye."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from fractal_mesospim_shading.core.background import (
    METHODS,
    BackgroundMethod,
    check_fits,
    make_method,
    method_named,
    method_of_radius,
    remark_on_height,
)
from fractal_mesospim_shading.core.background.arrays import correct_array
from fractal_mesospim_shading.core.zeros import ZeroIs
from fractal_mesospim_shading.engine.zero_look import about_blocks
from fractal_mesospim_shading.errors import BackgroundError, OutputWriteError, ParameterError
from fractal_mesospim_shading.images.labels import LabelImage
from fractal_mesospim_shading.images.storage.places import StorageOptions
from fractal_mesospim_shading.messages import counted, know_options, rendered
from fractal_mesospim_shading.options.background import LocalBackgroundOptions
from fractal_mesospim_shading.options.values import validated
from fractal_mesospim_shading.views.drawing import (
    AFTER,
    BACKGROUND,
    BEFORE,
    colour_bar,
    contrast,
    drawable,
    legend_above,
    png,
    reduced,
    shortened,
)
from fractal_mesospim_shading.views.preview_plane import PlaneWanted, find_plane

if TYPE_CHECKING:
    from matplotlib.figure import Figure

know_options("methods", "radius", "tile", "z", "level", "label")

logger = logging.getLogger(__name__)


def write_preview(
    source_url: str,
    output: str,
    *,
    methods: Sequence[str] | None = None,
    radius: float | str | None = None,
    channel: str | int | None = None,
    tile: int | None = None,
    z: int | None = None,
    level: int = 0,
    label: str | None = None,
    mosaic: str | None = None,
    zero_is: ZeroIs = "auto",
    storage_options: StorageOptions = None,
) -> str:
    """Write a picture of several methods on one plane of one tile.

    A method that does not fit the plane is left out, which is said in the picture and as a
    warning.

    Args:
        source_url: of the image, or of an acquisition, of which a plane of one stack is shown.
        output: PNG file to write.
        methods: names, each with a radius after a colon if wanted (for `constant` with its
            counts), in pixels of the level, or as `15um`; all where None.
        radius: of methods that name none, the same; for `tile_median` the side of the squares
            is four times as large.
        channel: label, wavelength or index; None for the first.
        tile: number; None for one in the middle of the mosaic.
        z: plane at the level; None for the middle.
        level: of the pyramid.
        label: name of a label image to leave out; only at level 0.
        mosaic: which one of an acquisition with several (angles, sides), as `info` names it.
        zero_is: what a pixel of 0 is, `auto`, `data` or `no_data`, as in the correction.
        storage_options: for a remote address.

    Returns:
        The file written.

    Raises:
        ParameterError: a channel, mosaic, plane or level that does not exist.
        BackgroundError: a method that does not exist, or none that fits the plane.
        LayoutError: a tile that does not exist.
    """
    _check_numbers(tile=tile, z=z, level=level)
    named = [methods] if isinstance(methods, str) else methods
    chosen = [_method(text, radius) for text in named or METHODS]
    found = find_plane(source_url, PlaneWanted(channel, tile, z, level, mosaic), storage_options)
    image, box = found.image, found.box
    mask = None
    if label is not None:
        if level:
            raise ParameterError("`label` can only be used at level 0.")
        mask = LabelImage.open(image, label).read(box)[0]
    pixels = image.read(level, box)
    plane = pixels.reshape(pixels.shape[-2:])
    place = ", ".join(f"{name} {s.start}" for name, s in zip(image.axes, box, strict=True))
    logger.info("Comparing %s on a plane (%s)", counted(len(chosen), "method"), place)
    size = image.metadata.pixel_size_um(level)
    methods_px = [method.in_pixels((size["y"], size["x"])) for method in chosen]
    results, notes = _compared(plane, methods_px, mask, zero_is, found.held)
    picture = background_preview(
        plane,
        results,
        pixel_size_um=size["x"],
        note="\n".join(notes),
    )
    try:
        Path(output).write_bytes(picture)
    except OSError as error:
        raise OutputWriteError(f"The picture cannot be written to {output}: {error}") from error
    return output


def _compared(
    plane: NDArray[Any],
    methods: Sequence[BackgroundMethod],
    mask: NDArray[np.bool_] | None,
    zero_is: ZeroIs,
    held: bool | None,
) -> tuple[dict[str, tuple[NDArray[Any], NDArray[Any]]], list[str]]:
    """Background and result of each method that fits, and what has to be said of the others."""
    results: dict[str, tuple[NDArray[Any], NDArray[Any]]] = {}
    refused: list[BackgroundError] = []
    notes: list[str] = []
    blocks = 0
    for method in methods:
        logger.info("%s", method.title)
        try:
            check_fits(method, (plane.shape[0], plane.shape[1]))
            background = np.empty(plane.shape, np.float32)
            corrected = correct_array(
                plane,
                method,
                mask=mask,
                background_out=background,
                zero_is=zero_is,
                holds_no_data=held,
            )
        except BackgroundError as error:
            refused.append(error)
            notes.append(f"Left out: {error}")
            logger.warning("%s It is left out of the picture.", error)
        else:
            results[method.title] = (background, corrected.image)
            remark = remark_on_height(method, plane.dtype)
            if remark is not None:
                logger.info("%s", remark)
                notes.append(f"{method.title}: its height is in counts, see the log.")
            blocks = corrected.zero_blocks
            if corrected.unestimated:
                left = corrected.largest_dilation
                why = "" if left is None else f" (a dilation of up to {left} px leaves some)"
                notes.append(
                    f"{method.title}: no pixel to estimate from{why}; the plane is as it was."
                )
    if not results:
        raise refused[0]
    if blocks:
        logger.info("%s", about_blocks(blocks))
        notes.append(rendered(about_blocks(blocks)))
    return results, notes


def _check_numbers(**numbers: int | None) -> None:
    """Refuse what is no whole number.

    Raises:
        ParameterError: with the name and the value.
    """
    for name, number in numbers.items():
        if number is not None and not isinstance(number, int | np.integer):
            raise ParameterError(f"`{name}` is {number!r}; expected a whole number.")


def _method(text: str, radius: float | str | None) -> BackgroundMethod:
    """A method as it was asked for; one that names no radius gets the common one."""
    if not isinstance(text, str):
        raise ParameterError(f"{text!r}: expected the name of a method, such as median:25.")
    name = method_named(text.partition(":")[0])
    if name not in METHODS:
        return make_method(name)
    if radius is not None and ":" not in text and METHODS[name].short_in_radii:
        text = method_of_radius(text, str(radius))
    return validated(LocalBackgroundOptions, {"method": text}).method


def background_preview(
    image: NDArray[Any],
    methods: Mapping[str, tuple[NDArray[Any], NDArray[Any]]],
    *,
    pixel_size_um: float | None = None,
    note: str = "",
) -> bytes:
    """Compare background methods on one plane: a row for each method.

    Args:
        image: (y, x), the plane as it is.
        methods: name to (background, result), each of the shape of the image.
        pixel_size_um: along x; None counts pixels.
        note: below the rows.

    Returns:
        A PNG: image, background and result with the same contrast, and a line profile
        through the brightest part.
    """
    row = _brightest_row(image)
    low, high = contrast([np.asarray(image, dtype=np.float32)])
    scale, unit = (1.0, "pixels") if pixel_size_um is None else (pixel_size_um, "micrometers")

    def draw(figure: Figure) -> None:
        ratios = {"width_ratios": [1, 1, 1, 1.5]}
        grid = figure.subplots(len(methods), 4, squeeze=False, gridspec_kw=ratios)
        for axes, (name, (background, result)) in zip(grid, methods.items(), strict=True):
            titles = ("image", f"{drawable(shortened(name, 38))}\nbackground", "result")
            for axis, title, plane in zip(axes, titles, (image, background, result), strict=False):
                limits = (low, high) if title != "result" else (0.0, high - low)
                extent = (0.0, image.shape[1] * scale, image.shape[0] * scale, 0.0)
                picture = axis.imshow(
                    reduced(plane), cmap="gray", vmin=limits[0], vmax=limits[1], extent=extent
                )
                axis.axhline((row + 0.5) * scale, color=BEFORE, linewidth=0.8, linestyle="--")
                axis.set_title(title, parse_math=False)
                axis.set_xlabel(unit)
                colour_bar(figure, axis, picture, "counts" if title == "result" else "")
            x = (np.arange(image.shape[1]) + 0.5) * scale
            lines = (
                ("image", image, BEFORE, 0.9),
                ("background", background, BACKGROUND, 1.6),
                ("result", result, AFTER, 0.9),
            )
            for label, plane, colour, width in lines:
                axes[3].plot(x, plane[row], color=colour, linewidth=width, label=label)
            axes[3].axhline(0, color="0.7", linewidth=0.7, zorder=0)
            axes[3].set(title="along the dashed line", xlabel=unit, ylabel="counts")
            legend_above(axes[3])

        if note:
            figure.supxlabel(drawable(note), fontsize=10, parse_math=False)

    aspect = min(max(image.shape[0] / image.shape[1], 0.6), 2.0)
    return png(draw, (15.5, 0.2 + (0.9 + 2.9 * aspect) * len(methods)))


def _brightest_row(image: NDArray[Any]) -> int:
    values = np.asarray(image, dtype=np.float32)
    finite = np.isfinite(values)
    darkest = values[finite].min() if finite.any() else np.float32(0)
    return int(np.argmax(np.percentile(np.where(finite, values, darkest), 99, axis=1)))
