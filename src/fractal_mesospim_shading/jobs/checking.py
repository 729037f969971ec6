"""How far the tiles of any image differ where they show the same tissue; nothing is written."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass, replace
from math import hypot
from statistics import median

from fractal_mesospim_shading.core.overlaps.neighbours import LEAST_OVERLAP_PX, neighbours
from fractal_mesospim_shading.errors import ParameterError
from fractal_mesospim_shading.flatfield.given_profiles import read_given_profiles
from fractal_mesospim_shading.flatfield.models import ChannelModel
from fractal_mesospim_shading.flatfield.overlap_check import check_group
from fractal_mesospim_shading.images.arrays.documents import Document
from fractal_mesospim_shading.images.mosaic import MosaicImage
from fractal_mesospim_shading.images.native.container import is_container
from fractal_mesospim_shading.images.native.opening import open_collection
from fractal_mesospim_shading.images.output import mark_of
from fractal_mesospim_shading.images.roi_tables import FOV_TABLE
from fractal_mesospim_shading.images.source import ModelGroup, MultitileImage
from fractal_mesospim_shading.images.storage.places import StorageOptions
from fractal_mesospim_shading.images.storage.stores import workable
from fractal_mesospim_shading.images.tile_tables import refuse_table_of_acquisition
from fractal_mesospim_shading.jobs.work import prefix_of
from fractal_mesospim_shading.messages import know_options
from fractal_mesospim_shading.options.flatfield import FlatfieldOptions
from fractal_mesospim_shading.options.values import validated
from fractal_mesospim_shading.overlaps.certificate import OverlapCheck
from fractal_mesospim_shading.overlaps.sampling import OverlapEvidence, observe_overlaps

know_options("against")

# Two registrations of the same views agree to this, in pixels.
_MOST_APART_PX = 1.5

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class CheckWanted:
    """What an image is compared with.

    Attributes:
        models_folder: of models whose correction is foretold.
        against: address of a result, corrected by whatever program.
        camera_offset: counts without light in the image; None for what its metadata tell of an
            earlier correction, else 0: the overlaps tell themselves how many there are.
        seed: of the sample of planes and places.
        storage_options: of remote addresses.
        input_roi_table: name of the table of the fields of view.
    """

    models_folder: str | None = None
    against: str | None = None
    camera_offset: float | None = None
    seed: int = 0
    storage_options: StorageOptions = None
    input_roi_table: str = FOV_TABLE


@dataclass(frozen=True)
class CheckResult:
    """What was measured.

    Attributes:
        image_url: of the image.
        channels: a check for each channel and illumination side.
    """

    image_url: str
    channels: tuple[OverlapCheck, ...]

    def facts(self) -> Document:
        """All of it as JSON."""
        return {"image": self.image_url, "channels": [check.facts() for check in self.channels]}

    def lines(self) -> tuple[str, ...]:
        """In plain words, some lines for each channel."""
        return tuple(
            f"{check.label}: {line}"
            for check in self.channels
            for line in (*check.lines(), *check.details())
        )


def check_image(url: str, wanted: CheckWanted) -> CheckResult:
    """Measure an image or an acquisition, alone, with models, or against a result.

    Args:
        url: of the image, or of the container.
        wanted: what it is compared with.

    Raises:
        ShadingError: one readable error, before a pixel is read.
    """
    if wanted.models_folder is not None and wanted.against is not None:
        raise ParameterError("`models_folder` and `against` were both given; give one of them.")
    shared = ("models_folder", "camera_offset", "seed")
    options = validated(FlatfieldOptions, {name: getattr(wanted, name) for name in shared})
    wanted = replace(wanted, camera_offset=options.camera_offset, seed=options.seed)
    with workable(url):
        images = _opened(url, wanted.storage_options, wanted.input_roi_table)
        _refuse_unplaced(images, url)
        # All is looked at before the first pixel is read.
        others = _others(images, wanted)
        models = [_models(image, wanted) for image in images]
        checks = []
        for image, other, own in zip(images, others, models, strict=True):
            for group in image.model_groups:
                if other is None:
                    offset = _offset(image, wanted)
                    check = check_group(
                        image, group, own.get(group.label), offset=offset, seed=wanted.seed
                    )
                else:
                    check = _against(image, other, group, wanted)
                label = prefix_of(image, images) + check.label
                checks.append(replace(check, label=label))
    return CheckResult(url, tuple(checks))


def _opened(url: str, storage: StorageOptions, roi_table: str) -> list[MultitileImage]:
    if is_container(url, storage):
        refuse_table_of_acquisition(roi_table)
        return list(open_collection(url, storage).mosaics())
    return [MosaicImage.open(url, storage, roi_table)]


def _refuse_unplaced(images: Sequence[MultitileImage], url: str) -> None:
    """Refuse images whose tiles show nothing twice, as far as their positions tell."""
    for image in images:
        if image.origins_px is None:
            raise ParameterError(
                f"'{url}' does not tell where its tiles really were: expected columns "
                "'x_micrometer_original' and 'y_micrometer_original' in its table of tiles, as an "
                "import writes them. Without them nobody knows which tissue two tiles share."
            )
    if not any(neighbours(image.origins_px or {}, image.layout.tile_shape) for image in images):
        raise ParameterError(
            f"No two tiles of '{url}' overlap by at least {LEAST_OVERLAP_PX} pixels where they "
            "really were: nothing was seen twice that could be compared."
        )


def _others(images: Sequence[MultitileImage], wanted: CheckWanted) -> list[MultitileImage | None]:
    """The result of each image; None where there is nothing to compare with."""
    if wanted.against is None:
        return [None] * len(images)
    if is_container(wanted.against, wanted.storage_options):
        results: Sequence[MultitileImage]
        results = open_collection(wanted.against, wanted.storage_options).mosaics()
    else:
        result = MosaicImage.open(wanted.against, wanted.storage_options, wanted.input_roi_table)
        # Another program may not have kept where the tiles were.
        results = [
            replace(result, origins_px=result.origins_px or dict(images[0].origins_px or {}))
        ]
    if len(results) != len(images):
        raise ParameterError(
            f"`against` holds {len(results)} mosaics, the image {len(images)}; expected the "
            "same ones, corrected."
        )
    for image, other in zip(images, results, strict=True):
        _refuse_unlike(image, other)
    return list(results)


def _refuse_unlike(image: MultitileImage, other: MultitileImage) -> None:
    for what, own, others in (
        ("tiles of (y, x)", image.layout.tile_shape, other.layout.tile_shape),
        ("the tiles", sorted(image.layout.by_number), sorted(other.layout.by_number)),
        ("the channels", _labels(image), _labels(other)),
        ("pixels of " + ",".join(image.axes), image.levels[0].shape, other.levels[0].shape),
    ):
        if own != others:
            raise ParameterError(
                f"`against` has {what} {others}, the image {own}; expected the same image, "
                "corrected."
            )


def _labels(image: MultitileImage) -> list[str]:
    return [group.label for group in image.model_groups]


def _models(image: MultitileImage, wanted: CheckWanted) -> dict[str, ChannelModel]:
    """The models that were given, by label of the group."""
    if wanted.models_folder is None:
        return {}
    options = FlatfieldOptions(models_folder=wanted.models_folder)
    given = read_given_profiles(image, options).models
    offset = wanted.camera_offset or 0.0
    return {label: ChannelModel(saved.profile, offset) for label, saved in given.items()}


def _offset(image: MultitileImage, wanted: CheckWanted) -> float:
    """Counts without light, as far as they are told."""
    if wanted.camera_offset is not None:
        return wanted.camera_offset
    return _added(image.url, wanted.storage_options)


def _added(url: str, storage: StorageOptions) -> float:
    """Counts that a correction by this package has added to an image; 0 for any other image."""
    parameters = mark_of(url, storage).get("parameters")
    added = parameters.get("output_offset") if isinstance(parameters, dict) else None
    return float(added) if isinstance(added, int | float) else 0.0


def _against(
    image: MultitileImage, other: MultitileImage, group: ModelGroup, wanted: CheckWanted
) -> OverlapCheck:
    """One channel and side before, as it is, and after, as a result holds it."""
    raw = observe_overlaps(image, group, _offset(image, wanted), seed=wanted.seed)
    done = observe_overlaps(
        other, _same(other, group), _added(other.url, wanted.storage_options), seed=wanted.seed
    )
    _tell_cost(group, raw, done)
    _refuse_other_places(group, raw, done)
    return OverlapCheck.of_result(group.label, group.side, raw, done)


def _refuse_other_places(group: ModelGroup, raw: OverlapEvidence, done: OverlapEvidence) -> None:
    """Refuse the result of another acquisition, whose stage was off by something else.

    Raises:
        ParameterError: views of the same pairs lie otherwise to each other.
    """
    of_result = {(pair.first, pair.second): pair.registration for pair in done.pairs}
    apart = []
    for pair in raw.pairs:
        one, other = pair.registration, of_result.get((pair.first, pair.second))
        if other is not None and one.holds and other.holds:
            apart.append(hypot(one.y - other.y, one.x - other.x))
    if apart and median(apart) > _MOST_APART_PX:
        raise ParameterError(
            f"`against` is no result of this image: in channel {group.label} the same two tiles "
            f"show the same tissue {median(apart):.1f} pixels apart in both. Expected the same "
            "image, corrected."
        )


def _same(other: MultitileImage, group: ModelGroup) -> ModelGroup:
    """The group of a result that holds a group of its source."""
    return next(own for own in other.model_groups if own.label == group.label)


def _tell_cost(group: ModelGroup, *seen: OverlapEvidence) -> None:
    logger.debug(
        "Channel %s: %.1f MB were decoded.", group.label, sum(s.decoded_bytes for s in seen) / 1e6
    )
