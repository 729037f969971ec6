"""Names of containers and groups, as the microscope writes them."""

from __future__ import annotations

import pytest

from fractal_mesospim_shading.images.native.stack import (
    natural_key,
    parse_group_name,
    split_container_name,
)


def test_current_name() -> None:
    name = parse_group_name("Mag5_Tile12_Ch488_Flt520_35_BrightLine_Sh1_Rot-90.0.ome.zarr")
    assert name is not None
    assert (name.zoom, name.tile, name.laser, name.filter) == ("5", 12, "488", "520_35_BrightLine")
    assert (name.shutter, name.rotation, name.setup) == (1, -90.0, None)


def test_zoom_keeps_its_space_and_filter_its_odd_characters() -> None:
    name = parse_group_name(
        "Mag4x Olympu_Tile0_Ch561_Flt405-488-561-640-Quad(rupleblock)_Sh0_Rot0.ome.zarr"
    )
    assert name is not None
    assert (name.zoom, name.filter) == ("4x Olympu", "405-488-561-640-Quad(rupleblock)")
    assert name.rotation == 0.0


def test_filter_may_look_like_the_end_of_a_name() -> None:
    name = parse_group_name("Mag1_Tile3_Ch640_FltA_Sh1_Rot7_B_Sh0_Rot180.0.ome.zarr")
    assert name is not None
    assert (name.filter, name.shutter, name.rotation) == ("A_Sh1_Rot7_B", 0, 180.0)


def test_older_name_without_filter() -> None:
    name = parse_group_name("Mag5_Tile0_Ch488_Sh0_Rot0.0.ome.zarr")
    assert name is not None
    assert (name.laser, name.filter) == ("488", None)


def test_name_by_setup_says_only_the_setup() -> None:
    name = parse_group_name("s17-t0.zarr")
    assert name is not None
    assert (name.setup, name.time_point, name.tile, name.laser) == (17, 0, None, None)


@pytest.mark.parametrize(
    "name", ["notes.zarr", "Mag5_Tile0.ome.zarr", "Mag5_Tilex_Ch488_Sh0_Rot0.ome.zarr", "s1.zarr"]
)
def test_foreign_names(name: str) -> None:
    assert parse_group_name(name) is None


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("brain_Mag5x_Ch488.ome.zarr", ("brain_Mag5x_Ch488", None)),
        ("brain_Ch561.ome_Time003.zarr", ("brain_Ch561", 3)),
        ("plain.zarr", ("plain", None)),
        ("a.b c.ome.zarr", ("a.b c", None)),
    ],
)
def test_container_names(name: str, expected: tuple[str, int | None]) -> None:
    assert split_container_name(name) == expected


def test_numbers_sort_as_numbers() -> None:
    names = ["Mag2_Tile10_a", "Mag2_Tile2_a", "Mag2_Tile1_b", "Mag2_Tile1_a"]
    assert sorted(names, key=natural_key) == [names[3], names[2], names[1], names[0]]
