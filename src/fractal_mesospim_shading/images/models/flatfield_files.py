"""Measured flat-fields as files: one for all channels, or one for each."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from fractal_mesospim_shading.errors import ParameterError
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
        ParameterError: a channel that the image does not have, or two files for one channel.
        ProfileError: files that cannot be used.
    """
    keys = {
        channel.label: [key for key in sorted(files) if key and _means(key, channel)]
        for channel in channels
    }
    _refuse_unclear(files, keys)
    chosen = {
        label: files[own[0]] if own else files[EVERY_CHANNEL]
        for label, own in keys.items()
        if own or EVERY_CHANNEL in files
    }
    loaded = {path: load_model(local_file(path, "flatfield_files")) for path in chosen.values()}
    return {label: loaded[path] for label, path in chosen.items()}


def _refuse_unclear(files: Mapping[str, str], keys: Mapping[str, Sequence[str]]) -> None:
    """Refuse keys of no channel, and several of one.

    Args:
        files: path by channel, as they were given.
        keys: of these, those of each channel, by its label.

    Raises:
        ParameterError: names them.
    """
    known = {EVERY_CHANNEL, *(key for own in keys.values() for key in own)}
    unknown = ", ".join(f"'{key}'" for key in sorted(files) if key not in known)
    if unknown:
        labels = ", ".join(f"'{label}'" for label in keys)
        raise ParameterError(
            f"`flatfield_files` names the channel {unknown}, but the image has {labels}. Name them "
            "by label or wavelength."
        )
    for label, own in keys.items():
        if len(own) > 1:
            both = " and ".join(f"'{key}'" for key in own)
            raise ParameterError(
                f"`flatfield_files` has several files for the channel '{label}': as {both}. Give "
                "one."
            )


def _means(key: str, channel: Channel) -> bool:
    """Whether a key stands for a channel."""
    return key in {channel.label, channel.wavelength_id, channel.number}
