"""Opening an acquisition for a job: no unfinished result, and what is suspicious is told."""

from __future__ import annotations

import logging

from fractal_mesospim_shading.images.native.collection import TileCollection
from fractal_mesospim_shading.images.native.positions import SignOptions
from fractal_mesospim_shading.images.native.results import container_attributes, refuse_unfinished
from fractal_mesospim_shading.images.storage.places import StorageOptions

logger = logging.getLogger(__name__)


def open_collection(
    container: str,
    storage: StorageOptions,
    signs: SignOptions | None = None,
    exclude_groups: tuple[str, ...] = (),
) -> TileCollection:
    """Open an acquisition with what the user knows about its axes.

    Raises:
        ShadingError: it cannot be read, or is an unfinished result of this package.
    """
    refuse_unfinished(container, container_attributes(container, storage))
    return TileCollection.open(container, storage, signs=signs, exclude_groups=exclude_groups)


def tell_facts(collection: TileCollection) -> None:
    """Say what is suspicious in an acquisition, and which orientation is used."""
    for line in collection.warnings:
        logger.warning("%s", line)
    logger.info("%s", collection.orientation.text)
