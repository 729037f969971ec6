"""The metadata text files beside a container."""

from __future__ import annotations

from fractal_mesospim_shading.images.native_meta import parse_meta, removes_offset, side_of_text

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
    assert removes_offset(meta.processors)
    assert not removes_offset(("GaussianBlur",))
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
