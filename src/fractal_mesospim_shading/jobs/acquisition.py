"""Open a native acquisition for a job: what is said about it, and what a rerun must match."""

from __future__ import annotations

import logging
import os
from typing import Any

from fractal_mesospim_shading.errors import ParameterError
from fractal_mesospim_shading.images.mosaic import MARK
from fractal_mesospim_shading.images.native.collection import TileCollection
from fractal_mesospim_shading.images.native.positions import SignOptions
from fractal_mesospim_shading.images.native.results import (
    container_attributes,
    refuse_unfinished,
)
from fractal_mesospim_shading.images.storage import places
from fractal_mesospim_shading.jobs.preparation import options_of

logger = logging.getLogger(__name__)


def open_collection(container: str, options: Any) -> TileCollection:
    """Open an acquisition with what the user knows about its axes.

    Raises:
        ShadingError: it cannot be read, or is an unfinished result of this package.
    """
    refuse_unfinished(container, container_attributes(container, options_of(options)))
    signs = SignOptions(getattr(options, "sign_x", None), getattr(options, "sign_y", None))
    exclude = getattr(options, "exclude_groups", None) or ()
    return TileCollection.open(
        container, options_of(options), signs=signs, exclude_groups=tuple(exclude)
    )


def log_facts(collection: TileCollection) -> None:
    """Say what is suspicious in an acquisition, and which orientation is used."""
    for line in collection.warnings:
        logger.warning("%s", line)
    logger.info("%s", collection.orientation.text)


def earlier_mark(collection: TileCollection, options: Any) -> dict[str, Any] | None:
    """Our mark in a container that is a result of this package; None in an original."""
    mark = container_attributes(collection.url, options_of(options)).get(MARK)
    return mark if isinstance(mark, dict) else None


def refuse_inside(url: str, container: str) -> None:
    """Refuse a result that would lie within an acquisition: nothing is written there.

    Raises:
        ParameterError: it would.
    """
    inner, outer = (
        os.path.realpath(places.local_path(u)) if places.is_local(u) else u.rstrip("/")
        for u in (url, container)
    )
    if f"{inner}/".startswith(f"{outer}/"):
        raise ParameterError(
            f"{url} would lie within the acquisition '{container}', which is only read. Set "
            "`zarr_dir` to another folder."
        )
