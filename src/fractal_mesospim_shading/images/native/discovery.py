"""Read the metadata of a stack: group, metadata file and project file together."""

from __future__ import annotations

import re
from dataclasses import dataclass

import zarr

from fractal_mesospim_shading.errors import ShadingError
from fractal_mesospim_shading.images.arrays.codecs import Metadata
from fractal_mesospim_shading.images.arrays.reading import describe_array, fingerprint
from fractal_mesospim_shading.images.metadata import (
    PIXEL_TYPES,
    ImageMetadata,
    OpenedImage,
    parse_metadata,
    translation_of,
)
from fractal_mesospim_shading.images.native.channels import laser_name
from fractal_mesospim_shading.images.native.meta import MetaFile, side_of_text
from fractal_mesospim_shading.images.native.stack import (
    BesideName,
    GroupName,
    GroupStacks,
    Stack,
    parse_group_name,
)
from fractal_mesospim_shading.images.native.surroundings import Surroundings, XmlView, read_meta
from fractal_mesospim_shading.images.source import Level
from fractal_mesospim_shading.images.storage.names import what_is_wrong
from fractal_mesospim_shading.images.storage.places import StorageOptions, join_url
from fractal_mesospim_shading.images.storage.stores import open_group

# Table positions are written to a hundredth of a micrometer.
_TOLERANCE_UM = 0.02
_FOREIGN = (
    "has a metadata file that was written for another container and names another place; it is "
    "not used"
)


def read_stacks(
    around: Surroundings, child: str, storage_options: StorageOptions
) -> GroupStacks | str:
    """Read the metadata of a group that holds one stack, an image of axes z, y, x.

    Args:
        around: the container.
        child: name of the group.
        storage_options: for remote addresses.

    Returns:
        The stack, or the reason why it is left out.
    """
    parsed = parse_group_name(child)
    text = read_meta(around, BesideName(child), storage_options)
    reason = what_is_wrong(child)
    if reason is None and parsed is None and text[0] is None:
        return "its name is none that mesoSPIM-control gives"
    if reason is None and parsed is not None and parsed.time_point:
        return f"it is time point {parsed.time_point}; only the first is read here"
    image = open_image(around, child, storage_options, "zyx")
    if isinstance(image, str):
        return image
    stack = image.stack(parsed, text, BesideName(child))
    return stack if isinstance(stack, str) else GroupStacks((stack,), image.opened)


@dataclass(frozen=True)
class GroupImage:
    """The image that a group of a container holds.

    Attributes:
        around: the container.
        child: name of the group.
        opened: what was read of the image.
        levels: its arrays as the axes z, y, x see them, finest first.
        translation: (z, y, x) of the finest array; None where there is none.
        notes: what is odd about its arrays.
    """

    around: Surroundings
    child: str
    opened: OpenedImage
    levels: tuple[Level, ...]
    translation: tuple[float, ...] | None
    notes: tuple[str, ...]

    @property
    def metadata(self) -> ImageMetadata:
        """Of the image."""
        return self.opened.metadata

    @property
    def first(self) -> Metadata:
        """Of its finest array."""
        return self.opened.arrays[0]

    def stack(
        self, name: GroupName | None, text: tuple[MetaFile | None, list[str]], about: BesideName
    ) -> Stack | str:
        """The stack that it holds.

        Args:
            name: what the name of the group says; None where it is none of the microscope's.
            text: the metadata file (None without one), and what is odd about it.
            about: what its name says.

        Returns:
            The stack, or the reason why it is left out.
        """
        meta, meta_notes = text
        if meta is not None and _is_foreign(meta, self.around.name, self.translation):
            meta, meta_notes = None, [_FOREIGN]
        view = self.around.views.get(self.child)
        facts = _Facts(self, name or GroupName(), meta, view, about)
        position = facts.position()
        if position is None:
            return "no metadata file, no translation and no project file give its place"
        notes = [*meta_notes, *self.notes, *position.notes, *facts.notes(position)]
        if name is None:
            notes.append(
                "has a name that mesoSPIM-control does not give; its metadata file is used"
            )
        return facts.stack(position, tuple(notes))


def open_image(
    around: Surroundings, child: str, storage_options: StorageOptions, axes: str
) -> GroupImage | str:
    """Read the image of a group.

    Args:
        around: the container.
        child: name of the group.
        storage_options: for remote addresses.
        axes: that it has to have; `zyx` come last.

    Returns:
        The image, or the reason why it cannot be used.
    """
    reason = what_is_wrong(child)
    if reason is not None:
        return f"its name is none that can be copied: {reason}"
    try:
        group = open_group(join_url(around.url, child), storage_options)
        metadata = parse_metadata(dict(group.attrs), group.metadata.zarr_format, child)
        opened, levels, notes = _levels(group, metadata)
    except ShadingError as error:
        return f"it is no complete image: {error}"
    first = opened.arrays[0]
    shape, kind = first.shape, first.dtype.to_native_dtype()
    if metadata.axes != axes or kind.name not in PIXEL_TYPES or 0 in shape:
        return (
            f"it has the axes {metadata.axes}, the shape {shape} and the type {kind.name}; "
            f"expected {axes}, no empty axis and one of {', '.join(PIXEL_TYPES)}"
        )
    translation = translation_of(dict(group.attrs), group.metadata.zarr_format, len(axes))
    return GroupImage(around, child, opened, levels, translation, tuple(notes))


@dataclass(frozen=True)
class _Position:
    x_um: float
    y_um: float
    z_start_um: float
    z_end_um: float
    z_step_um: float
    source: str
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class _Facts:
    """All that speaks about one group; the metadata file comes first."""

    image: GroupImage
    name: GroupName
    meta: MetaFile | None
    view: XmlView | None
    about: BesideName

    @property
    def pixel_size_um(self) -> tuple[float, float]:
        sizes = self.image.metadata.pixel_size_um()
        return sizes["y"], sizes["x"]

    def position(self) -> _Position | None:
        """Where the stack lies: by the metadata file, else NGFF, else the project file."""
        translation, planes = self.image.translation, self.image.levels[0].shape[0]
        step = self.image.metadata.pixel_size_um()["z"]
        start = translation[0] if translation else 0.0
        end = start + (planes - 1) * step
        x_um = self.meta.number("POSITION", "x_pos") if self.meta else None
        y_um = self.meta.number("POSITION", "y_pos") if self.meta else None
        if self.meta is not None and x_um is not None and y_um is not None:
            given_start = self.meta.number("POSITION", "z_start")
            given_end = self.meta.number("POSITION", "z_end")
            given_step = abs(self.meta.number("POSITION", "z_stepsize") or 0.0) or step
            start = start if given_start is None else given_start
            end = start + (planes - 1) * given_step if given_end is None else given_end
            return _Position(x_um, y_um, start, end, given_step, "meta")
        notes = ("has no usable metadata file; the direction of its scan is taken as upward",)
        if translation:
            return _Position(translation[2], translation[1], start, end, step, "ngff", notes)
        if self.view is not None and self.view.shift_px is not None:
            size_y, size_x = self.pixel_size_um
            x_px, y_px = self.view.shift_px
            return _Position(x_px * size_x, y_px * size_y, start, end, step, "xml", notes)
        return None

    def notes(self, position: _Position) -> list[str]:
        """What a person should look at."""
        notes = []
        translation, (depth, *plane) = self.image.translation, self.image.levels[0].shape
        if position.source == "meta" and translation is not None:
            given = (position.z_start_um, position.y_um, position.x_um)
            if max(abs(a - b) for a, b in zip(given, translation, strict=True)) > _TOLERANCE_UM:
                notes.append(
                    "has an NGFF translation that differs from its metadata file (a conversion "
                    "tool may have overwritten it); the metadata file is used"
                )
        planned = self.planes_planned
        if planned is not None and planned != depth:
            notes.append(f"holds {depth} planes, {planned} were planned")
        if self.meta is None:
            return notes
        if self.meta.processors:
            notes.append(
                f"was changed by image processors ({', '.join(self.meta.processors)}) before it "
                "was written: offset and background may be gone and the noise correlated; do not "
                "subtract an offset twice"
            )
        size = self.meta.number("CFG", "Pixelsize in um")
        if size is not None and abs(size - self.pixel_size_um[1]) > 1e-3 * size:
            notes.append("has an NGFF pixel size that differs from its metadata file; NGFF is used")
        sensor = tuple(self.meta.number("CAMERA PARAMETERS", f"{a}_pixels") for a in "xy")
        if None not in sensor and sensor != tuple(plane):
            notes.append(
                f"is {plane[0]} x {plane[1]} pixels (y, x), but the camera is said to "
                f"give {sensor[0]:g} x {sensor[1]:g}: with camera binning the pixel size on disk "
                "is that of unbinned pixels"
            )
        return notes

    @property
    def planes_planned(self) -> int | None:
        count = self.meta.number("POSITION", "z_planes") if self.meta else None
        return int(count) if count is not None else None

    def stack(self, position: _Position, notes: tuple[str, ...]) -> Stack:
        meta, view, name, image = self.meta, self.view, self.name, self.image
        laser = (meta.text("CFG", "Laser") if meta else None) or (view.channel if view else None)
        full_filter = meta.text("CFG", "Filter") if meta else None
        side, side_note = self._side()
        tile = name.tile
        if tile is None and view is not None and re.fullmatch(r"\d+", view.tile or ""):
            tile = int(view.tile or "")
        around = image.around
        return Stack(
            group=image.child,
            number=tile,
            laser=laser_name(laser or name.laser or ""),
            filter=full_filter or name.filter or "",
            filter_in_full=full_filter is not None,
            side=side,
            rotation=self._rotation(),
            x_um=position.x_um,
            y_um=position.y_um,
            z_start_um=position.z_start_um,
            z_end_um=position.z_end_um,
            z_step_um=position.z_step_um,
            planes_planned=self.planes_planned,
            pixel_size_um=self.pixel_size_um,
            levels=image.levels,
            dtype=image.first.dtype.to_native_dtype().newbyteorder("=").name,
            ngff_version=image.metadata.version,
            processors=meta.processors if meta else (),
            position_source=position.source,
            zoom=(meta.text("CFG", "Zoom") if meta else None) or name.zoom or "",
            camera=(meta.text("CAMERA PARAMETERS", "camera_type") if meta else None) or "",
            side_told=not side_note,
            started=(meta.text("TIMING INFORMATION", "Started stack") if meta else None) or "",
            in_xml=image.child in around.views if around.views else None,
            meta_file=around.text_name(self.about),
            projection_file=around.projection_name(self.about),
            fingerprint=fingerprint(image.first),
            notes=(*notes, *side_note),
        )

    def _side(self) -> tuple[str, tuple[str, ...]]:
        known = self.meta.side if self.meta else None
        known = known or (side_of_text(self.view.side) if self.view else None)
        if known:
            return known, ()
        if self.name.shutter == 1:
            return "right", ("is lit from the right or from both sides (Sh1); taken as right",)
        if self.name.shutter == 0:
            return "left", ()
        return "left", ("does not say from which side it is lit; taken as left",)

    def _rotation(self) -> float:
        given = self.meta.number("POSITION", "rot") if self.meta else None
        if given is not None:
            return given
        if self.name.rotation is not None:
            return self.name.rotation
        text = self.view.angle if self.view else None
        return float(text) if text and re.fullmatch(r"-?\d+\.?\d*", text) else 0.0


def _is_foreign(meta: MetaFile, container: str, translation: tuple[float, ...] | None) -> bool:
    """Whether a metadata file names another container and does not fit the group either."""
    if meta.names_container(container) is not False or translation is None:
        return False
    places = (meta.number("POSITION", "y_pos"), meta.number("POSITION", "x_pos"))
    return any(
        place is not None and abs(place - given) > _TOLERANCE_UM
        for place, given in zip(places, translation[1:], strict=True)
    )


def _levels(
    group: zarr.Group, metadata: ImageMetadata
) -> tuple[OpenedImage, tuple[Level, ...], list[str]]:
    """The arrays of a group; coarser ones may be missing, the finest may not."""
    arrays, notes = [describe_array(group, metadata.paths[0])], []
    for path in metadata.paths[1:]:
        try:
            arrays.append(describe_array(group, path))
        except ShadingError:
            notes.append("lacks coarser levels that its metadata list: it was not finished")
            break
    levels = tuple(
        Level(
            path,
            array.shape[-3:],
            array.chunks[-3:],
            array.shards[-3:] if array.shards else None,
            scale[-3:],
        )
        for path, array, scale in zip(metadata.paths, arrays, metadata.scales, strict=False)
    )
    return OpenedImage(group, metadata, tuple(arrays)), levels, notes
