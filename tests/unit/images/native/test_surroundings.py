"""The BigStitcher project file."""

from __future__ import annotations

import pytest

from fractal_mesospim_shading.images.native.surroundings import parse_xml

XML = """<?xml version='1.0' encoding='utf-8'?>
<SpimData version="0.2"><SequenceDescription><ImageLoader format="bdv.multimg.zarr" version="3.0">
<zarr type="relative">brain.ome.zarr</zarr>
<zgroups><zgroup setup="3" tp="0" path="s3-t0.zarr" indicies="0 0" /></zgroups></ImageLoader>
<ViewSetups><ViewSetup><id>3</id><size>160 128 18</size>
<voxelSize><unit>um</unit><size>2.125 2.125 5.0</size></voxelSize>
<attributes><illumination>1</illumination><channel>0</channel><tile>7</tile><angle>0</angle>
</attributes></ViewSetup>
<Attributes name="illumination"><Illumination><id>0</id><name>Left</name></Illumination>
<Illumination><id>1</id><name>Right</name></Illumination></Attributes>
<Attributes name="channel"><Channel><id>0</id><name>488 nm</name></Channel></Attributes>
<Attributes name="angle"><Angle><id>0</id><name>90.0</name></Angle></Attributes>
<Attributes name="tile"><Tile><id>7</id><name>7</name></Tile></Attributes>
</ViewSetups></SequenceDescription>
<ViewRegistrations><ViewRegistration timepoint="0" setup="3">%s</ViewRegistration>
</ViewRegistrations></SpimData>"""
GRID = """<ViewTransform type="affine"><Name>Translation to Regular Grid</Name>
<affine>1.000000 0.000000 0.000000 -1938.823529 0.000000 1.000000 0.000000
 409.529412 0.000000 0.000000 1.000000 -70.000000</affine></ViewTransform>"""
STITCHED = """<ViewTransform type="affine"><Name>Stitching Transform</Name>
<affine>1 0 0 12.5 0 1 0 -4 0 0 1 0</affine></ViewTransform>"""
SCALED = """<ViewTransform type="affine"><Name>a</Name>
<affine>2 0 0 10 0 3 0 20 0 0 1 0</affine></ViewTransform>
<ViewTransform type="affine"><Name>b</Name>
<affine>1 0 0 5 0 1 0 7 0 0 1 0</affine></ViewTransform>"""


def test_view_with_a_line_break_in_its_numbers() -> None:
    container, (view,) = parse_xml((XML % GRID).encode())
    assert container == "brain.ome.zarr"
    assert (view.group, view.channel, view.side, view.angle, view.tile) == (
        "s3-t0.zarr",
        "488 nm",
        "Right",
        "90.0",
        "7",
    )
    assert view.voxel_um == (2.125, 2.125, 5.0)
    assert view.shift_px == (-1938.823529, 409.529412)


def test_place_of_the_stage_counts_not_that_of_a_stitcher() -> None:
    _, (view,) = parse_xml((XML % (STITCHED + GRID)).encode())
    assert view.shift_px == (-1938.823529, 409.529412)


def test_other_transforms_are_chained_last_one_first() -> None:
    _, (view,) = parse_xml((XML % SCALED).encode())
    assert view.shift_px == (2 * 5 + 10, 3 * 7 + 20)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "<SpimData>",
        XML % GRID.replace("409.529412", "x"),
        XML % GRID.replace("409.529412", "nan"),
        XML % STITCHED.replace("12.5", "inf"),
        (XML % GRID).replace("2.125", "nan"),
    ],
)
def test_unreadable_file(text: str) -> None:
    with pytest.raises(ValueError, match=r"XML|could not convert|not finite"):
        parse_xml(text.encode())
