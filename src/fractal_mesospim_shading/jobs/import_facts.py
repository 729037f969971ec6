"""What provenance and the image list of a server say of an imported acquisition."""

from __future__ import annotations

from dataclasses import asdict

from fractal_mesospim_shading.engine.zero_look import NO_DATA
from fractal_mesospim_shading.images.arrays.documents import Document
from fractal_mesospim_shading.images.native.collection import TileCollection
from fractal_mesospim_shading.images.native.mosaic import NativeMosaic
from fractal_mesospim_shading.images.native.report import acquisition_facts, acquisition_metadata


def import_facts(
    collection: TileCollection, mosaic: NativeMosaic, earlier: Document | None
) -> Document:
    """What the provenance of an imported image says of its acquisition.

    Args:
        collection, mosaic: where it comes from.
        earlier: our mark in the container, where it was corrected before.
    """
    acquisition = {
        "container": collection.name,
        "orientation": asdict(collection.orientation),
        **acquisition_facts(mosaic),
        "metadata": acquisition_metadata(collection),
    }
    if earlier is None:
        return {"acquisition": acquisition}
    acquisition["corrected_before"] = earlier
    return {"acquisition": acquisition, NO_DATA: _no_data_held(mosaic, earlier)}


def _no_data_held(mosaic: NativeMosaic, earlier: Document) -> dict[str, bool]:
    """Whether channels of a corrected acquisition hold pixels without data, as a mosaic.

    Args:
        mosaic: of its stacks, with nothing where there is none.
        earlier: our mark in it.
    """
    said: dict[str, bool] = earlier.get(NO_DATA) or {}
    held: dict[str, bool] = {}
    for channel in mosaic.channels:
        labels = {channel.label, *(f"{channel.label}/{s}" for s in mosaic.sides(channel.index))}
        own = [said[k] for k in said if {k, k.removeprefix(f"{mosaic.suffix}: ")} & labels]
        gaps = any(
            len(mosaic.planes_of(channel.index, tile.number)) < mosaic.depth
            for tile in mosaic.layout.tiles
        )
        if own:
            held[channel.label] = any(own) or gaps
    return held


def listed_attributes(collection: TileCollection, mosaic: NativeMosaic) -> Document:
    """The attributes of the image in Fractal's image list."""
    attributes: Document = {"sample": collection.name, "rotation": f"{mosaic.rotation:g}"}
    if mosaic.side is not None:
        attributes["side"] = mosaic.side
    if collection.time_point is not None:
        attributes["time"] = int(collection.time_point)
    return attributes
