"""Flat-fields and dark frames that a person gives: read, checked, and what is said of them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from fractal_mesospim_shading.core.profile_shapes import shape_problem, shape_text, turn_is_unseen
from fractal_mesospim_shading.errors import ParameterError, ProfileError
from fractal_mesospim_shading.images.models.dark_frames import load_darkfield
from fractal_mesospim_shading.images.models.files import local_file, refuse_one_folder_for_two
from fractal_mesospim_shading.images.models.flatfield_files import load_flatfield_files
from fractal_mesospim_shading.images.models.folder import SavedModel, load_models
from fractal_mesospim_shading.images.models.frames import DarkFrame
from fractal_mesospim_shading.images.source import ModelGroup, MultitileImage
from fractal_mesospim_shading.options.flatfield import EstimationOptions


@dataclass(frozen=True)
class GivenProfiles:
    """What a person gives for the correction of an image.

    Attributes:
        models: by label of the model group.
        dark: dark frames by channel label; only of channels that have a use for one.
    """

    models: Mapping[str, SavedModel] = field(default_factory=dict)
    dark: Mapping[str, DarkFrame] = field(default_factory=dict)


@dataclass(frozen=True)
class _GivenArray:
    """One flat-field or dark-field, under the name that a message calls it by."""

    name: str
    label: str
    values: NDArray[np.float32]
    orientation_known: bool

    @property
    def shape(self) -> tuple[int, int]:
        return self.values.shape[0], self.values.shape[1]


def read_given_profiles(image: MultitileImage, options: EstimationOptions) -> GivenProfiles:
    """Read flatfield_files, models_folder and darkfield_file.

    A dark frame is left unread where every model has a dark-field of its own, which goes
    before it.

    Raises:
        ParameterError: `flatfield_files` that do not fit the channels.
        ProfileError: files that are missing or unusable, labels that share a folder, profiles
            of another shape than a tile's.
    """
    models = _read_models(image, options)
    without = [
        group.channel.label
        for group in image.model_groups
        if group.label not in models or models[group.label].profile.darkfield is None
    ]
    dark: Mapping[str, DarkFrame] = {}
    if options.darkfield_file and without:
        labels = tuple(dict.fromkeys(without))
        dark = load_darkfield(options.darkfield_file, labels, image.layout.tile_shape)
    given = GivenProfiles(models, dark)
    if options.profile_shape == "keep_aspect":
        _refuse_other_shapes(given, image.layout.tile_shape)
    return given


def notes_on_given(given: GivenProfiles, tile_shape: tuple[int, int]) -> tuple[str, ...]:
    """What a person should know of the profiles given: that a turn could not be seen."""
    names = {
        array.name
        for array in _arrays(given)
        if not array.orientation_known
        and turn_is_unseen(array.shape, tile_shape)
        and array.values.min() < array.values.max()
    }
    if not names:
        return ()
    return (
        f"Tiles are {shape_text(tile_shape)} pixels (y, x): whether {' and '.join(sorted(names))} "
        "are turned by 90 degrees cannot be seen from their shape. A frame saved by the camera "
        "maker's software needs np.rot90(frame), one saved by mesoSPIM-control does not.",
    )


def _read_models(image: MultitileImage, options: EstimationOptions) -> dict[str, SavedModel]:
    """Models by label of their group; files that were given for a channel go before a folder."""
    given = load_flatfield_files(options.flatfield_files or {}, image.channels)
    models = {
        group.label: given[group.channel.label]
        for group in image.model_groups
        if group.channel.label in given
    }
    left = [group for group in image.model_groups if group.label not in models]
    if options.models_folder and left:
        models |= _from_folder(image, options.models_folder, left)
    elif models and left:
        lacking = ", ".join(f"'{group.channel.label}'" for group in left)
        raise ParameterError(
            f"`flatfield_files` has no file for the channel {lacking}. Give one for each channel, "
            "one for all, or the rest in `models_folder`."
        )
    return models


def _from_folder(
    image: MultitileImage, address: str, wanted: Sequence[ModelGroup]
) -> dict[str, SavedModel]:
    folder = local_file(address, "models_folder")
    if image.suffix:
        # Of a container with several mosaics, each may have models of its own.
        own = folder / image.suffix
        folder = own if own.is_dir() else folder
    if folder.is_dir():
        refuse_one_folder_for_two(folder, [group.channel.label for group in wanted])
    by_side: dict[str | None, list[ModelGroup]] = {}
    for group in wanted:
        by_side.setdefault(group.side, []).append(group)
    models = {}
    for side, groups in by_side.items():
        loaded = load_models(folder, [g.channel.label for g in groups], side)
        models.update({group.label: loaded[group.channel.label] for group in groups})
    return models


def _refuse_other_shapes(given: GivenProfiles, tile_shape: tuple[int, int]) -> None:
    labels: dict[tuple[str, str], list[str]] = {}
    for array in _arrays(given):
        problem = shape_problem(array.shape, tile_shape)
        if problem is not None:
            labels.setdefault((array.name, problem), []).append(f"'{array.label}'")
    lines = [
        f"{name[0].upper()}{name[1:]} of {_channels(same)} is {problem}"
        for (name, problem), same in labels.items()
    ]
    if lines:
        raise ProfileError("\n  ".join(lines))


def _channels(labels: Sequence[str]) -> str:
    return f"channel{'s' if len(labels) > 1 else ''} {', '.join(labels)}"


def _arrays(given: GivenProfiles) -> Iterator[_GivenArray]:
    for label, model in given.models.items():
        known = model.origin is not None
        profile = model.profile
        name = "the flat-field that was given"
        yield _GivenArray(name, label, profile.flatfield, known)
        if isinstance(profile.darkfield, np.ndarray):
            name = "the dark-field that was given with it"
            yield _GivenArray(name, label, profile.darkfield, known)
    for label, dark in given.dark.items():
        if isinstance(dark, np.ndarray):
            yield _GivenArray("the dark frame in `darkfield_file`", label, dark, False)
