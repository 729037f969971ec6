"""The flat-field correction for people with arrays: NumPy arrays, memory maps, Dask arrays."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal, get_args

import numpy as np
from numpy.typing import NDArray

from fractal_mesospim_shading.core.correct import Linear, correct, tile_correction
from fractal_mesospim_shading.core.profile import ShadingProfile
from fractal_mesospim_shading.core.profile_shapes import shape_text
from fractal_mesospim_shading.core.zeros import ZeroIs, zero_rule, zeros_without_data
from fractal_mesospim_shading.errors import ParameterError, ProfileError

OutputType = Literal["source", "float32"]

_PIXELS = ("uint8", "uint16", "float32")


@dataclass(frozen=True)
class ProfileUse:
    """How a profile is applied; what each means stands at `ShadingProfile.apply`."""

    camera_offset: float | None = None
    output_offset: float = 0.0
    zero_is: ZeroIs = "auto"
    subtract_baseline: bool = False
    output_type: OutputType = "source"


def apply_profile(profile: ShadingProfile, array: Any, use: ProfileUse) -> Any:
    """Correct planes of a tile; see `ShadingProfile.apply`."""
    _refuse_unusable(profile, use)
    # A Dask array cuts itself into chunks again; whatever else there is becomes one of NumPy.
    lazy = hasattr(array, "map_blocks") and hasattr(array, "rechunk")
    pixels: Any = array if lazy or _is_masked(array) else np.asarray(array)
    _refuse_unfit(profile, pixels)
    source = np.dtype(pixels.dtype).newbyteorder("=")
    block = _Block(profile, use, source if use.output_type == "source" else np.dtype(np.float32))
    if not lazy:
        return block(pixels)
    # Margins of 0 are those of whole planes.
    planes = pixels.rechunk({pixels.ndim - 2: -1, pixels.ndim - 1: -1})
    return planes.map_blocks(
        block, dtype=block.dtype, meta=np.empty((0,) * pixels.ndim, block.dtype)
    )


@dataclass(frozen=True)
class _Block:
    """What is done to whole planes (..., y, x); workers of Dask are sent it."""

    profile: ShadingProfile
    use: ProfileUse
    dtype: np.dtype[Any]

    def __call__(self, planes: Any) -> NDArray[Any]:
        linear, subtracts = self._linear()
        auto = self.use.zero_is == "auto"
        rule = "no_data" if auto and subtracts else zero_rule(self.use.zero_is)
        raw = np.asarray(planes).reshape((-1, *planes.shape[-2:]))
        none = rule == "no_data"
        absent = None if none else zeros_without_data(raw, rule)[0]
        result = np.array(raw, dtype=self.dtype, order="C")
        correct(result, linear, zero_is_no_data=none, without_data=absent)
        shaped = result.reshape(planes.shape)
        if not _is_masked(planes):
            return shaped
        return np.ma.MaskedArray(shaped, planes.mask)  # type: ignore[no-untyped-call]

    def _linear(self) -> tuple[Linear, bool]:
        """Gain and shift of the tile, and whether an offset above 0 is taken off."""
        whole = tile_correction(
            self.profile,
            self.profile.shape,
            offset=self.use.camera_offset or 0.0,
            subtract_baseline=self.use.subtract_baseline,
            output_offset=self.use.output_offset,
        )
        return whole.linear(), bool(np.mean(whole.dark) > 0)


def _is_masked(array: Any) -> bool:
    return isinstance(array, np.ma.MaskedArray)


def _refuse_unusable(profile: ShadingProfile, use: ProfileUse) -> None:
    """Refuse what cannot be done with a profile.

    Raises:
        ParameterError: says what to give, or to leave out.
    """
    offset = use.camera_offset
    if profile.darkfield is None and offset is None:
        raise ParameterError(
            "The profile has no dark-field, so `camera_offset` has to be given: the counts that "
            "the camera adds to every pixel (0 where they were taken off before)."
        )
    if profile.darkfield is not None and offset is not None:
        raise ParameterError("The profile has a dark-field: leave `camera_offset` out.")
    for name, number in (("camera_offset", offset or 0.0), ("output_offset", use.output_offset)):
        if not np.isscalar(number) or not np.isfinite(number):
            raise ParameterError(f"`{name}` is {number}; expected a finite number of counts.")
    if use.output_type not in get_args(OutputType):
        raise ParameterError(f"`output_type` is {use.output_type!r}; expected source or float32.")
    if use.subtract_baseline and profile.baseline is None:
        raise ParameterError("`subtract_baseline`: the profile has no baseline. Leave it out.")
    zero_rule(use.zero_is)


def _refuse_unfit(profile: ShadingProfile, pixels: Any) -> None:
    """Refuse pixels that are no planes of a tile.

    Raises:
        ParameterError: a type of pixels that no image has.
        ProfileError: planes of another shape.
    """
    if pixels.dtype.newbyteorder("=").name not in _PIXELS:
        raise ParameterError(
            f"The array has the type {pixels.dtype}; expected {', '.join(_PIXELS)}."
        )
    shape = tuple(pixels.shape)
    if shape[-2:] != profile.shape:
        raise ProfileError(
            f"The array has the shape {shape}; expected planes (..., y, x) of the profile's "
            f"{shape_text(profile.shape)} pixels. Cut a mosaic into its tiles first; for a tile "
            "of other pixels over the same field of view, use profile.resampled((y, x))."
        )
