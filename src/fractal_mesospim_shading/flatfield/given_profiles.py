"""Profiles that a person gives: read, and held to the shape of a tile, before a pixel is read."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from fractal_mesospim_shading.core.profile import shape_problem, shape_text, turn_is_unseen
from fractal_mesospim_shading.errors import ProfileError
from fractal_mesospim_shading.images.models.dark_frames import DarkFrame, load_darkfield
from fractal_mesospim_shading.images.models.files import (
    local_file,
    refuse_one_folder_for_two,
    refuse_shared_folders,
)
from fractal_mesospim_shading.images.models.folder import SavedModel, load_models
from fractal_mesospim_shading.images.source import ModelGroup, MultitileImage
from fractal_mesospim_shading.options.flatfield import EstimationOptions

Shape = tuple[int, int]


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
    def shape(self) -> Shape:
        return self.values.shape[0], self.values.shape[1]


def read_given_profiles(image: MultitileImage, options: EstimationOptions) -> GivenProfiles:
    """Read models_folder and darkfield_file.

    A dark frame is left unread where every model has a dark-field of its own, which goes
    before it.

    Raises:
        ProfileError: files that are missing or unusable, labels that share a folder, profiles
            of another shape than a tile's.
    """
    models = _read_models(image, options)
    groups = image.model_groups
    wanting = [
        group.channel.label
        for group in groups
        if group.label not in models or models[group.label].profile.darkfield is None
    ]
    dark: Mapping[str, DarkFrame] = {}
    if options.darkfield_file and wanting:
        labels = tuple(dict.fromkeys(wanting))
        dark = load_darkfield(options.darkfield_file, labels, image.layout.tile_shape)
    given = GivenProfiles(models, dark)
    if options.profile_shape == "keep_aspect":
        _refuse_other_shapes(given, image.layout.tile_shape)
    return given


def refuse_unclear_labels(image: MultitileImage, *, saves: bool) -> None:
    """Refuse channels whose models could not be told apart.

    Args:
        image: to be corrected.
        saves: whether its models are going to be written to a folder.

    Raises:
        ProfileError: two labels share a folder, or one is the name of another's side.
    """
    labels = [group.label for group in image.model_groups]
    repeated = sorted({label for label in labels if labels.count(label) > 1})
    if repeated:
        raise ProfileError(
            f"The channel label {repeated[0]!r} is also the name of the model of channel "
            f"{repeated[0].rpartition('/')[0]!r} for that illumination side. Rename the channel in "
            "'omero.channels'."
        )
    if saves:
        refuse_shared_folders(channel.label for channel in image.channels)


def notes_on_given(given: GivenProfiles, tile_shape: Shape) -> tuple[str, ...]:
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
    if not options.models_folder:
        return {}
    folder = local_file(options.models_folder, "models_folder")
    if image.suffix:
        # Of a container with several mosaics, each may have models of its own.
        own = folder / image.suffix
        folder = own if own.is_dir() else folder
    if folder.is_dir():
        refuse_one_folder_for_two(folder, [channel.label for channel in image.channels])
    by_side: dict[str | None, list[ModelGroup]] = {}
    for group in image.model_groups:
        by_side.setdefault(group.side, []).append(group)
    models = {}
    for side, groups in by_side.items():
        found = load_models(folder, [g.channel.label for g in groups], side)
        models.update({group.label: found[group.channel.label] for group in groups})
    return models


def _refuse_other_shapes(given: GivenProfiles, tile_shape: Shape) -> None:
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
        name = "the flat-field in `models_folder`"
        yield _GivenArray(name, label, profile.flatfield, known)
        if isinstance(profile.darkfield, np.ndarray):
            name = "the dark-field in `models_folder`"
            yield _GivenArray(name, label, profile.darkfield, known)
    for label, dark in given.dark.items():
        if isinstance(dark, np.ndarray):
            yield _GivenArray("the dark frame in `darkfield_file`", label, dark, False)
