"""Background correction for people with arrays: NumPy arrays, masked arrays, memory maps."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import DTypeLike, NDArray

from fractal_mesospim_shading.core.background.apply import Application, correct_plane
from fractal_mesospim_shading.core.background.catalogue import check_fits, check_light
from fractal_mesospim_shading.core.background.contract import (
    BackgroundMethod,
    BackgroundResult,
    check_method,
)
from fractal_mesospim_shading.core.background.inputs import (
    Index,
    as_numbers,
    find_axes,
    shown,
    with_mask,
    without_mask,
)
from fractal_mesospim_shading.core.background.masks import largest_dilation, no_data, union
from fractal_mesospim_shading.core.correct import PixelCounts
from fractal_mesospim_shading.core.zeros import ZeroIs, ZeroRule, zero_rule, zeros_without_data
from fractal_mesospim_shading.errors import BackgroundError

Progress = Callable[[int, int], None]

_FLOATS = (np.float32, np.float64)
_NUMBERS = (np.integer, *_FLOATS)


@dataclass(frozen=True)
class CorrectedArray:
    """The result of `correct_array`.

    Attributes:
        image: the corrected image; the `out` that was given, if one was. Of a masked array
            it is a masked array with the same mask.
        counts: of its pixels; saturated ones and zeros are not looked for.
        unestimated: indices, along the axes other than (z,) y and x, of planes (or stacks)
            without a usable pixel. Their background is 0 and they passed through unchanged.
        zero_blocks: blocks of more than 32 x 32 zeros, in all planes, that lie beside data far
            above 0 and were taken for values: parts that were lost, perhaps, or the corners
            of a turned image. `zero_is="no_data"` leaves them out.
        largest_dilation: the largest `dilation` of tile_median that leaves a pixel of background
            in each of the planes that passed through and whose mask leaves some unwidened; None
            where no dilation is to blame.
    """

    image: NDArray[Any]
    counts: PixelCounts
    unestimated: tuple[Index, ...]
    zero_blocks: int = 0
    largest_dilation: int | None = None


def estimate_array(
    image: NDArray[Any],
    method: BackgroundMethod,
    *,
    mask: NDArray[Any] | None = None,
    axes: str | None = None,
    out: NDArray[Any] | None = None,
    zero_is: ZeroIs = "auto",
    holds_no_data: bool | None = None,
    progress: Progress | None = None,
) -> NDArray[Any]:
    """The background of every plane.

    Args:
        image: (..., y, x); (..., z, y, x) for a method with a z radius, which holds
            one such stack in memory, others one plane. The masked pixels of a masked
            array are objects, as those of `mask`.
        method: from `make_method`.
        mask: of the image's shape, or (y, x) for all planes; above 0 marks objects.
        axes: a letter for each axis where they are others, such as `yxc` for colours in the
            last axis. Has to be given where the last axis of three or more holds 4 or fewer.
        out: float array for the background, e.g. a memory map; made if not given.
        zero_is: what a pixel of 0 is. `auto`: no data where a plane is 0 throughout, and in its
            margins, rows or columns that are 0 from an edge inwards, up to data that begin
            with a step; a value everywhere else. `data`: always a value. `no_data`: never.
        holds_no_data: for `auto`, of a result of the flat-field correction: whether that met
            pixels without data. If not, every 0 is a value; else whatever is 0 from an edge
            inwards is a margin. None where it is not known.
        progress: called with (planes or stacks done, all of them).

    Returns:
        float32, or `out`; 0 where no background can be estimated.

    Raises:
        BackgroundError: for arrays or parameters that do not fit, or of a wrong type.

    Example:
        A square of 9 x 9 pixels on a background of 50 counts does not lift a median that looks
        at 41 x 41:

        >>> import numpy as np
        >>> from fractal_mesospim_shading.core.background import make_method
        >>> from fractal_mesospim_shading.core.background.arrays import estimate_array
        >>> image = np.full((64, 64), 50, np.uint16)
        >>> image[20:29, 20:29] = 400
        >>> background = estimate_array(image, make_method("median", radius_px=20))
        >>> float(background.min()), float(background.max())
        (50.0, 50.0)
    """
    rule = zero_rule(zero_is, holds_no_data)
    request = _Request(image, method, mask, axes, progress)
    result = _target(request.axes.shape, out, np.float32, _FLOATS, "background")
    for part in request.results(rule):
        request.axes.put(result, part.index, part.estimate.background)
    return result


def correct_array(
    image: NDArray[Any],
    method: BackgroundMethod,
    *,
    mask: NDArray[Any] | None = None,
    axes: str | None = None,
    application: Application | None = None,
    dtype: DTypeLike = np.float32,
    out: NDArray[Any] | None = None,
    background_out: NDArray[Any] | None = None,
    zero_is: ZeroIs = "auto",
    holds_no_data: bool | None = None,
    progress: Progress | None = None,
) -> CorrectedArray:
    """Estimate the background of every plane and take it away.

    Args:
        image: (..., y, x), see `estimate_array`.
        method: from `make_method`.
        mask: of the image's shape, or (y, x) for all planes; above 0 marks objects.
        axes: see `estimate_array`.
        application: subtract or divide, weight, offset; see `Application`. A light
            background is taken over from the method.
        dtype: of the result: an integer type, float32 or float64; floats keep negative
            values.
        out: array for the result, e.g. a memory map; its type then counts.
        background_out: float array that receives the background as well.
        zero_is: what a pixel of 0 is, see `estimate_array`; a 0 without data stays 0.
        holds_no_data: see `estimate_array`.
        progress: called with (planes or stacks done, all of them).

    Raises:
        BackgroundError: for arrays or parameters that do not fit, or of a wrong type.

    Example:
        >>> import numpy as np
        >>> from fractal_mesospim_shading.core.background import make_method
        >>> from fractal_mesospim_shading.core.background.arrays import correct_array
        >>> picture = np.full((64, 64, 3), 50, np.uint8)
        >>> picture[20:29, 20:29] = 240
        >>> result = correct_array(picture, make_method("median", radius_px=20), axes="yxc")
        >>> result.image.dtype, float(result.image[0, 0, 0]), float(result.image[24, 24, 1])
        (dtype('float32'), 0.0, 190.0)
    """
    rule = zero_rule(zero_is, holds_no_data)
    request = _Request(image, method, mask, axes, progress)
    planes = request.axes
    application = _completed(application, method)
    result = _target(planes.shape, out, dtype, _NUMBERS, "result")
    saved = None
    if background_out is not None:
        saved = _target(planes.shape, background_out, np.float32, _FLOATS, "background")
    counts = PixelCounts()
    unestimated: list[Index] = []
    dilations: list[int | None] = []
    blocks = 0
    for part in request.results(rule):
        if not part.estimate.estimated:
            unestimated.append(part.index)
            dilations.append(largest_dilation(part.objects, part.absent))
        corrected, some = correct_plane(
            method, part.values, part.estimate, part.absent, application, dtype=result.dtype
        )
        planes.put(result, part.index, corrected)
        counts += some
        blocks += part.zero_blocks
        if saved is not None:
            planes.put(saved, part.index, part.estimate.background)
    if out is None:
        result = with_mask(result, request.hidden)
    largest = min((size for size in dilations if size is not None), default=None)
    return CorrectedArray(result, counts, tuple(unestimated), blocks, largest)


@dataclass(frozen=True)
class _Part:
    """A plane, or stack of planes, with its background.

    Attributes:
        index: along the axes other than (z,) y and x.
        values: its pixels.
        objects: of the masks, or None.
        absent: where there is no data, or None.
        zero_blocks: see `CorrectedArray`.
        estimate: the background.
    """

    index: Index
    values: NDArray[Any]
    objects: NDArray[np.bool_] | None
    absent: NDArray[np.bool_] | None
    zero_blocks: int
    estimate: BackgroundResult


class _Request:
    """What was asked for, checked.

    Attributes:
        pixels: the image, without a mask of its own.
        hidden: the mask of a masked array, or None.
        objects: the mask that was given, or None.
        method: that estimates.
        axes: where the planes lie.
        progress: to be told of each plane.
    """

    def __init__(
        self,
        image: Any,
        method: BackgroundMethod,
        mask: Any,
        axes: str | None,
        progress: Progress | None,
    ) -> None:
        """Check what was given.

        Raises:
            BackgroundError: for anything that does not fit, before a pixel is computed.
        """
        check_method(method)
        if progress is not None and not callable(progress):
            raise BackgroundError(f"progress is {shown(progress)}; expected a function or None.")
        pixels = as_numbers(image, "image")
        self.axes = find_axes(tuple(pixels.shape), axes, stacks=method.depth_px > 0)
        self.objects = None if mask is None else without_mask(as_numbers(mask, "mask"))[0]
        shape, plane = self.axes.shape, self.axes.mask_shape
        if self.objects is not None and self.objects.shape not in (shape, plane):
            raise BackgroundError(
                f"The mask has shape {self.objects.shape}, the image {shape}; expected the "
                f"same, or {plane} for all planes."
            )
        check_fits(method, self.axes.plane_shape)
        self.pixels, self.hidden = without_mask(pixels)
        self.method, self.progress = method, progress

    def results(self, rule: ZeroRule) -> Iterator[_Part]:
        """Every plane or stack in turn, its axes in the order (z,) y, x."""
        for done, index in enumerate(self.axes.indices(), start=1):
            values = self.axes.part(self.pixels, index)
            objects = None
            if self.objects is not None:
                objects = self.axes.part_of_mask(self.objects, index) > 0
            if self.hidden is not None:
                objects = union(objects, self.axes.part(self.hidden, index))
            zeros, blocks = zeros_without_data(values, rule)
            absent = union(no_data(values), zeros)
            estimate = self.method.background(values, objects, absent)
            yield _Part(index, values, objects, absent, blocks, estimate)
            if self.progress is not None:
                self.progress(done, self.axes.parts)


def _completed(application: Application | None, method: BackgroundMethod) -> Application:
    """The light background is that of the method."""
    if application is None:
        application = Application()
    if not isinstance(application, Application):
        raise BackgroundError(
            f"application is {shown(application)}; expected an Application or None."
        )
    check_light(method, light_background=application.light_background)
    return replace(application, light_background=method.light_background)


def _target(
    shape: tuple[int, ...], out: Any, dtype: DTypeLike, kinds: tuple[Any, ...], what: str
) -> NDArray[Any]:
    """The array that is given for a result, or a new one.

    Args:
        shape: of the image.
        out: array for the result, or None.
        dtype: of a new one.
        kinds: of numbers that it may hold.
        what: its name in a message.
    """
    if out is None:
        try:
            kind = np.dtype(dtype)
        except TypeError as error:
            raise BackgroundError(f"dtype is {shown(dtype)}, which is no type of NumPy.") from error
        _check_kind(kind, kinds, "dtype")
        return np.empty(shape, kind)
    own: tuple[int, ...] | None = getattr(out, "shape", None)
    if own != shape:
        raise BackgroundError(
            f"The array for the {what} has {f'shape {own}' if own else 'no shape'}, the image "
            f"{shape}; give an array of the same shape."
        )
    _check_kind(as_numbers(out, f"array for the {what}").dtype, kinds, f"The array for the {what}")
    if isinstance(out, np.ndarray) and not out.flags.writeable:
        raise BackgroundError(f"The array for the {what} is read-only; give one to write to.")
    given: NDArray[Any] = out
    return given


def _check_kind(kind: np.dtype[Any], kinds: tuple[Any, ...], what: str) -> None:
    if not any(np.issubdtype(kind, one) for one in kinds):
        integers = "an integer type, " if np.integer in kinds else ""
        raise BackgroundError(f"{what} is {kind}; expected {integers}float32 or float64.")
