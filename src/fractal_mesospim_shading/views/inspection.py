"""What an image is, for a person who wants to fill in the parameters."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import asdict
from typing import Any

from fractal_mesospim_shading.engine.earlier import (
    UnfinishedJob,
    jobs_beside,
    not_corrected,
    steps_of,
)
from fractal_mesospim_shading.engine.outside_tiles import outside_facts
from fractal_mesospim_shading.errors import SourceReadError
from fractal_mesospim_shading.images.carrying.members import MemberPlan, list_members
from fractal_mesospim_shading.images.mosaic import MosaicImage, is_finished
from fractal_mesospim_shading.images.native import report
from fractal_mesospim_shading.images.native.collection import TileCollection
from fractal_mesospim_shading.images.native.container import is_container
from fractal_mesospim_shading.images.native.results import container_attributes, earlier_correction
from fractal_mesospim_shading.images.ngff import other_pyramids
from fractal_mesospim_shading.images.roi_tables import FOV_TABLE
from fractal_mesospim_shading.images.storage.places import StorageOptions
from fractal_mesospim_shading.images.storage.stores import workable
from fractal_mesospim_shading.images.tile_tables import refuse_table_of_acquisition
from fractal_mesospim_shading.messages import rendered, shown
from fractal_mesospim_shading.views.inspection_native import array_text, container_text

_CHUNKS_LOOKED_AT = 64
"""Of those outside of every tile."""


def describe(
    url: str, storage_options: StorageOptions = None, input_roi_table: str = FOV_TABLE
) -> dict[str, Any]:
    """Facts about an image or a native acquisition as JSON: tiles, channels, chunks, state.

    Args:
        url: address of the image.
        storage_options: for a remote address.
        input_roi_table: name of the table of the fields of view.

    Raises:
        ShadingError: there is no image, or it cannot be read.
    """
    with workable(url):
        if is_container(url, storage_options):
            refuse_table_of_acquisition(input_roi_table)
            return _container(url, storage_options)
        image = MosaicImage.open(url, storage_options, input_roi_table, allow_unfinished=True)
        return _mosaic(image, storage_options)


def _mosaic(image: MosaicImage, storage_options: StorageOptions) -> dict[str, Any]:
    layout = image.layout
    plan = MemberPlan(
        image.url,
        image.zarr_format,
        frozenset(level.path for level in image.levels),
        {"": image.attributes()},
        storage_options=storage_options,
    )
    return {
        "kind": "mosaic",
        "url": image.url,
        "ngff_version": image.metadata.version,
        "finished": image.finished,
        "history": _history(plan.own[""]),
        "jobs": [asdict(job) for job in jobs_beside(image.url, storage_options)],
        "axes": image.axes,
        "dtype": image.dtype.name,
        "pixel_size_um": image.voxel_size_um,
        "channels": [asdict(channel) for channel in image.channels],
        "tiles": {
            "rows": layout.rows,
            "columns": layout.columns,
            "shape_px": list(layout.tile_shape),
            "present": [
                {"number": t.number, "name": t.name, "y_px": t.y, "x_px": t.x} for t in layout.tiles
            ],
            "missing": list(layout.missing),
            "corners": list(layout.corners),
            "map": layout.map_text().splitlines(),
            "outside": _outside(image),
        },
        "levels": [
            {
                "path": level.path,
                "shape": list(level.shape),
                "chunks": list(level.chunks),
                "shards": list(level.shards) if level.shards else None,
            }
            for level in image.levels
        ],
        "members": _members(plan),
        "notes": [*image.notes, *_not_corrected_lines(image.attributes())],
    }


def _members(plan: MemberPlan) -> list[dict[str, str]]:
    """What the image holds besides its pyramid; nothing where its address cannot be listed."""
    further = {path for paths in other_pyramids(plan.own[""]) for path in paths} - plan.levels
    try:
        members = list(list_members(plan))
    except SourceReadError:
        return []
    return [
        {
            "path": member.path,
            "kind": "array of a further pyramid" if member.path in further else member.kind,
        }
        for member in members
    ]


def _outside(image: MosaicImage) -> dict[str, Any] | None:
    """What lies outside of every tile; None where nothing does."""
    if not image.layout.gaps:
        return None
    facts = outside_facts(image, image.layout, most=_CHUNKS_LOOKED_AT)
    return {
        "share": facts.share,
        "boxes_px": [[y.start, y.stop, x.start, x.stop] for y, x in facts.boxes],
        # None: not all of it was looked at.
        "has_data": True if facts.found is not None else False if facts.whole else None,
    }


def _history(attributes: Mapping[str, Any]) -> list[dict[str, Any]]:
    """What this package has done to it, the first job first."""
    return [asdict(step) for step in steps_of(attributes)]


def _past_lines(facts: dict[str, Any]) -> list[str]:
    """What was done, and what has not come to its end."""
    lines = []
    if facts["history"]:
        lines += ["", "History:", *(f"  made {step['text']}" for step in facts["history"])]
    if facts["jobs"]:
        jobs = (UnfinishedJob(**job) for job in facts["jobs"])
        lines += ["", "Unfinished jobs beside it:", *(f"  {job.text()}" for job in jobs)]
    return lines


def _container(url: str, storage_options: StorageOptions) -> dict[str, Any]:
    facts = report.describe(TileCollection.open(url, storage_options))
    attributes = container_attributes(url, storage_options)
    facts["finished"] = is_finished(attributes)
    facts["history"] = _history(attributes)
    facts["jobs"] = [asdict(job) for job in jobs_beside(facts["url"], storage_options)]
    earlier = earlier_correction(attributes)
    if not facts["finished"]:
        earlier = "This container is unfinished: the run that wrote it broke off before its end."
    if earlier:
        facts["suspicious"].insert(0, earlier)
    facts["suspicious"] += _not_corrected_lines(attributes)
    return facts


def _not_corrected_lines(attributes: Mapping[str, Any]) -> list[str]:
    return [
        f"Channel {label} is not corrected but copied: it held no light. {why}"
        for label, why in not_corrected(attributes).items()
    ]


def as_text(facts: dict[str, Any]) -> str:
    """The same, to read."""
    if facts["kind"] != "mosaic":
        return plain_page([*container_text(facts), *_past_lines(facts)])
    tiles = facts["tiles"]
    state = "finished" if facts["finished"] else "UNFINISHED: a run broke off before its end"
    size = ", ".join(f"{axis} {value:g}" for axis, value in facts["pixel_size_um"].items())
    lines = [
        f"{facts['url']}",
        f"OME-Zarr {facts['ngff_version']}, axes {','.join(facts['axes'])}, "
        f"{facts['dtype']}, {state}",
        f"Pixel size (um): {size}",
        "",
        "Channels:",
        *(f"  {c['index']}  {c['label']}" for c in facts["channels"]),
        "",
        f"Tiles: {tiles['rows']} rows x {tiles['columns']} columns of "
        f"{tiles['shape_px'][0]} x {tiles['shape_px'][1]} pixels (y, x); the numbers for "
        "`fov_list`:",
        "",
        *("  " + line for line in tiles["map"]),
        "",
    ]
    if tiles["missing"]:
        lines += [f"Missing tiles: {', '.join(str(n) for n in tiles['missing'])}", ""]
    if tiles["outside"] is not None:
        lines += [_outside_line(tiles["outside"]), ""]
    lines += ["Pyramid:", *(f"  {level['path']}: {array_text(level)}" for level in facts["levels"])]
    if facts["members"]:
        lines += ["", "Also in the image (carried over into results as it is):"]
        lines += [f"  {member['path']} ({member['kind']})" for member in facts["members"]]
    if facts["notes"]:
        lines += ["", "Notes:", *(f"  {note}" for note in facts["notes"])]
    return plain_page([*lines, *_past_lines(facts)])


def plain_page(lines: Iterable[str]) -> str:
    """Lines to read: options in the words of the door, nothing hidden in names and labels."""
    return "\n".join(rendered(shown(line)) for line in lines)


def _outside_line(outside: dict[str, Any]) -> str:
    share = f"{100 * outside['share']:.2g} % of each plane belongs to no tile"
    if outside["has_data"]:
        return (
            f"{share}, and holds data: nothing corrects these pixels. A correction refuses the "
            "image unless `outside_tiles` is keep or zero."
        )
    if outside["has_data"] is None:
        return f"{share}; it is 0 as far as it was looked at."
    return f"{share}; the image is 0 there."
