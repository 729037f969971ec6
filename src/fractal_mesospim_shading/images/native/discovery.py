"""Read the metadata of a stack: group, metadata file and project file together."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import zarr

from fractal_mesospim_shading.errors import ShadingError
from fractal_mesospim_shading.images.arrays.codecs import Metadata
from fractal_mesospim_shading.images.arrays.reading import describe_array, fingerprint
from fractal_mesospim_shading.images.native.meta import MetaFile, side_of_text
from fractal_mesospim_shading.images.native.stack import (
    GroupName,
    Stack,
    laser_name,
    meta_file_name,
    parse_group_name,
    projection_file_name,
)
from fractal_mesospim_shading.images.native.surroundings import Surroundings, XmlView, read_meta
from fractal_mesospim_shading.images.ngff import ngff_content
from fractal_mesospim_shading.images.source import ImageMetadata, Level, parse_metadata
from fractal_mesospim_shading.images.storage.names import what_is_wrong
from fractal_mesospim_shading.images.storage.places import StorageOptions, join_url
from fractal_mesospim_shading.images.storage.stores import open_group

_TYPES = ("uint8", "uint16", "float32")
# Table positions are written to a hundredth of a micrometer.
_TOLERANCE_UM = 0.02
_FOREIGN = (
    "has a metadata file that was written for another container and names another place; it is "
    "not used"
)


def read_stack(around: Surroundings, child: str, storage_options: StorageOptions) -> Stack | str:
    """Read the metadata of one group of a container.

    Args:
        around: the container.
        child: name of the group.
        storage_options: for remote addresses.

    Returns:
        The stack, or the reason why it is left out.
    """
    reason = what_is_wrong(child)
    if reason is not None:
        return f"its name is none that can be copied: {reason}"
    parsed = parse_group_name(child)
    meta, meta_note = read_meta(around, child, storage_options)
    if parsed is None and meta is None:
        return "its name is none that mesoSPIM-control gives"
    if parsed is not None and parsed.time_point:
        return f"it is time point {parsed.time_point}; only the first is read here"
    try:
        group = open_group(join_url(around.url, child), storage_options)
        metadata = parse_metadata(dict(group.attrs), group.metadata.zarr_format, child)
        levels, first, level_notes = _levels(group, metadata)
    except ShadingError as error:
        return f"it is no complete image: {error}"
    shape = levels[0].shape
    kind = first.dtype.to_native_dtype().name
    if metadata.axes != "zyx" or kind not in _TYPES or 0 in shape:
        return (
            f"it has the axes {metadata.axes}, the shape {shape} and the type {kind}; "
            f"expected zyx, no empty axis and one of {', '.join(_TYPES)}"
        )
    translation = _translation(dict(group.attrs), group.metadata.zarr_format)
    if meta is not None and _is_foreign(meta, around.name, translation):
        meta = None
        meta_note = [_FOREIGN]
    facts = _Facts(around, child, parsed or GroupName(), meta, around.views.get(child), metadata)
    position = facts.position(translation, shape[0])
    if position is None:
        return "no metadata file, no translation and no project file give its place"
    notes = [*meta_note, *level_notes, *position.notes, *facts.notes(first, translation, position)]
    if parsed is None:
        notes.append("has a name that mesoSPIM-control does not give; its metadata file is used")
    return facts.stack(levels, first, position, tuple(notes))


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

    around: Surroundings
    child: str
    name: GroupName
    meta: MetaFile | None
    view: XmlView | None
    metadata: ImageMetadata

    @property
    def pixel_size_um(self) -> tuple[float, float]:
        sizes = self.metadata.pixel_size_um()
        return sizes["y"], sizes["x"]

    def position(self, translation: tuple[float, ...] | None, planes: int) -> _Position | None:
        """Where the stack lies: by the metadata file, else NGFF, else the project file."""
        step = self.metadata.pixel_size_um()["z"]
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

    def notes(
        self,
        first: Metadata,
        translation: tuple[float, ...] | None,
        position: _Position,
    ) -> list[str]:
        """What a person should look at."""
        notes = []
        if position.source == "meta" and translation is not None:
            given = (position.z_start_um, position.y_um, position.x_um)
            if max(abs(a - b) for a, b in zip(given, translation, strict=True)) > _TOLERANCE_UM:
                notes.append(
                    "has an NGFF translation that differs from its metadata file (a conversion "
                    "tool may have overwritten it); the metadata file is used"
                )
        planned = self.planes_planned
        if planned is not None and planned != first.shape[0]:
            notes.append(f"holds {first.shape[0]} planes, {planned} were planned")
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
        if None not in sensor and sensor != tuple(first.shape[1:]):
            notes.append(
                f"is {first.shape[1]} x {first.shape[2]} pixels (y, x), but the camera is said to "
                f"give {sensor[0]:g} x {sensor[1]:g}: with camera binning the pixel size on disk "
                "is that of unbinned pixels"
            )
        return notes

    @property
    def planes_planned(self) -> int | None:
        count = self.meta.number("POSITION", "z_planes") if self.meta else None
        return int(count) if count is not None else None

    def stack(
        self,
        levels: tuple[Level, ...],
        first: Metadata,
        position: _Position,
        notes: tuple[str, ...],
    ) -> Stack:
        meta, view, name = self.meta, self.view, self.name
        laser = (meta.text("CFG", "Laser") if meta else None) or (view.channel if view else None)
        full_filter = meta.text("CFG", "Filter") if meta else None
        side, side_note = self._side()
        tile = name.tile
        if tile is None and view is not None and re.fullmatch(r"\d+", view.tile or ""):
            tile = int(view.tile or "")
        around = self.around
        meta_file = meta_file_name(around.name, self.child)
        projection = projection_file_name(around.name, self.child)
        return Stack(
            group=self.child,
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
            levels=levels,
            dtype=first.dtype.to_native_dtype().newbyteorder("=").name,
            ngff_version=self.metadata.version,
            processors=meta.processors if meta else (),
            position_source=position.source,
            zoom=(meta.text("CFG", "Zoom") if meta else None) or name.zoom or "",
            started=(meta.text("TIMING INFORMATION", "Started stack") if meta else None) or "",
            in_xml=self.child in around.views if around.views else None,
            meta_file=meta_file if meta_file in around.beside else None,
            projection_file=projection if projection in around.beside else None,
            fingerprint=fingerprint(first),
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
) -> tuple[tuple[Level, ...], Metadata, list[str]]:
    """The arrays of a group; coarser ones may be missing, the finest may not."""
    first = describe_array(group, metadata.paths[0])
    arrays, notes = [first], []
    for path in metadata.paths[1:]:
        try:
            arrays.append(describe_array(group, path))
        except ShadingError:
            notes.append("lacks coarser levels that its metadata list: it was not finished")
            break
    levels = tuple(
        Level(path, array.shape, array.chunks, array.shards, scale)
        for path, array, scale in zip(metadata.paths, arrays, metadata.scales, strict=False)
    )
    return levels, first, notes


def _translation(attributes: Mapping[str, Any], zarr_format: int) -> tuple[float, ...] | None:
    """The translation of the finest level, three numbers; None where there is none."""
    content = ngff_content(attributes, zarr_format)
    transformations = content["multiscales"][0]["datasets"][0]["coordinateTransformations"]
    for item in transformations:
        if isinstance(item, Mapping) and item.get("type") == "translation":
            values = item.get("translation")
            numbers = isinstance(values, list) and all(isinstance(v, int | float) for v in values)
            if isinstance(values, list) and numbers and len(values) == 3:
                return tuple(float(value) for value in values)
    return None
