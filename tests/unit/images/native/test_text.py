"""Texts of any encoding that Windows has, and names in them."""

from __future__ import annotations

import pytest

from fractal_mesospim_shading.images.native.text import decode

LINE = "[Metadata for file] D:\\Müller\\Größe.ome.zarr\\Mag5x.ome.zarr"
TEXT = f"{LINE}\r\n[Filter] µ\r\n"


@pytest.mark.parametrize(
    "encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-16-le", "utf-16-be", "utf-32", "cp1252"]
)
def test_encodings_that_can_be_told(encoding: str) -> None:
    found = decode(TEXT.encode(encoding))
    assert found.text == TEXT
    assert found.guessed is (encoding == "cp1252")
    assert found.spells("Größe.ome.zarr", "Größe.ome.zarr")
    assert found.spells("Größe.ome.zarr", "Gro\u0308ße.ome.zarr")
    assert not found.spells("Größe.ome.zarr", "Grösse.ome.zarr")
    renamed = found.with_name("Größe.ome.zarr", "Größe_corr.ome.zarr")
    assert decode(renamed).text == TEXT.replace("Größe", "Größe_corr")
    # Every byte but those of the name stays.
    assert len(renamed) == len(TEXT.encode(encoding)) + 5 * len("x".encode(found.encoding))
    assert found.with_name("absent", "x") == TEXT.encode(encoding)


@pytest.mark.parametrize(
    ("encoding", "name"),
    [
        ("cp1250", "Łódź"),
        ("cp1251", "Мозг"),
        ("cp932", "脳ソ"),
        ("cp936", "脑样品"),
        ("cp949", "뇌"),
        ("cp1253", "Εγκέφαλος"),
        ("cp850", "Größe"),
        ("mac_roman", "Größe"),
    ],
)
def test_names_in_any_code_page(encoding: str, name: str) -> None:
    data = f"[Metadata for file] D:/x/{name}.zarr/g\n[a] 1\n".encode(encoding)
    found = decode(data)
    part = found.text.split("/")[2]
    assert found.spells(part, f"{name}.zarr")
    assert not found.spells(part, "other.zarr")
    renamed = found.with_name(f"{name}.zarr", f"{name}_corr.zarr")
    assert renamed == data.replace(name.encode(encoding), name.encode(encoding) + b"_corr")


def test_a_name_whose_bytes_on_disk_are_no_utf8() -> None:
    on_disk = "Größe".encode("cp1252").decode("utf-8", errors="surrogateescape")
    assert decode("D:/Größe/g".encode()).spells("Größe", on_disk)
    assert decode("D:/Größe/g".encode("cp1252")).spells("Größe", on_disk)
    assert not decode("D:/Grösse/g".encode()).spells("Grösse", on_disk)


def test_bytes_that_no_encoding_knows_are_kept() -> None:
    data = b"[a] \x81\x8d\xff b\n"
    found = decode(data)
    assert found.guessed
    assert found.raw(found.text) == data
    assert decode(b"").text == ""
    assert decode(bytes(300)).text.strip("\0") == ""


def test_only_the_first_line_is_changed() -> None:
    data = b"[x] brain and brain\n[y] brain\n"
    assert decode(data).with_name("brain", "b") == b"[x] brain and b\n[y] brain\n"
