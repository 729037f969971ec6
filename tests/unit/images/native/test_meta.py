"""The metadata text files beside a container."""

from __future__ import annotations

import pytest

from fractal_mesospim_shading.images.native.meta import (
    decode,
    number_of_text,
    parse_meta,
    side_of_text,
)

TEXT = r"""[Metadata for file] D:\data\my brain\brain.ome.zarr\Mag2_Tile0_Ch488_Sh0_Rot0.0.ome.zarr

[CFG]~
[Laser] 488 nm
[Intensity (%)] 20
[Filter] 520/35 BrightLine
[Empty]~
[Shutter] Both

[POSITION]~
[x_pos] -4120.5
[y_pos] nan

[MICROSCOPE PARAMETERS]~
[name] Bench top

[OBJECTIVE_PARAMETERS]~
[name] Olympus

[IMAGE PROCESSORS]~
[Processor count] 2

[BackgroundSubtraction]~
[method] rolling ball
[GaussianBlur sigma] 2

[TIMING INFORMATION]~
[Frame rate during taking images, img/s:] 4.4
[===================== END OF ACQUISITION ======================]~
""".replace("~\n", " \n")  # Bare lines end with a space, as the microscope writes them.


def test_values_by_section() -> None:
    meta = parse_meta(TEXT.encode())
    assert meta.text("CFG", "Laser") == "488 nm"
    assert meta.text("CFG", "Intensity (%)") == "20"
    assert meta.text("CFG", "Empty") is None
    assert meta.text("CFG", "Shutter") == "Both"
    assert meta.number("POSITION", "x_pos") == -4120.5
    assert meta.number("POSITION", "y_pos") is None
    assert meta.number("TIMING INFORMATION", "Frame rate during taking images, img/s:") == 4.4


def test_equal_keys_of_different_sections_are_kept_apart() -> None:
    meta = parse_meta(TEXT.encode())
    assert meta.text("MICROSCOPE PARAMETERS", "name") == "Bench top"
    assert meta.text("OBJECTIVE_PARAMETERS", "name") == "Olympus"


def test_windows_path_in_the_first_line() -> None:
    meta = parse_meta(TEXT.replace("\n", "\r\n").encode())
    assert meta.container == "brain.ome.zarr"
    assert meta.group == "Mag2_Tile0_Ch488_Sh0_Rot0.0.ome.zarr"
    assert meta.side == "both"


def test_processors_are_named_even_as_sections_of_their_own() -> None:
    meta = parse_meta(TEXT.encode())
    assert meta.processors == ("BackgroundSubtraction", "GaussianBlur")
    without = TEXT.replace("[Processor count] 2", "[Processor count] 0")
    assert parse_meta(without.encode()).processors == ()


def test_unknown_processors_are_counted() -> None:
    text = "[IMAGE PROCESSORS] \n[Processor count] 2\n[kind] homemade\n"
    assert parse_meta(text.encode()).processors == ("unknown", "unknown")


def test_rubbish_is_no_error() -> None:
    assert parse_meta(b"\xff\xfe\x00 nothing here").entries == ()
    assert parse_meta(b"").group is None


def test_sides() -> None:
    assert [side_of_text(t) for t in ("Left", "RIGHT", "Both", "left, then right", "", None)] == [
        "left",
        "right",
        "both",
        "both",
        None,
        None,
    ]


@pytest.mark.parametrize(
    ("text", "mark", "value"),
    [
        ("20000.5", None, 20000.5),
        ("20000,5", None, 20000.5),
        ("-0,25", None, -0.25),
        ("20.000,50", None, 20000.5),
        ("20,000.50", None, 20000.5),
        ("1.234.567", None, 1234567.0),
        ("1,234,567", None, 1234567.0),
        ("20 000,5", None, 20000.5),
        ("1,5e3", None, 1500.0),
        ("20.125", None, 20.125),
        ("20.125", ".", 20.125),
        ("0,125", None, 0.125),
        # These two could be thousands or decimals; the file tells, or nobody can.
        ("20,125", None, None),
        ("20,125", ",", 20.125),
        ("20,125", ".", None),
        ("20.125", ",", None),
        ("20000", ",", 20000.0),
        ("", None, None),
        ("520/35", None, None),
        ("1.2.3", None, None),
        ("1.25,3.5", None, None),
        ("inf", None, None),
        ("nan", None, None),
    ],
)
def test_numbers_with_points_and_commas(text, mark, value):
    assert number_of_text(text, mark) == value


def test_the_mark_of_decimals_is_that_of_the_file():
    assert parse_meta(TEXT.encode()).decimal_mark == "."
    lines = "[Metadata for file] D:/a/b\n\n[POSITION]\n[x_pos] 20,125\n[y_pos] 7,5\n[rot] 0\n"
    meta = parse_meta(lines.encode())
    assert meta.decimal_mark == ","
    assert meta.number("POSITION", "x_pos") == 20.125
    assert meta.unreadable_numbers == ()
    doubtful = parse_meta(lines.replace("7,5", "7,500").encode())
    assert doubtful.number("POSITION", "x_pos") is None
    assert doubtful.unreadable_numbers == ("[x_pos] 20,125", "[y_pos] 7,500")


def test_names_in_a_metadata_file():
    def meta(encoding, name="Größe"):
        return parse_meta(f"[Metadata for file] D:\\{name}\\g\n[a] 1\n".encode(encoding))

    for encoding in ("utf-8", "cp1252", "cp850", "utf-16"):
        assert meta(encoding).names_container("Größe") is True
        assert meta(encoding).names_group("g")
    assert meta("utf-8").names_container("Other") is False
    # Which name this is cannot be told: it may be that of the container.
    assert meta("cp1252").names_container("Other") is None
    assert meta("ascii", "brain").names_container("Other") is False
    assert parse_meta(b"[a] 1\n").names_container("Other") is True


LINE = "[Metadata for file] D:\\Müller\\Größe.ome.zarr\\Mag5x.ome.zarr"
LINES = f"{LINE}\r\n[Filter] µ\r\n"


@pytest.mark.parametrize(
    "encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-16-le", "utf-16-be", "utf-32", "cp1252"]
)
def test_encodings_that_can_be_told(encoding: str) -> None:
    found = decode(LINES.encode(encoding))
    assert found.text == LINES
    assert found.guessed is (encoding == "cp1252")
    assert found.spells("Größe.ome.zarr", "Größe.ome.zarr")
    assert found.spells("Größe.ome.zarr", "Gro\u0308ße.ome.zarr")
    assert not found.spells("Größe.ome.zarr", "Grösse.ome.zarr")
    renamed = found.with_name("Größe.ome.zarr", "Größe_corr.ome.zarr")
    assert decode(renamed).text == LINES.replace("Größe", "Größe_corr")
    # Every byte but those of the name stays.
    assert len(renamed) == len(LINES.encode(encoding)) + 5 * len("x".encode(found.encoding))
    assert found.with_name("absent", "x") == LINES.encode(encoding)


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
