"""The files beside a corrected container: metadata texts, and the BigStitcher file."""

from __future__ import annotations

import re
from collections.abc import Set
from xml.sax.saxutils import escape

from fractal_mesospim_shading.images import places
from fractal_mesospim_shading.images.collection import TileCollection
from fractal_mesospim_shading.images.places import StorageOptions


def write_companions(
    collection: TileCollection, groups: Set[str], final_url: str, storage: StorageOptions
) -> None:
    """Metadata texts and the BigStitcher file, under the names that go with the result.

    The maximum projections beside the original are of uncorrected pixels and stay behind.
    """
    source_folder, source_name = places.parent_and_name(collection.url)
    folder, name = places.parent_and_name(final_url)
    for stack in collection.stacks:
        if stack.meta_file is None or stack.group not in groups:
            continue
        text = places.read_bytes(places.join(source_folder, stack.meta_file), storage)
        if text is not None:
            renamed = name + stack.meta_file.removeprefix(source_name)
            text = _naming(text, source_name, name)
            places.write_bytes(places.join(folder, renamed), text, storage)
    if collection.xml_file is not None:
        text = places.read_bytes(places.join(source_folder, collection.xml_file), storage)
        if text is not None:
            places.write_bytes(
                places.join(folder, f"{name}.xml"), _pointing_at(text, name), storage
            )


def _naming(meta: bytes, source_name: str, name: str) -> bytes:
    """A metadata text whose first line names another container; all else stays."""
    first, end, rest = meta.partition(b"\n")
    before, found, after = first.rpartition(source_name.encode())
    return before + name.encode() + after + end + rest if found else meta


def _pointing_at(xml: bytes, name: str) -> bytes:
    """A BigStitcher file with the container of a name beside it; all else stays to the letter."""

    def there(found: re.Match[bytes]) -> bytes:
        tag = found[1].replace(b'"absolute"', b'"relative"')
        return tag + escape(name).encode() + found[2]

    return re.sub(rb"(<zarr\b[^>]*>)[^<]*(</zarr>)", there, xml)
