"""Names of folders for the models of channels, and labels that would share one."""

from __future__ import annotations

import os
import unicodedata
from collections.abc import Iterable, Sequence
from pathlib import Path

from fractal_mesospim_shading.errors import ProfileError

_LONGEST_NAME = 255
"""Bytes that file systems allow for a name."""


def folder_name(label: str) -> str:
    """Name of a channel's folder: slashes and backslashes become `_`.

    Raises:
        ProfileError: the label is no name of a folder, or leads out of it.
    """
    name = label.replace("/", "_").replace("\\", "_")
    if not name.strip() or name.strip(" .") == "" or "\0" in name:
        raise ProfileError(
            f"The channel label {label!r} cannot be the name of a folder. "
            "Rename the channel in 'omero.channels'."
        )
    try:
        size = len(os.fsencode(name))
    except UnicodeError:
        raise ProfileError(
            f"The channel label {label!r} holds characters that no file name can hold. Rename the "
            "channel in 'omero.channels'."
        ) from None
    if size > _LONGEST_NAME:
        raise ProfileError(
            f"The channel label {label[:40]!r}... is {size} bytes long; the name of a folder can "
            f"have {_LONGEST_NAME}. Rename the channel in 'omero.channels'."
        )
    return name


def refuse_shared_folders(labels: Iterable[str]) -> None:
    """Refuse labels whose models would be written to one folder, here or on another system.

    Windows and macOS do not tell `a` from `A`, and Windows drops dots and spaces at the end.

    Raises:
        ProfileError: names the labels and the folder; or a label is no name of a folder.
    """
    labels = tuple(labels)
    for label in labels:
        folder_name(label)
    for same in _alike(labels):
        raise ProfileError(
            f"{_listed(same)} share the model folder '{folder_name(same[0])}'"
            f"{_why(same)}: one model would take the place of the other. Rename one of the "
            "channels in 'omero.channels'."
        )


def refuse_one_folder_for_two(root: Path, labels: Iterable[str]) -> None:
    """Refuse labels that one folder on disk would serve.

    Labels that differ only in what some file systems ignore are read where each has a
    folder of its own.

    Raises:
        ProfileError: names the labels and the folder.
    """
    groups = _alike(labels)
    if not groups:
        return
    present = set(os.listdir(root))
    for same in groups:
        names = {folder_name(label) for label in same}
        if len(names) == len(same) and names <= present:
            continue
        raise ProfileError(
            f"{_listed(same)} share the model folder '{root / folder_name(same[0])}'"
            f"{_why(same)}: both would be corrected with the same model. Rename one of the "
            "channels in 'omero.channels', and give each its own folder."
        )


def _alike(labels: Iterable[str]) -> list[Sequence[str]]:
    """Groups of different labels that some file system takes for one name."""
    groups: dict[str, list[str]] = {}
    for label in dict.fromkeys(labels):
        try:
            name = folder_name(label)
        except ProfileError:
            continue
        groups.setdefault(portable(name), []).append(label)
    return [same for same in groups.values() if len(same) > 1]


def portable(name: str) -> str:
    """What is left of a name on a file system that ignores case and dots at the end."""
    return unicodedata.normalize("NFC", name).casefold().rstrip(" .")


def _listed(labels: Sequence[str]) -> str:
    return "The channel labels " + " and ".join(repr(label) for label in labels)


def _why(labels: Sequence[str]) -> str:
    if len({folder_name(label) for label in labels}) < len(labels):
        return " (slashes become '_')"
    return " on file systems that ignore case, or dots and spaces at the end"
