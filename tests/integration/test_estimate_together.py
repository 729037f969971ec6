"""One flat-field of several images."""

from __future__ import annotations

import json
import logging
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import zarr

from fractal_mesospim_shading import cli, correct_flatfield, errors, estimate_flatfield
from fractal_mesospim_shading.images import mosaic
from fractal_mesospim_shading.images.joined import joined
from fractal_mesospim_shading.images.mosaic import MosaicImage
from fractal_mesospim_shading.synthetic.demo import write_mosaic
from fractal_mesospim_shading.synthetic.images import write_image
from fractal_mesospim_shading.synthetic.world import LightSheetWorld

LABELS = ("488 nm", "561 nm")


STYLE = {"chunks": (2, 32, 32), "codec": "blosc"}


def write_medium(path, grid, planes=8, seed=0, channels=LABELS, tile=(64, 64), **style):
    world = LightSheetWorld(tile_shape=tile, grid=grid, planes=planes, sample=0.0, seed=seed)
    write_mosaic(path, world, channels, **{**STYLE, **style})
    return str(path)


@pytest.fixture
def two(tmp_path):
    """Mosaics of another grid, depth, and order of channels."""
    first = write_medium(tmp_path / "one.zarr", (2, 2))
    turned = write_medium(tmp_path / "turned" / "two.zarr", (3, 2), 6)
    second, pixels = tmp_path / "two.zarr", zarr.open_array(f"{turned}/0", mode="r")[:][::-1]
    write_image(second, pixels, channels=LABELS[::-1], tile_shape=(64, 64), **STYLE)
    return [first, str(second)]


@pytest.mark.slow
def test_planes_of_all_images_and_the_names_of_all(two, tmp_path, caplog):
    with caplog.at_level(logging.INFO):
        models = estimate_flatfield(two, str(tmp_path / "models"), fov_list=[1, 2], seed=3)
    for label, model in models.items():
        assert model.planes_used == 2 * 8 + 2 * 6
        assert model.facts["images"] == [
            {"name": "one.zarr", "tiles": [1, 2]},
            {"name": "two.zarr", "tiles": [1, 2]},
        ]
        used = {f"{tile} of one.zarr": [[0, 7]] for tile in (1, 2)}
        used |= {f"{tile} of two.zarr": [[0, 5]] for tile in (1, 2)}
        assert model.planes.facts() == {"used": used, "left_out": {}}
        shown = {own.tile for own in model.planes.thumbnails}
        assert shown == set(used)
        alone = [estimate_flatfield(url, fov_list=[1, 2], seed=3)[label] for url in two]
        assert model.relative_uncertainty < min(one.relative_uncertainty for one in alone)
        middle = np.mean([one.profile.flatfield for one in alone], axis=0)
        assert np.std(model.profile.flatfield / middle) < 0.01
    assert any("the tiles of" in line and "two.zarr" in line for line in caplog.messages)
    with np.load(tmp_path / "models" / "488 nm" / "profiles.npz") as content:
        told = json.loads(str(content["shading_provenance"]))
    assert "two.zarr" in json.dumps(told)
    assert str(tmp_path) not in json.dumps(told)
    result = correct_flatfield(two[1], models_folder=str(tmp_path / "models"), report=False)
    assert set(result.models) == set(LABELS)


def test_pixels_are_those_of_the_images_at_every_level(two):
    images = [MosaicImage.open(url) for url in two]
    whole = joined(images)
    for level in range(len(whole.levels)):
        shape = whole.levels[level].shape
        box = tuple(slice(0, size) for size in shape)
        pixels = whole.read(level, box)
        assert pixels.shape == shape
        factor = round(whole.levels[level].scale[-1] / whole.levels[0].scale[-1])
        layout = whole.layout.coarser((factor, factor), shape[-2:])
        for image, grid in zip(images, whole.grids, strict=True):
            own = image.read(level, tuple(slice(0, n) for n in image.levels[level].shape))
            small = image.layout.coarser((factor, factor), own.shape[-2:])
            for number, there in grid.numbers.items():
                (a, b), (h, w) = (small.tile(number), layout.tile(there)), small.tile_shape
                for channel, label in enumerate(LABELS):
                    at = next(c.index for c in image.channels if c.label == label)
                    assert np.array_equal(
                        own[at, :, a.y : a.y + h, a.x : a.x + w],
                        pixels[0, channel, : own.shape[1], b.y : b.y + h, b.x : b.x + w],
                    )


def test_corner_tiles_are_those_of_each_image(two):
    models = estimate_flatfield(two, z_levels=[2, 4], camera_offset=100)
    (first, second) = models["488 nm"].facts["images"]
    assert (first["tiles"], second["tiles"]) == ([1, 2, 3, 4], [1, 3, 4, 6])


def test_what_is_empty_is_found_in_each_image(two):
    models = estimate_flatfield(two, scenario="auto", camera_offset=100)
    assert models["561 nm"].planes_used > 20
    assert [len(one["tiles"]) > 0 for one in models["561 nm"].facts["images"]] == [True, True]


def test_the_order_of_the_workers_changes_nothing_and_each_chunk_is_read_once(two, monkeypatch):
    read = Counter()
    plain = mosaic.read_array

    def noted(array, where, box):
        cells = [
            range(s.start // c, -(-s.stop // c)) for s, c in zip(box, array.chunks, strict=True)
        ]
        for cell in np.ndindex(*map(len, cells)):
            read[where, tuple(r[i] for r, i in zip(cells, cell, strict=True))] += 1
        return plain(array, where, box)

    monkeypatch.setattr(mosaic, "read_array", noted)
    options = {"fov_list": [1, 2], "camera_offset": 100}
    one = estimate_flatfield(two, **options, n_workers=1)
    assert len({where for where, _ in read}) == 2
    assert set(read.values()) == {1}
    many = estimate_flatfield(two, **options, n_workers=3)
    for label, model in one.items():
        assert np.array_equal(model.profile.flatfield, many[label].profile.flatfield)
        assert model.facts == many[label].facts


@pytest.mark.parametrize(
    ("style", "says"),
    [
        ({"tile": (48, 64)}, "two.zarr' has tiles of 48 x 64 pixels.*one.zarr' has tiles of 64"),
        ({"channels": ("488 nm",)}, "has the channels '488 nm', but.*'488 nm', '561 nm'"),
        ({"pixel_size_um": (5.0, 2.6, 2.6)}, "pixels of 2.6 x 2.6 micrometers"),
    ],
)
def test_images_that_cannot_share_a_flatfield(tmp_path, style, says):
    first = write_medium(tmp_path / "one.zarr", (2, 2))
    second = write_medium(tmp_path / "two.zarr", (2, 2), **style)
    with pytest.raises(errors.ParameterError, match=f"(?s)these cannot share one.*{says}"):
        estimate_flatfield([first, second], fov_list=[1])


def test_other_lists_that_name_no_images(two):
    with pytest.raises(errors.ParameterError, match="is named twice"):
        estimate_flatfield([two[0], two[0]], fov_list=[1])
    with pytest.raises(errors.ParameterError, match="names no image"):
        estimate_flatfield([])
    with pytest.raises(errors.TileNumberError, match="Tile 5 is outside.*tiles of .*one.zarr"):
        estimate_flatfield(two, fov_list=[5])
    with pytest.raises(errors.ParameterError, match="give output="):
        estimate_flatfield(two, fov_list=[1], tiff=True)


@pytest.mark.slow
def test_nothing_is_written_without_a_folder(two, tree, tmp_path):
    before = tree(tmp_path)
    models = estimate_flatfield(two[0], fov_list=[1, 4])
    assert tree(tmp_path) == before
    saved = estimate_flatfield(two[0], str(tmp_path / "m"), fov_list=[1, 4])
    for label, model in models.items():
        assert np.array_equal(model.profile.flatfield, saved[label].profile.flatfield)
        assert "images" not in model.facts


def test_the_command_takes_them_in_a_row(two, tmp_path, capsys):
    folder = str(tmp_path / "models")
    words = ["estimate", *two, "--fov-list", "1", "2", "--output", folder]
    assert cli.main([*words, "--dry-run"]) == 0
    out = capsys.readouterr().out
    assert "one.zarr" in out
    assert "two.zarr" in out
    assert not Path(folder).exists()
    assert cli.main([*words, "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert len(told["models"]["488 nm"]["images"]) == 2
    assert cli.main(["estimate", "--output", folder]) == 2
