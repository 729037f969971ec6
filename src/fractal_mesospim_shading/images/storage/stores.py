"""From an address to what lies there: zarr groups, and plain files beside them.

An address is a local path, a `file://` address, any address that fsspec knows
(`s3://bucket/image.zarr`), or a zip archive (`image.zarr.zip`, or a path that goes
on inside it: `data.zip/image.zarr`).
"""

from __future__ import annotations

import errno
import lzma
import os
import sys
import warnings
import zlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal
from urllib.parse import unquote, urlsplit

import zarr
from zarr.core.group import AsyncGroup, GroupMetadata
from zarr.core.sync import sync
from zarr.errors import ContainsArrayError, NodeNotFoundError

from fractal_mesospim_shading.errors import (
    ImageFormatError,
    ImageNotFoundError,
    ShadingError,
    SourceReadError,
)
from fractal_mesospim_shading.images.storage.regular_files import LocalStore, RegularFileSystem
from fractal_mesospim_shading.messages import shown

if TYPE_CHECKING:
    from zarr.abc.store import Store

# What codecs raise when the bytes of a chunk are not what they should be.
_DECODING_ERRORS: tuple[type[Exception], ...] = (
    RuntimeError,
    ValueError,
    TypeError,
    KeyError,
    EOFError,
    zlib.error,
    lzma.LZMAError,
)

_DOCUMENTS = frozenset((".zgroup", ".zattrs", ".zarray", ".zmetadata", "zarr.json"))
_DEEPEST_IMPLICIT = 3
_SHORT = 200
"""Letters of an address that is too long for no file system."""

_MOST = 200
"""Letters of what a library says."""

Mode = Literal["r", "r+", "a", "w", "w-"]
StorageOptions = Mapping[str, Any] | None


def normalise_url(url: str | os.PathLike[str]) -> str:
    """One spelling for an address: no trailing slash, no `file://`, an absolute local path.

    Raises:
        ImageNotFoundError: the address is empty, or nothing can have it.
    """
    text = os.fspath(url).strip()
    if not text:
        raise ImageNotFoundError("The address of the image is empty; give a path or a URL.")
    problem = _address_problem(text)
    if problem is not None:
        raise ImageNotFoundError(f"The address '{shown(text)[:_MOST]}' {problem}.")
    if text.startswith(("file:", "local:")):
        text = unquote(urlsplit(text).path)
    if is_remote(text):
        return text.rstrip("/")
    return os.path.abspath(os.path.expanduser(text))


def _address_problem(text: str) -> str | None:
    """Why no path can be called so: NUL, halves of surrogate pairs, or too many letters."""
    try:
        if b"\0" in os.fsencode(text):
            return "holds characters that no path can have; check its spelling"
        if len(text) > _SHORT and not is_remote(text):
            os.lstat(text)
    except UnicodeEncodeError:
        return "holds characters that no path can have; check its spelling"
    except OSError as error:
        if error.errno == errno.ENAMETOOLONG:
            return "is longer than the file system takes; give a shorter one"
    return None


def is_remote(url: str) -> bool:
    """Whether the address belongs to fsspec and not to a local file system."""
    return "://" in url and not url.startswith(("file:", "local:"))


def join_url(url: str, *parts: str) -> str:
    """The address of something below a group."""
    return "/".join([url.rstrip("/"), *(part.strip("/") for part in parts if part.strip("/"))])


def split_zip(url: str) -> tuple[str, str] | None:
    """The archive and the path within it, where a local address leads into a zip file."""
    if is_remote(url) or ".zip" not in url.lower():
        return None
    path = Path(url)
    for candidate in (path, *path.parents):
        if candidate.suffix.lower() == ".zip" and candidate.is_file():
            inner = path.relative_to(candidate).as_posix()
            return str(candidate), "" if inner == "." else inner
    return None


def open_store(
    url: str | os.PathLike[str], storage_options: StorageOptions = None, mode: Mode = "r"
) -> tuple[Store, str]:
    """The zarr store of an address, and the path within it.

    Args:
        url: see the module's text.
        storage_options: what fsspec needs for a remote address; ignored for a local one.
        mode: `r` opens for reading only.

    Raises:
        ImageFormatError: a zip archive that is broken, or is to be written.
        ImageNotFoundError: fsspec does not know the address.
    """
    address = normalise_url(url)
    read_only = mode == "r"
    archive = split_zip(address)
    if archive is not None:
        return _zip_store(*archive, read_only=read_only), archive[1]
    if not is_remote(address):
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
    url: str | os.PathLike[str], storage_options: StorageOptions = None, mode: Mode = "r"
) -> zarr.Group:
    """Open an existing zarr group, version 3 or 2.

    Args:
        url: see the module's text.
        storage_options: what fsspec needs for a remote address.
        mode: `r` to read, `r+` to change what exists.

    Raises:
        ImageNotFoundError: there is nothing at the address.
        ImageFormatError: there is something, but no readable zarr group.
        SourceReadError: it cannot be reached or must not be read.
    """
    address = normalise_url(url)
    if not is_remote(address):
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
    raise _nothing_to_open(address, is_array)


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
    with understood(str(group.store_path).removeprefix("file://")), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        found = dict(group.members())
    for name in set(_listed(group)) - set(found) - _DOCUMENTS:
        inner = subgroup(group, name)
        if inner is not None:
            found[name] = inner
    return dict(sorted(found.items()))


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

    async def names() -> list[str]:
        return [name async for name in group.store.list_dir(group.path)]

    try:
        found: list[str] = sync(names())
    except (NotADirectoryError, NotImplementedError):
        return []
    return [name.strip("/") for name in found]


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


def filesystem(
    url: str | os.PathLike[str], storage_options: StorageOptions = None
) -> tuple[Any, str]:
    """The fsspec file system of an address and the path in it, to handle plain files.

    Args:
        url: see the module's text.
        storage_options: what fsspec needs for a remote address.
    """
    from fsspec.core import url_to_fs

    address = normalise_url(url)
    archive = split_zip(address)
    if archive is not None:
        from fsspec.implementations.zip import ZipFileSystem

        return ZipFileSystem(archive[0]), archive[1]
    if not is_remote(address):
        local = RegularFileSystem(use_listings_cache=False)
        return local, str(local._strip_protocol(address))
    options = dict(storage_options or {})
    # Listings must be fresh: the same process may have written in between.
    options.setdefault("use_listings_cache", False)
    fs, path = url_to_fs(address, **options)
    return fs, str(path)


def connection_errors() -> tuple[type[Exception], ...]:
    """What storage raises when it cannot be reached or refuses.

    The S3 client has errors of its own that are no OSError; they count as soon as it is
    loaded.
    """
    kinds: list[type[Exception]] = [OSError]
    client = sys.modules.get("botocore.exceptions")
    if client is not None:
        kinds += [client.BotoCoreError, client.ClientError]
    return tuple(kinds)


def reading_errors() -> tuple[type[Exception], ...]:
    """What may be raised where a chunk cannot be reached or decoded."""
    return connection_errors() + _DECODING_ERRORS


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


def _nothing_to_open(address: str, is_array: bool) -> Exception:
    if is_array:
        return ImageFormatError(
            f"'{address}' is a single array, for instance one level of a pyramid. "
            f"Give the folder of the image, perhaps '{address.rpartition('/')[0]}'."
        )
    if not is_remote(address) and os.path.exists(address):
        return ImageFormatError(
            f"'{address}' exists but is not an OME-Zarr image: it holds no zarr group "
            "(no zarr.json, no .zgroup). Give the folder of the image."
        )
    return ImageNotFoundError(
        f"There is no image at '{address}'. Check the spelling of the address."
    )
