"""The models of an image: which ones it needs, and what one is."""

from __future__ import annotations

import io
import json
from collections import Counter
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from fractal_mesospim_shading.core.correct import TileCorrection, tile_correction
from fractal_mesospim_shading.core.profile import ShadingProfile
from fractal_mesospim_shading.core.profile_shapes import shape_text
from fractal_mesospim_shading.errors import ImageFormatError
from fractal_mesospim_shading.flatfield.planes_seen import PlanesSeen
from fractal_mesospim_shading.images.light_path import LightPath
from fractal_mesospim_shading.images.models.folder import (
    ModelName,
)
from fractal_mesospim_shading.images.models.frames import DarkFrame
from fractal_mesospim_shading.images.source import Channel, MultitileImage
from fractal_mesospim_shading.images.storage.names import image_name
from fractal_mesospim_shading.messages import counted

if TYPE_CHECKING:
    from matplotlib.axes import Axes


@dataclass(frozen=True)
class ChannelModel:
    """What the correction of one channel uses.

    Attributes:
        profile: flat-field, and dark-field where it was measured.
        offset: counts to subtract where the profile has no dark-field.
        facts: where it comes from, as JSON, for log, provenance and report.
        planes: by number that it was estimated from, and those left out; None for a model that was
            given.
    """

    profile: ShadingProfile
    offset: float
    facts: dict[str, Any] = field(default_factory=dict)
    planes: PlanesSeen | None = field(default=None, compare=False)

    @property
    def corrects(self) -> bool:
        """False for a channel that is copied as it is."""
        return bool(self.facts.get("corrected", True))

    @property
    def subtracts(self) -> bool:
        """Whether an offset above 0 is taken off."""
        dark = self.profile.darkfield
        return bool(self.offset > 0 if dark is None else np.mean(dark) > 0)

    @property
    def relative_uncertainty(self) -> float | None:
        """Standard uncertainty of the flat-field, as a fraction; None where it is not known."""
        return self._told("relative_uncertainty")

    @property
    def offset_uncertainty(self) -> float | None:
        """Standard uncertainty of the offset in counts; None where it was given or measured."""
        return self._told("offset_uncertainty")

    @property
    def planes_used(self) -> int | None:
        """Planes that the flat-field was estimated from; None where it was not estimated."""
        found = self._told("planes_used")
        return None if found is None else int(found)

    def _told(self, name: str) -> float | None:
        """A number among the facts, those of a model that was saved and read again included."""
        found = {**self.facts.get("origin", {}).get("facts", {}), **self.facts}.get(name)
        return None if found is None else float(found)

    def apply(
        self,
        array: Any,
        *,
        output_offset: float = 0.0,
        zero_is: Literal["auto", "data", "no_data"] = "auto",
        subtract_baseline: bool = False,
        output_type: Literal["source", "float32"] = "source",
    ) -> Any:
        """Correct planes of a tile, with the offset of the model; see `ShadingProfile.apply`.

        Args:
            array: (..., y, x), uint8, uint16 or float32: a NumPy array or memory map, or a Dask
                array. (y, x) is the shape of the profile.
            output_offset: counts to add at the end.
            zero_is: what a pixel of 0 is, as for the task.
            subtract_baseline: also subtract the baseline, after the division.
            output_type: `source`, the type of the array, or `float32`.

        Returns:
            An array of the same shape; of a Dask array, one that is not computed yet.

        Raises:
            ProfileError: planes of another shape.
            ParameterError: another type of pixels, or an argument that does not fit.
        """
        return self.profile.apply(
            array,
            camera_offset=self.offset if self.profile.darkfield is None else None,
            output_offset=output_offset if self.corrects else 0.0,
            zero_is=zero_is,
            subtract_baseline=subtract_baseline,
            output_type=output_type,
        )

    def plot(self, axes: Axes | None = None) -> Axes:
        """Draw the flat-field; see `ShadingProfile.plot`."""
        return self.profile.plot(axes)

    def __repr__(self) -> str:
        parts = [str(self.facts["scenario"])] if "scenario" in self.facts else []
        if self.profile.darkfield is None:
            parts.append(f"offset {self.offset:.4g} counts")
        if self.planes_used is not None:
            parts.append(f"from {counted(self.planes_used, 'plane')}")
        if self.relative_uncertainty is not None:
            parts.append(f"uncertain by {100 * self.relative_uncertainty:.2g} %")
        return f"ChannelModel({', '.join([*parts, repr(self.profile)])})"

    def correction(
        self,
        tile_shape: tuple[int, int],
        *,
        subtract_baseline: bool = False,
        output_offset: float = 0.0,
    ) -> TileCorrection:
        """What it does to a tile, see `tile_correction`; a channel without light is not raised."""
        return tile_correction(
            self.profile,
            tile_shape,
            offset=self.offset,
            subtract_baseline=subtract_baseline,
            output_offset=output_offset if self.corrects else 0.0,
        )

    def to_bytes(self) -> bytes:
        """For the folder of a job, so that a continued run need not estimate again."""
        arrays: dict[str, Any] = {"flatfield": self.profile.flatfield}
        if self.profile.darkfield is not None:
            arrays["darkfield"] = self.profile.darkfield
        if self.profile.baseline is not None:
            arrays["baseline"] = self.profile.baseline
        rest: dict[str, Any] = {"offset": self.offset, "facts": self.facts}
        rest["scale"] = self.profile.scale
        if self.planes is not None:
            rest["planes"] = self.planes.document()
            pictures = enumerate(self.planes.thumbnails)
            arrays |= {f"thumbnail_{k}": thumbnail.light for k, thumbnail in pictures}
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
            planes = None
            if "planes" in rest:
                number = len(rest["planes"]["thumbnails"])
                pictures = [content[f"thumbnail_{k}"] for k in range(number)]
                planes = PlanesSeen.of_document(rest["planes"], pictures)
        return cls(profile, rest["offset"], rest["facts"], planes)


Models = dict[str, ChannelModel]
"""Models by label of their group."""


def model_facts(models: Models) -> dict[str, dict[str, Any]]:
    """What is known of models, as JSON: facts, planes, and the range of their flat-fields."""
    return {
        label: {
            **model.facts,
            "offset": model.offset,
            "flatfield_range": [*model.profile.ends],
            "planes": None if model.planes is None else model.planes.facts(),
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


def tiles_told(image: MultitileImage, tiles: Collection[int]) -> dict[str, Any]:
    """The tiles of an estimate; where it is one of several images, with the names of these."""
    told = [
        {
            "name": image_name(grid.url),
            "tiles": sorted(own for own, number in grid.numbers.items() if number in tiles),
        }
        for grid in image.grids
    ]
    return {"images": told} if len(told) > 1 else {"tiles": told[0]["tiles"]}


def dark_facts(dark: DarkFrame | None, origin: str) -> dict[str, Any]:
    """The offset of a dark-field, and where it comes from; nothing where there is none."""
    return {} if dark is None else {"offset": float(np.mean(dark)), "offset_from": origin}


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
