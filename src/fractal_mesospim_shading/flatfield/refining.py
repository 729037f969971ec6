"""The flat-field of a channel, refined by its overlaps: what is read for it, and what is told."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fractal_mesospim_shading.core.flatfield.binning import BinnedStack
from fractal_mesospim_shading.core.flatfield.pixels import to_pixels
from fractal_mesospim_shading.core.overlaps.refine import Refinement, refine_flatfield
from fractal_mesospim_shading.core.overlaps.validation import Residual
from fractal_mesospim_shading.core.profile import ShadingProfile, resample
from fractal_mesospim_shading.flatfield.sampling import PlaneChoice
from fractal_mesospim_shading.images.source import ModelGroup
from fractal_mesospim_shading.overlaps.sampling import gains_budget, observe_overlaps

logger = logging.getLogger(__name__)

FloatArray = NDArray[np.float64]

# Bins along a side of the tile: shading is no finer.
_MOST_BINS = 128


def light_of_tiles(
    stack: BinnedStack, tiles: Sequence[int], offset: float
) -> dict[int, FloatArray]:
    """Mean light of every tile over its planes, by number, (y, x) in at most 128 x 128 bins.

    Args:
        stack: binned planes.
        tiles: number of the tile of each.
        offset: counts that are still in them.
    """
    factor = -(-max(stack.mean.shape[1:]) // _MOST_BINS)
    views = {}
    for tile in sorted(set(tiles)):
        planes = stack.mean[[k for k, other in enumerate(tiles) if other == tile]]
        with warnings.catch_warnings():
            # Bins of no data in any plane.
            warnings.simplefilter("ignore", RuntimeWarning)
            mean = np.nanmean(planes.astype(np.float64) - offset, axis=0)
            views[tile] = _coarser(mean, factor)
    return {tile: view for tile, view in views.items() if np.isfinite(view).any()}


def refined_profile(
    profile: ShadingProfile,
    views: Mapping[int, FloatArray],
    choice: PlaneChoice,
    group: ModelGroup,
    offset: float,
    offset_uncertainty: float,
) -> tuple[ShadingProfile, dict[str, Any]]:
    """The profile as the overlaps of its tiles make it, and facts about that, as JSON.

    Args:
        profile: as estimated from planes.
        views: from `light_of_tiles`, of the same planes.
        choice: of planes; its image tells where the tiles really were.
        group: that the profile is of.
        offset: counts to subtract where the channel has no dark frame.
        offset_uncertainty: counts.

    Returns:
        The same profile where the overlaps do not speak for a change.
    """
    image, tile_shape = choice.image, choice.image.layout.tile_shape
    dark = choice.dark.get(group.channel.label, offset)
    if isinstance(dark, np.ndarray) and dark.shape != tile_shape:
        dark = resample(dark, tile_shape)
    # Gains are found from the same places; they are read once.
    observe = choice.memory.observe if choice.options.tile_gains == "overlaps" else observe_overlaps
    seen = observe(image, group, dark, seed=choice.options.seed, budget=gains_budget(image))
    grid = next(iter(views.values())).shape
    flat = np.log(resample(profile.flatfield, (grid[0], grid[1])).astype(np.float64))
    found = refine_flatfield(seen.pairs, flat, views, image.origins_px or {}, tile_shape)
    facts: dict[str, Any] = {"overlap_refine": _facts(found, len(seen.rejected))}
    logger.info("Channel %s: %s", choice.name_of(group), _line(found))
    if not found.used:
        return profile, facts
    changed = _changed(profile, found.log_change)
    # An offset that is off by a count flattens what the light multiplies, and sharpens it.
    light = float(np.median([np.nanmedian(view) for view in views.values()]))
    systematic = float(np.std(changed.flatfield)) * offset_uncertainty / light
    facts |= {
        "scale": changed.scale,
        "relative_uncertainty": float(np.hypot(found.error_after, systematic)),
    }
    return changed, facts


def refined_text(facts: Mapping[str, Any]) -> str:
    """What the report says, from the facts."""
    if not facts["used"]:
        return f"no, because {facts['reason']}"
    before, after = facts["residual_before_percent"], facts["residual_after_percent"]
    return (
        f"by {facts['pairs']}; about {facts['error_before_percent']:.1f} % off before; left in "
        f"overlaps that taught nothing: {before['median']:.2f} to {after['median']:.2f} % "
        f"(median), {before['p90']:.1f} to {after['p90']:.1f} % (90th percentile)"
    )


def _changed(profile: ShadingProfile, log_change: FloatArray) -> ShadingProfile:
    edges = [
        np.linspace(0, size, bins + 1)
        for size, bins in zip(profile.shape, log_change.shape, strict=True)
    ]
    change = to_pixels(log_change, (edges[0], edges[1]), profile.shape)
    made = ShadingProfile.create(
        profile.flatfield * np.exp(change), profile.darkfield, profile.baseline
    )
    return ShadingProfile(made.flatfield, made.darkfield, made.baseline, profile.scale * made.scale)


def _facts(found: Refinement, rejected: int) -> dict[str, Any]:
    facts: dict[str, Any] = {"used": found.used, "pairs": found.pairs, "rejected": rejected}
    if found.reason:
        facts["reason"] = found.reason
    if not np.isfinite(found.error_after):
        return facts
    return facts | {
        "error_before_percent": _percent(found.error_before),
        "error_after_percent": _percent(found.error_after),
        "residual_before_percent": _residual(found.before),
        "residual_after_percent": _residual(found.after),
    }


def _residual(residual: Residual) -> dict[str, float]:
    return {"median": _percent(residual.median), "p90": _percent(residual.p90)}


def _percent(fraction: float) -> float:
    return round(100 * fraction, 3)


def _line(found: Refinement) -> str:
    """What the log says."""
    if not found.used:
        return f"the flat-field stays as it was estimated, because {found.reason}."
    return (
        f"the flat-field was refined by {found.pairs} overlaps: it was about "
        f"{100 * found.error_before:.1f} % off (RMS) and is known to {100 * found.error_after:.1f} "
        "% now. In overlaps from which nothing was learnt, what differs within a pair falls from "
        f"{100 * found.before.median:.2f} to {100 * found.after.median:.2f} % (median), and from "
        f"{100 * found.before.p90:.1f} to {100 * found.after.p90:.1f} % (90th percentile)."
    )


def _coarser(image: FloatArray, factor: int) -> FloatArray:
    """Means of squares, what is not known left out."""
    short = [-size % factor for size in image.shape]
    padded = np.pad(image, ((0, short[0]), (0, short[1])), constant_values=np.nan)
    height, width = (size // factor for size in padded.shape)
    return np.asarray(
        np.nanmean(padded.reshape(height, factor, width, factor), axis=(1, 3)), np.float64
    )
