"""Whether a container was written by this package, and whether it is complete."""

from __future__ import annotations

import json
from typing import Any

from fractal_mesospim_shading.errors import ImageFormatError
from fractal_mesospim_shading.images.mosaic import MARK, is_finished
from fractal_mesospim_shading.images.storage.places import StorageOptions, normalise_url
from fractal_mesospim_shading.images.storage.stores import open_group

Attributes = dict[str, Any]


def container_attributes(url: str, storage_options: StorageOptions = None) -> Attributes:
    """The attributes of the container's own group; the microscope writes none.

    Raises:
        ImageNotFoundError, ImageFormatError: there is no zarr group.
    """
    group = open_group(normalise_url(url), storage_options)
    found: Attributes = json.loads(json.dumps(dict(group.attrs)))
    return found


def refuse_unfinished(url: str, attributes: Attributes) -> None:
    """Refuse what a run of this package left before its end.

    Raises:
        ImageFormatError: it is such a container.
    """
    if not is_finished(attributes):
        raise ImageFormatError(
            f"The container '{url}' is unfinished: the run that wrote it broke off. Run it again "
            "to its end, or remove it."
        )


def earlier_correction(attributes: Attributes) -> str | None:
    """One line where the container is a corrected one already; None where it is not."""
    mark = attributes.get(MARK)
    if not isinstance(mark, dict):
        return None
    return (
        f"This container is a result of this package already ({mark.get('task')}, version "
        f"{mark.get('version')}), not what the microscope wrote."
    )
