"""Measured flat-fields as files: one for all channels, or one for each."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

from fractal_mesospim_shading.errors import ProfileError
from fractal_mesospim_shading.images.models.files import local_file
from fractal_mesospim_shading.images.models.folder import SavedModel, load_model
from fractal_mesospim_shading.images.source import Channel

EVERY_CHANNEL = ""
"""The key of a file for all channels that have none of their own."""


def load_flatfield_files(
    files: Mapping[str, str], channels: Sequence[Channel]
) -> dict[str, SavedModel]:
    """Read measured flat-fields.

    Args:
        files: path by channel: its label (`488 nm`), its wavelength (`488`), or `EVERY_CHANNEL`.
            .npz as models are, or with the key `flatfield` alone; .npy or TIFF of one image
            (y, x), or a stack that is averaged, the camera's offset taken off. In the
            orientation of the stored tile.
        channels: of the image.

    Returns:
        Models by channel label, of those that have a file.

    Raises:
        ProfileError: a channel that the image does not have, or files that cannot be used.
    """
    chosen: dict[str, str] = {}
    unknown = []
    # A file for all goes before none of the others.
    for key, path in sorted(files.items()):
        of_key = [channel.label for channel in channels if _means(key, channel)]
        chosen |= dict.fromkeys(of_key, path)
        if not of_key:
            unknown.append(f"'{key}'")
    if unknown:
        labels = ", ".join(f"'{channel.label}'" for channel in channels)
        raise ProfileError(
            f"`flatfield_files` names the channel {', '.join(unknown)}, but the image has "
            f"{labels}. Name them by label or wavelength."
        )
    loaded = {path: load_model(local_file(path, "flatfield_files")) for path in chosen.values()}
    return {label: loaded[path] for label, path in chosen.items()}


def _means(key: str, channel: Channel) -> bool:
    """Whether a key stands for a channel: no label is empty."""
    number = re.search(r"\d+", channel.label)
    names = {EVERY_CHANNEL, channel.label, channel.wavelength_id, number and number.group()}
    return key in names
