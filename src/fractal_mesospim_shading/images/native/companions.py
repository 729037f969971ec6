"""The files beside a corrected container: metadata texts, and the BigStitcher file."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Sequence, Set
from dataclasses import dataclass, field
from xml.sax.saxutils import escape

from fractal_mesospim_shading.errors import OutputExistsError, ParameterError, SourceReadError
from fractal_mesospim_shading.images.native.collection import TileCollection
from fractal_mesospim_shading.images.native.text import decode
from fractal_mesospim_shading.images.storage import places
from fractal_mesospim_shading.images.storage.places import StorageOptions

_LONGEST_NAME = 255


@dataclass(frozen=True)
class Companion:
    """A file to be written beside a result.

    Attributes:
        url: where it goes.
        data: its content.
    """

    url: str
    data: bytes = field(repr=False)


def plan_companions(
    collection: TileCollection,
    groups: Set[str],
    final_url: str,
    storage: StorageOptions,
    *,
    overwrite: bool,
) -> tuple[Companion, ...]:
    """Metadata texts and the BigStitcher file, under the names that go with a result.

    The maximum projections beside the original are of uncorrected pixels and stay behind.

    Args:
        collection: the original.
        groups: names of the stacks that the result holds.
        final_url: of the result.
        storage: for remote addresses.
        overwrite: whether files of other content may be replaced.

    Raises:
        SourceReadError: a file of the original cannot be read.
        ParameterError: a name would be longer than file systems allow.
        OutputExistsError: there is a file of that name with another content.
    """
    source_folder, source_name = places.parent_and_name(collection.url)
    folder, name = places.parent_and_name(final_url)
    made = []
    for stack in collection.stacks:
        if stack.meta_file is not None and stack.group in groups:
            text = decode(_read(places.join_url(source_folder, stack.meta_file), storage))
            renamed = name + stack.meta_file.removeprefix(source_name)
            made.append(
                Companion(places.join_url(folder, renamed), text.with_name(source_name, name))
            )
    if collection.xml_file is not None:
        xml = _read(places.join_url(source_folder, collection.xml_file), storage)
        made.append(Companion(places.join_url(folder, f"{name}.xml"), _pointing_at(xml, name)))
    for companion in made:
        _refuse(companion, storage, overwrite=overwrite)
    return tuple(made)


def write_companions(
    companions: Sequence[Companion], beside: Callable[[str], str], storage: StorageOptions
) -> None:
    """Write the files beside a result.

    Args:
        companions: from `plan_companions`.
        beside: where to write what is to lie at an address once the job is finished.
        storage: for remote addresses.

    Raises:
        OutputWriteError: no permission, or no space.
    """
    for companion in companions:
        places.write_bytes(beside(companion.url), companion.data, storage)


def _read(url: str, storage: StorageOptions) -> bytes:
    try:
        data = places.read_bytes(url, storage)
    except OSError as error:
        raise SourceReadError(f"'{url}' cannot be read: {error}.") from error
    if data is None:
        raise SourceReadError(
            f"'{url}' is listed beside the acquisition but is not there: it was removed "
            "meanwhile, or is a link to nothing. Put it back, or remove it."
        )
    return data


def _refuse(companion: Companion, storage: StorageOptions, *, overwrite: bool) -> None:
    _, name = places.parent_and_name(companion.url)
    if len(os.fsencode(name)) > _LONGEST_NAME:
        raise ParameterError(
            f"The file '{name}', which goes with the result, would have a longer name than file "
            f"systems allow ({_LONGEST_NAME} bytes). Give a shorter `output_image_name`."
        )
    if overwrite:
        return
    there = places.read_bytes(companion.url, storage)
    if there is not None and there != companion.data:
        raise OutputExistsError(
            f"There is a file {companion.url} already, and it is not the one that goes with this "
            "result. Move it away, give another `output_image_name`, or set `overwrite` to "
            "replace it."
        )


def _pointing_at(xml: bytes, name: str) -> bytes:
    """A BigStitcher file with the container of a name beside it; all else stays to the letter."""

    def there(found: re.Match[bytes]) -> bytes:
        tag = found[1].replace(b'"absolute"', b'"relative"')
        return tag + escape(name).encode() + found[2]

    return re.sub(rb"(<zarr\b[^>]*>)[^<]*(</zarr>)", there, xml)
