"""One plane of a mosaic before and after its flat-field correction, without writing an image."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass, replace
from math import prod

import numpy as np
from numpy.typing import NDArray

from fractal_mesospim_shading.core.layout import TileLayout
from fractal_mesospim_shading.engine.resources import estimate_workers
from fractal_mesospim_shading.engine.zero_look import Zeros
from fractal_mesospim_shading.errors import Problems
from fractal_mesospim_shading.flatfield.job_models import choose_models
from fractal_mesospim_shading.flatfield.kernel import FlatfieldKernel, flatfield_kernel
from fractal_mesospim_shading.flatfield.model_texts import facts_line
from fractal_mesospim_shading.flatfield.modelling import estimate_model
from fractal_mesospim_shading.flatfield.models import ChannelModel, Models, uncorrected_model
from fractal_mesospim_shading.flatfield.plane_sample import box_bytes
from fractal_mesospim_shading.flatfield.sampling import (
    PlaneChoice,
    layout_at_level,
    z_factor,
)
from fractal_mesospim_shading.images.arrays.documents import Box
from fractal_mesospim_shading.images.mosaic import MosaicImage
from fractal_mesospim_shading.images.native.container import is_container
from fractal_mesospim_shading.images.source import MultitileImage
from fractal_mesospim_shading.images.storage.names import image_name
from fractal_mesospim_shading.images.storage.stores import workable
from fractal_mesospim_shading.images.tile_tables import refuse_table_of_acquisition
from fractal_mesospim_shading.options.flatfield import FlatfieldOptions
from fractal_mesospim_shading.views.coarse import PLANE_PIXELS, coarse_level, plane_box, shrinking
from fractal_mesospim_shading.views.preview_figures import flatfield_preview, write_picture
from fractal_mesospim_shading.views.preview_plane import (
    PlaneWanted,
    channel_index,
    mosaic_named,
    open_container,
    plane_number,
)

logger = logging.getLogger(__name__)

_MOST_PIXELS = 16 * PLANE_PIXELS
"""A plane with more of them, of which there is no coarser level, is shown in part."""


def write_flatfield_preview(
    source_url: str, output: str, wanted: PlaneWanted, options: FlatfieldOptions
) -> str:
    """Write a picture of a plane before and after the correction that the task would make.

    The model is that of the task: measured ones as they were given, else one that is estimated,
    for this channel alone. A large plane is shown from a coarser level.

    Args:
        source_url: of the image, or of an acquisition.
        output: PNG file to write.
        wanted: which plane. Its tile says which part of a mosaic is shown where the whole is too
            large, and which row of tiles is drawn as lines.
        options: of the task.

    Returns:
        The file written.

    Raises:
        ShadingError: one readable error.
    """
    image = _opened(source_url, wanted, options)
    channel = channel_index(image.channels, wanted.channel)
    z = plane_number(image, wanted.z)
    tile = image.layout.tiles[len(image.layout.tiles) // 2]
    if wanted.tile is not None:
        tile = image.layout.tile(wanted.tile)
    problems = Problems()
    choice = problems.run(lambda: choose_models(image, options, problems))
    models = _models(problems.passed(choice), channel, options)
    place = _Place.of(image, channel, z, tile.number)
    before, after = place.pixels(image, flatfield_kernel(image, models, options), models, options)
    label = image.channels[channel].label
    groups = [g for g in image.model_groups if g.channel.index == channel]
    own = next((g for g in groups if tile.number in g.planes), groups[0])
    model = models[own.label]
    picture = flatfield_preview(
        before,
        after,
        model.profile.flatfield,
        title=f"{image_name(image.url)}, channel {label}, plane {z}",
        offsets=(_offset(model), options.output_offset),
        rows=place.rows,
        factor=place.factor[1],
        note=facts_line(own.label, model),
    )
    return write_picture(output, picture)


def _opened(url: str, wanted: PlaneWanted, options: FlatfieldOptions) -> MultitileImage:
    storage = options.storage_options
    with workable(url):
        if is_container(url, storage):
            refuse_table_of_acquisition(options.input_roi_table)
            return mosaic_named(open_container(url, storage).mosaics(), wanted.mosaic)
        return MosaicImage.open(url, storage, options.input_roi_table)


def _models(choice: PlaneChoice, channel: int, options: FlatfieldOptions) -> Models:
    """The models of a channel; the others are not looked at."""
    image, models = choice.image, {}
    workers = estimate_workers(box_bytes(image, choice.level), options)
    for group in image.model_groups:
        if group.channel.index == channel:
            models[group.label] = estimate_model(choice, group, workers)
            logger.info("%s", facts_line(group.label, models[group.label]))
        else:
            models[group.label] = uncorrected_model(image.layout.tile_shape, "not looked at")
    return models


def _offset(model: ChannelModel) -> float:
    dark = model.profile.darkfield
    return model.offset if dark is None else float(np.mean(dark))


@dataclass(frozen=True)
class _Place:
    """The part of a plane that is shown.

    Attributes:
        level: of the pyramid.
        layout: of the tiles at that level.
        box: that is read.
        channel: index along c.
        factor: pixels (y, x) of full resolution in one that is shown.
        rows: of what is shown, those of one row of tiles.
    """

    level: int
    layout: TileLayout
    box: Box
    channel: int
    factor: tuple[int, int]
    rows: slice

    @classmethod
    def of(cls, image: MultitileImage, channel: int, z: int, tile: int) -> _Place:
        """Choose level and part.

        Args:
            image: of any kind.
            channel: index along c.
            z: plane at full resolution.
            tile: number of the tile that is shown in any case.
        """
        level = coarse_level(image.levels)
        layout = layout_at_level(image, level)
        y, x = _part(layout, tile)
        plane = z // z_factor(image, level)
        box = plane_box(image.axes, channel, slice(plane, plane + 1), y, x)
        top = layout.tile(tile).y - y.start
        rows = slice(top, top + layout.tile_shape[0])
        return cls(level, layout, box, channel, shrinking(image.levels, level), rows)

    def pixels(
        self,
        image: MultitileImage,
        kernel: FlatfieldKernel,
        models: Models,
        options: FlatfieldOptions,
    ) -> tuple[NDArray[np.generic], NDArray[np.generic]]:
        """The part before and after; at full resolution with the pixels of the task."""
        raw = image.read(self.level, self.box)
        stack = raw.reshape((-1, *raw.shape[-2:]))
        zeros, (y, x) = Zeros(), self.box[-2:]
        if self.level == 0:
            z = image.axes.span("z", self.box)
            zeros = kernel.zeros(image, {"t": 0, "c": self.channel}, (z, y, x), stack)
        else:
            corrections = {
                label: model.correction(
                    self.layout.tile_shape,
                    subtract_baseline=options.subtract_baseline,
                    output_offset=options.output_offset,
                )
                for label, model in models.items()
            }
            kernel = replace(kernel, layout=self.layout, corrections=corrections)
        kind = raw.dtype if options.output_type == "source" else np.dtype(np.float32)
        result = np.array(stack, dtype=kind, order="C")
        kernel.correct(self.channel, (y, x), result, zeros)
        return stack[0], result[0]


def _part(layout: TileLayout, number: int) -> tuple[slice, slice]:
    """The whole plane; or so many whole tiles around one of them as can be shown."""
    sides: Sequence[int] = layout.plane_shape
    if prod(sides) <= _MOST_PIXELS:
        return slice(0, sides[0]), slice(0, sides[1])
    side = max(int(_MOST_PIXELS**0.5), *layout.tile_shape)
    tile, spans = layout.tile(number), []
    for start, size, whole in zip((tile.y, tile.x), layout.tile_shape, sides, strict=True):
        first = min(max(start + size // 2 - side // 2, 0), max(whole - side, 0))
        first = min(first, start)
        spans.append(slice(first, min(first + side, whole)))
    return spans[0], spans[1]
