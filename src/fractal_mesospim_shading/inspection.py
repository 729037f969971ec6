"""What an image is, for a person who wants to fill in the parameters."""

from __future__ import annotations

from typing import Any

from fractal_mesospim_shading.images.mosaic import MosaicImage
from fractal_mesospim_shading.images.places import StorageOptions


def describe(url: str, storage_options: StorageOptions = None) -> dict[str, Any]:
    """Facts about an image as JSON: tiles, channels, pyramid, chunks, state.

    Args:
        url: address of the image.
        storage_options: for a remote address.

    Raises:
        ShadingError: there is no image, or it cannot be read.
    """
    image = MosaicImage.open(url, storage_options, allow_unfinished=True)
    layout = image.layout
    return {
        "kind": "mosaic",
        "url": image.url,
        "ngff_version": image.metadata.version,
        "finished": image.finished,
        "axes": image.axes,
        "dtype": image.dtype.name,
        "pixel_size_um": image.voxel_size_um,
        "channels": [
            {"index": c.index, "label": c.label, "wavelength_id": c.wavelength_id}
            for c in image.channels
        ],
        "tiles": {
            "rows": layout.rows,
            "columns": layout.columns,
            "shape_px": list(layout.tile_shape),
            "present": [
                {"number": t.number, "name": t.name, "y_px": t.y, "x_px": t.x}
                for t in layout.tiles
            ],
            "missing": list(layout.missing),
            "corners": list(layout.corners),
            "map": layout.map_text().splitlines(),
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
        "notes": list(image.notes),
    }


def as_text(found: dict[str, Any]) -> str:
    """The same, to read."""
    tiles = found["tiles"]
    state = "finished" if found["finished"] else "UNFINISHED: a run broke off before its end"
    size = ", ".join(f"{axis} {value:g}" for axis, value in found["pixel_size_um"].items())
    lines = [
        f"{found['url']}",
        f"OME-Zarr {found['ngff_version']}, axes {','.join(found['axes'])}, {found['dtype']}, {state}",
        f"Pixel size (um): {size}",
        "",
        "Channels:",
        *(f"  {c['index']}  {c['label']}" for c in found["channels"]),
        "",
        f"Tiles: {tiles['rows']} rows x {tiles['columns']} columns of "
        f"{tiles['shape_px'][0]} x {tiles['shape_px'][1]} pixels (y, x); the numbers for fov_list:",
        "",
        *("  " + line for line in tiles["map"]),
        "",
    ]
    if tiles["missing"]:
        lines += [f"Missing tiles: {', '.join(str(n) for n in tiles['missing'])}", ""]
    lines.append("Pyramid:")
    for level in found["levels"]:
        shards = f", shards {_shape(level['shards'])}" if level["shards"] else ""
        lines.append(
            f"  {level['path']}: {_shape(level['shape'])}, chunks {_shape(level['chunks'])}{shards}"
        )
    if found["notes"]:
        lines += ["", "Notes:", *(f"  {note}" for note in found["notes"])]
    return "\n".join(lines)


def _shape(shape: list[int]) -> str:
    return " x ".join(str(n) for n in shape)
