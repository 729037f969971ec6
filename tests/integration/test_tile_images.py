"""The same acquisition in either layout of the microscope gives the same pixels."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from itertools import product
from math import ceil
from pathlib import Path

import numpy as np
import pytest
import zarr

from fractal_mesospim_shading import correct_flatfield, errors, import_mesospim
from fractal_mesospim_shading.images import target
from fractal_mesospim_shading.images.native import stack as native_stack
from fractal_mesospim_shading.images.native.collection import TileCollection
from fractal_mesospim_shading.images.native.positions import SignOptions
from tests.support import acquisition
from tests.support.acquisition import grid_stacks, stack_pixels, write_acquisition
from tests.support.acquisition_table import SyntheticSettings
from tests.support.tile_images import tile_group_name, write_tile_images

SETTINGS = SyntheticSettings(tile_shape=(20, 28), chunks=(4, 16, 16), levels=2)
LASERS = ("561 nm", "488 nm")
FORMS = [("0.4", None), ("0.5", None), ("0.5", (4, 32, 32))]
SIGNS = {"sign_x": -1, "sign_y": -1}

pytestmark = pytest.mark.usefixtures("two_threads")


def _pixels(path, *parts):
    return np.asarray(zarr.open_array(str(Path(path, *parts)), mode="r")[...])


def _flat(seed):
    y = np.linspace(-1, 1, 20)[:, None]
    x = np.linspace(-1, 1, 28)[None, :]
    flat = np.exp(-0.3 * (y**2 + (x - 0.3 * seed) ** 2)) * (1 + 0.1 * seed * x)
    return (flat / flat.mean()).astype(np.float32)


@pytest.fixture
def shaded(tmp_path):
    """Settings with a flat-field for each channel and side, and a folder of these models."""
    flats = {
        (laser, side): _flat(seed)
        for seed, (laser, side) in enumerate((n, s) for n in LASERS for s in ("Left", "Right"))
    }
    for (laser, side), flat in flats.items():
        folder = tmp_path / "models" / laser / side.lower()
        folder.mkdir(parents=True)
        np.savez(folder / "profiles.npz", flatfield=flat, darkfield=100.0)
    return replace(SETTINGS, flatfields=flats), str(tmp_path / "models")


def _table(settings):
    """Tiles of both channels, the first column lit from the left, the second from the right."""
    stacks = grid_stacks(2, 2, settings, lasers=LASERS, overlap_px=6)
    return [replace(s, shutter="Left" if s.tile < 2 else "Right") for s in stacks]


@pytest.mark.slow
@pytest.mark.parametrize(("version", "shards"), FORMS)
def test_import(tmp_path, shaded, monkeypatch, version, shards):
    settings, models = shaded
    # Nearly empty planes, from which models can be made.
    sample = acquisition.sample
    monkeypatch.setattr(acquisition, "sample", lambda *place: 60 + sample(*place) / 100)
    settings = replace(settings, version=version, shards=shards)
    images = {}
    for layout, write in (("old", write_acquisition), ("new", write_tile_images)):
        container = write(tmp_path / layout, "brain.ome.zarr", _table(settings), settings)
        for kind, options in (
            ("raw", {}),
            ("given", {"correct_flatfield": True, "models_folder": models}),
            ("made", {"correct_flatfield": True, "camera_offset": 100, "fov_list": [1, 3]}),
        ):
            folder = str(tmp_path / f"{layout}_{kind}")
            (result,) = import_mesospim(str(container), folder, **SIGNS, **options)
            images[layout, kind] = result
    for kind in ("raw", "given", "made"):
        old, new = (Path(images[layout, kind].image_url) for layout in ("old", "new"))
        np.testing.assert_array_equal(_pixels(new, "0"), _pixels(old, "0"))
        assert images["new", kind].models.keys() == images["old", kind].models.keys()
    assert len(images["new", "made"].models) == 4


@pytest.mark.parametrize(("version", "shards"), FORMS)
def test_container_to_container(tmp_path, shaded, version, shards):
    settings, models = shaded
    settings = replace(settings, version=version, shards=shards)
    stacks = _table(settings)
    results = []
    for layout, write in (("old", write_acquisition), ("new", write_tile_images)):
        container = write(tmp_path / layout, "brain.ome.zarr", stacks, settings)
        results.append(correct_flatfield(str(container), models_folder=models).image_url)
    old, new = results
    for stack in stacks:
        group, channel = tile_group_name(stack), LASERS.index(stack.laser)
        for level in ("0", "1"):
            expected = _pixels(old, stack.group_name, level)
            np.testing.assert_array_equal(_pixels(new, group, level)[0, channel], expected)
        raw = stack_pixels(stack, settings)
        exact = np.rint((raw - 100.0) / settings.flatfields[stack.laser, stack.shutter])
        assert np.abs(_pixels(new, group, "0")[0, channel] - exact).max() <= 1


@pytest.mark.slow
def test_the_result_is_laid_out_as_the_original(tmp_path, shaded):
    settings, models = shaded
    container = write_tile_images(tmp_path, "brain.ome.zarr", _table(settings), settings)
    before = {p: p.read_bytes() for p in tmp_path.rglob("*") if p.is_file()}
    url = correct_flatfield(str(container), models_folder=models).image_url
    assert all(path.read_bytes() == content for path, content in before.items())
    for group in {tile_group_name(stack) for stack in _table(settings)}:
        source = zarr.open_group(str(container / group), mode="r")
        result = zarr.open_group(f"{url}/{group}", mode="r")
        assert dict(result.attrs)["ome"]["multiscales"] == dict(source.attrs)["ome"]["multiscales"]
        for level in ("0", "1"):
            assert result[level].shape == source[level].shape
            assert result[level].chunks == source[level].chunks
            assert result[level].metadata.codecs == source[level].metadata.codecs
        for label in ("561", "488"):
            text = (tmp_path / f"{Path(url).name}_{group}_Ch{label}_meta.txt").read_text()
            assert text.splitlines()[0].endswith(f"\\{Path(url).name}\\{group}")
    signs = SignOptions(-1, -1)
    (old,), (new,) = (TileCollection.open(c, signs=signs).mosaics() for c in (container, url))
    assert (new.places, new.layout, new.shape) == (old.places, old.layout, old.shape)
    # What the result is imported to is what an import with correction makes.
    (later,) = import_mesospim(url, str(tmp_path / "later"), **SIGNS)
    (once,) = import_mesospim(
        str(container),
        str(tmp_path / "once"),
        correct_flatfield=True,
        models_folder=models,
        **SIGNS,
    )
    np.testing.assert_array_equal(_pixels(later.image_url, "0"), _pixels(once.image_url, "0"))
    assert later.types["flatfield_corrected"] is True


@pytest.mark.slow
def test_time_lapse_with_an_end_that_was_not_reached(tmp_path, shaded):
    settings, models = shaded
    points = [replace(settings, seed=seed) for seed in (1, 2)]
    unwritten = [(1, tile, laser) for tile in (2, 3) for laser in LASERS] + [(1, 1, LASERS[1])]
    stacks = _table(settings)
    container = write_tile_images(
        tmp_path / "new", "brain.ome.zarr", stacks, settings, times=points, unwritten=unwritten
    )
    given = {"correct_flatfield": True, "models_folder": models}
    (result,) = import_mesospim(str(container), str(tmp_path / "new_image"), **SIGNS, **given)
    image = _pixels(result.image_url, "0")
    assert image.shape == (2, 2, 6, 40, 56)
    url = correct_flatfield(str(container), models_folder=models).image_url
    for time, point in enumerate(points):
        taken = [s for s in stacks if (time, s.tile, s.laser) not in unwritten]
        own = write_acquisition(tmp_path / str(time), "brain.ome.zarr", taken, point)
        lone = correct_flatfield(str(own), models_folder=models).image_url
        for stack in stacks:
            group, channel = tile_group_name(stack), LASERS.index(stack.laser)
            array = zarr.open_array(f"{url}/{group}/0", mode="r")
            got = np.asarray(array)[time, channel] if time < array.shape[0] else np.zeros(1)
            if stack in taken:
                np.testing.assert_array_equal(got, _pixels(lone, stack.group_name, "0"))
            else:
                assert not got.any()
        if time == 0:
            folder = str(tmp_path / "old_image")
            (expected,) = import_mesospim(str(own), folder, **SIGNS, **given)
            np.testing.assert_array_equal(image[0], _pixels(expected.image_url, "0"))
    # Nothing is stored of what was never written.
    missing = Path(url) / tile_group_name(stacks[2]) / "0" / "c" / "1"
    assert [path.name for path in sorted(missing.iterdir())] == ["0"]
    texts = [path.name for path in (tmp_path / "new").glob("brain_flatfield_corr*_meta.txt")]
    assert sorted(name[:41] for name in texts)[:1] == ["brain_flatfield_corr.ome_Time000.zarr_Mag"]
    assert len(texts) == 11


@pytest.mark.parametrize("downward", [False, True])
def test_each_chunk_is_decoded_once(tmp_path, monkeypatch, downward):
    settings = replace(SETTINGS, shards=(4, 32, 32))
    stacks = _table(settings)
    if downward:
        stacks = [replace(s, z_start_um=s.z_end_um, z_end_um=s.z_start_um) for s in stacks]
    container = write_tile_images(tmp_path, "brain.ome.zarr", stacks, settings)
    decoded = Counter()
    read = native_stack.read_array

    def counted(array, where, box):
        ranges = (
            range(s.start // c, ceil(s.stop / c)) for s, c in zip(box, array.chunks, strict=True)
        )
        decoded.update((where, *index) for index in product(*ranges))
        return read(array, where, box)

    monkeypatch.setattr(native_stack, "read_array", counted)
    import_mesospim(str(container), str(tmp_path / "out"), **SIGNS)
    assert set(decoded.values()) == {1}
    # Of 4 tiles and 2 channels.
    assert len(decoded) == 8 * 2 * 2 * 2


def test_what_broke_off_goes_on(tmp_path, shaded, monkeypatch):
    settings, models = shaded
    container = write_tile_images(tmp_path, "brain.ome.zarr", _table(settings), settings)
    options = {"models_folder": models, "n_workers": 1}
    whole = correct_flatfield(str(container), output_folder=str(tmp_path / "whole"), **options)
    written = []
    write = target.TargetImage.write

    def failing(self, level, box, data):
        if len(written) == 5:
            raise errors.OutputWriteError("the disk is full")
        written.append((self.url, level, box))
        return write(self, level, box, data)

    folder = str(tmp_path / "broken")
    with monkeypatch.context() as patched:
        patched.setattr(target.TargetImage, "write", failing)
        with pytest.raises(errors.OutputWriteError, match="full"):
            correct_flatfield(str(container), output_folder=folder, **options)
    result = correct_flatfield(str(container), output_folder=folder, **options)
    for group in {tile_group_name(stack) for stack in _table(settings)}:
        for level in ("0", "1"):
            expected = _pixels(whole.image_url, group, level)
            np.testing.assert_array_equal(_pixels(result.image_url, group, level), expected)
    assert result.counts == whole.counts
