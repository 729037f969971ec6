"""What a 0 is: the tasks, the preview and the array functions agree, however pixels are stored."""

from __future__ import annotations

import json
import logging
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import zarr

from fractal_mesospim_shading import correct_background, correct_flatfield, import_mesospim
from fractal_mesospim_shading.core.background import METHODS, make_method
from fractal_mesospim_shading.core.background.arrays import correct_array
from fractal_mesospim_shading.engine import plan
from fractal_mesospim_shading.images.mosaic import MosaicImage
from fractal_mesospim_shading.jobs import background_parts
from fractal_mesospim_shading.synthetic.images import write_image
from fractal_mesospim_shading.views import preview
from fractal_mesospim_shading.views.preview import write_preview
from tests.support.acquisition import grid_stacks, write_acquisition
from tests.support.acquisition_table import SyntheticSettings

pytestmark = pytest.mark.slow

TILE = (72, 64)
LABELS = ("488 nm", "561 nm")


def camera(shape=(3, 72, 128), seed=0) -> np.ndarray:
    """As a camera gives it: two tiles, no 0."""
    rng = np.random.default_rng(seed)
    y, x = np.indices(shape[-2:])
    return np.rint(300 + y + 0.5 * x + rng.normal(0, 9, shape)).astype("uint16")


def spots(shape=(3, 72, 128)) -> np.ndarray:
    """Deconvolved: a few spots on a true 0, one in the first plane."""
    y, x = np.indices(shape[-2:])
    image = np.zeros(shape)
    for z in range(shape[0]):
        for k in range(4 * z + 1):
            at = (20 + 17 * k) % 60 + 5, (30 + 23 * k) % 110 + 9
            image[z] += 1000 * np.exp(-((y - at[0]) ** 2 + (x - at[1]) ** 2) / 18)
    return np.where(image > 30, image, 0).astype("uint16")


def with_zeros(image: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Margins, an empty plane of a tile and a lost block; and where there is no data."""
    image, absent = image.copy(), np.zeros(image.shape, bool)
    absent[:, :9, :64] = True  # of the first tile
    absent[:, :, 120:] = True  # of the second
    absent[1, :, 64:] = True
    image[absent] = 0
    image[2, 20:60, 70:110] = 0
    image[0, 40, 20] = 0
    return image, absent


def write(path: Path, array: np.ndarray, tile=TILE, **style: Any) -> Path:
    style.setdefault("axes", "czyx")
    style.setdefault("chunks", (2, 16, 32))
    channels = LABELS[: len(array)] if "c" in style["axes"] else None
    write_image(path, array, channels=channels, tile_shape=tile, **style)
    return path


def pixels_of(url: str | Path) -> np.ndarray:
    return np.asarray(MosaicImage.open(url).array(0)[...])


def mark_of(url: str | Path) -> dict[str, Any]:
    return json.loads((Path(url) / ".zattrs").read_text())["mesospim_shading"]


def tile_by_tile(array, method, **how) -> np.ndarray:
    parts = [array[..., :64], array[..., 64:]]
    return np.concatenate([correct_array(p, method, **how).image for p in parts], axis=-1)


@pytest.fixture(params=["whole tiles", "small blocks"])
def blocks(request, monkeypatch):
    """Blocks of whole tiles, and of one chunk each, which cut tiles."""
    if request.param == "small blocks":
        monkeypatch.setattr(background_parts, "BLOCK_BYTES", 1)
        monkeypatch.setattr(background_parts, "_MOST_BLOCK_BYTES", 1)
        monkeypatch.setattr(plan, "BLOCK_BYTES", 1)
    return request.param


PARAMETERS = {
    "tile_median": ({"tile_size": 16}, {"tile_size": 16}),
    "median": ({"radius": 9}, {"radius_px": 9}),
    "opening": ({"radius": 4}, {"radius_px": 4}),
    "rolling_ball": ({"radius": 11}, {"radius_px": 11}),
    "sliding_paraboloid": ({"radius": 8}, {"radius_px": 8}),
    "gaussian": ({"radius": 5}, {"radius_px": 5.0}),
    "difference_of_filters": (
        {"small_radius": 2, "big_radius": 6},
        {"small_radius_px": 2, "big_radius_px": 6},
    ),
    "constant": ({}, {}),
}


# --- All doors agree ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "zero_is"),
    [(name, "auto") for name in METHODS]
    + [(name, said) for name in ("tile_median", "gaussian") for said in ("data", "no_data")],
)
def test_task_and_arrays_agree(name, zero_is, tmp_path, blocks):
    image, absent = with_zeros(camera())
    array = np.stack([image, spots()])
    source = write(tmp_path / "a.zarr", array)
    options, parameters = PARAMETERS[name]
    result = correct_background(source, method={"method": name, **options}, zero_is=zero_is)
    method, found = make_method(name, **parameters), pixels_of(result.image_url)
    np.testing.assert_array_equal(found, tile_by_tile(array, method, zero_is=zero_is))
    counts = result.counts[LABELS[0]]
    wanted = {"auto": absent.sum(), "data": 0, "no_data": (image == 0).sum()}
    assert counts.no_data == wanted[zero_is]
    assert not found[0][absent].any() or zero_is == "data"
    if zero_is == "auto":
        assert (counts.zeros, counts.zero_blocks) == (40 * 40 + 1, 1)
        # Spots alone in a tile are no data with margins around them.
        assert result.counts[LABELS[1]].no_data == 64 * 72


@pytest.mark.parametrize("name", ["tile_median", "median", "constant"])
def test_light_of_spots_on_a_true_zero_stays(name, tmp_path):
    array = spots()[None]
    source = write(tmp_path / "a.zarr", array, None)
    options, _ = PARAMETERS[name]
    if name == "median":
        options = {"radius": 12}
    elif name == "tile_median":
        options = {"tile_size": 32}
    result = correct_background(source, method={"method": name, **options})
    assert pixels_of(result.image_url).sum() > 0.97 * array.sum()
    # As it was before: the background is found in the spots.
    result = correct_background(
        source, method={"method": name, **options}, zero_is="no_data", overwrite=True
    )
    assert pixels_of(result.image_url).sum() < 0.9 * array.sum()


def test_values_keep_their_order(tmp_path):
    array = np.array([[0, 1, 2, 3] * 16] * 64, np.uint16)[None, None]
    source = write(tmp_path / "a.zarr", array, None)
    result = correct_background(source, method="constant:100")
    np.testing.assert_array_equal(pixels_of(result.image_url), array - np.float32(100))


@pytest.mark.parametrize("zero_is", ["auto", "data", "no_data"])
def test_the_preview_agrees(zero_is, tmp_path, monkeypatch):
    drawn: dict[str, Any] = {}
    monkeypatch.setattr(
        preview, "background_preview", lambda image, methods, **_: drawn.update(methods) or b""
    )
    image, _ = with_zeros(camera())
    source = write(tmp_path / "a.zarr", image[None])
    texts = ["tile_median:16", "median:9", "gaussian:5", "opening:4"]
    for z in range(3):
        drawn.clear()
        output = str(tmp_path / "p.png")
        write_preview(str(source), output, methods=texts, tile=2, z=z, zero_is=zero_is)
        assert len(drawn) == len(texts)
        for (_, result), text in zip(drawn.values(), texts, strict=True):
            name = text.partition(":")[0]
            method = make_method(name, **PARAMETERS[name][1])
            wanted = correct_array(image[z, :, 64:], method, zero_is=zero_is).image
            np.testing.assert_array_equal(result, wanted)


def test_a_mask_and_a_light_background(tmp_path, blocks):
    image, absent = with_zeros(camera())
    cells = np.zeros(image.shape, "uint16")
    cells[:, 0:40, 30:80] = 3
    source = write(tmp_path / "a.zarr", image[None])
    labels = zarr.open_group(str(source / "labels"), mode="a", zarr_format=2)
    labels.attrs["labels"] = ["cells"]
    write_image(source / "labels" / "cells", cells, axes="zyx", chunks=(2, 20, 20))
    mask = {"kind": "label", "label_name": "cells"}
    result = correct_background(source, method="gaussian:5", mask=mask)
    parts = [np.s_[:, :, :64], np.s_[:, :, 64:]]
    gaussian = make_method("gaussian", radius_px=5.0)
    wanted = [correct_array(image[p], gaussian, mask=cells[p]).image for p in parts]
    np.testing.assert_array_equal(pixels_of(result.image_url)[0], np.concatenate(wanted, -1))

    result = correct_background(
        source,
        method={"method": "rolling_ball", "radius": 11},
        light_background=True,
        output_type="source",
        overwrite=True,
    )
    ball = make_method("rolling_ball", radius_px=11, light_background=True)
    found = pixels_of(result.image_url)[0]
    np.testing.assert_array_equal(found, tile_by_tile(image, ball, dtype="uint16"))
    assert not found[absent].any()


def test_across_tiles_what_is_no_data_is_told_by_tile(tmp_path, blocks):
    """A tile that was not taken, and one that the table does not know."""
    rng = np.random.default_rng(0)
    array = np.rint(300 + rng.normal(0, 9, (1, 2, 144, 128))).astype("uint16")
    array[0, :, :72, 64:] = 0
    array[0, 1, 72:, :64] = 0
    array[0, 0, 100:141, 70:111] = 0  # a value
    source = write(tmp_path / "a.zarr", array, missing=(3,))
    result = correct_background(source, method={"method": "gaussian", "radius": 5}, tiles="plane")
    method = make_method("gaussian", radius_px=5.0)
    for z, found in enumerate(pixels_of(result.image_url)[0]):
        plane, absent = array[0, z], array[0, z] == 0
        absent[72:, 64:] = False
        wanted = plane - method.background(plane, None, absent).background
        np.testing.assert_array_equal(found, np.where(absent, 0, wanted))
    assert result.counts[LABELS[0]].zero_blocks == 1


# --- How pixels are stored, and what is read ------------------------------------------------------


def test_a_chunk_that_is_not_there_is_one_of_zeros(tmp_path, tree, blocks):
    image, _ = with_zeros(camera())
    array = image[None]
    made = {}
    for name in ("absent", "zeros"):
        source = write(tmp_path / name / "a.zarr", array, chunks=(1, 16, 32))
        with zarr.config.set({"array.write_empty_chunks": name == "zeros"}):
            stored = zarr.open_array(str(source / "0"), mode="r+")
            stored[...] = array
        made[name] = tree(source)
        for task in (correct_background, correct_flatfield):
            more = {"camera_offset": 0, "models_folder": str(_flat_models(tmp_path))}
            flat = task is correct_flatfield
            task(source, **({**more, "report": False} if flat else {"method": "median:5"}))
    assert len(made["zeros"]) > len(made["absent"])
    for result in ("a_background_corr.zarr", "a_flatfield_corr.zarr"):
        one, other = (tree(tmp_path / name / result) for name in made)
        assert one == other
    source = write(tmp_path / "seven" / "a.zarr", array, fill_value=7)
    result = correct_background(source, method="median:5")
    np.testing.assert_array_equal(
        pixels_of(result.image_url), pixels_of(tmp_path / "absent" / "a_background_corr.zarr")
    )


def _flat_models(folder: Path, tile=TILE, labels=LABELS[:1]) -> Path:
    x = np.linspace(-1, 1, tile[1])
    for label in labels:
        (folder / "models" / label).mkdir(parents=True, exist_ok=True)
        flat = np.ones(tile) * (1.2 - 0.4 * x**2)
        np.savez(folder / "models" / label / "profiles.npz", flatfield=flat / flat.mean())
    return folder / "models"


@pytest.fixture
def reads(monkeypatch):
    """Boxes of level 0 that are read."""
    seen: list[Any] = []
    read = MosaicImage.read

    def counted(image, level, box):
        if level == 0:
            seen.append(box)
        return read(image, level, box)

    monkeypatch.setattr(MosaicImage, "read", counted)
    return seen


@pytest.mark.parametrize("task", ["flat-field", "background"])
def test_images_without_zeros_are_read_once(task, tmp_path, reads, monkeypatch):
    for module, name in ((background_parts, "BLOCK_BYTES"), (plan, "BLOCK_BYTES")):
        monkeypatch.setattr(module, name, 1)
    monkeypatch.setattr(background_parts, "_MOST_BLOCK_BYTES", 1)
    array = camera()[None]
    source = write(tmp_path / "a.zarr", array, None)
    models = str(_flat_models(tmp_path, (72, 128)))

    def run():
        reads.clear()
        if task == "flat-field":
            return correct_flatfield(
                source, models_folder=models, camera_offset=0, overwrite=True, report=False
            )
        return correct_background(
            source, method={"method": "constant", "value": 90}, overwrite=True, report=False
        )

    def pixels_read():
        return sum(int(np.prod([s.stop - s.start for s in box])) for box in reads)

    run()
    assert pixels_read() == array.size
    # A 0 in one block: its tile is looked at, in the planes of the same chunks, and once.
    array[0, 1, 30, 3] = 0
    shutil.rmtree(source)
    write(source, array, None)
    run()
    assert pixels_read() == array.size + 2 * 72 * 128


# --- The flat-field -------------------------------------------------------------------------------


def test_flatfield_without_an_offset(tmp_path, blocks, caplog):
    image, absent = with_zeros(camera())
    array = np.stack([image, spots()])
    source = write(tmp_path / "a.zarr", array)
    models = _flat_models(tmp_path, labels=LABELS)
    flat = np.load(models / LABELS[0] / "profiles.npz")["flatfield"]
    exact = array / np.tile(flat, (1, 2)) + 20
    empty = np.zeros(image.shape, bool)
    empty[0, :, 64:] = not array[1, 0, :, 64:].any()
    assert empty.any()
    wholly = {"auto": [absent, empty], "data": [absent & False] * 2, "no_data": array == 0}
    for zero_is, without in wholly.items():
        with caplog.at_level(logging.INFO):
            caplog.clear()
            result = correct_flatfield(
                source,
                models_folder=str(models),
                camera_offset=0,
                output_offset=20,
                zero_is=zero_is,
                overwrite=True,
                report=False,
            )
        found = pixels_of(result.image_url)
        without = np.stack(without)
        assert not found[without].any()
        np.testing.assert_allclose(found[~without], exact[~without], atol=0.51)
        for channel, label in enumerate(LABELS):
            counts = result.counts[label]
            assert counts.no_data == without[channel].sum()
            assert counts.pixels == image.size
            assert counts.clipped_low == counts.clipped_high == 0
            auto = zero_is == "auto"
            values = ((array == 0) & ~without)[channel].sum()
            assert counts.zeros == (values if auto else 0)
        assert mark_of(result.image_url)["no_data"] == {
            label: bool(own.any()) for label, own in zip(LABELS, without, strict=True)
        }
        told = "1 block of more than 32 x 32 zeros" in caplog.text
        assert told == (zero_is == "auto")
        assert not [r for r in caplog.records if r.levelno >= logging.WARNING]
        assert "warning" not in caplog.text.lower()


def test_a_shift_below_zero_is_not_counted_where_there_is_no_data(tmp_path, blocks):
    image, absent = with_zeros(camera())
    source = write(tmp_path / "a.zarr", image[None])
    result = correct_flatfield(
        source,
        models_folder=str(_flat_models(tmp_path)),
        camera_offset=0,
        output_offset=-10,
        report=False,
    )
    counts = result.counts[LABELS[0]]
    assert counts.no_data == absent.sum()
    assert counts.clipped_low == (image == 0).sum() - absent.sum()


def test_under_an_offset_every_zero_is_no_data(tmp_path):
    image, _ = with_zeros(camera())
    models = str(_flat_models(tmp_path))
    given = {"models_folder": models, "camera_offset": 100, "output_offset": 7, "report": False}
    for fill in (0, 7):
        source = write(tmp_path / f"{fill}.zarr", image[None], fill_value=fill)
        found = {}
        for zero_is in ("auto", "no_data", "data"):
            result = correct_flatfield(source, zero_is=zero_is, overwrite=True, **given)
            found[zero_is] = pixels_of(result.image_url)[0], result.counts[LABELS[0]]
        for zero_is in ("auto", "no_data"):
            pixels, counts = found[zero_is]
            np.testing.assert_array_equal(pixels == 0, image == 0)
            assert (counts.no_data, counts.zeros) == ((image == 0).sum(), 0)
        pixels, counts = found["data"]
        assert counts.no_data == 0 and counts.clipped_low == (image == 0).sum()


def test_estimates_leave_the_same_zeros_out(tmp_path):
    """Empty planes and a margin make no difference to the flat-field; single zeros are values."""
    rng = np.random.default_rng(0)
    x = np.linspace(-1, 1, 128)
    flat = np.ones((128, 1)) * (1.2 - 0.4 * x**2)
    flat /= flat.mean()
    full = rng.poisson(200 * flat, (20, *flat.shape)).astype("uint16")
    holes = full.copy()
    holes[:6] = 0
    holes[:, :13] = 0
    errors = {}
    for name, array in (("full", full), ("holes", holes)):
        source = write(tmp_path / f"{name}.zarr", array[None], None)
        for zero_is in ("auto", "no_data", "data")[: 3 if name == "full" else 2]:
            result = correct_flatfield(
                source,
                fov_list=[1],
                n_zplanes=20,
                camera_offset=0,
                zero_is=zero_is,
                overwrite=True,
                report=False,
            )
            model = result.models[LABELS[0]].profile.flatfield[20:]
            ratio = model / flat[20:]
            errors[name, zero_is] = float(np.std(ratio / ratio.mean()))
    assert len(errors) == 5 and max(errors.values()) < 0.01


# --- A result of the flat-field, given to the background ------------------------------------------


def medium(shape=(3, 72, 128)) -> np.ndarray:
    """Clear medium just above an offset of 100, so that noise is clipped, and some sample."""
    rng = np.random.default_rng(0)
    image = 103 + rng.normal(0, 4, shape)
    image[:, 30:50, 20:40] += 300
    return np.rint(image).astype("uint16")


def test_clipped_pixels_are_values(tmp_path, caplog, blocks, monkeypatch):
    array = medium()[None]
    array[0, 2] = 95  # a plane that is clipped throughout
    source = write(tmp_path / "a.zarr", array)
    models = str(_flat_models(tmp_path))
    flat = correct_flatfield(source, models_folder=models, camera_offset=100, report=False)
    image = pixels_of(flat.image_url)[0]
    assert 0.1 < (image[:2] == 0).mean() < 0.4 and not image[2].any()
    assert mark_of(flat.image_url)["no_data"] == {LABELS[0]: False}
    with caplog.at_level(logging.INFO):
        result = correct_background(flat.image_url, method="median:9", output_offset=5)
    found = pixels_of(result.image_url)[0]
    method = make_method("median", radius_px=9)
    wanted = tile_by_tile(image, method, zero_is="data") + 5
    np.testing.assert_array_equal(found, wanted)
    np.testing.assert_array_equal(found, tile_by_tile(image, method, holds_no_data=False) + 5)
    assert f"Channel {LABELS[0]}: every 0 is a value" in caplog.text
    # What a person says goes before.
    result = correct_background(
        flat.image_url, method="median:9", zero_is="no_data", overwrite=True
    )
    wanted = tile_by_tile(image, method, zero_is="no_data")
    np.testing.assert_array_equal(pixels_of(result.image_url)[0], wanted)

    drawn: dict[str, Any] = {}
    monkeypatch.setattr(
        preview, "background_preview", lambda image, methods, **_: drawn.update(methods) or b""
    )
    write_preview(flat.image_url, str(tmp_path / "p.png"), methods=["median:9"], tile=1, z=1)
    ((_, shown),) = drawn.values()
    np.testing.assert_array_equal(shown, found[1, :, :64] - 5)


def test_margins_of_a_result_that_holds_no_data(tmp_path, caplog, blocks):
    """Noise around 0 is clipped right beside the margin, so that pixels alone cannot tell."""
    array, absent = medium()[None], np.zeros((1, 3, 72, 128), bool)
    absent[:, :, :, 100:] = absent[:, 1, :, :64] = True
    array[absent] = 0
    source = write(tmp_path / "a.zarr", array)
    models = str(_flat_models(tmp_path))
    flat = correct_flatfield(source, models_folder=models, camera_offset=100, report=False)
    assert mark_of(flat.image_url)["no_data"] == {LABELS[0]: True}
    image = pixels_of(flat.image_url)
    assert (image[~absent] == 0).mean() > 0.1
    with caplog.at_level(logging.INFO):
        result = correct_background(flat.image_url, method="median:9", output_offset=5)
    found = pixels_of(result.image_url)
    method = make_method("median", radius_px=9)
    for part in (np.s_[..., :64], np.s_[..., 64:]):
        for plane, without, result_ in zip(
            image[part][0], absent[part][0], found[part][0], strict=True
        ):
            wanted = plane - method.background(plane, None, without).background + 5
            np.testing.assert_array_equal(result_, np.where(without, 0, wanted))
    assert result.counts[LABELS[0]].no_data == absent.sum()
    assert "planes and margins of 0 are no data" in caplog.text
    # A second background is told as well.
    assert mark_of(result.image_url)["no_data"] == {LABELS[0]: True}


# --- Acquisitions ---------------------------------------------------------------------------------


@pytest.fixture
def acquisition(tmp_path):
    """Two tiles without an offset; planes and a margin of the first were lost."""
    settings = SyntheticSettings(tile_shape=(40, 48), chunks=(4, 16, 16), levels=1)
    settings = replace(settings, version="0.4")
    stacks = grid_stacks(1, 2, settings, lasers=LABELS[:1])
    path = write_acquisition(tmp_path / "data", "brain.ome.zarr", stacks, settings)
    groups = sorted(p.name for p in Path(path).iterdir() if (p / "0").is_dir())
    stored = zarr.open_array(str(Path(path) / groups[0] / "0"), mode="r+")
    pixels = np.asarray(stored[...])
    pixels[:4], pixels[:, :7], pixels[5, 20, 20] = 0, 0, 0
    stored[...] = pixels
    return path, groups, settings


def test_container_and_import_without_an_offset(acquisition, tmp_path, blocks):
    path, groups, settings = acquisition
    models = str(_flat_models(tmp_path, settings.tile_shape))
    given = {"models_folder": models, "camera_offset": 0, "output_offset": 9}
    result = correct_flatfield(path, **given)
    raw = np.asarray(zarr.open_array(str(Path(path) / groups[0] / "0"), mode="r")[...])
    found = np.asarray(zarr.open_array(str(Path(result.image_url) / groups[0] / "0"))[...])
    absent = np.zeros(raw.shape, bool)
    absent[:4] = absent[:, :7] = True
    assert not found[absent].any()
    assert found[5, 20, 20] == 9 and found[~absent].all()
    label = next(iter(result.counts))
    assert (result.counts[label].no_data, result.counts[label].zeros) == (absent.sum(), 1)
    (image,) = import_mesospim([path], str(tmp_path / "out"), correct_flatfield=True, **given)
    imported = pixels_of(image.image_url)[0]
    first = imported[:, :, :48] if not imported[0, 20, 20] else imported[:, :, 48:]
    np.testing.assert_array_equal(np.sort(first, axis=None), np.sort(found, axis=None))
    assert mark_of(image.image_url)["no_data"] == {LABELS[0]: True}
    # The copy of the corrected container says the same; that of the original nothing.
    (copy,) = import_mesospim([result.image_url], str(tmp_path / "copy"))
    assert mark_of(copy.image_url)["no_data"] == {LABELS[0]: True}
    (plain,) = import_mesospim([path], str(tmp_path / "plain"))
    assert "no_data" not in mark_of(plain.image_url)
