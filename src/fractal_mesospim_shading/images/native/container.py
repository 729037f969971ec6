"""Whether an address is that of a container of stacks."""

from __future__ import annotations

from fractal_mesospim_shading.images.ngff import group_content
from fractal_mesospim_shading.images.storage.places import StorageOptions, normalise_url
from fractal_mesospim_shading.images.storage.stores import open_group

_OTHER_KINDS = ("multiscales", "plate", "well")


def is_container(url: str, storage_options: StorageOptions = None) -> bool:
    """Whether at an address lies a container of stacks, by the names in it.

    Args:
        url: see `TileCollection.open`.
        storage_options: for remote addresses.

    Raises:
        ImageNotFoundError, ImageFormatError: there is no zarr group at all.
    """
    address = normalise_url(url)
    content = group_content(open_group(address, storage_options))
    if any(content.get(key) for key in _OTHER_KINDS):
        return False
    # Not at the top: the start of a job with an image does without all that reads acquisitions.
    from fractal_mesospim_shading.images.native.collection import holds_stacks

    return holds_stacks(address, storage_options)
