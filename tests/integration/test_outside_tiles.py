"""Pixels that belong to no tile: a tile that the table lacks, and gaps between tiles."""

from __future__ import annotations

import logging
from pathlib import Path

import numpy as np
import pytest
import zarr

import fractal_mesospim_shading
from fractal_mesospim_shading import errors
from fractal_mesospim_shading.core.layout import TileLayout
from fractal_mesospim_shading.images.mosaic import MosaicImage
from fractal_mesospim_shading.images.roi_tables import write_roi_tables
from fractal_mesospim_shading.synthetic.images import write_image
from fractal_mesospim_shading.views.inspection import as_text, describe

TILE = (48, 40)
LABELS = ("488 nm", "561 nm")
OUTSIDE = np.s_[..., 48:, 40:]
"""Tile 4 of 2 x 2."""


@pytest.fixture
def lacking(tmp_path, pixels):
    """`lacking(array, ...)`: a mosaic of 2 x 2 tiles whose table lacks the last one."""

    def write(array=None, name="brain.zarr", **style) -> Path:
        array = pixels((2, 4, 96, 80)) + 1 if array is None else array
        style = {"chunks": (2, 16, 32), "codec": "blosc", **style}
        axes = style.get("axes", "czyx")
        channels = LABELS if "c" in axes else LABELS[:1]
        write_image(
            tmp_path / name, array, channels=channels, tile_shape=TILE, missing=(4,), **style
        )
        return tmp_path / name

    return write


def raw_of(url) -> np.ndarray:
    return np.asarray(zarr.open_array(str(url), path="0", mode="r")[...])


def flatfield(source, make_models, **arguments):
    arguments = {"models_folder": str(make_models()), "camera_offset": 100, **arguments}
    return fractal_mesospim_shading.correct_flatfield(source, report=False, **arguments)


def background(source, _, **arguments):
    method = {"method": "median", "radius": 4}
    return fractal_mesospim_shading.correct_background(source, method=method, **arguments)


each_task = pytest.mark.parametrize("correct", [flatfield, background])


@each_task
def test_data_outside_of_every_tile_are_refused(correct, lacking, make_models, tree, tmp_path):
    source = lacking()
    before = tree(tmp_path)
    with pytest.raises(errors.LayoutError) as caught:
        correct(source, make_models)
    for words in ("25 %", "y 48..96, x 40..80", "missing tiles: 4", "outside_tiles", "488 nm"):
        assert words in str(caught.value)
    assert {n: c for n, c in tree(tmp_path).items() if "models" not in n} == before


@pytest.mark.slow
@each_task
@pytest.mark.parametrize("style", [{}, {"axes": "zyx"}, {"axes": "tczyx"}], ids=str)
def test_they_are_kept_or_made_0_where_that_is_said(
    correct, style, lacking, make_models, pixels, caplog
):
    shape = {"zyx": (4, 96, 80), "tczyx": (2, 2, 2, 96, 80)}.get(style.get("axes"), (2, 4, 96, 80))
    source = lacking(pixels(shape) + 1, **style)
    models, raw = make_models(), raw_of(source)
    with caplog.at_level(logging.INFO):
        kept = correct(source, lambda: models, outside_tiles="keep")
        zeroed = correct(source, lambda: models, outside_tiles="zero", output_image_name="zeroed")
    assert "25 % of each plane belongs to no tile" in caplog.text
    assert not [record for record in caplog.records if record.levelname == "WARNING"]
    one, other = raw_of(kept.image_url), raw_of(zeroed.image_url)
    np.testing.assert_array_equal(one[OUTSIDE], raw[OUTSIDE])
    assert not other[OUTSIDE].any()
    one[OUTSIDE] = 0
    np.testing.assert_array_equal(one, other)
    assert (one[..., :48, :] != raw[..., :48, :]).mean() > 0.9
    outside = raw[OUTSIDE].size
    assert sum(found.no_data for found in zeroed.counts.values()) >= outside
    assert sum(found.pixels for found in zeroed.counts.values()) == raw.size


@each_task
def test_an_image_that_is_0_there_needs_no_word(correct, lacking, make_models, pixels, caplog):
    array = pixels((2, 4, 96, 80)) + 1
    array[OUTSIDE] = 0
    source = lacking(array)
    models = make_models()
    with caplog.at_level(logging.INFO):
        result = correct(source, lambda: models, output_offset=30)
    assert "25 % of each plane belongs to no tile" in caplog.text
    assert "the image is 0 there" in caplog.text
    assert not [record for record in caplog.records if record.levelname == "WARNING"]
    assert not raw_of(result.image_url)[OUTSIDE].any()


@each_task
def test_one_pixel_is_enough(correct, lacking, make_models, pixels):
    array = pixels((2, 4, 96, 80)) + 1
    array[OUTSIDE] = 0
    array[1, 2, 95, 40] = 7
    with pytest.raises(errors.LayoutError, match="up to 7 in channel 561 nm, plane 2"):
        correct(lacking(array), make_models)


def test_gaps_between_tiles(tmp_path, make_models, pixels):
    """Tiles that do not touch, as where a table was made for another pixel size."""
    array = np.full((1, 3, 96, 90), 500, "uint16")
    source = tmp_path / "a.zarr"
    write_image(source, array, channels=LABELS[:1], chunks=(1, 32, 32))
    layout = TileLayout.from_origins([(0, 0), (0, 50), (48, 0), (48, 50)], TILE, (96, 90))
    write_roi_tables(str(source), layout, {"z": 5.0, "y": 1.3, "x": 1.3}, 3)
    models = str(make_models())
    with pytest.raises(errors.LayoutError, match=r"11 %.*\(y 0..96, x 40..50\)"):
        flatfield(source, lambda: models)
    result = flatfield(source, lambda: models, outside_tiles="keep")
    made = raw_of(result.image_url)
    assert (made[..., 40:50] == 500).all()
    assert (made[..., :40] < 500).any()


@pytest.mark.parametrize("style", [{}, {"ngff_version": "0.5", "shards": (4, 32, 64)}], ids=str)
def test_what_is_read_to_see_it(style, lacking, make_models, pixels, monkeypatch):
    """Nothing of chunks that are not there; of others the pixels outside, each chunk once."""
    array = pixels((2, 4, 96, 80)) + 1
    array[OUTSIDE] = 0
    source = lacking(array, **style)
    read, boxes = MosaicImage.read, []

    def counted(image, level, box):
        boxes.append((level, box))
        return read(image, level, box)

    from fractal_mesospim_shading.engine.outside_tiles import check_outside

    monkeypatch.setattr(MosaicImage, "read", counted)
    image = MosaicImage.open(source)
    check_outside(image, image.layout, "refuse", workers=3)
    seen = np.zeros(array.shape, int)
    for level, box in boxes:
        assert level == 0
        seen[box] += 1
        assert all(s.stop - s.start <= c for s, c in zip(box[1:], (2, 16, 32), strict=True))
    assert seen.max() == 1
    assert not seen[..., :48, :].any() and not seen[..., :40].any()
    if not style:
        # x 64..80 holds chunks of nothing but zeros, which are not written.
        assert not seen[..., 64:].any()
    boxes.clear()
    for done in ("keep", "zero"):
        check_outside(image, image.layout, done)
    assert not boxes


def test_chunks_that_read_as_another_value_are_looked_at(lacking, make_models, pixels):
    array = pixels((2, 4, 96, 80)) + 1
    array[OUTSIDE] = 5
    source = lacking(array, fill_value=5)
    assert not (source / "0" / "0" / "0" / "4" / "2").exists()
    with pytest.raises(errors.LayoutError, match="up to 5"):
        flatfield(source, make_models)


@pytest.mark.slow
def test_numbers_that_are_none_are_made_0(lacking, make_models, pixels):
    array = (pixels((2, 4, 96, 80)) + 1).astype("float32")
    array[OUTSIDE] = np.nan
    source = lacking(array)
    models = str(make_models())
    with pytest.raises(errors.LayoutError, match="outside_tiles"):
        flatfield(source, lambda: models)
    result = flatfield(source, lambda: models, outside_tiles="zero")
    made = raw_of(result.image_url)
    assert np.isfinite(made).all() and not made[OUTSIDE].any()


def test_across_the_whole_plane_nothing_is_outside(lacking, make_models):
    source = lacking()
    plane = background(source, make_models, tiles="plane")
    made, raw = raw_of(plane.image_url), raw_of(source)
    assert (made[OUTSIDE] != raw[OUTSIDE]).mean() > 0.9


@pytest.mark.parametrize("held", [True, False])
def test_info_says_so_beforehand(held, lacking, pixels):
    array = pixels((2, 4, 96, 80)) + 1
    if not held:
        array[OUTSIDE] = 0
    found = describe(str(lacking(array)))
    assert found["tiles"]["outside"] == {
        "share": 0.25,
        "boxes_px": [[48, 96, 40, 80]],
        "has_data": held,
    }
    (line,) = [line for line in as_text(found).splitlines() if "belongs to no tile" in line]
    assert ("holds data" in line and "refuses" in line) if held else "is 0 there" in line


def test_info_of_a_full_mosaic_does_not_speak_of_it(make_mosaic):
    found = describe(str(make_mosaic()))
    assert found["tiles"]["outside"] is None
    assert "no tile" not in as_text(found)
