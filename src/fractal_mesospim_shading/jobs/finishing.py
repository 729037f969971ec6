"""The last step of an image: windows, provenance, tables, a look with ome-zarr's own eyes."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping, Sequence
from functools import partial
from typing import Any

import numpy as np

from fractal_mesospim_shading import __version__
from fractal_mesospim_shading.core.correct import PixelCounts
from fractal_mesospim_shading.core.process import Shared
from fractal_mesospim_shading.core.pyramid import Histogram
from fractal_mesospim_shading.engine.process import logs_quieted
from fractal_mesospim_shading.errors import ImageFormatError
from fractal_mesospim_shading.flatfield.models import ChannelModel, model_digest
from fractal_mesospim_shading.images.arrays.documents import write_attributes
from fractal_mesospim_shading.images.ngff import ngff_content, ome_zarr_format, with_windows
from fractal_mesospim_shading.images.source import Channel
from fractal_mesospim_shading.images.storage.stores import open_store
from fractal_mesospim_shading.images.target import TargetImage
from fractal_mesospim_shading.jobs.preparation import marked

Attributes = dict[str, Any]

# ome-zarr checks little and says in its own ways what it does not understand.
_OME_ZARR_ERRORS = (
    ValueError,
    TypeError,
    KeyError,
    IndexError,
    AttributeError,
    AssertionError,
    RuntimeError,
    OSError,
)


def totals(
    channels: Sequence[Channel],
    records: Iterable[Mapping[str, Any]],
    which: str = "channels",
    counted: type[PixelCounts] = PixelCounts,
) -> tuple[dict[str, PixelCounts], dict[str, Histogram]]:
    """Counts and histograms by channel label, summed over the journal.

    Args:
        channels: of the image.
        records: of the journal.
        which: `channels` for the result, `channels_<kind>` for an image that goes with it.
        counted: the kind of counts in the records.
    """
    labels = {str(channel.index): channel.label for channel in channels}
    counts = {label: counted() for label in labels.values()}
    histograms = {label: Histogram() for label in labels.values()}
    for record in records:
        for index, entry in record.get(which, {}).items():
            label = labels[index]
            counts[label] = counts[label] + counted(*entry["counts"])
            histograms[label] = histograms[label] + Histogram.from_text(entry["histogram"])
    return counts, histograms


def window(histogram: Histogram, dtype: np.dtype[Any]) -> dict[str, float]:
    """Contrast window of a channel: 0.1 to 99.9 % of its pixels, within the range of its type."""
    if not histogram.total:
        low, high, bounds = 0.0, 1.0, (0.0, 1.0)
    else:
        low, high = histogram.quantile(0.001), histogram.quantile(0.999)
        bounds = (histogram.quantile(0.0), max(histogram.quantile(1.0), high))
    if np.issubdtype(dtype, np.integer):
        bounds = (0.0, float(np.iinfo(dtype).max))
    return {"min": bounds[0], "max": bounds[1], "start": low, "end": max(high, low + 1e-6)}


def provenance(
    task: str,
    parameters: Mapping[str, Any],
    models: Mapping[str, ChannelModel],
    counts: Mapping[str, PixelCounts],
) -> Attributes:
    """How a result was made, without anything that differs between two runs of the same job."""
    return {
        "task": task,
        "package": "fractal-mesospim-shading",
        "version": __version__,
        "parameters": dict(parameters),
        "models": {
            label: {**model.facts, "profile": model_digest(model.profile)}
            for label, model in models.items()
        },
        "pixels": {label: vars(found) for label, found in counts.items()},
    }


def complete(
    target: TargetImage,
    attributes: Attributes,
    channels: Sequence[Channel],
    histograms: Mapping[str, Histogram],
    mark: Attributes,
) -> None:
    """Write the final attributes of an image: windows, provenance, and the mark.

    A stack of one channel that has no channel metadata is left without.

    Raises:
        ImageFormatError: ome-zarr does not read what was written.
    """
    content = ngff_content(attributes, target.zarr_format)
    if len(target.levels[0].shape) > 3 or "omero" in content:
        labels = [channel.label for channel in channels]
        windows = [window(histograms[label], target.levels[0].dtype) for label in labels]
        attributes = with_windows(attributes, target.zarr_format, windows, labels)
    final = marked(attributes, mark, complete=True)
    write_attributes(target.url, target.zarr_format, final, target.storage_options)
    refuse_unreadable(target)


_quiet_reader = Shared(partial(logs_quieted, logging.CRITICAL, "ome_zarr"))


def refuse_unreadable(target: TargetImage) -> None:
    """Open an image with ome-zarr's own reader before it counts as complete.

    Raises:
        ImageFormatError: it finds no image, or another pyramid than was written.
    """
    from ome_zarr.io import ZarrLocation
    from ome_zarr.reader import Reader

    fmt = ome_zarr_format(target.zarr_format)
    store, _ = open_store(target.url, target.storage_options)
    try:
        # Its chatter about versions and optional parts would mark a server's job.
        with _quiet_reader:
            nodes = list(Reader(ZarrLocation(store, fmt=fmt))())
        shapes = [tuple(array.shape) for array in nodes[0].data] if nodes else []
    except _OME_ZARR_ERRORS as error:
        raise ImageFormatError(
            "ome-zarr cannot open an image with these metadata "
            f"({type(error).__name__}: {str(error) or 'no reason given'})."
        ) from error
    expected = [level.shape for level in target.levels]
    if shapes != expected:
        raise ImageFormatError(
            f"ome-zarr reads the levels {shapes} from an image with these metadata; expected "
            f"{expected}."
        )
