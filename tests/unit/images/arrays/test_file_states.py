"""What is known of the files of chunks, by each kind of store and name."""

from __future__ import annotations

import os
import zipfile
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import zarr

from fractal_mesospim_shading.images.arrays.file_states import (
    ReadNotes,
    current_notes,
    digest_of,
    digest_of_sizes,
    file_counts,
    file_ranges,
    listed,
    noted_reads,
    states,
)
from fractal_mesospim_shading.images.arrays.local_states import FileState, LocalLook
from fractal_mesospim_shading.images.arrays.reading import open_array, read_array

SHAPE, CHUNKS = (5, 19, 70), (2, 8, 16)
COUNTS = (3, 3, 5)
EMPTY = {(0, 0, 0), (2, 1, 4), (1, 2, 3)}
WHOLE = [(0, n) for n in COUNTS]

KEYS: dict[str, dict[str, Any]] = {
    "v2 folders": {
        "zarr_format": 2,
        "chunk_key_encoding": {"name": "v2", "separator": "/"},
    },
    "v2 dots": {"zarr_format": 2, "chunk_key_encoding": {"name": "v2", "separator": "."}},
    "v3 folders": {"zarr_format": 3},
    "v3 dots": {"zarr_format": 3, "chunk_key_encoding": {"name": "default", "separator": "."}},
    "v3 with names of v2": {
        "zarr_format": 3,
        "chunk_key_encoding": {"name": "v2", "separator": "/"},
    },
}


def written(store: Any, name: str, **more: Any) -> zarr.Array[Any]:
    """An array with three empty chunks, in a group beside another array."""
    settings = {**KEYS[name], **more}
    group = zarr.open_group(store, mode="w", zarr_format=settings.pop("zarr_format"))
    group.create_array("b", shape=(3,), dtype="u1", chunks=(1,))[...] = 1
    array = group.create_array("a", shape=SHAPE, chunks=CHUNKS, dtype="u2", **settings)
    array[...] = np.arange(np.prod(SHAPE)).reshape(SHAPE) + 1
    unit = settings.get("shards", CHUNKS)
    for index in EMPTY if unit == CHUNKS else ():
        box = tuple(slice(i * u, (i + 1) * u) for i, u in zip(index, unit, strict=True))
        array[box] = 0
    return array


def brute_force(array: zarr.Array[Any]) -> np.ndarray:
    found = np.zeros(file_counts(array), bool)
    for index in product(*map(range, found.shape)):
        path = array.store.root / array.path / array.metadata.encode_chunk_key(index)
        found[index] = path.exists()
    return found


@pytest.mark.parametrize("name", KEYS)
def test_listing_finds_the_files_that_are_there(tmp_path: Path, name: str) -> None:
    array = written(tmp_path, name)
    (tmp_path / "a" / "notes.txt").write_text("")
    (tmp_path / "a" / ".nfs0001").write_text("")
    (tmp_path / "a" / "17").write_text("")
    assert file_counts(array) == COUNTS
    present = listed(array)
    assert present is not None and present.shape == COUNTS
    np.testing.assert_array_equal(present, brute_force(array))
    assert {tuple(map(int, index)) for index in np.argwhere(~present)} == EMPTY


def test_listing_shards_and_linked_folders(tmp_path: Path) -> None:
    array = written(tmp_path / "image", "v3 folders", shards=(4, 16, 32))
    assert file_counts(array) == (2, 2, 3)
    present = listed(array)
    assert present is not None and present.all()
    (tmp_path / "image/a/c/1").rename(tmp_path / "elsewhere")
    (tmp_path / "image/a/c/1").symlink_to(tmp_path / "elsewhere")
    again = listed(array)
    assert again is not None and again.all()


@pytest.mark.parametrize("name", ["v2 folders", "v3 dots"])
def test_an_object_store_is_listed_and_looked_at(name: str) -> None:
    pytest.importorskip("fsspec")
    url = f"memory://states-{name.replace(' ', '-')}"
    array = written(zarr.storage.FsspecStore.from_url(url), name)
    present = listed(array)
    assert present is not None
    assert {tuple(map(int, index)) for index in np.argwhere(~present)} == EMPTY
    before = states(array, WHOLE)
    assert [state is None for state in before] == [i in EMPTY for i in np.ndindex(COUNTS)]
    assert digest_of(states(array, WHOLE)) == digest_of(before)
    array[2:4, 8:16, 16:32] = 9
    after = states(array, WHOLE)
    changed = [
        index for index, a, b in zip(np.ndindex(COUNTS), before, after, strict=True) if a != b
    ]
    assert changed == [(1, 1, 1)]


def test_an_archive_changes_as_a_whole(tmp_path: Path) -> None:
    written(tmp_path / "image", "v2 folders")
    archive = tmp_path / "image.zarr.zip"
    with zipfile.ZipFile(archive, "w") as file:
        for path in sorted((tmp_path / "image").rglob("*")):
            file.write(path, path.relative_to(tmp_path / "image").as_posix())
    array = open_array(str(archive), "a")
    assert listed(array) is None
    before = digest_of(states(array, WHOLE))
    assert digest_of(states(array, WHOLE)) == before
    os.utime(archive, (5, 5))
    assert digest_of(states(array, WHOLE)) != before


@pytest.mark.parametrize(
    ("change", "same", "same_size"),
    [
        (lambda path: None, True, True),
        (lambda path: os.utime(path, ns=(7, path.stat().st_mtime_ns)), True, True),
        (lambda path: path.chmod(0o600), True, True),
        (lambda path: os.link(path, path.parent / "backup"), True, True),
        (lambda path: os.utime(path, ns=(7, path.stat().st_mtime_ns + 2000)), False, True),
        (lambda path: os.truncate(path, 5), False, False),
        (lambda path: path.unlink(), False, False),
    ],
)
def test_what_tells_files_apart(tmp_path: Path, change: Any, same: bool, same_size: bool) -> None:
    array = written(tmp_path, "v2 folders")
    box = (slice(0, 5), slice(2, 9), slice(17, 40))
    ranges = file_ranges(array, box)
    assert ranges == [(0, 3), (0, 2), (1, 3)]
    before = states(array, ranges)
    change(tmp_path / "a" / "1" / "1" / "2")
    after = states(array, ranges)
    assert len(after) == 12
    assert (digest_of(after) == digest_of(before)) == same
    assert (digest_of_sizes(after) == digest_of_sizes(before)) == same_size


def test_files_that_lie_elsewhere_in_the_order_are_others() -> None:
    one, other = FileState(5, "7"), FileState(6, "7")
    assert digest_of([one, other]) != digest_of([other, one])
    assert digest_of([one, None]) != digest_of([None, one])
    assert digest_of_sizes([one, FileState(5, "8")]) == digest_of_sizes([one, one])


def test_a_folder_that_is_gone_is_no_empty_chunk(tmp_path: Path) -> None:
    array = written(tmp_path, "v2 folders")
    assert states(array, [(0, 1)] * 3) == [None]
    os.rename(tmp_path / "a", tmp_path / "c")
    with pytest.raises(FileNotFoundError, match="the folder is gone"):
        states(array, [(0, 1)] * 3)


def test_chunks_of_which_no_folder_is_there_take_one_look(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An array may have a million of them."""
    asked: list[str] = []
    for name, function in (("stat", os.stat), ("lstat", os.lstat)):

        def noted(path: Any, *args: Any, _function: Any = function, **more: Any) -> Any:
            asked.append(os.fspath(path))
            return _function(path, *args, **more)

        monkeypatch.setattr(os, name, noted)
    (tmp_path / "1" / "1").mkdir(parents=True)
    (tmp_path / "1" / "1" / "0").write_bytes(b"ab")
    (tmp_path / "2").write_bytes(b"")
    names = [["0", "1"], [str(n) for n in range(1000)], ["0", "1"]]
    found = list(LocalLook(str(tmp_path)).states(names))
    assert len(found) == 4000
    assert [n for n, state in enumerate(found) if state is not None] == [2002]
    # Of each file of the second folder: that it is not there, and that none is above it.
    below = [path for path in asked if path.startswith(f"{tmp_path}/0/")]
    assert len(below) <= 2
    assert len(asked) < 2 * 1000 + 20
    with pytest.raises(NotADirectoryError):
        list(LocalLook(str(tmp_path)).states([["2"], ["0"], ["0"]]))


@pytest.mark.parametrize("zarr_format", [2, 3])
@pytest.mark.parametrize("separator", [".", "/"])
def test_states_are_those_of_the_keys_that_zarr_makes(
    tmp_path: Path, zarr_format: Any, separator: Any
) -> None:
    encoding = {"name": "default" if zarr_format == 3 else "v2", "separator": separator}
    array = zarr.create_array(
        str(tmp_path / "a"),
        shape=(2, 6, 7),
        chunks=(1, 2, 3),
        dtype="u2",
        zarr_format=zarr_format,
        chunk_key_encoding=encoding,
    )
    rng = np.random.Generator(np.random.PCG64(1))
    for index in np.ndindex(2, 3, 3):
        if rng.random() < 0.5:
            c, z, y = index
            array[c : c + 1, 2 * z : 2 * z + 2, 3 * y : 3 * y + 3] = 1 + rng.integers(9)
    ranges = [(0, 2), (1, 3), (0, 3)]
    keys = [
        array.metadata.encode_chunk_key((c, z, y))
        for c in range(2)
        for z in range(1, 3)
        for y in range(3)
    ]
    sizes = [p.stat().st_size if (p := tmp_path / "a" / key).exists() else None for key in keys]
    assert None in sizes and any(sizes)
    assert [None if state is None else state.size for state in states(array, ranges)] == sizes


@pytest.mark.parametrize("place", ["0", "0/3", "0/3/7"])
def test_a_link_without_target_on_the_way_is_no_empty_chunk(tmp_path: Path, place: str) -> None:
    link = tmp_path / place
    link.parent.mkdir(parents=True, exist_ok=True)
    link.symlink_to(tmp_path / "nowhere")
    with pytest.raises(FileNotFoundError, match="target is missing|no folder that can be opened"):
        LocalLook(str(tmp_path)).refuse_broken_name("0/3/7")
    with pytest.raises(FileNotFoundError, match="target is missing|no folder that can be opened"):
        list(LocalLook(str(tmp_path)).states([["0"], ["2", "3"], ["7"]]))


def test_a_folder_that_is_made_meanwhile_is_no_broken_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Blocks that are written at once make the folders that they share."""

    def made_by_another_block(path: str) -> bool:
        os.makedirs(path, exist_ok=True)
        return True

    monkeypatch.setattr(os.path, "lexists", made_by_another_block)
    LocalLook(str(tmp_path)).refuse_broken_name("1/2/0")


def test_reads_are_noted_once_each(tmp_path: Path) -> None:
    array = written(tmp_path, "v2 folders")
    boxes = [(slice(0, 2), slice(0, 8), slice(0, 16)), (slice(2, 5), slice(0, 19), slice(16, 70))]
    with noted_reads() as notes:
        for box in (*boxes, (slice(0, 1), slice(3, 5), slice(7, 9)), boxes[1]):
            read_array(array, "here", box)
    assert current_notes() is None
    read_array(array, "here", boxes[0])
    first, second = notes.records()
    assert first == ["here", [[0, 1], [0, 1], [0, 1]], 0, digest_of([None])]
    assert second[:3] == ["here", [[1, 3], [0, 3], [1, 5]], 24 - 2]
    assert second[3] == digest_of(states(array, second[1]))


@pytest.mark.parametrize(
    ("boxes", "count"),
    [
        ([((0, 3), (1, 4), (2, 5))], 1),
        # Chunk by chunk, and in slabs.
        ([((z, z + 1), (y, y + 1), (0, 7)) for z in range(3) for y in range(4)], 1),
        # An edge around a block, read in parts that overlap.
        ([((0, 1), (0, 5), (0, 5)), ((0, 1), (2, 3), (0, 9))], 3),
        ([((0, 1), (0, 1), (0, 1)), ((5, 6), (5, 6), (5, 6))], 2),
    ],
)
def test_files_that_fill_a_box_are_one_record(boxes: Any, count: int) -> None:
    notes = ReadNotes()
    files = set()
    for box in boxes:
        own = list(product(*(range(*part) for part in box)))
        files |= set(own)
        notes.add("here", box, [FileState(sum(index), str(index)) for index in own])
    records = notes.records()
    assert len(records) == count
    held = [index for _, box, *_ in records for index in product(*(range(*part) for part in box))]
    assert len(held) == len(files) == sum(present for _, _, present, _ in records)
    assert set(held) == files
    for _, box, _, digest in records:
        own = [FileState(sum(i), str(i)) for i in product(*(range(*part) for part in box))]
        assert digest == digest_of(own)


def test_a_file_that_changes_between_two_reads_is_noted_twice() -> None:
    notes = ReadNotes()
    for version in ("1", "1", "2"):
        notes.add("here", [(0, 1)], [FileState(4, version)])
    assert len(notes.records()) == 2
