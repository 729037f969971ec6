"""The models of an image: which ones it needs, and what one is."""

from __future__ import annotations

import hashlib
import io
import json
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from fractal_mesospim_shading import __version__
from fractal_mesospim_shading.core.correct import TileCorrection, tile_correction
from fractal_mesospim_shading.core.profile import ShadingProfile, fits_tile, shape_text
from fractal_mesospim_shading.errors import ImageFormatError
from fractal_mesospim_shading.images.light_path import LightPath
from fractal_mesospim_shading.images.models.folder import (
    ModelName,
    Origin,
    SavedModel,
    write_models,
)
from fractal_mesospim_shading.images.models.frames import DarkFrame
from fractal_mesospim_shading.images.source import Channel, ModelGroup, MultitileImage


@dataclass(frozen=True)
class ChannelModel:
    """What the correction of one channel uses.

    Attributes:
        profile: flat-field, and dark-field where it was measured.
        offset: counts to subtract where the profile has no dark-field.
        facts: where it comes from, as JSON, for log, provenance and report.
    """

    profile: ShadingProfile
    offset: float
    facts: dict[str, Any] = field(default_factory=dict)

    @property
    def corrects(self) -> bool:
        """False for a channel that is copied as it is."""
        return bool(self.facts.get("corrected", True))

    @property
    def subtracts(self) -> bool:
        """Whether an offset above 0 is taken off."""
        dark = self.profile.darkfield
        return bool(self.offset > 0 if dark is None else np.mean(dark) > 0)

    def correction(self, tile_shape: tuple[int, int]) -> TileCorrection:
        """What it does to a tile, with nothing subtracted or added after the division."""
        return tile_correction(
            self.profile, tile_shape, offset=self.offset, subtract_baseline=False, output_offset=0.0
        )

    def to_bytes(self) -> bytes:
        """For the folder of a job, so that a continued run need not estimate again."""
        arrays: dict[str, Any] = {"flatfield": self.profile.flatfield}
        if self.profile.darkfield is not None:
            arrays["darkfield"] = self.profile.darkfield
        if self.profile.baseline is not None:
            arrays["baseline"] = self.profile.baseline
        rest = {"offset": self.offset, "facts": self.facts, "scale": self.profile.scale}
        buffer = io.BytesIO()
        np.savez(buffer, rest=json.dumps(rest), **arrays)
        return buffer.getvalue()

    @classmethod
    def from_bytes(cls, data: bytes) -> ChannelModel:
        """The inverse of `to_bytes`, to the last bit."""
        with np.load(io.BytesIO(data), allow_pickle=False) as content:
            rest = json.loads(str(content["rest"]))
            dark: DarkFrame | None = None
            if "darkfield" in content:
                array = content["darkfield"]
                dark = array.item() if array.ndim == 0 else array
            baseline = content["baseline"].item() if "baseline" in content else None
            profile = ShadingProfile(content["flatfield"], dark, baseline, rest["scale"])
        return cls(profile, rest["offset"], rest["facts"])


Models = dict[str, ChannelModel]
"""Models by label of their group."""


def model_facts(models: Models) -> dict[str, dict[str, Any]]:
    """What is known of models, as JSON: their facts, and the range of their flat-fields."""
    return {
        label: {
            **model.facts,
            "offset": model.offset,
            "flatfield_range": [float(end(model.profile.flatfield)) for end in (np.min, np.max)],
        }
        for label, model in models.items()
    }


def refuse_duplicate_labels(channels: Sequence[Channel], url: str) -> None:
    """Refuse channels that share a label: models are known by it.

    Raises:
        ImageFormatError: a label occurs twice.
    """
    repeated = [label for label, n in Counter(c.label for c in channels).items() if n > 1]
    if repeated:
        listed = ", ".join(
            f"'{label}' ({', '.join(str(c.index) for c in channels if c.label == label)})"
            for label in repeated
        )
        raise ImageFormatError(
            f"Channels of '{url}' share a label: {listed}. Each channel needs a label of its "
            "own, because models are kept under it; rename them in 'omero.channels'."
        )


def processor_warning(group: ModelGroup, *, dark: bool, offset: float | None) -> str | None:
    """What to say where the microscope has changed the data before it wrote them.

    Args:
        group: of stacks.
        dark: whether a measured dark-field is subtracted.
        offset: the camera offset that was given, in counts.

    Returns:
        One line; None where nothing is to be said.
    """
    if not group.processors:
        return None
    start = f"Channel {group.label}: image processors ({', '.join(group.processors)})"
    if group.offset_gone and (dark or offset):
        what = "a measured dark-field" if dark else f"an offset of {offset:g} counts"
        return (
            f"{start} took the camera offset away before the stacks were written, yet {what} is "
            "subtracted, as was asked for. Leave it out unless the offset is still there."
        )
    if dark or offset is not None:
        return None
    if group.offset_gone:
        partly = len(group.offset_gone) < len(group.planes)
        tiles = f" in the tiles {', '.join(map(str, group.offset_gone))}" if partly else ""
        rest = (
            "; the other tiles keep theirs and are not corrected rightly: import them apart "
            "(`exclude_groups`)"
            if partly
            else ""
        )
        return (
            f"{start} took the camera offset away{tiles} before the stacks were written: no "
            f"offset is subtracted again{rest}. If it is still there, give `camera_offset`."
        )
    return (
        f"{start} changed the noise before the stacks were written: an offset estimated from the "
        "noise cannot be trusted. Give `camera_offset` or `darkfield_file`."
    )


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


def misfits(images: Iterable[tuple[MultitileImage, Models]]) -> tuple[str, ...]:
    """Lines about given models that were made for another zoom, camera or illumination side.

    What a file or an acquisition does not tell is no misfit.

    Args:
        images: with the models of each.

    Returns:
        One line for each difference, which names all channels that have it.
    """
    labels: dict[tuple[str, str], dict[str, None]] = {}
    for image, models in images:
        for group in image.model_groups:
            given = models[group.label].facts.get("origin", {}).get("facts", {})
            made_for = LightPath.from_facts(given.get("light_path"))
            difference = made_for.differences(group.light_path)
            if difference is not None:
                labels.setdefault(difference, {})[group.label] = None
    return tuple(
        f"Channel{'s' if len(same) > 1 else ''} {', '.join(same)}: made for something else: "
        f"{'models' if len(same) > 1 else 'a model'} of {theirs}, while this acquisition has "
        f"{here}. A flat-field holds for the light path that it was made from; estimate it from "
        "these tiles, or give models of the same zoom, camera and side."
        for (theirs, here), same in labels.items()
    )


def dark_facts(dark: DarkFrame | None, origin: str) -> dict[str, Any]:
    """The offset of a dark-field, and where it comes from; nothing where there is none."""
    return {} if dark is None else {"offset": float(np.mean(dark)), "offset_from": origin}


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


def model_names(image: MultitileImage) -> dict[str, ModelName]:
    """What each model is kept as, by the label of its group."""
    return {
        group.label: ModelName(group.channel.label, group.own_side) for group in image.model_groups
    }


def resampling(
    profile: ShadingProfile | None, dark: DarkFrame | None, tile_shape: tuple[int, int]
) -> str | None:
    """What is resampled of a flat-field and a dark-field that were given; None for nothing."""
    parts = []
    if profile is not None and profile.shape != tile_shape:
        parts.append(f"flat-field from {shape_text(profile.shape)}")
    if isinstance(dark, np.ndarray) and dark.shape != tile_shape:
        parts.append(f"dark-field from {shape_text((dark.shape[0], dark.shape[1]))}")
    return f"{', '.join(parts)} to {shape_text(tile_shape)} pixels (y, x)" if parts else None


def uncorrected_model(tile_shape: tuple[int, int], why: str) -> ChannelModel:
    """What stands for the model of a channel that is copied as it is.

    Args:
        tile_shape: (y, x) in pixels.
        why: as a sentence.
    """
    facts = {
        "scenario": "not corrected: no light",
        "corrected": False,
        "reason": why,
        "offset": 0.0,
        "offset_from": "nothing is taken off",
        "scale": 1.0,
    }
    return ChannelModel(ShadingProfile.create(np.ones(tile_shape, np.float32)), 0.0, facts)


def offset_text(facts: Mapping[str, Any]) -> str:
    """The camera offset that was used, with its uncertainty and where it comes from."""
    uncertainty = facts.get("offset_uncertainty")
    rejected = facts.get("offset_rejected")
    if uncertainty is None:
        none = "" if rejected is None else ", none taken off"
        return f"{facts['offset']:.1f}{none} ({facts['offset_from']})"
    # Images of floats may be of any scale.
    digits = ".1f" if uncertainty >= 0.1 else ".4g"
    error = f" +- {uncertainty:{digits}}"
    if rejected is None:
        return f"{facts['offset']:{digits}}{error} ({facts['offset_from']})"
    return (
        f"{facts['offset']:.1f}, none taken off ({rejected:{digits}}{error} was "
        f"{facts['offset_from']}, {facts['offset_rejected_because']}, and is not used)"
    )


def uncertainty_text(facts: Mapping[str, Any]) -> str | None:
    """That of the flat-field; None where nothing is known."""
    whole, of_offset = (facts.get(f"relative_uncertainty{part}") for part in ("", "_of_offset"))
    if whole is not None:
        given = ", if the offset given is right" if facts.get("offset_from") == "given" else ""
        return f"{100 * whole:.2f} %{given}"
    if of_offset is not None:
        return f"{100 * of_offset:.2f} % from the camera offset; BaSiC tells none of its own"
    return None


def facts_line(label: str, model: ChannelModel) -> str:
    """One line for the log."""
    if not model.corrects:
        return (
            f"Channel {label} holds no light: it is copied as it is, not corrected. "
            f"{model.facts['reason']}"
        )
    facts = {**model.facts.get("origin", {}).get("facts", {}), **model.facts}
    text = f"Channel {label}: {facts['scenario']}"
    if "planes_used" in facts:
        text += f", {facts['planes_used']} planes used"
    if facts.get("planes_rejected"):
        text += f", {facts['planes_rejected']} left out because they hold sample"
    if facts.get("planes_partly_used"):
        text += f", {facts['planes_partly_used']} used without the parts that hold sample"
    refined = facts.get("overlap_refine", {})
    if refined.get("used"):
        text += f", refined by {refined['pairs']} overlaps"
    low, high = np.percentile(model.profile.flatfield, [1, 99])
    # Which noise it was told from is in the provenance.
    facts["offset_from"] = facts["offset_from"].partition(" (")[0]
    return f"{text}; camera offset {offset_text(facts)}; flat-field {low:.2f} to {high:.2f}"


def profile_digest(profile: ShadingProfile) -> str:
    """Fingerprint of a measured profile, for provenance and to match a continued run."""
    digest = hashlib.sha256(np.ascontiguousarray(profile.flatfield).data)
    dark = np.asarray(profile.darkfield if profile.darkfield is not None else 0)
    digest.update(np.ascontiguousarray(dark).data)
    digest.update(json.dumps(profile.baseline).encode())
    return digest.hexdigest()[:16]
