"""Model folders: one flat-field (with dark-field and baseline) for each channel.

<folder>/<channel label>/profiles.npz              keys flatfield, darkfield, baseline
<folder>/<channel label>/left|right|both/profiles.npz  one for each illumination side

Models that this package has saved say in one more key where they come from. BaSiCPy loads each of
their folders: it asks for a file of settings, and for a baseline, which may hold no number.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from fractal_mesospim_shading.core.profile import ShadingProfile
from fractal_mesospim_shading.errors import FolderError, ParameterError, ProfileError
from fractal_mesospim_shading.images.models.files import (
    collected,
    folder_name,
    local_file,
    npz_bytes,
    npz_keys,
    portable,
    read_npz,
    refuse_one_folder_for_two,
    refuse_shared_folders,
)
from fractal_mesospim_shading.images.models.frames import measured_profile, write_tiffs
from fractal_mesospim_shading.images.storage import places
from fractal_mesospim_shading.images.storage.local_files import sync_folder

FILE_NAME = "profiles.npz"

FLATFIELD_FILES = (FILE_NAME, "flatfield.tif", "flatfield.tiff", "flatfield.npy")
"""Names that the file of a measured flat-field may have in the folder of its channel."""

DARKFIELD_FILES = (FILE_NAME, "darkfield.tif", "darkfield.tiff", "darkfield.npy")
"""The same of a dark-field."""
ORIGIN_KEY = "shading_provenance"
# Parameters of BaSiC that are not its defaults: none.
_SETTINGS = ("settings.json", b"{}\n")
_SIDES = ("left", "right", "both")
_KEYS = ("flatfield", "darkfield", "baseline")
_TEXTS = ("scenario", "offset_from")
_NUMBERS = ("offset", "offset_uncertainty", "planes_used", "relative_uncertainty")


class ModelName(NamedTuple):
    """What a model is for: a channel; `left`, `right` or `both` side of it, or (None) all."""

    label: str
    side: str | None = None


@dataclass(frozen=True)
class Origin:
    """Where a saved model comes from.

    Attributes:
        version: of this package, which saved it.
        facts: of the model when it was made, as JSON: `scenario`, `offset`,
            `offset_uncertainty`, `offset_from`, planes used, and so on.
    """

    version: str
    facts: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class SavedModel:
    """A model in a file.

    Attributes:
        profile: flat-field of mean 1, dark-field, baseline; of the shape that is stored.
        origin: None where the file does not say, as for models of other programs.
    """

    profile: ShadingProfile
    origin: Origin | None = None


def load_models(
    folder: str | os.PathLike[str], labels: Iterable[str], side: str | None = None
) -> dict[str, SavedModel]:
    """Read the models of all channels; every problem is reported, not just the first.

    Args:
        folder: that holds a folder for each channel.
        labels: of the channels wanted.
        side: illumination side; its own model is taken where there is one, else the
            channel's.

    Returns:
        Models by label, flat-fields scaled to mean 1, of the shape that is stored.

    Raises:
        ProfileError: missing or unusable files, all of them listed; two labels that one
            folder would serve.
    """
    root = _existing_folder(folder)
    labels = tuple(labels)
    refuse_one_folder_for_two(root, labels)
    return collected(labels, lambda label: load_model(model_file(root, label, side)), root)


def load_model(path: str | os.PathLike[str]) -> SavedModel:
    """Read one `profiles.npz`.

    Raises:
        ProfileError: not there, not readable, no `flatfield`, or values that cannot be
            divided by; the message names the file.
    """
    path = Path(path)
    if path.is_dir():
        raise ProfileError(f"'{path}' is a folder; expected a file: .npz, .npy or TIFF.")
    if path.suffix.lower() != ".npz":
        beside = [path.with_name(name) for name in DARKFIELD_FILES[1:]]
        dark = next((file for file in beside if file.exists()), None)
        return SavedModel(measured_profile(path, dark))
    content = read_npz(path, (*_KEYS, ORIGIN_KEY))
    text = content.pop(ORIGIN_KEY, None)
    if "flatfield" not in content:
        raise ProfileError(f"'{path}' has no key 'flatfield' (its keys: {npz_keys(Path(path))}).")
    baseline = content.get("baseline")
    if baseline is not None and baseline.size and baseline.dtype.kind in "uif":
        # BaSiC gives one for each plane that it saw.
        baseline = np.median(baseline)
    number = baseline.tolist() if baseline is not None and baseline.size else None
    origin, darkfield = _origin(text, content), content.get("darkfield")
    try:
        # The arrays are ours: memory for another one would take as long as reading it.
        profile = ShadingProfile.create(content["flatfield"], darkfield, number, in_place=True)
    except ProfileError as error:
        raise ProfileError(f"'{path}': {error}") from error
    return SavedModel(profile, origin)


def save_models(
    folder: str | os.PathLike[str], profiles: Mapping[str, ShadingProfile]
) -> dict[str, Path]:
    """Write profiles of channels as they are, as `write_models` does.

    Returns:
        The file of each channel label.
    """
    models = {ModelName(label): SavedModel(profile) for label, profile in profiles.items()}
    return {name.label: path for name, path in write_models(folder, models).items()}


def write_models(
    folder: str | os.PathLike[str], models: Mapping[ModelName, SavedModel], *, tiff: bool = False
) -> dict[ModelName, Path]:
    """Write the models of channels; `load_models` reads them again.

    The same models give the same bytes. Each file appears whole or not at all, and is on
    the device afterwards; models of other channels in the folder stay.

    Args:
        folder: made where it is not there.
        models: by channel and side.
        tiff: write each as TIFF too, for other programs.

    Returns:
        The file of each model.

    Raises:
        ProfileError: two labels would share a folder, before anything is written.
        OutputWriteError: no permission, or no space.
    """
    root = places.local_path(os.fspath(folder))
    refuse_shared_folders(name.label for name in models)
    files: dict[ModelName, Path] = {}
    for name, model in models.items():
        path = root.joinpath(*model_parts(name))
        arrays = _arrays(model.profile)
        if model.origin is not None:
            arrays[ORIGIN_KEY] = np.array(_origin_text(name, model.origin, arrays))
        places.write_bytes(str(path), npz_bytes(arrays))
        places.write_bytes(str(path.with_name(_SETTINGS[0])), _SETTINGS[1])
        if tiff:
            write_tiffs(path.parent, model.profile)
        files[name] = path
    written_in = {place for path in files.values() for place in path.parents}
    for place in sorted(written_in - set(root.parent.parents)):
        sync_folder(place)
    return files


def model_parts(name: ModelName) -> tuple[str, ...]:
    """Folders and file of a model within its models folder."""
    sides = (name.side,) if name.side else ()
    return (folder_name(name.label), *sides, FILE_NAME)


def refuse_models_folder(folder: str, files: Iterable[tuple[str, ...]]) -> None:
    """Refuse a folder in which models could not be kept, before any is made.

    Args:
        folder: address of the models folder that is going to be written.
        files: folders and name of each file in it.

    Raises:
        ParameterError: the folder is remote.
        FolderError: it, or one in it, cannot be written.
        ProfileError: two files would be one.
    """
    if not places.is_local(folder):
        raise ParameterError(
            f"Models are written to folders of a file system, not to '{folder}'. Leave "
            "`save_models` out, and estimate them with `mesospim-shading estimate` into a folder."
        )
    root = places.local_path(folder)
    seen: dict[tuple[str, ...], tuple[str, ...]] = {}
    for parts in files:
        other = seen.setdefault(tuple(portable(part) for part in parts), parts)
        if other is not parts:
            raise ProfileError(
                f"Two models would be written to one file: '{root.joinpath(*other)}' and "
                f"'{root.joinpath(*parts)}'. Rename one of the channels in 'omero.channels'."
            )
        path = root.joinpath(*parts)
        nearest = next(place for place in path.parents if os.path.lexists(place))
        if path.is_dir() or not nearest.is_dir() or not os.access(nearest, os.W_OK | os.X_OK):
            stands = path if path.is_dir() else nearest
            raise FolderError(
                f"The model '{path}' cannot be written: '{stands}' is no folder that can be "
                "written, or stands in its place. Move it away, or choose another folder."
            )


def _arrays(profile: ShadingProfile) -> dict[str, NDArray[Any]]:
    """The arrays of a file; a dark-field that nobody knows is left out, for 0 would be a number."""
    arrays: dict[str, NDArray[Any]] = {"flatfield": profile.flatfield}
    if profile.darkfield is not None:
        arrays["darkfield"] = np.asarray(profile.darkfield)
    numbers = [] if profile.baseline is None else [profile.baseline]
    return arrays | {"baseline": np.array(numbers, np.float64)}


def _origin_text(name: ModelName, origin: Origin, arrays: Mapping[str, NDArray[Any]]) -> str:
    """Where a model comes from, as JSON that also says to which arrays it belongs."""
    content = {
        "package": "fractal-mesospim-shading",
        "version": origin.version,
        "channel": name.label,
        "side": name.side,
        "arrays": _fingerprint(arrays),
        "facts": _finite(dict(origin.facts)),
    }
    return json.dumps(content, sort_keys=True)


def _finite(value: object) -> object:
    """The same with None, for unknown, in place of numbers that JSON does not have."""
    if isinstance(value, float) and not math.isfinite(value):
        return None
    if isinstance(value, Mapping):
        return {str(key): _finite(item) for key, item in value.items()}
    return [_finite(item) for item in value] if isinstance(value, list | tuple) else value


def _origin(text: NDArray[Any] | None, arrays: Mapping[str, NDArray[Any]]) -> Origin | None:
    """What a file says of its model; None where that is of other arrays, or cannot be read."""
    if text is None or text.dtype.kind != "U" or text.size != 1:
        return None
    try:
        content = json.loads(str(text.reshape(())))
    except (ValueError, RecursionError):
        return None
    if not isinstance(content, dict) or content.get("arrays") != _fingerprint(arrays):
        return None
    facts, version = content.get("facts"), content.get("version")
    if not isinstance(facts, dict) or not isinstance(version, str):
        return None
    texts = all(isinstance(facts.get(key), str) for key in _TEXTS)
    numbers = [facts.get(key) for key in _NUMBERS]
    usual = all(n is None or (isinstance(n, int | float) and math.isfinite(n)) for n in numbers)
    return Origin(version, facts) if texts and usual and numbers[0] is not None else None


def _fingerprint(arrays: Mapping[str, NDArray[Any]]) -> str:
    digest = hashlib.sha256()
    for key in _KEYS:
        if key in arrays:
            array = np.ascontiguousarray(arrays[key])
            digest.update(f"{key} {array.dtype.str} {np.shape(arrays[key])} ".encode())
            digest.update(array.reshape(-1).view(np.uint8).data)
    return digest.hexdigest()[:16]


def model_file(
    root: Path, label: str, side: str | None, names: Sequence[str] | None = None
) -> Path:
    """The file of a channel's model, of one illumination side where it has its own.

    Args:
        root: the folder of all models.
        label: of the channel.
        side: of the illumination.
        names: that the file may have, the first goes first; None for those of flat-fields.

    Raises:
        ProfileError: there is none; the message says what there is.
    """
    channel = root / folder_name(label)
    for folder in (channel / side, channel) if side is not None else (channel,):
        for name in names or FLATFIELD_FILES:
            if (folder / name).exists():
                return folder / name
    path = channel / FILE_NAME
    if not channel.is_dir():
        present = sorted(entry.name for entry in root.iterdir() if entry.is_dir())
        listed = ", ".join(present[:10]) or "no folder"
        raise ProfileError(f"No folder '{channel.name}' in '{root}' (it has: {listed}).")
    sides = [name for name in _SIDES if (channel / name / FILE_NAME).exists()]
    hint = f" There are models for {', '.join(sides)} only." if sides else ""
    raise ProfileError(f"'{path}' is not there.{hint}")


def _existing_folder(folder: str | os.PathLike[str]) -> Path:
    root = local_file(folder, "models_folder")
    if not root.is_dir():
        found = "is a file" if root.exists() else "is not there"
        raise ProfileError(
            f"The `models_folder` '{root}' {found}; expected a folder that holds "
            f"<channel label>/{FILE_NAME}."
        )
    return root
