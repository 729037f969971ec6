"""Model folders: one flat-field (with dark-field and baseline) for each channel.

<folder>/<channel label>/profiles.npz              keys flatfield, darkfield, baseline
<folder>/<channel label>/left|right|both/profiles.npz  one for each illumination side
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from fractal_mesospim_shading.core.profile import ShadingProfile
from fractal_mesospim_shading.errors import OutputWriteError, ProfileError
from fractal_mesospim_shading.images.array_files import (
    npz_keys,
    read_npy,
    read_npz,
    read_tiff,
    write_npz,
)

Side = Literal["left", "right", "both"]
FILE_NAME = "profiles.npz"
_SIDES = ("left", "right", "both")
_KEYS = ("flatfield", "darkfield", "baseline")


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
    return name


def load_models(
    folder: str | os.PathLike[str], labels: Iterable[str], side: Side | None = None
) -> dict[str, ShadingProfile]:
    """Read the models of all channels; every problem is reported, not just the first.

    Args:
        folder: that holds a folder for each channel.
        labels: of the channels wanted.
        side: illumination side; its own model is taken where there is one, else the
            channel's.

    Returns:
        Profiles by label, flat-fields scaled to mean 1, of the shape that is stored.

    Raises:
        ProfileError: missing or unusable files, all of them listed.
    """
    root = _existing_folder(folder, "models_folder")
    return _collected(labels, lambda label: load_profile(_model_file(root, label, side)), root)


def load_profile(path: str | os.PathLike[str]) -> ShadingProfile:
    """Read one `profiles.npz`.

    Raises:
        ProfileError: not there, not readable, no `flatfield`, or values that cannot be
            divided by; the message names the file.
    """
    content = read_npz(Path(path), _KEYS)
    if "flatfield" not in content:
        raise ProfileError(f"'{path}' has no key 'flatfield' (its keys: {npz_keys(Path(path))}).")
    baseline = content.get("baseline")
    if baseline is not None and baseline.size and baseline.dtype.kind in "uif":
        # BaSiC gives one for each plane that it saw.
        baseline = np.median(baseline)
    number = None if baseline is None else baseline.tolist()
    try:
        return ShadingProfile.create(content["flatfield"], content.get("darkfield"), number)
    except ProfileError as error:
        raise ProfileError(f"'{path}': {error}") from error


def save_models(
    folder: str | os.PathLike[str],
    profiles: Mapping[str, ShadingProfile],
    side: Side | None = None,
) -> dict[str, Path]:
    """Write the models of channels; `load_models` reads them again.

    The same profiles give the same bytes. Each file appears whole or not at all; models
    of other channels in the folder stay.

    Args:
        folder: made where it is not there.
        profiles: by channel label.
        side: illumination side they are for; None for all.

    Returns:
        The file of each channel.

    Raises:
        ProfileError: two labels would share a folder.
        OutputWriteError: no permission, or no space.
    """
    root = Path(folder)
    files: dict[str, Path] = {}
    for label in profiles:
        path = root / folder_name(label) / (side or "") / FILE_NAME
        if path in files.values():
            raise ProfileError(
                f"The channel label {label!r} and another one share the model folder "
                f"'{path.parent}'. Rename one of the channels."
            )
        files[label] = path
    for label, path in files.items():
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            values = {key: getattr(profiles[label], key) for key in _KEYS}
            write_npz(path, {key: value for key, value in values.items() if value is not None})
        except OSError as error:
            raise OutputWriteError(
                f"The model '{path}' cannot be written: {error}. Check the free space and the "
                "rights, or choose another folder."
            ) from error
    return files


def load_darkfield(
    path: str | os.PathLike[str], labels: Iterable[str]
) -> dict[str, NDArray[np.float32] | float]:
    """Read a measured dark frame.

    Args:
        path: a file for all channels (.npy; .npz with the key `darkfield`; TIFF), or a
            folder with one `profiles.npz` for each channel, as for models. A stack is
            averaged over all axes before (y, x). A single number is allowed in .npy and
            .npz. In the orientation of the stored tile.
        labels: of the channels.

    Returns:
        (y, x) float32 in counts, or one number, by label.

    Raises:
        ProfileError: missing or unusable files, all of them listed.
    """
    file = Path(path)
    if file.is_dir():
        return _collected(
            labels, lambda label: _darkfield_file(_model_file(file, label, None)), file
        )
    if not file.exists():
        raise ProfileError(f"The `darkfield_file` '{file}' is not there. Check the path.")
    frame = _darkfield_file(file)
    return dict.fromkeys(labels, frame)


def _darkfield_file(path: Path) -> NDArray[np.float32] | float:
    suffix = path.suffix.lower()
    if suffix == ".npz":
        content = read_npz(path, _KEYS)
        if "darkfield" not in content:
            raise ProfileError(f"'{path}' has no key 'darkfield' (its keys: {npz_keys(path)}).")
        values = content["darkfield"]
    elif suffix == ".npy":
        values = read_npy(path)
    elif suffix in (".tif", ".tiff"):
        values = read_tiff(path)
    else:
        raise ProfileError(
            f"The `darkfield_file` '{path}' is of the kind '{suffix}'; expected .npy, .npz, .tif, "
            ".tiff, or a folder."
        )
    return _averaged(values, path)


def _averaged(values: NDArray[Any], path: Path) -> NDArray[np.float32] | float:
    if values.dtype.kind not in "uif" or values.size == 0:
        raise ProfileError(
            f"'{path}' holds {values.dtype} of shape {values.shape}; expected numbers."
        )
    if values.size == 1:
        frame = values.astype(np.float64).reshape(1, 1)
    elif values.ndim < 2:
        raise ProfileError(
            f"'{path}' has shape {values.shape}; expected an image (y, x), or a stack of them."
        )
    else:
        stack = values.reshape(-1, *values.shape[-2:])
        total = np.zeros(stack.shape[1:], np.float64)
        for image in stack:
            total += image
        frame = total / len(stack)
    if not np.isfinite(frame).all():
        raise ProfileError(f"'{path}' holds NaN or infinite values; every value must be finite.")
    return float(frame[0, 0]) if values.size == 1 else frame.astype(np.float32)


def _model_file(root: Path, label: str, side: Side | None) -> Path:
    channel = root / folder_name(label)
    if side is not None and (channel / side / FILE_NAME).exists():
        return channel / side / FILE_NAME
    path = channel / FILE_NAME
    if path.exists():
        return path
    if not channel.is_dir():
        present = sorted(entry.name for entry in root.iterdir() if entry.is_dir())
        listed = ", ".join(present[:10]) or "no folder"
        raise ProfileError(f"No folder '{channel.name}' in '{root}' (it has: {listed}).")
    sides = [name for name in _SIDES if (channel / name / FILE_NAME).exists()]
    hint = f" There are models for {', '.join(sides)} only." if sides else ""
    raise ProfileError(f"'{path}' is not there.{hint}")


def _existing_folder(folder: str | os.PathLike[str], parameter: str) -> Path:
    root = Path(folder)
    if not root.is_dir():
        found = "is a file" if root.exists() else "is not there"
        raise ProfileError(
            f"The {parameter} '{root}' {found}; expected a folder that holds "
            f"<channel label>/{FILE_NAME}."
        )
    return root


def _collected(labels: Iterable[str], load: Callable[[str], Any], root: Path) -> dict[str, Any]:
    """Load for every label; one error that lists what failed for any of them."""
    loaded, problems = {}, []
    for label in labels:
        try:
            loaded[label] = load(label)
        except (ProfileError, OSError) as error:
            problems.append(f"channel '{label}': {error}")
    if problems:
        listed = "\n".join(f"- {problem}" for problem in problems)
        raise ProfileError(f"The models in '{root}' cannot be used:\n{listed}")
    return loaded
