"""Whether a profile fits a tile.

A profile covers the field of view of a tile, perhaps with fewer or more pixels. One of another
aspect is of another field of view, or turned; stretched over the tile, it would correct every
pixel wrongly without a word.
"""

from __future__ import annotations

Shape = tuple[int, int]

ASPECT_TOLERANCE = 0.02
"""By how much the aspects of a profile and of a tile may differ, as a fraction."""

LEAST_SIDE = 16
"""Pixels on the shorter side below which a profile says too little of a tile."""


def fits_tile(shape: Shape, tile_shape: Shape) -> bool:
    """Whether a profile has the shape of a tile, or its aspect within 2 % and 16 pixels a side.

    Args:
        shape, tile_shape: (y, x) in pixels.
    """
    if shape == tile_shape:
        return True
    return min(shape) >= LEAST_SIDE and _same_aspect(shape, tile_shape)


def turn_is_unseen(shape: Shape, tile_shape: Shape) -> bool:
    """Whether a profile that was turned by 90 degrees would have fitted as well."""
    return _same_aspect(shape, tile_shape) and _same_aspect(shape[::-1], tile_shape)


def shape_problem(shape: Shape, tile_shape: Shape) -> str | None:
    """What is wrong with the shape of a profile, and what to do.

    Args:
        shape, tile_shape: (y, x) in pixels.

    Returns:
        Words that follow "The flat-field is"; None where it fits.
    """
    if fits_tile(shape, tile_shape):
        return None
    sizes = f"{shape_text(shape)} pixels (y, x), but a tile is {shape_text(tile_shape)}"
    if min(shape) < LEAST_SIDE:
        return (
            f"{sizes}; expected the tile's shape, or its aspect with at least {LEAST_SIDE} pixels "
            "a side (or, for a camera offset, a single number). If it is right as it is, set "
            "`profile_shape=stretch`."
        )
    if _same_aspect(shape[::-1], tile_shape):
        return (
            f"{sizes}: turned by 90 degrees, it fits. mesoSPIM-control stores every camera frame "
            "turned, as np.rot90(frame); a frame saved by the camera maker's software needs the "
            "same, np.rot90(frame) (k=1), or np.rot90(frames, axes=(-2, -1)) for a stack. The "
            "shape alone cannot tell this from the opposite turn (k=3) or a mirrored one, so look "
            "at the corrected image. If it is right as it is, set `profile_shape=stretch`."
        )
    return (
        f"{sizes}: heights over widths of {shape[0] / shape[1]:.3g} and "
        f"{tile_shape[0] / tile_shape[1]:.3g} differ by more than {ASPECT_TOLERANCE:.0%}. It is of "
        "another field of view, or of another part of the sensor. Give one of the tile's field of "
        "view, or set `profile_shape=stretch`."
    )


def shape_text(shape: Shape) -> str:
    """A shape as people write it."""
    return f"{shape[0]} x {shape[1]}"


def _same_aspect(shape: Shape, tile_shape: Shape) -> bool:
    ratio = shape[0] * tile_shape[1] / (shape[1] * tile_shape[0])
    return max(ratio, 1 / ratio) <= 1 + ASPECT_TOLERANCE
