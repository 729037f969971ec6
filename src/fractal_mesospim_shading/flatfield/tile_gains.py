"""One gain for each tile of an image: from its overlaps, kept with the job, and told."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from fractal_mesospim_shading.core.overlaps.gains import TileGain, solve_gains, with_doubts
from fractal_mesospim_shading.core.overlaps.neighbours import LEAST_OVERLAP_PX, neighbours
from fractal_mesospim_shading.core.overlaps.observations import OverlapPair
from fractal_mesospim_shading.core.overlaps.observing import Rejected
from fractal_mesospim_shading.core.overlaps.pedestal import pedestal
from fractal_mesospim_shading.core.overlaps.ratios import LogFlatfield, pair_ratios
from fractal_mesospim_shading.engine.job import Job
from fractal_mesospim_shading.engine.watching import remember_reads
from fractal_mesospim_shading.errors import ParameterError
from fractal_mesospim_shading.flatfield.channel_gains import ChannelGains, ImageGains, tell_gains
from fractal_mesospim_shading.flatfield.models import ChannelModel, Models
from fractal_mesospim_shading.images.arrays.file_states import noted_reads
from fractal_mesospim_shading.images.source import Channel, ModelGroup, MultitileImage
from fractal_mesospim_shading.options.flatfield import EstimationOptions
from fractal_mesospim_shading.overlaps.memory import OverlapMemory
from fractal_mesospim_shading.overlaps.sampling import gains_budget

FloatArray = NDArray[np.float64]

# How much of the variance of what a flat-field is wrong by is a tilt along y, and along x.
_TILT = 1 / 8
# The least light of a bin once counts are taken off it, as a share of what it had.
_LEAST_LIGHT = 0.1
# Overlaps that cannot be registered are compared as they lie, and are that much less sure.
_UNREGISTERED = 4.0


def refuse_unplaced(images: Sequence[MultitileImage], options: EstimationOptions) -> None:
    """Refuse what compares overlaps where tiles show nothing twice, as far as positions tell.

    Args:
        images: that are corrected together.
        options: that may ask for gains, or for a flat-field refined by overlaps.

    Raises:
        ParameterError: positions are not known, or no two tiles of any image overlap.
    """
    asked = ["`tile_gains=overlaps`"] if options.tile_gains == "overlaps" else []
    asked += ["`overlap_refine`"] if options.overlap_refine and not options.models_folder else []
    if not asked or not images:
        return
    verb, rest = ("compares", "it") if len(asked) == 1 else ("compare", "them")
    start = f"{' and '.join(asked)} {verb} tiles where they overlap, but"
    overlapping = False
    for image in images:
        origins = image.origins_px
        if origins is None:
            raise ParameterError(
                f"{start} '{image.url}' does not tell where its tiles really were: expected "
                "columns 'x_micrometer_original' and 'y_micrometer_original' in its table of "
                "tiles, as an import writes them. Import the acquisition again, or leave "
                f"{rest} out."
            )
        overlapping |= bool(neighbours(origins, image.layout.tile_shape))
    if not overlapping:
        raise ParameterError(
            f"{start} in '{images[0].url}' no two tiles do, by at least {LEAST_OVERLAP_PX} "
            f"pixels, where they really were. Leave {rest} out."
        )


def find_gains(
    image: MultitileImage,
    models: Models,
    *,
    seed: int,
    memory: OverlapMemory,
    job: Job | None = None,
    prefix: str = "",
    mosaic: str = "",
) -> ImageGains:
    """The gains of an image: kept by an earlier run of the job, else from its overlaps.

    Args:
        image: whose positions are known.
        models: of its channels and sides; those that do not correct are left as they are.
        seed: of the sample of planes and places.
        memory: of overlaps that were compared for the models.
        job: that keeps what was found.
        prefix: tells the images of one job apart.
        mosaic: goes before labels in what is said, where a job has several.
    """
    gains: dict[int, ChannelGains] = {}
    for channel in image.channels:
        groups = [
            group
            for group in image.model_groups
            if group.channel.index == channel.index and models[group.label].corrects
        ]
        if not groups:
            continue
        name = f"{prefix}gains-{channel.index}.json"
        kept = job.recall(name) if job is not None else None
        if kept is not None:
            found = ChannelGains.from_bytes(kept)
        else:
            with noted_reads() as notes:
                found = _measured(image, channel, groups, models, seed, memory)
            if job is not None:
                job.remember(name, found.to_bytes())
                remember_reads(job, name, notes)
        # A run that goes on says it again: its report holds all that was warned of.
        tell_gains(found, mosaic)
        gains[channel.index] = found
    return gains


def _measured(
    image: MultitileImage,
    channel: Channel,
    groups: Sequence[ModelGroup],
    models: Models,
    seed: int,
    memory: OverlapMemory,
) -> ChannelGains:
    """The gains of a channel, whatever the sides of its tiles."""
    tile_shape = image.layout.tile_shape
    whole = ModelGroup(
        channel.label,
        channel,
        None,
        {tile: planes for group in groups for tile, planes in group.planes.items()},
        unwritten=frozenset().union(*(group.unwritten for group in groups)),
    )
    darks = [dark_of(models[group.label], tile_shape) for group in groups]
    offset = sum(darks[1:], darks[0]) / len(darks)
    seen = memory.observe(image, whole, offset, seed=seed, budget=gains_budget(image))
    logs = {group.label: log_flatfield_of(models[group.label], tile_shape) for group in groups}
    of_tile = {tile: logs[group.label] for group in groups for tile in group.planes}
    loose = [pair.unregistered for pair in seen.rejected if pair.unregistered is not None]

    def solved(
        log_flatfields: Mapping[int, LogFlatfield], counts: float = 0.0
    ) -> dict[int, TileGain]:
        ratios = pair_ratios(brightened(seen.pairs, counts), log_flatfields)
        ratios += [
            replace(ratio, variance=_UNREGISTERED * ratio.variance)
            for ratio in pair_ratios(brightened(loose, counts), log_flatfields)
        ]
        return solve_gains(sorted(whole.planes), ratios)

    # An offset that is taken off too much of makes the dimmer view too dim. A flat-field that is
    # off by a tilt makes a ramp of gains along a row, and nothing contradicts it.
    facts = [models[group.label].facts for group in groups]
    counts = offset_doubt(
        [models[group.label] for group in groups], seen.pairs, seen.dark_structure
    )
    shape = max(fact.get("relative_uncertainty") or 0.0 for fact in facts)
    doubted = [solved(of_tile, counts)] if counts else []
    for axis in range(2) if shape > 0 else ():
        tilted = {tile: _tilted(log, axis, shape, tile_shape) for tile, log in of_tile.items()}
        doubted.append(solved(tilted))
    gains = with_doubts(solved(of_tile), doubted)
    names = {tile: image.layout.tile(tile).name for tile in gains}
    rejected = tuple(map(_without_bins, seen.rejected))
    return ChannelGains(
        channel.label,
        names,
        gains,
        rejected,
        as_placed=len(loose),
        offset_told=counts is not None,
    )


def _without_bins(pair: Rejected) -> Rejected:
    return replace(pair, unregistered=None)


def offset_doubt(
    models: Sequence[ChannelModel], pairs: Sequence[OverlapPair], dark_structure: float | None
) -> float | None:
    """By how many counts the offset of models may be too large; below 0 where it is too small.

    That of an estimate has its own uncertainty. Whatever it comes from, the overlaps may show
    that counts of the light are none, or that some are missing.

    Args:
        models: with which the views of pairs are corrected.
        pairs: with the light above their offsets.
        dark_structure: as for `pedestal`.

    Returns:
        None where nothing tells: the offset was given, and the overlaps cannot say.
    """
    stated = max(model.facts.get("offset_uncertainty") or 0.0 for model in models)
    left = pedestal(pairs, dark_structure)
    if stated == 0 and not left.told:
        return None
    return float(max(stated, -left.likely, key=abs))


def brightened(pairs: Sequence[OverlapPair], counts: float) -> list[OverlapPair]:
    """Pairs as they would be with a camera offset lower by these counts."""

    def changed(light: FloatArray) -> FloatArray:
        return np.maximum(light + counts, _LEAST_LIGHT * light)

    return [
        replace(p, light_first=changed(p.light_first), light_second=changed(p.light_second))
        for p in pairs
    ]


def _tilted(
    log_flatfield: LogFlatfield, axis: int, rms: float, tile_shape: tuple[int, int]
) -> LogFlatfield:
    """A flat-field with its share of an error of this RMS as a tilt along an axis."""
    slope, middle = rms * (12 * _TILT) ** 0.5 / tile_shape[axis], (tile_shape[axis] - 1) / 2

    def at(y: FloatArray, x: FloatArray) -> FloatArray:
        return np.asarray(log_flatfield(y, x) + slope * ((y, x)[axis] - middle))

    return at


def dark_of(model: ChannelModel, tile_shape: tuple[int, int]) -> float | NDArray[np.float32]:
    """Counts without light: a number, or (y, x) of a tile."""
    dark = model.profile.resampled(tile_shape).darkfield
    return model.offset if dark is None else dark


def log_flatfield_of(
    model: ChannelModel, tile_shape: tuple[int, int], over: int = 1
) -> LogFlatfield:
    """The logarithm of a flat-field at places between pixels.

    Args:
        model: that holds it.
        tile_shape: (y, x) in pixels.
        over: side of the square that it is averaged over, in pixels; an odd number, or one more.
    """
    from scipy.ndimage import map_coordinates, uniform_filter

    flat = model.profile.resampled(tile_shape).flatfield
    logarithm = np.log(uniform_filter(flat, over | 1, mode="nearest"))

    def at(y: FloatArray, x: FloatArray) -> FloatArray:
        values = map_coordinates(logarithm, [y, x], output=np.float64, order=1, mode="nearest")
        return np.asarray(values)

    return at
