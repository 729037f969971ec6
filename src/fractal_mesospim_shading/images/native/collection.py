"""A container that mesoSPIM-control wrote: stacks of a tile, channel, side and angle each."""

from __future__ import annotations

import json
import os
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property

from fractal_mesospim_shading.errors import ImageFormatError, ParameterError
from fractal_mesospim_shading.images.metadata import OpenedImage
from fractal_mesospim_shading.images.mosaic import MosaicImage
from fractal_mesospim_shading.images.native import discovery, tile_images
from fractal_mesospim_shading.images.native.assembly import Acquisition, build_mosaics
from fractal_mesospim_shading.images.native.channels import NativeChannel, filter_key, list_channels
from fractal_mesospim_shading.images.native.mosaic import NativeMosaic
from fractal_mesospim_shading.images.native.overlap import measure_signs, projectors
from fractal_mesospim_shading.images.native.positions import (
    MeasuredSigns,
    Orientation,
    SignOptions,
    XmlSigns,
    decide_orientation,
    use_xml,
)
from fractal_mesospim_shading.images.native.stack import (
    GroupName,
    GroupStacks,
    LeftOut,
    Stack,
    listed,
    natural_key,
    parse_group_name,
    split_container_name,
)
from fractal_mesospim_shading.images.native.surroundings import Surroundings, look_around
from fractal_mesospim_shading.images.ngff import explain_group, group_content
from fractal_mesospim_shading.images.storage.places import StorageOptions, join_url, normalise_url
from fractal_mesospim_shading.images.storage.stores import open_group, understood

Reader = Callable[[Surroundings, str, StorageOptions], GroupStacks | str]
"""Reads the stacks of a group, or says why it is left out; see `discovery.read_stacks`."""


@dataclass(frozen=True)
class _Layout:
    """One of the microscope's ways to lay out a container: names of groups, and their reader."""

    parse_name: Callable[[str], GroupName | None]
    read: Reader


_LAYOUTS = (
    _Layout(parse_group_name, discovery.read_stacks),
    _Layout(tile_images.parse_tile_name, tile_images.read_stacks),
)


@dataclass(frozen=True)
class TileCollection:
    """A native acquisition. Open it with `TileCollection.open`; it holds metadata only.

    Attributes:
        url: of the container.
        storage_options: for remote addresses, as JSON.
        name: of the acquisition, without endings and time point.
        time_point: of a time lapse, from the container's name; None otherwise.
        stacks: what was read, in natural order of the names.
        left_out: groups and other things in the container that were not read, and why.
        xml_file: name of the project file beside the container, if there is one.
        sign_options: what the caller knows about the axes.
        xml_signs: what the project file says about them; None where it says nothing.
        own_warnings: about the container as a whole.
        opened: what was read of the images that hold the stacks, by group.
    """

    url: str
    storage_options: str
    name: str
    time_point: int | None
    stacks: tuple[Stack, ...]
    left_out: tuple[LeftOut, ...]
    xml_file: str | None
    sign_options: SignOptions
    xml_signs: XmlSigns | None
    own_warnings: tuple[str, ...]
    opened: Mapping[str, OpenedImage] = field(repr=False, compare=False)

    @classmethod
    def open(
        cls,
        container_url: str | os.PathLike[str],
        storage_options: StorageOptions = None,
        *,
        signs: SignOptions | None = None,
        exclude_groups: Sequence[str] = (),
    ) -> TileCollection:
        """Read the metadata of a container and of the files beside it; no pixels.

        Args:
            container_url: of the container: a path, an address of fsspec, or a zip archive.
            storage_options: what fsspec needs for a remote address; plain JSON values.
            signs: how the stage's axes run, where it is known.
            exclude_groups: names of groups to leave out, such as those of an earlier run.

        Raises:
            ImageNotFoundError: nothing at the address.
            ImageFormatError: not such a container, or nothing in it can be read.
            ParameterError: a group to leave out does not exist.
        """
        url = normalise_url(container_url)
        with understood(url):
            _refuse_other_kinds(url, storage_options)
            around = look_around(url, storage_options)
            unknown = sorted(set(exclude_groups) - set(around.children))
            if unknown:
                raise ParameterError(
                    f"`exclude_groups` names {listed(unknown)}, which '{url}' does not hold."
                )
            read = {
                child: "it was excluded"
                if child in exclude_groups
                else _reader_of(child)(around, child, storage_options)
                for child in around.children
            }
            left_out = [LeftOut(name, s) for name, s in read.items() if isinstance(s, str)]
            found = {name: own for name, own in read.items() if not isinstance(own, str)}
            stacks = [stack for own in found.values() for stack in own.stacks]
            if not stacks:
                raise ImageFormatError(_nothing_in(url, left_out))
            stacks = _name_lasers(stacks)
            xml_signs, stacks, warnings = use_xml(stacks, around)
            warnings += _position_warnings(stacks)
            name, time_point = split_container_name(around.name)
            return cls(
                url=url,
                storage_options=json.dumps(dict(storage_options or {}), sort_keys=True),
                name=name,
                time_point=time_point,
                stacks=tuple(stacks),
                left_out=tuple(left_out),
                xml_file=around.xml_file,
                sign_options=signs or SignOptions(),
                xml_signs=xml_signs,
                own_warnings=(*around.warnings, *warnings, *_absent(around)),
                opened={name: own.image for name, own in found.items()},
            )

    def image(self, group: str) -> MosaicImage:
        """A group as an image of its own, from what was read of it already.

        Raises:
            ImageFormatError: it holds stacks, but is no complete image.
        """
        options = json.loads(self.storage_options)
        return MosaicImage.of(self.opened[group], join_url(self.url, group), options)

    @cached_property
    def _channel_index(self) -> tuple[tuple[NativeChannel, ...], dict[tuple[str, str], int]]:
        return list_channels((s.laser, s.filter, s.filter_in_full) for s in self.stacks)

    @property
    def channels(self) -> tuple[NativeChannel, ...]:
        """Pairs of laser and filter, by rising wavelength."""
        return self._channel_index[0]

    def channel_of(self, stack: Stack) -> NativeChannel:
        """The channel that a stack belongs to."""
        channels, index = self._channel_index
        return channels[index[stack.laser, filter_key(stack.filter)]]

    @cached_property
    def orientation(self) -> Orientation:
        """How the stage's axes run in the image.

        By the caller, else by the project file, else measured in the overlaps (which reads
        pixels, once), else both against the image.
        """

        def measure(thorough: bool) -> MeasuredSigns:
            look = projectors(self.url, self.storage_options, thorough=thorough)
            return measure_signs(self.stacks, look)

        return decide_orientation(self.sign_options, self.xml_signs, measure)

    @cached_property
    def _mosaics(self) -> tuple[NativeMosaic, ...]:
        channels, index = self._channel_index
        acquisition = Acquisition(self.url, self.storage_options, self.orientation, channels, index)
        return build_mosaics(self.stacks, acquisition)

    def mosaics(self) -> tuple[NativeMosaic, ...]:
        """The images that the acquisition holds.

        One for each angle; where most tiles were lit from more than one side, one for each
        side; where tiles lie far apart or differ in zoom, one for each of these sets.

        Raises:
            LayoutError: stacks that should form one mosaic differ in size, plane distance or
                type.
            SourceReadError: the orientation had to be measured, and a chunk cannot be read.
        """
        return self._mosaics

    @property
    def warnings(self) -> tuple[str, ...]:
        """Everything suspicious that metadata show, one line each."""
        lines = list(self.own_warnings)
        for names, reason in _by_reason(self.left_out):
            verb = "is" if len(names) == 1 else "are"
            lines.append(f"{listed(names)} {verb} left out: {reason}.")
        # A group may hold several stacks; what is said of all of them is said once.
        by_text: dict[str, dict[str, None]] = defaultdict(dict)
        for stack in self.stacks:
            for note in stack.notes:
                by_text[note][stack.group] = None
        total = len({stack.group for stack in self.stacks})
        what = "images" if any(stack.lead for stack in self.stacks) else "stacks"
        for text, groups in by_text.items():
            lines.append(f"{_who(list(groups), total, what)} {text}.")
        return tuple(lines)


def holds_stacks(url: str, storage_options: StorageOptions = None) -> bool:
    """Whether the names in a group, or of the texts beside it, are those of stacks."""
    around = look_around(url, storage_options)
    return any(is_stack_name(child) or child in around.texts for child in around.children)


def is_stack_name(name: str) -> bool:
    """Whether the microscope gives such names to groups that hold stacks."""
    return any(layout.parse_name(name) is not None for layout in _LAYOUTS)


def _reader_of(name: str) -> Reader:
    """What reads a group: the layout that gives such names, else the first."""
    fitting = (layout.read for layout in _LAYOUTS if layout.parse_name(name) is not None)
    return next(fitting, _LAYOUTS[0].read)


def _refuse_other_kinds(url: str, storage_options: StorageOptions) -> None:
    group = open_group(url, storage_options)
    content = group_content(group)
    if content.get("multiscales"):
        raise ImageFormatError(
            f"'{url}' is a single image, not a container of stacks. If it is one tile of an "
            f"acquisition, give the container: '{url.rpartition('/')[0]}'."
        )
    if content.get("plate") or content.get("well"):
        raise ImageFormatError(explain_group(group, url))


def _nothing_in(url: str, left_out: Sequence[LeftOut]) -> str:
    if not left_out:
        return (
            f"The container '{url}' is empty. Expected one group for each tile and channel, as "
            "mesoSPIM-control writes them; was the acquisition stopped at its start?"
        )
    grouped = _by_reason(left_out)
    reasons = "; ".join(f"{listed(names)}: {reason}" for names, reason in grouped[:4])
    more = f"; and {len(grouped) - 4} more" if len(grouped) > 4 else ""
    return f"'{url}' holds no stack of a mesoSPIM acquisition that can be read ({reasons}{more})."


def _by_reason(left_out: Sequence[LeftOut]) -> list[tuple[list[str], str]]:
    """The names that were left out for each reason, in which the first one may be named."""
    alike: dict[str, list[LeftOut]] = defaultdict(list)
    for item in left_out:
        alike[item.reason.replace(item.name, "")].append(item)
    return [([item.name for item in items], items[0].reason) for items in alike.values()]


def _name_lasers(stacks: Sequence[Stack]) -> list[Stack]:
    """Give stacks of unknown laser one by their order at each place."""
    counts: dict[tuple[float, ...], int] = defaultdict(int)
    named = []
    for stack in stacks:
        if not stack.laser:
            place = (stack.x_um, stack.y_um, stack.z_start_um, stack.rotation)
            note = "does not say its laser; channels are told apart by the order of the names"
            laser = f"channel {counts[place]}"
            counts[place] += 1
            stack = replace(stack, laser=laser, notes=(*stack.notes, note))
        named.append(stack)
    return named


def _absent(around: Surroundings) -> list[str]:
    """Stacks that only the files beside the container know."""
    # Other layouts keep each time point in a container of its own.
    named = {
        group
        for group, texts in around.texts.items()
        if tile_images.parse_tile_name(group) or any(about.time is None for about in texts)
    }
    named |= set(around.views)
    absent = sorted(named - set(around.children), key=natural_key)
    if not absent:
        return []
    return [
        f"The container does not hold {listed(absent)}, of which there is a metadata file or an "
        "entry in the project file: deleted, or never written to its end."
    ]


def _position_warnings(stacks: Sequence[Stack]) -> list[str]:
    sources = {stack.position_source for stack in stacks}
    if "meta" in sources:
        return []
    where = {"ngff": "the NGFF translations", "xml": "the project file"}
    used = " and ".join(where[source] for source in sorted(sources))
    warnings = [f"There are no metadata files; positions come from {used}."]
    if sources == {"ngff"} and _is_gapless_grid(stacks):
        warnings.append(
            "The NGFF translations form a grid without overlap that begins at 0: a conversion tool "
            "has probably overwritten the positions of the stage. True overlaps, heights and the "
            "orientation are lost unless the metadata files are put back."
        )
    return warnings


def _is_gapless_grid(stacks: Sequence[Stack]) -> bool:
    height, width = stacks[0].tile_size_um
    places = {(stack.y_um, stack.x_um) for stack in stacks}
    return (
        len(places) > 1
        and min(y for y, _ in places) == min(x for _, x in places) == 0
        and all(abs(y / height - round(y / height)) < 1e-3 for y, _ in places)
        and all(abs(x / width - round(x / width)) < 1e-3 for _, x in places)
    )


def _who(groups: Sequence[str], total: int, what: str) -> str:
    if len(groups) == total and total > 1:
        return f"Each of the {total} {what}"
    return listed(groups) if len(groups) == 1 else f"Each of {listed(groups)}"
