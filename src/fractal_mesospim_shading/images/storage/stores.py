"""Zarr groups and stores at an address, as `places` spells it, and what is wrong with them."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Literal

import zarr
from zarr.core.group import AsyncGroup, GroupMetadata
from zarr.core.sync import sync
from zarr.errors import ContainsArrayError, NodeNotFoundError

from fractal_mesospim_shading.core.threads import warnings_ignored
from fractal_mesospim_shading.errors import (
    ImageFormatError,
    ImageNotFoundError,
    ShadingError,
    SourceReadError,
)
from fractal_mesospim_shading.images.storage.absent import nothing_to_open
from fractal_mesospim_shading.images.storage.local_files import refuse_special
from fractal_mesospim_shading.images.storage.places import (
    StorageOptions,
    connection_errors,
    is_local,
    split_zip,
)
from fractal_mesospim_shading.messages import shown

if TYPE_CHECKING:
    from zarr.abc.store import ByteRequest, Store
    from zarr.core.buffer import Buffer, BufferPrototype

ZARR_DOCUMENTS = {2: (".zgroup", ".zattrs", ".zarray", ".zmetadata"), 3: ("zarr.json",)}
"""Names of the metadata files of zarr, by its version."""

_DOCUMENTS = frozenset(name for names in ZARR_DOCUMENTS.values() for name in names)
_DEEPEST_IMPLICIT = 3
_MOST = 200
"""Letters of what a library says."""

Mode = Literal["r", "r+", "a", "w", "w-"]


class LocalStore(zarr.storage.LocalStore):
    """A local zarr store in which special files cannot be read.

    It bears the name of zarr's own, by which the Rust pipeline knows that it may read the files.
    """

    async def get(
        self,
        key: str,
        prototype: BufferPrototype | None = None,
        byte_range: ByteRequest | None = None,
    ) -> Buffer | None:
        refuse_special(self.root / key)
        return await super().get(key, prototype, byte_range)

    async def get_partial_values(
        self,
        prototype: BufferPrototype,
        key_ranges: Iterable[tuple[str, ByteRequest | None]],
    ) -> list[Buffer | None]:
        ranges = list(key_ranges)
        for key, _ in ranges:
            refuse_special(self.root / key)
        return await super().get_partial_values(prototype, ranges)


def open_store(
    address: str, storage_options: StorageOptions = None, mode: Mode = "r"
) -> tuple[Store, str]:
    """The zarr store of an address, and the path within it.

    Args:
        address: a path, an address of fsspec, or a zip archive.
        storage_options: for a remote address.
        mode: `r` opens for reading only.

    Raises:
        ImageFormatError: a zip archive that is broken, or is to be written.
        ImageNotFoundError: fsspec does not know the address.
    """
    read_only = mode == "r"
    archive = split_zip(address)
    if archive is not None:
        return _zip_store(*archive, read_only=read_only), archive[1]
    if is_local(address):
        return LocalStore(address, read_only=read_only), ""
    try:
        options = dict(storage_options) if storage_options else None
        store = zarr.storage.FsspecStore.from_url(
            address, storage_options=options, read_only=read_only
        )
    except (ValueError, ImportError) as error:
        raise ImageNotFoundError(
            f"The address '{address}' cannot be opened: {error}. Expected a local path or an "
            "address that fsspec knows; for s3:// install the extra 's3' of this package."
        ) from error
    return store, ""


def refuse_dangling_metadata(folder: str) -> None:
    """Refuse metadata that are a link whose target is missing: zarr takes them for absent.

    Args:
        folder: of a group or an array, local.

    Raises:
        SourceReadError: names the link.
    """
    for name in ("zarr.json", ".zgroup", ".zarray", ".zattrs"):
        path = os.path.join(folder, name)
        if os.path.islink(path) and not os.path.exists(path):
            raise SourceReadError(
                f"'{path}' is a link whose target is missing. Fetch what it leads to (such as "
                "`git annex get`), or mount the disk that it is on."
            )


def open_group(
    address: str, storage_options: StorageOptions = None, mode: Mode = "r"
) -> zarr.Group:
    """Open an existing zarr group, version 3 or 2.

    Args:
        address: of the group.
        storage_options: for a remote address.
        mode: `r` to read, `r+` to change what exists.

    Raises:
        ImageNotFoundError: there is nothing at the address.
        ImageFormatError: there is something, but no readable zarr group.
        SourceReadError: it cannot be reached or must not be read.
    """
    if is_local(address):
        refuse_dangling_metadata(address)
    with understood(address):
        store, path = open_store(address, storage_options, mode)
        try:
            for version in (3, 2):
                try:
                    return zarr.open_group(
                        store, path=path, mode=mode, zarr_format=version, use_consolidated=False
                    )
                except (NodeNotFoundError, FileNotFoundError):
                    continue
            is_array = _holds_array(store, path)
        except ContainsArrayError:
            is_array = True
    raise nothing_to_open(address, is_array)


@contextmanager
def workable(address: str) -> Iterator[None]:
    """Turn whatever comes up while a job is prepared into one readable error.

    What is read meanwhile is metadata, tables and small files from outside.

    Args:
        address: of the source.

    Raises:
        ImageFormatError: something in them does not fit together.
        SourceReadError: something cannot be reached or must not be read.
    """
    try:
        yield
    except ShadingError:
        raise
    except connection_errors() as error:
        raise SourceReadError(
            f"Something that is needed for '{shown(address)}' cannot be read: {reason(error)}."
        ) from error
    except Exception as error:
        raise ImageFormatError(
            f"'{shown(address)}' cannot be worked on: its metadata, or a file that was given, hold "
            f"what does not fit together ({reason(error)})."
        ) from error


@contextmanager
def understood(address: str) -> Iterator[None]:
    """Turn whatever metadata make a library raise into one readable error.

    Metadata come from outside: any text may stand in them, and what zarr, anndata or NumPy
    make of it is not for a person.

    Args:
        address: whose metadata are looked at; no pixel is read meanwhile.

    Raises:
        ImageFormatError: they are no metadata of an image.
        SourceReadError: they cannot be reached or must not be read.
    """
    try:
        yield
    except ShadingError:
        raise
    except connection_errors() as error:
        raise SourceReadError(
            f"'{shown(address)}' cannot be read: {reason(error)}. Check the address, the rights to "
            "read it and, for remote storage, `storage_options`."
        ) from error
    except Exception as error:
        raise ImageFormatError(
            f"The metadata at '{shown(address)}' cannot be understood ({reason(error)}). The file "
            "was changed, or not written to its end; copy or write the image again."
        ) from error


def reason(error: BaseException) -> str:
    """What a library says is wrong, short enough for a sentence."""
    text = shown(error)
    text = text if len(text) <= _MOST else f"{text[: _MOST - 3]}..."
    return f"{type(error).__name__}: {text}" if text else type(error).__name__


def members_of(group: zarr.Group) -> dict[str, zarr.Group | zarr.Array[Any]]:
    """The groups and arrays directly in a group, by name, sorted.

    Folders that hold groups or arrays count as groups. zarr warns about every other file that
    lies there (csv tables, notes, pictures); such files are nothing to worry about.

    Raises:
        SourceReadError: something there is a link to nothing.
    """
    with understood(str(group.store_path).removeprefix("file://")), warnings_ignored:
        members = dict(group.members())
    for name in set(_listed(group)) - set(members) - _DOCUMENTS:
        inner = subgroup(group, name)
        if inner is not None:
            members[name] = inner
    return dict(sorted(members.items()))


def subgroup(group: zarr.Group, path: str) -> zarr.Group | None:
    """A group within a group; also a folder without metadata that holds groups or arrays.

    Args:
        group: to look into.
        path: of the other one, within it.

    Returns:
        None where there is no such group.

    Raises:
        SourceReadError: something on the way is a link to nothing: what it stands for is
            missing, which is not the same as absent.
    """
    _refuse_dangling(group, path)
    member = group.get(path)
    if member is not None:
        return member if isinstance(member, zarr.Group) else None
    implicit = zarr.Group(
        AsyncGroup(
            metadata=GroupMetadata(attributes={}, zarr_format=group.metadata.zarr_format),
            store_path=group.store_path / path,
        )
    )
    return implicit if _holds_nodes(implicit, _DEEPEST_IMPLICIT) else None


def surely_lacks(group: zarr.Group, name: str) -> bool:
    """Whether nothing of that name lies in a group, as one look at its folder tells.

    Elsewhere than on this machine it takes more than a look, and the answer is no.
    """
    store = group.store
    if not isinstance(store, zarr.storage.LocalStore):
        return False
    return not os.path.lexists(store.root / group.path / name)


def _holds_nodes(group: zarr.Group, depth: int) -> bool:
    names = [name for name in _listed(group) if name not in _DOCUMENTS]
    if any(group.get(name) is not None for name in names):
        return True
    below = (
        zarr.Group(replace(group._async_group, store_path=group.store_path / n)) for n in names
    )
    return depth > 0 and any(_holds_nodes(inner, depth - 1) for inner in below)


def _listed(group: zarr.Group) -> list[str]:
    """Names of whatever lies in a group."""

    async def listing() -> list[str]:
        return [name async for name in group.store.list_dir(group.path)]

    try:
        names = sync(listing())
    except (NotADirectoryError, NotImplementedError):
        return []
    return [name.strip("/") for name in names]


def _refuse_dangling(group: zarr.Group, path: str) -> None:
    if not isinstance(group.store, zarr.storage.LocalStore):
        return
    folder = group.store.root / group.path
    for part in path.split("/"):
        folder = folder / part
        for place in (folder, *(folder / name for name in _DOCUMENTS)):
            if place.is_symlink() and not place.exists():
                raise SourceReadError(
                    f"'{place}' is a link to '{os.readlink(place)}', which is not there. Get the "
                    "files it stands for (as with `git annex get`), or remove it."
                )


def _zip_store(archive: str, inner: str, *, read_only: bool) -> Store:
    import zipfile

    if not read_only:
        raise ImageFormatError(
            f"'{archive}' is a zip archive: it can be read but not written. "
            "Give a folder for the result (`output_folder`)."
        )
    if not zipfile.is_zipfile(archive):
        raise ImageFormatError(f"'{archive}' is called .zip but is no zip archive, or is cut off.")
    return zarr.storage.ZipStore(archive, mode="r")


def _holds_array(store: Store, path: str) -> bool:
    try:
        zarr.open_array(store, path=path, mode="r", zarr_format=2)
    except (NodeNotFoundError, FileNotFoundError):
        return False
    return True
