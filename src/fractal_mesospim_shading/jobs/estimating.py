"""Models by themselves: of one image, or one of each channel from several images together."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field

from fractal_mesospim_shading.core.threads import meanwhile
from fractal_mesospim_shading.errors import ParameterError, Problems
from fractal_mesospim_shading.flatfield.models import ChannelModel, Models, model_facts
from fractal_mesospim_shading.flatfield.sampling import PlaneChoice
from fractal_mesospim_shading.images.arrays.documents import Document
from fractal_mesospim_shading.images.joined import joined
from fractal_mesospim_shading.images.mosaic import MosaicImage
from fractal_mesospim_shading.images.native.container import is_container
from fractal_mesospim_shading.images.native.opening import open_collection, tell_facts
from fractal_mesospim_shading.images.source import MultitileImage
from fractal_mesospim_shading.images.storage import places
from fractal_mesospim_shading.images.storage.stores import workable
from fractal_mesospim_shading.images.tile_tables import refuse_table_of_acquisition
from fractal_mesospim_shading.jobs.models import (
    choose_all_models,
    make_models,
    refuse_folder_of_models,
    save_all_models,
)
from fractal_mesospim_shading.jobs.outcome import judge_models, report_models
from fractal_mesospim_shading.jobs.work import labelled
from fractal_mesospim_shading.messages import listed, warnings_heard
from fractal_mesospim_shading.options.base import asked_of
from fractal_mesospim_shading.options.flatfield import FlatfieldOptions
from fractal_mesospim_shading.options.precedence import refuse_idle
from fractal_mesospim_shading.overlaps.certificate import OverlapCheck
from fractal_mesospim_shading.views import drawing
from fractal_mesospim_shading.views.report_place import report_obstacle
from fractal_mesospim_shading.views.verdict import Verdict

logger = logging.getLogger(__name__)


@dataclass(frozen=True, eq=False, repr=False)
class EstimateResult(Mapping[str, ChannelModel]):
    """What an estimate gives: the models by channel label, like a dict, and how good they are.

    Attributes:
        models: by channel label (with the side, where there are several).
        models_folder: where they were saved, if they were.
        report: the report, if one was written.
        overlaps: how far the views of the same tissue in two tiles differ, before a correction with
            these models and after, by label of the model; nothing where tiles are not known to
            overlap.
        verdict: whether the models fit the image, with reasons and what to do; None where it could
            not be made.
    """

    models: Models
    models_folder: str | None = None
    report: str | None = None
    overlaps: Mapping[str, OverlapCheck] = field(default_factory=dict)
    verdict: Verdict | None = None

    def __getitem__(self, label: str) -> ChannelModel:
        return self.models[label]

    def __iter__(self) -> Iterator[str]:
        return iter(self.models)

    def __len__(self) -> int:
        return len(self.models)

    def __repr__(self) -> str:
        shown = {"models_folder": self.models_folder, "report": self.report}
        parts = [
            ", ".join(self.models),
            *(f"{name}: {text}" for name, text in shown.items() if text),
        ]
        if self.verdict is not None:
            parts.append(f"verdict: {self.verdict.word}")
        return f"EstimateResult({'; '.join(parts)})"

    def facts(self) -> Document:
        """All of it as JSON, without the pixels of the models."""
        return {
            "models_folder": self.models_folder,
            "report": self.report,
            "models": model_facts(self.models),
            "overlaps": {label: check.facts() for label, check in self.overlaps.items()},
            "verdict": None if self.verdict is None else self.verdict.facts(),
        }


def estimate_models(
    urls: Sequence[str], folder: str | None, options: FlatfieldOptions, *, tiff: bool = False
) -> EstimateResult:
    """Estimate the models of images or containers without correcting them.

    Args:
        urls: of the images, or of the containers; several share one model of each channel.
        folder: where the models are saved: `models_folder` of a later correction or import. None
            to save none.
        options: of the estimate.
        tiff: also write `flatfield.tif` and `darkfield.tif`, for other programs.

    Raises:
        ShadingError: one readable error.
    """
    started = time.monotonic()
    with warnings_heard():
        choices = plan_estimate(urls, folder, options)
        models = make_models(choices, options)
        reported = folder is not None and options.report and report_obstacle(folder) is None
        report = None
        with meanwhile(drawing.load) if reported else nullcontext():
            outcome = judge_models(choices, models)
            if folder is not None:
                folder = places.normalise_url(folder)
                save_all_models(folder, choices, models, tiff=tiff)
        if folder is not None and reported:
            asked = {"output": folder, **({"format": "tiff"} if tiff else {}), **asked_of(options)}
            seconds = time.monotonic() - started
            report = report_models(folder, urls, choices, models, outcome, seconds, asked)
        outcome.tell()
    return EstimateResult(
        labelled(choices, models), folder, report, outcome.looked.checks, outcome.verdict
    )


def plan_estimate(
    urls: Sequence[str], folder: str | None, options: FlatfieldOptions
) -> tuple[PlaneChoice, ...]:
    """The planes of an estimate, once everything is checked; nothing is read or written."""
    obstacle = "where no models are written" if folder is None else report_obstacle(folder)
    refuse_idle(options, writes_image=False, no_report=obstacle)
    if not urls:
        raise ParameterError("`zarr_url` names no image; expected one address at least.")
    mosaics = [_mosaics(url, options) for url in urls]
    images, problems = _beside_each_other(urls, mosaics), Problems()
    choices = choose_all_models(images, options, problems, saves=True)
    problems.raise_all()
    if folder is not None:
        refuse_folder_of_models(places.normalise_url(folder), choices)
    for grid in images[0].grids if len(urls) > 1 else ():
        numbers = listed([str(number) for number in sorted(grid.numbers.values())])
        logger.info("In what follows, the tiles of %s have the numbers %s", grid.url, numbers)
    return choices


def _mosaics(url: str, options: FlatfieldOptions) -> Sequence[MultitileImage]:
    """An image, or the mosaics of an acquisition."""
    storage = options.storage_options
    with workable(url):
        if not is_container(url, storage):
            return [MosaicImage.open(url, storage, options.input_roi_table)]
        refuse_table_of_acquisition(options.input_roi_table)
        collection = open_collection(url, storage)
        tell_facts(collection)
        return collection.mosaics()


def _beside_each_other(
    urls: Sequence[str], mosaics: Sequence[Sequence[MultitileImage]]
) -> list[MultitileImage]:
    """The mosaics of the first address, each joined with those of its name of the others.

    Raises:
        ParameterError: they differ in their mosaics, or cannot share a flat-field.
    """
    suffixes = [[mosaic.suffix for mosaic in own] for own in mosaics]
    for url, own in zip(urls, suffixes, strict=True):
        if sorted(own) != sorted(suffixes[0]):
            raise ParameterError(
                f"'{url}' has the mosaics {_named(own)}, but '{urls[0]}' has "
                f"{_named(suffixes[0])}: expected the same angles and sides in all. Estimate them "
                "apart."
            )
    return [
        joined([next(m for m in own if m.suffix == suffix) for own in mosaics])
        for suffix in suffixes[0]
    ]


def _named(suffixes: Sequence[str]) -> str:
    return ", ".join(f"'{suffix}'" for suffix in suffixes)
