"""What a job says of its own correction by the overlaps of the image."""

from __future__ import annotations

import logging
from collections.abc import Sequence

from fractal_mesospim_shading.flatfield.channel_gains import ImageGains
from fractal_mesospim_shading.flatfield.models import Models
from fractal_mesospim_shading.flatfield.overlap_check import check_models
from fractal_mesospim_shading.flatfield.sampling import PlaneChoice
from fractal_mesospim_shading.images.source import MultitileImage
from fractal_mesospim_shading.overlaps.certificate import OverlapCheck
from fractal_mesospim_shading.overlaps.choosing import decoded_bytes
from fractal_mesospim_shading.overlaps.sampling import budget_of, gains_budget

logger = logging.getLogger(__name__)

Checks = dict[str, OverlapCheck]
"""By the label of a model, as results show it."""

# Beside a correction, less is read than for its own sake.
_PART_OF_BUDGET = 4


def check_overlaps(
    choices: Sequence[PlaneChoice], models: Sequence[Models], gains: Sequence[ImageGains]
) -> tuple[Checks, ...]:
    """Compare the overlaps before and after, where it is known how tiles lie, and tell of it.

    Args:
        choices: of planes, one for each mosaic.
        models, gains: of these.

    Returns:
        The checks of each mosaic; none where positions are not known or no tiles overlap.
    """
    found = []
    for choice, own, own_gains in zip(choices, models, gains, strict=True):
        image = choice.image
        checks: Checks = {}
        if _can_be_compared(image):
            budget, seed = _budget(image), choice.options.seed
            for check in check_models(image, own, own_gains, seed=seed, budget=budget):
                if check.measured or check.rejected:
                    checks[choice.prefix + check.label] = check
        for label, check in checks.items():
            tell(label, check)
        found.append(checks)
    return tuple(found)


def _can_be_compared(image: MultitileImage) -> bool:
    return image.origins_px is not None and len(image.layout.tiles) > 1


def _budget(image: MultitileImage) -> int:
    return budget_of(image) // _PART_OF_BUDGET


def overlap_bytes(choices: Sequence[PlaneChoice]) -> int:
    """Bytes of pixels that are decoded in overlaps: to compare them, and for what they tell.

    Args:
        choices: of planes, one for each mosaic.
    """
    total = 0
    for choice in choices:
        image, options = choice.image, choice.options
        budgets = [_budget(image)] if _can_be_compared(image) else []
        if options.tile_gains == "overlaps" or (options.overlap_refine and not choice.models):
            # Read once for both.
            budgets.append(gains_budget(image))
        for group in image.model_groups:
            total += sum(decoded_bytes(image, group, options.seed, budget) for budget in budgets)
    return total


def tell(label: str, check: OverlapCheck) -> None:
    """Say what a check has found, and warn of harm; the verdict says what to do about it."""
    for line in check.lines():
        logger.info("Channel %s: %s", label, line)
    if check.grew and check.after is not None:
        logger.warning(
            "Channel %s: the flat-field does not fit this image: tissue differs more between tiles "
            "(%.1f %%) than before (%.1f %%).",
            label,
            100 * check.after.whole.median,
            100 * check.before.whole.median,
        )
    if check.offset_doubted:
        found = check.pedestal
        logger.warning(
            "Channel %s: by the overlaps, the camera offset that was used is too %s by %.0f +- "
            "%.0f counts.",
            label,
            "small" if found.value > 0 else "large",
            abs(found.value),
            found.uncertainty,
        )
