"""Names that come from inside a source, before they become part of another address.

A zip archive or an object store may hold any text as a name, `..` and `/` included, and
so may the metadata of an image as the path of an array. Joined to the address of a
result, such a name would lead out of it.
"""

from __future__ import annotations

import re

from fractal_mesospim_shading.errors import ImageFormatError

_DRIVE = re.compile(r"^[A-Za-z]:")


def what_is_wrong(name: str) -> str | None:
    """Why one name (of a file, a folder, an array) must not be joined to an address.

    Args:
        name: without slashes, if it is right.

    Returns:
        The reason, None where the name is harmless.
    """
    if not name or name == ".":
        return "it is empty or '.'"
    if name == "..":
        return "it leads out of its folder"
    if "/" in name or "\\" in name:
        return "it holds a slash or a backslash"
    if _DRIVE.match(name):
        return "it begins with a drive letter"
    if "\0" in name:
        return "it holds a NUL character"
    return None


def checked_path(path: str, where: str) -> str:
    """A path within a source, if it stays in there.

    Args:
        path: relative, parts separated by `/`.
        where: the address it was found in, for the message.

    Raises:
        ImageFormatError: the path is absolute, leads upwards, or is none that every system
            understands alike.
    """
    for part in path.split("/"):
        reason = what_is_wrong(part)
        if reason is not None:
            raise ImageFormatError(unsafe_name(path, where, reason))
    return path


def unsafe_name(path: str, where: str, reason: str) -> str:
    """The message about a name that must not be used."""
    return (
        f"{where} holds the name {path!r}, and {reason}: written into a result, it could "
        "end up somewhere else. Nothing with such a name is read or copied; rename or remove it."
    )
