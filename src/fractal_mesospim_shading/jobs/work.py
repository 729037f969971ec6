"""What a job consists of, whatever its kind: planes for models, images to write, one request."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from fractal_mesospim_shading import __version__
from fractal_mesospim_shading.core.correct import PixelCounts
from fractal_mesospim_shading.engine.earlier import Correction, Step, correction_of
from fractal_mesospim_shading.engine.plan import CorrectionPlan, Kernel
from fractal_mesospim_shading.engine.records import Request
from fractal_mesospim_shading.flatfield.channel_gains import ChannelGains
from fractal_mesospim_shading.flatfield.job_models import request_details
from fractal_mesospim_shading.flatfield.kernel import FlatfieldKernel
from fractal_mesospim_shading.flatfield.models import Models, model_facts
from fractal_mesospim_shading.flatfield.sampling import PlaneChoice
from fractal_mesospim_shading.images.arrays.documents import Document
from fractal_mesospim_shading.images.carrying.members import MemberPlan
from fractal_mesospim_shading.images.mosaic import MosaicImage
from fractal_mesospim_shading.images.ngff import first_pyramid_only
from fractal_mesospim_shading.images.output import companion_url, pixel_bytes
from fractal_mesospim_shading.images.source import MultitileImage
from fractal_mesospim_shading.images.storage import places
from fractal_mesospim_shading.images.target import TargetImage
from fractal_mesospim_shading.jobs.steps import Counts, SecondStep
from fractal_mesospim_shading.options.background import BackgroundOptions
from fractal_mesospim_shading.options.base import parameters_of
from fractal_mesospim_shading.options.flatfield import FlatfieldOptions, ImportOptions

if TYPE_CHECKING:
    from fractal_mesospim_shading.images.native.results import Companion
    from fractal_mesospim_shading.overlaps.certificate import OverlapCheck
    from fractal_mesospim_shading.views.verdict import Verdict

JobOptions = FlatfieldOptions | ImportOptions | BackgroundOptions

CorrectionOptions = FlatfieldOptions | BackgroundOptions


def prefix_of(image: MultitileImage, images: Sequence[MultitileImage]) -> str:
    """What tells the channels of one of several images from those of the others."""
    return f"{image.suffix}: " if len(images) > 1 and image.suffix else ""


def labelled(choices: Sequence[PlaneChoice], models: Sequence[Models]) -> Models:
    """The models of all choices of planes, under the labels that results show."""
    return {
        choice.prefix + label: model
        for choice, own in zip(choices, models, strict=True)
        for label, model in own.items()
    }


@dataclass(frozen=True)
class Part:
    """One image that a job writes, with the images that go with it.

    Attributes:
        plan: source, targets and blocks; with the kernel where that needs no models.
        attributes: of the image's group, before windows and marks.
        name: within the job; empty where a job writes one image.
        prefix: tells its channels from those of other parts, in what is said of the whole job.
        choice: number of the choice of planes whose models it is corrected with.
        labels: by channel label, the label in provenance and results where it differs.
        models: labels of the models it is corrected with; None for all of its choice.
        channels: of the image of its choice that it holds; None for all.
        tile: of that image, where it is a single one.
        narrowed: makes its kernel from that of its whole mosaic.
        joined: makes of that what gives float32, or what has a second step behind it.
        facts: what its provenance says besides.
        facts_then: what it says besides of the second step.
    """

    plan: CorrectionPlan
    attributes: Document
    name: str = ""
    prefix: str = ""
    choice: int = 0
    labels: Mapping[str, str] = field(default_factory=dict)
    models: tuple[str, ...] | None = None
    channels: tuple[int, ...] | None = None
    tile: int | None = None
    narrowed: Callable[[FlatfieldKernel], FlatfieldKernel] | None = None
    joined: Callable[[FlatfieldKernel], Kernel] | None = None
    facts: Document = field(default_factory=dict)
    facts_then: Document = field(default_factory=dict)

    def attributes_of(self, number: int) -> Document:
        """Attributes of the group of one of its targets.

        The images that go with the first one hold nothing but a pyramid of their own.

        Args:
            number: of the target; 0 is the corrected image.
        """
        if number == 0:
            return self.attributes
        return first_pyramid_only(self.attributes, self.plan.targets[number].zarr_format)


@dataclass(frozen=True)
class Enclosure:
    """The group around the images of a job that writes several.

    Attributes:
        zarr_format: 2 or 3.
        attributes: before marks.
    """

    zarr_format: int
    attributes: Document


def _no_tables(target: TargetImage) -> None:
    """No table is written but those of the source."""


def _no_word(counts: Counts) -> None:
    """Nothing is said of the pixels."""


@dataclass(frozen=True)
class Work:
    """A job, checked; no pixel has been corrected yet.

    Attributes:
        task: name of the task.
        source_url: what is corrected or imported.
        final_url: where people will find the result.
        options: what was asked for.
        parts: the images that are written.
        source_states: fingerprints of the sources.
        choices: of planes for models; none where no model is needed.
        compared: choices of planes of images that those of `choices` are compared with.
        enclosure: the group around several images.
        companions: kinds of the images that go with each part, in the order of its targets.
        details: what else decides the bytes of the result.
        replaces: address of a source whose place the result takes.
        models_folder: where the models used are saved; None to save none.
        parent_format: zarr version of the group that the result lies in, which is made where
            it is not there; None where the result lies in a plain folder.
        reported: whether a report is written.
        shown: image of which it shows planes before and after; None for none.
        addresses: that were given besides that of the source, by option.
        truth: (y, x) true flat-fields that it is held against, by label of the model.
        counted: kind of the counts of the kernel.
        members: what is carried over from the source besides its pyramid; None for nothing.
        add_tables: writes tables of its own into an image.
        texts: files that lie beside the result.
        tell: says what the counts mean.
        judge: says whether it worked, by the counts and the number of warnings; None where models
            are what is judged.
        titles: of background methods, by the label that results show.
        then: the second step; None where there is but one.
        history: what this package has done to the source before.
        types: of the result, for Fractal's image list.
        listed: attributes of the result, for the same.
    """

    task: str
    source_url: str
    final_url: str
    options: JobOptions
    parts: tuple[Part, ...]
    source_states: tuple[str, ...]
    choices: tuple[PlaneChoice, ...] = ()
    compared: tuple[PlaneChoice, ...] = ()
    enclosure: Enclosure | None = None
    companions: tuple[str, ...] = ()
    details: Document = field(default_factory=dict)
    replaces: str | None = None
    models_folder: str | None = None
    parent_format: int | None = None
    reported: bool = False
    shown: MosaicImage | None = None
    addresses: Mapping[str, str] = field(default_factory=dict)
    truth: Mapping[str, NDArray[np.float32]] = field(default_factory=dict)
    counted: type[PixelCounts] = PixelCounts
    members: MemberPlan | None = None
    add_tables: Callable[[TargetImage], None] = _no_tables
    texts: tuple[Companion, ...] = ()
    tell: Callable[[Counts], None] = _no_word
    judge: Callable[[Counts, int], Verdict] | None = None
    titles: Mapping[str, str] = field(default_factory=dict)
    then: SecondStep | None = None
    history: tuple[Step, ...] = ()
    types: Mapping[str, bool] = field(default_factory=dict)
    listed: Document = field(default_factory=dict)

    @property
    def corrections(self) -> tuple[Correction, ...]:
        """What is corrected; nothing by an import that copies pixels as they are."""
        first = correction_of(self.task, with_models=bool(self.choices))
        second = None if self.then is None else correction_of(self.then.task, with_models=False)
        return tuple(each for each in (first, second) if each is not None)

    @property
    def parameters(self) -> Document:
        """Those of the first step, as the provenance has them."""
        given = parameters_of(self.options)
        return given if self.then is None else {**given, "background": None}

    @property
    def kinds_of_counts(self) -> tuple[type[PixelCounts], ...]:
        """One for each step."""
        return (self.counted,) if self.then is None else (self.counted, self.then.counted)

    def parts_of(self, choice: int) -> tuple[Part, ...]:
        """The parts that come from one image, by the number of its choice of planes."""
        return tuple(part for part in self.parts if part.choice == choice)

    def expected_bytes(self) -> int:
        """Bytes of what is written, as far as the sources tell."""
        total = self.members.expected_bytes if self.members is not None else 0
        for number in {part.choice for part in self.parts}:
            parts = self.parts_of(number)
            source = self.choices[number].image if self.choices else parts[0].plan.source
            pixels = sum(pixel_bytes(target.levels) for p in parts for target in p.plan.targets)
            total += int(pixels * source.stored_share())
        return total

    @property
    def storage(self) -> places.StorageOptions:
        """Storage options of remote addresses."""
        return self.options.storage_options

    def request(self) -> Request:
        """What decides the bytes of the result: a continued run must match it."""
        documents = [level.document for part in self.parts for level in part.plan.targets[0].levels]
        return {
            "task": self.task,
            "version": __version__,
            "source": self.source_url,
            "source_state": list(self.source_states),
            "output": hashlib.sha256(json.dumps(documents).encode()).hexdigest(),
            # The names of blocks in the journal mean boxes of these sizes.
            "blocks": {part.name: list(part.plan.grid.boxes[0]) for part in self.parts},
            "parameters": parameters_of(self.options),
            **request_details((*self.choices, *self.compared)),
            **self.details,
        }

    def result(self, url: str, report: str | None = None) -> JobResult:
        """What is left where the result is at an address; without models and counts.

        Args:
            url: of the result.
            report: where its report would be.
        """
        return JobResult(
            url,
            self.source_url,
            companions={kind: companion_url(self.final_url, kind) for kind in self.companions},
            models_folder=self.models_folder,
            report=report if report is not None and places.exists(report) else None,
            attributes=dict(self.listed),
            types=dict(self.types),
        )


@dataclass(frozen=True)
class JobResult:
    """What a job left.

    Attributes:
        image_url: address of the result: an image, or a container of stacks.
        source_url: what it was made from.
        models: by channel label (with the side, where there are several).
        counts: the same.
        background_counts: the same of a local background that was taken away in the same pass.
        companions: addresses of the images written beside the result, by kind.
        noise_factors: noise of the result over that of the image, by channel label, for
            `gaussian`: exact, and as smlmlp publishes it.
        models_folder: where the models were saved, if they were.
        report: the report, if one was written.
        tile_gains: gain of each tile by channel label, where tiles were made equally bright.
        gains_table: the same as a table, if one was written.
        overlaps: how far the views of the same tissue in two tiles differ, before and after, by
            label of the model; nothing where tiles are not known to overlap.
        verdict: whether it worked, with reasons and what to do; None where nothing is judged.
        attributes: of the result in Fractal's image list.
        types: the same.
    """

    image_url: str
    source_url: str
    models: Models = field(default_factory=dict)
    counts: Counts = field(default_factory=dict)
    background_counts: Counts = field(default_factory=dict)
    companions: dict[str, str] = field(default_factory=dict)
    noise_factors: dict[str, dict[str, float]] = field(default_factory=dict)
    models_folder: str | None = None
    report: str | None = None
    tile_gains: Mapping[str, ChannelGains] = field(default_factory=dict)
    gains_table: str | None = None
    overlaps: Mapping[str, OverlapCheck] = field(default_factory=dict)
    verdict: Verdict | None = None
    attributes: Document = field(default_factory=dict)
    types: dict[str, bool] = field(default_factory=dict)

    def __repr__(self) -> str:
        shown = {"models": ", ".join(self.models), "report": self.report, **self.companions}
        parts = [self.image_url, *(f"{name}: {text}" for name, text in shown.items() if text)]
        if self.verdict is not None:
            parts.append(f"verdict: {self.verdict.word}")
        return f"JobResult({'; '.join(parts)})"

    def facts(self) -> Document:
        """All of it as JSON, without the pixels of the models."""
        return {
            "image_url": self.image_url,
            "source_url": self.source_url,
            "companions": dict(self.companions),
            "models_folder": self.models_folder,
            "report": self.report,
            "models": model_facts(self.models),
            "pixels": {label: asdict(counts) for label, counts in self.counts.items()},
            "background_pixels": {
                label: asdict(counts) for label, counts in self.background_counts.items()
            },
            "noise_factors": dict(self.noise_factors),
            "tile_gains": {label: found.facts() for label, found in self.tile_gains.items()},
            "gains_table": self.gains_table,
            "overlaps": {label: check.facts() for label, check in self.overlaps.items()},
            "verdict": None if self.verdict is None else self.verdict.facts(),
        }


def image_list_update(result: JobResult, *, derived: bool = True) -> Document:
    """The entry of a result for Fractal's image list.

    Args:
        result: of a job.
        derived: whether its source is an image of the list.
    """
    update: Document = {"zarr_url": result.image_url, "types": result.types}
    if result.attributes:
        update["attributes"] = result.attributes
    if derived and result.image_url != result.source_url:
        update["origin"] = result.source_url
    return update
