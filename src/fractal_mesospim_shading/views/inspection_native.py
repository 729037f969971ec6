"""What `info` prints about a native acquisition."""

from __future__ import annotations

import textwrap
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

_SIDE_LETTERS = {"left": "L", "right": "R", "both": "B"}
_ORIGINS = {
    "meta": "the metadata files",
    "ngff": "the NGFF translations",
    "xml": "the project file",
}
_WIDTH = 96


def container_text(facts: dict[str, Any]) -> list[str]:
    """The description of a container, line by line.

    Args:
        facts: from `images.native.report.describe`.
    """
    stacks = facts["stacks"]
    size = ("about " if facts["size_from_some"] else "") + _size(facts["size_bytes"])
    time = "" if facts["time_point"] is None else f", time point {facts['time_point']}"
    lines = [
        facts["url"],
        f"mesoSPIM acquisition, OME-Zarr {' and '.join(facts['ngff_versions'])}, "
        f"{_stacks(stacks)}, {size} on disk{time}",
        "",
        "Channels:",
    ]
    width = max(len(channel["label"]) for channel in facts["channels"])
    for index, channel in enumerate(facts["channels"]):
        extra = f"  filter {channel['filter']}" if channel["filter"] else ""
        lines.append(f"  {index}  {channel['label']:{width}}{extra}")
    angles = ", ".join(f"{angle:g}" for angle in facts["angles"])
    places = sorted({_ORIGINS[stack["position_from"]] for stack in stacks})
    lines += [
        f"Illumination: {', '.join(facts['sides'])}. Angles: {angles} degrees.",
        f"Positions from {' and '.join(places)}.",
        *textwrap.wrap(facts["orientation"], _WIDTH, break_on_hyphens=False),
    ]
    for mosaic in facts["mosaics"]:
        own = [s for s in stacks if s["group"] in set(mosaic["groups"])]
        lines += ["", *_mosaic_lines(mosaic, own, len(facts["mosaics"]) > 1)]
    lines += ["", *_suspicious_lines(facts["suspicious"])]
    return lines


def _stacks(stacks: Sequence[dict[str, Any]]) -> str:
    """How many stacks there are, and in how many images where these hold several."""
    groups = {stack["group"] for stack in stacks}
    shared = any("channel_index" in stack for stack in stacks)
    return f"{len(stacks)} stacks" + (f" in {len(groups)} images" if shared else "")


def _mosaic_lines(
    mosaic: dict[str, Any], stacks: Sequence[dict[str, Any]], several: bool
) -> list[str]:
    tile, voxel = mosaic["tile_shape"], mosaic["voxel_um"]
    title = f"Mosaic {mosaic['suffix']}" if several and mosaic["suffix"] else "Mosaic"
    size = " x ".join(f"{voxel[axis]:g}" for axis in "zyx")
    lines = [
        f"{title}: {mosaic['rows']} rows x {mosaic['columns']} columns of {tile['y']} x "
        f"{tile['x']} pixels (y, x), {mosaic['shape']['z']} planes"
        + (f", {mosaic['shape']['t']} time points" if "t" in mosaic["shape"] else ""),
        f"Voxel {size} um (z, y, x), {mosaic['dtype']}",
        f"Overlap of neighbours: {_overlap(mosaic)}",
        "",
        "Tiles by position: the number for `fov_list`, the name in the acquisition"
        + (", the side (L, R, B)" if _mixed(mosaic) else ""),
        "",
        *("  " + line for line in _tile_map(mosaic)),
        "",
    ]
    if mosaic["missing_tiles"]:
        numbers = ", ".join(str(number) for number in mosaic["missing_tiles"])
        lines += [f"Missing tiles: {numbers}", ""]
    if _mixed(mosaic):
        lines += [_sides_line(mosaic), ""]
    lines += [_planes_line(stacks), *_stack_lines(stacks)]
    return lines


def _mixed(mosaic: dict[str, Any]) -> bool:
    """Whether a channel was lit from more than one side: each side has its own profile."""
    return any(len(sides) > 1 for sides in mosaic["sides"].values())


def _sides_line(mosaic: dict[str, Any]) -> str:
    labels = [
        f"{channel}/{side}" if len(sides) > 1 else channel
        for channel, sides in mosaic["sides"].items()
        for side in sides
    ]
    return f"One flat-field for each of: {', '.join(labels)}"


def _overlap(mosaic: dict[str, Any]) -> str:
    parts = []
    for axis in "yx":
        share = mosaic["overlap"][axis]
        if share is None:
            continue
        pixels = share * mosaic["tile_shape"][axis]
        distance = pixels * mosaic["voxel_um"][axis]
        parts.append(f"{axis} {100 * share:.1f} % = {distance:.1f} um = {pixels:.1f} pixels")
    return "; ".join(parts) or "a single tile"


def _tile_map(mosaic: dict[str, Any]) -> list[str]:
    """Rows of cells such as `4 Tile5`, at their places."""
    cells = {(t["row"], t["column"]): _cell(mosaic, t) for t in mosaic["tiles"]}
    digits = len(str(mosaic["rows"] * mosaic["columns"]))
    texts = {place: f"{number:>{digits}} {name}" for place, (number, name) in cells.items()}
    width = max(len(text) for text in texts.values())
    return [
        "    ".join(
            texts.get((row, column), "-" * digits).ljust(width)
            for column in range(mosaic["columns"])
        ).rstrip()
        for row in range(mosaic["rows"])
    ]


def _cell(mosaic: dict[str, Any], tile: dict[str, Any]) -> tuple[int, str]:
    letters = {_SIDE_LETTERS[side] for side in tile["sides"].values() if side}
    side = f" {''.join(sorted(letters))}" if _mixed(mosaic) else ""
    return tile["number"], f"{tile['name']}{side}"


def _planes_line(stacks: Sequence[dict[str, Any]]) -> str:
    counts = Counter((stack["planes_planned"], stack["planes_found"]) for stack in stacks)
    if len(counts) == 1:
        ((planned, stored),) = counts
        known = "unknown" if planned is None else planned
        return f"Planes: {known} planned, {stored} found, in each of the {len(stacks)} stacks"
    parts = [
        f"{'?' if planned is None else planned} planned and {stored} found in {number}"
        for (planned, stored), number in counts.most_common()
    ]
    return f"Planes: {'; '.join(parts)} of the {len(stacks)} stacks"


def _stack_lines(stacks: Sequence[dict[str, Any]]) -> list[str]:
    """How stacks are stored, and a line for each that differs from what most look like."""
    kinds = Counter(_stored(stack) for stack in stacks)
    usual, _ = kinds.most_common(1)[0]
    lines = [f"Stored as: {usual}"]
    lines += [f"  {count} of them: {kind}" for kind, count in kinds.most_common()[1:]]
    for stack in stacks:
        changed = f"changed by {', '.join(stack['processors'])}" if stack["processors"] else ""
        first, last = stack["z_um"]
        downward = f"scanned downward from {first:g} to {last:g} um" if last < first else ""
        notes = "; ".join(text for text in (changed, downward) if text)
        if notes:
            lines.append(f"  {stack['group']}: {notes}")
    return lines


def _stored(stack: dict[str, Any]) -> str:
    levels = "1 level" if stack["levels"] == 1 else f"{stack['levels']} levels"
    return f"{array_text(stack, ' (z, y, x)')}, {levels}"


def array_text(array: Mapping[str, Any], axes: str = "") -> str:
    """Shape, chunks and shards of an array, for a person.

    Args:
        array: with these.
        axes: text that follows the shape.
    """
    names = ("shape", "chunks", "shards")
    shape, chunks, shards = (" x ".join(map(str, array[name] or ())) for name in names)
    return f"{shape}{axes}, chunks {chunks}" + (f", shards {shards}" if shards else "")


def _suspicious_lines(notes: Sequence[str]) -> list[str]:
    if not notes:
        return ["Nothing suspicious."]
    lines = ["Suspicious:"]
    for note in notes:
        lines += textwrap.wrap(
            note,
            _WIDTH,
            initial_indent="  - ",
            subsequent_indent="    ",
            break_long_words=False,
            break_on_hyphens=False,
        )
    return lines


def _size(count: int | None) -> str:
    if count is None:
        return "unknown size"
    value = float(count)
    for unit in ("bytes", "kB", "MB", "GB"):
        if value < 1000:
            return f"{value:.3g} {unit}"
        value /= 1000
    return f"{value:.3g} TB"
