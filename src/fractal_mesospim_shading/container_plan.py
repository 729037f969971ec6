"""What the correction of a container consists of, checked before a pixel is corrected."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from importlib.metadata import version
from typing import Any

from fractal_mesospim_shading.acquisition import expected_bytes, source_state
from fractal_mesospim_shading.compute import resources
from fractal_mesospim_shading.errors import ParameterError
from fractal_mesospim_shading.estimation import EstimationPlan
from fractal_mesospim_shading.flatfield import plan_models, request_details
from fractal_mesospim_shading.images import places
from fractal_mesospim_shading.images.collection import TileCollection
from fractal_mesospim_shading.images.documents import document_of
from fractal_mesospim_shading.images.mosaic import MosaicImage
from fractal_mesospim_shading.images.native_mosaic import NativeMosaic, PlacedStack
from fractal_mesospim_shading.images.output import (
    convert_attributes,
    output_url,
    refuse_existing,
    refuse_unwritable,
    target_levels,
    zarr_format_of,
)
from fractal_mesospim_shading.images.stores import join_url
from fractal_mesospim_shading.images.target import TargetImage
from fractal_mesospim_shading.job import image_url
from fractal_mesospim_shading.params import FlatfieldOptions
from fractal_mesospim_shading.plan import CorrectionPlan, block_wish
from fractal_mesospim_shading.preparation import Problems, options_of, refuse_little_room

TASK = "correct_flatfield"


@dataclass(frozen=True)
class StackWork:
    """One stack to be corrected.

    Attributes:
        placed: the stack at its place in its mosaic.
        image: the stack as an image of its own.
        target: where it is written.
        attributes: of its group.
    """

    placed: PlacedStack
    image: MosaicImage
    target: TargetImage
    attributes: dict[str, Any]

    @property
    def plan(self) -> CorrectionPlan:
        """The plan, without its profile."""
        wish = block_wish(self.target.levels[0].shape, self.image.dtype)
        return CorrectionPlan(self.image, (self.target,), self.target.url, wish=wish)


@dataclass(frozen=True)
class ContainerWork:
    """A container to be corrected, checked, with no pixel corrected yet."""

    collection: TileCollection
    options: FlatfieldOptions
    final_url: str
    zarr_format: int
    mosaics: tuple[tuple[NativeMosaic, EstimationPlan, tuple[StackWork, ...]], ...]

    def request(self) -> dict[str, Any]:
        """What a continued run must match."""
        documents = [
            level.document
            for _, _, stacks in self.mosaics
            for stack in stacks
            for level in stack.target.levels
        ]
        return {
            "task": TASK,
            "version": version("fractal-mesospim-shading"),
            "source": self.collection.url,
            "source_state": [source_state(mosaic) for mosaic, _, _ in self.mosaics],
            "output": hashlib.sha256(json.dumps(documents).encode()).hexdigest(),
            "mosaics": [request_details(self.options, plan) for _, plan, _ in self.mosaics],
        }


def prefix_of(mosaic: NativeMosaic, count: int) -> str:
    """What goes before the labels of a mosaic's models where there are several mosaics."""
    return f"{mosaic.suffix}: " if count > 1 and mosaic.suffix else ""


def prepare_container(collection: TileCollection, options: FlatfieldOptions) -> ContainerWork:
    """Check everything that can be checked before a pixel is corrected.

    Raises:
        ShadingError: one error with all problems.
    """
    problems = Problems()
    if options.overwrite_input:
        problems.errors.append(
            ParameterError(
                "`overwrite_input` does not go with a native acquisition: its files are never "
                "replaced. Leave it out, and remove the acquisition yourself when you are sure."
            )
        )
    storage = options_of(options)
    final = problems.run(
        lambda: output_url(collection.url, options.output_image_name, options.output_folder)
    )
    planned = []
    if final is not None:
        with problems.collected():
            refuse_existing(final, storage, overwrite=options.overwrite)
        with problems.collected():
            refuse_unwritable(final)
    mosaics = problems.run(collection.mosaics) or ()
    for mosaic in mosaics:
        plan = plan_models(mosaic, options, problems)
        stacks = problems.run(partial(_stacks, collection, mosaic, final, options))
        if plan is not None and stacks:
            planned.append((mosaic, plan, stacks))
            with problems.collected():
                for stack in stacks:
                    resources(stack.plan, options)
    if final is not None:
        with problems.collected():
            refuse_little_room(final, partial(_expected_bytes, planned))
    problems.raise_all()
    if final is None:
        raise RuntimeError("a failed check left no error")
    source = 2 if collection.stacks[0].ngff_version == "0.4" else 3
    zarr_format = zarr_format_of(options.ngff_version, source)
    return ContainerWork(collection, options, final, zarr_format, tuple(planned))


def _expected_bytes(planned: Sequence[tuple[Any, Any, Sequence[StackWork]]]) -> int:
    return sum(
        expected_bytes(mosaic, stack.target.levels)
        for mosaic, _, stacks in planned
        for stack in stacks
    )


def _stacks(
    collection: TileCollection,
    mosaic: NativeMosaic,
    final: str | None,
    options: FlatfieldOptions,
) -> tuple[StackWork, ...]:
    if final is None:
        return ()
    storage = options_of(options)
    works = []
    for placed in mosaic.placed:
        image = MosaicImage.open(join_url(collection.url, placed.stack.group), storage)
        zarr_format = zarr_format_of(options.ngff_version, image.zarr_format)
        documents = [document_of(image.array(level)) for level in range(len(image.levels))]
        levels = target_levels(
            image.levels,
            documents,
            zarr_format=zarr_format,
            axes=image.axes,
            shards=options.output_shards,
        )
        url = places.join(image_url(final), placed.stack.group)
        attributes = convert_attributes(image.attributes(), image.zarr_format, zarr_format)
        target = TargetImage(url, zarr_format, levels, storage)
        works.append(StackWork(placed, image, target, attributes))
    return tuple(works)
