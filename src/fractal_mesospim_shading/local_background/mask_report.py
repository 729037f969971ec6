"""What a person is told of the masks of a background correction."""

from __future__ import annotations

import logging
from collections.abc import Mapping

from fractal_mesospim_shading.core.background import BackgroundMethod
from fractal_mesospim_shading.core.background.methods import TileMedian
from fractal_mesospim_shading.local_background.planes import BackgroundCounts, PlaneCorrection

logger = logging.getLogger(__name__)


def tell_masks(
    counts: Mapping[str, BackgroundCounts],
    methods: Mapping[str, BackgroundMethod],
    correction: PlaneCorrection,
) -> None:
    """Say where a mask left no background, or so little that a person should know.

    Args:
        counts: by channel label, of the whole image.
        methods: of the channels.
        correction: with the mask's threshold and dilation.
    """
    for label, found in counts.items():
        method = methods[label]
        if found.unestimated:
            said = _all_masked(found, correction) + _eaten(found, method, correction)
            logger.warning("Channel %s: %s", label, " ".join(said))
        for line in _little(found, method):
            logger.info("Channel %s: %s", label, line)


def _all_masked(found: BackgroundCounts, correction: PlaneCorrection) -> list[str]:
    number = found.unestimated - found.eaten
    if not number:
        return []
    advice = "Check the mask."
    if correction.threshold is not None:
        advice = f"Everything in them lies above the threshold of {correction.threshold:g} counts."
    return [
        f"{number} planes of tiles had no pixel outside of the mask; they passed through "
        f"unchanged. {advice}"
    ]


def _eaten(
    found: BackgroundCounts, method: BackgroundMethod, correction: PlaneCorrection
) -> list[str]:
    if not found.eaten:
        return []
    own = method.dilation if isinstance(method, TileMedian) else 0
    parts = [
        f"{size} px by the dilation of {owner}"
        for size, owner in ((correction.dilation_px, "the mask"), (own, "the method tile_median"))
        if size
    ]
    total = " in all" if len(parts) > 1 else ""
    return [
        f"In {found.eaten} planes of tiles the objects, widened {' and '.join(parts)}, left no "
        "pixel of background; they passed through unchanged. The largest dilation that leaves "
        f"some in each of them is {found.most_dilation} px{total}."
    ]


def _little(found: BackgroundCounts, method: BackgroundMethod) -> list[str]:
    lines = []
    if found.scarce:
        lines.append(
            f"In {found.scarce} planes of tiles less than 1 % of the pixels lay outside of the "
            "mask and its dilation; their background rests on these."
        )
    if found.even and isinstance(method, TileMedian):
        lines.append(
            f"In {found.even} planes of tiles no square had a share of "
            f"{method.min_unmasked_fraction:g} of its pixels outside of the mask "
            "(min_unmasked_fraction); one number, the median of the plane, was taken."
        )
    return lines
