"""Models as they go into files, so that they correct alike when they are read again."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np

from fractal_mesospim_shading import __version__
from fractal_mesospim_shading.core.profile_shapes import fits_tile
from fractal_mesospim_shading.flatfield.models import ChannelModel, Models, dark_facts, model_names
from fractal_mesospim_shading.images.models.folder import Origin, SavedModel, write_models
from fractal_mesospim_shading.images.source import MultitileImage


def given_facts(saved: SavedModel) -> dict[str, Any]:
    """The facts of a model that was read from a file, as far as the file tells them."""
    profile, origin = saved.profile, saved.origin
    facts: dict[str, Any] = {"scenario": "measured model", "scale": profile.scale}
    if origin is None:
        return facts | dark_facts(profile.darkfield, "measured dark-field")
    scenario = origin.facts["scenario"]
    if scenario != facts["scenario"]:
        source = f"estimated {'by' if scenario == 'BaSiCPy' else 'from'} {scenario}"
        facts["scenario"] = f"{source}, saved by fractal-mesospim-shading {origin.version}"
    facts |= dark_facts(profile.darkfield, f"{origin.facts['offset_from']}, saved with the model")
    uncertainty = origin.facts.get("offset_uncertainty")
    if uncertainty is not None:
        facts["offset_uncertainty"] = uncertainty
    return facts | {"origin": {"version": origin.version, "facts": dict(origin.facts)}}


def saved_model(model: ChannelModel, tile_shape: tuple[int, int]) -> SavedModel:
    """A model as it goes into a file, so that it corrects alike when it is read again.

    Args:
        model: with its offset, which becomes a dark-field of one number.
        tile_shape: (y, x); a profile that would not be accepted for it is resampled.
    """
    profile, origin = model.profile, model.facts.get("origin")
    if profile.darkfield is None:
        profile = replace(profile, darkfield=model.offset)
    dark = profile.darkfield
    shapes = [profile.shape]
    if isinstance(dark, np.ndarray):
        shapes.append((dark.shape[0], dark.shape[1]))
    if not all(fits_tile(shape, tile_shape) for shape in shapes):
        profile = profile.resampled(tile_shape)
    if origin is not None:
        return SavedModel(profile, Origin(origin["version"], origin["facts"]))
    return SavedModel(profile, Origin(__version__, model.facts))


def save_used_models(
    folder: str, image: MultitileImage, models: Models, *, tiff: bool = False
) -> None:
    """Write models so that `models_folder` reads them and they give the same result."""
    tile_shape = image.layout.tile_shape
    names = model_names(image)
    saved = {
        names[label]: saved_model(model, tile_shape)
        for label, model in models.items()
        if model.corrects
    }
    write_models(folder, saved, tiff=tiff)
