"""Names: what a template means, which no result may have, and which must not leave a source.

A zip archive or an object store may hold any text as a name, `..` and `/` included, and
so may the metadata of an image as the path of an array. Joined to the address of a
result, such a name would lead out of it.
"""

from __future__ import annotations

import os
import re

from fractal_mesospim_shading.errors import ImageFormatError, ParameterError
from fractal_mesospim_shading.images.storage import places
from fractal_mesospim_shading.messages import has_control_characters, shown

PLACEHOLDER = "{image_name}"

_MORE_BYTES = len("_background") + len(".") + len(".01234567.replaced")
"""What names beside a result have more than its own: companions, and those of `job`."""

USUAL_NAME_BYTES = 255
"""Bytes that file systems allow for a name."""

_USUAL_PATH_BYTES = 4096

_INNER_BYTES = 200
"""Room for what lies within a result: its levels, tables, labels and chunks."""

# Files of zarr and what zarr keeps for itself; our own hidden names; devices of Windows.
_RESERVED = re.compile(
    r"zarr\.json|\.z(array|attrs|group|metadata)|__.*|\..*\.(job|replaced|draft)"
    r"|(con|prn|aux|nul|com[0-9]|lpt[0-9])(\..*)?",
    re.IGNORECASE | re.DOTALL,
)
_DRIVE = re.compile(r"^[A-Za-z]:")
_SHOWN = 60


def from_template(template: str, image_name: str, option: str) -> str:
    """The name that a template gives; `{image_name}` is all that it may hold in braces.

    Args:
        template: as the user gave it.
        image_name: of the source, without its ending.
        option: that holds the template.

    Raises:
        ParameterError: other braces.
    """
    parts = template.split(PLACEHOLDER)
    if any("{" in part or "}" in part for part in parts):
        raise ParameterError(
            f"`{option}` is {_quoted(template)}; the only placeholder is {PLACEHOLDER}."
        )
    return image_name.join(parts)


def refuse_bad_name(name: str, option: str) -> None:
    """Refuse what is no plain name, or one that systems keep for something else.

    Args:
        name: of a result.
        option: that gives it.

    Raises:
        ParameterError: says what is wrong with it.
    """
    given = f"`{option}` gives {_quoted(name)}; expected a plain name without "
    if not name.strip() or name in (".", "..") or any(c in name for c in "/\\"):
        raise ParameterError(f"{given}folders.")
    if has_control_characters(name):
        raise ParameterError(f"{given}line breaks and other control characters.")
    if name != name.rstrip(". "):
        raise ParameterError(f"{given}a dot or a blank at its end.")
    if _RESERVED.fullmatch(name):
        raise ParameterError(
            f"`{option}` gives {_quoted(name)}, a name that zarr, this package or some systems "
            "keep for themselves. Choose another one."
        )


def refuse_long_name(url: str, option: str, folder_option: str) -> None:
    """Refuse a name, or an address, that is too long for the file system.

    Args:
        url: of a result.
        option: that gives its name.
        folder_option: that gives its folder.

    Raises:
        ParameterError: with the length and the limit.
    """
    if not places.is_local(url):
        return
    folder, name = places.parent_and_name(url)
    most = _limit(folder, "PC_NAME_MAX", USUAL_NAME_BYTES) - _MORE_BYTES
    length = len(os.fsencode(name))
    if length > most:
        raise ParameterError(
            f"`{option}` gives a name of {length} bytes, {_quoted(name)}; the file system takes "
            f"{most} (and a few more for the unfinished result). Give a shorter one."
        )
    most = _limit(folder, "PC_PATH_MAX", _USUAL_PATH_BYTES) - _INNER_BYTES - _MORE_BYTES
    length = len(os.fsencode(url))
    if length > most:
        raise ParameterError(
            f"The address of the result has {length} bytes; the system takes {most} (and some "
            f"for what lies within it). Give a shorter `{folder_option}`."
        )


def _limit(folder: str, which: str, usual: int) -> int:
    """A limit of the file system that a folder lies on, or will lie on."""
    try:
        while not os.path.isdir(folder):
            above = os.path.dirname(folder)
            if above == folder:
                return usual
            folder = above
        limit = os.pathconf(folder, which)
    except (OSError, ValueError, AttributeError):
        return usual
    return min(limit, usual) if limit > 0 else usual


def _quoted(name: str) -> str:
    text = shown(name)
    return f"'{text if len(text) <= _SHOWN else text[: _SHOWN - 3] + '...'}'"


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


def image_name(url: str) -> str:
    """What people call an image: its name, from the container that it lies in.

    Args:
        url: such as `/data/brain.zarr/raw_image`, which is `brain.zarr/raw_image`.
    """
    parts = [part for part in url.split("/") if part]
    inside = next((k for k, part in enumerate(parts) if ".zarr" in part), len(parts) - 1)
    return "/".join(parts[inside:])
