"""A mosaic in, a corrected image out, compared with the forward formula in double precision."""

from __future__ import annotations

import json
from itertools import product
from math import ceil

import numpy as np
import pytest
import zarr

import fractal_mesospim_shading
from fractal_mesospim_shading.images import mosaic, target
from fractal_mesospim_shading.images.mosaic import MosaicImage

LABELS = ("488 nm", "561 nm")


def correct_flatfield(zarr_url, **arguments):
    """Without the report, which reads a few planes of its own and has tests of its own."""
    return fractal_mesospim_shading.correct_flatfield(zarr_url, **{"report": False, **arguments})


def _levels(url):
    """The arrays of the pyramid as plain numpy, read by zarr's own pipeline."""
    group = zarr.open_group(str(url), mode="r", use_consolidated=False)
    content = dict(group.attrs)
    content = content.get("ome", content)
    return [np.asarray(group[d["path"]]) for d in content["multiscales"][0]["datasets"]]


def _attributes(url):
    return dict(zarr.open_group(str(url), mode="r", use_consolidated=False).attrs)


def _exact(raw, axes, flats, dark, tile_shape, missing=()):
    """The formula in float64, tile by tile; NaN outside all tiles and where there is no data."""
    result = np.full(raw.shape, np.nan)
    height, width = raw.shape[-2:]
    tile_y, tile_x = tile_shape
    rows = height // tile_y
    by_channel = raw if "c" in axes else raw[None]
    out = result if "c" in axes else result[None]
    if axes.startswith("tc"):
        by_channel, out = np.moveaxis(by_channel, 0, 1), np.moveaxis(out, 0, 1)
    for channel, (row, column) in product(
        range(len(by_channel)), product(range(rows), range(width // tile_x))
    ):
        if column * rows + row + 1 in missing:
            continue
        box = np.s_[..., row * tile_y : (row + 1) * tile_y, column * tile_x : (column + 1) * tile_x]
        flat = flats[channel] / flats[channel].mean()
        value = (by_channel[channel][box].astype(float) - dark) / flat
        no_data = by_channel[channel][box] == 0
        out[channel][box] = np.where(no_data, np.nan, value)
    return result


def _check_against(got, exact, raw, dtype):
    """Everything the issue says of a corrected pixel."""
    known = np.isfinite(exact)
    assert got.dtype.newbyteorder("=") == np.dtype(dtype)
    assert (got[raw == 0] == 0).all()
    outside = ~known & (raw != 0)
    np.testing.assert_array_equal(got[outside], raw[outside])
    if dtype == "float32":
        np.testing.assert_allclose(got[known], exact[known], rtol=1e-5, atol=1e-3)
        return
    top = np.iinfo(dtype).max
    expected = np.clip(np.rint(exact[known]), 0, top)
    assert np.abs(got[known].astype(float) - expected).max() <= 1
    inside = (exact[known] >= 0) & (exact[known] <= top)
    assert abs((got[known][inside].astype(float) - exact[known][inside]).mean()) < 0.05


def _check_pyramid(levels, factors, dtype):
    for above, level, factor in zip(levels[:-1], levels[1:], factors, strict=True):
        full = (1,) * (level.ndim - 3) + tuple(factor)[-min(3, level.ndim) :]
        total, number = above.astype(float), np.ones(above.shape)
        for axis, f in enumerate(full):
            starts = np.arange(0, above.shape[axis], f)
            total = np.add.reduceat(total, starts, axis)
            number = np.add.reduceat(number, starts, axis)
        mean = (total / number)[tuple(slice(n) for n in level.shape)]
        if dtype == "float32":
            np.testing.assert_allclose(level, mean, rtol=1e-5)
        else:
            assert np.abs(level - mean).max() <= 0.5


VARIANTS = {
    "0.4": {},
    "0.4 dots": {"separator": "."},
    "0.4 big-endian": {"byte_order": ">"},
    "0.4 column-major": {"memory_order": "F"},
    "0.4 gzip": {"codec": "gzip"},
    "0.4 zstd": {"codec": "zstd"},
    "0.4 bare": {"codec": None},
    "0.5": {"ngff_version": "0.5"},
    "0.5 sharded": {"ngff_version": "0.5", "shards": (4, 32, 64)},
    "0.5 zstd big-endian": {"ngff_version": "0.5", "codec": "zstd", "byte_order": ">"},
    "0.5 sharded gzip": {"ngff_version": "0.5", "codec": "gzip", "shards": (2, 16, 64)},
    "uint8": {"dtype": "uint8"},
    "float32": {"dtype": "float32"},
    "float32 sharded": {"dtype": "float32", "ngff_version": "0.5", "shards": (4, 32, 64)},
    "z pyramid": {"factors": ((2, 2, 2), (2, 2, 2))},
    "one level": {"factors": ()},
    "factor three": {"factors": ((1, 3, 3), (1, 2, 2))},
    "rounded up": {"shape": (2, 3, 94, 74), "tile_shape": (47, 37), "ragged": "ceil"},
    "rounded down": {"shape": (2, 3, 94, 74), "tile_shape": (47, 37), "ragged": "floor"},
    "odd chunks": {"chunks": (3, 17, 23), "factors": ((2, 2, 2), (1, 2, 2))},
    "missing tile": {"missing": (3,)},
    "one row": {"shape": (2, 3, 48, 120)},
    "one column": {"shape": (2, 3, 144, 40)},
    "one tile": {"shape": (2, 3, 48, 40)},
    "no table": {"shape": (2, 3, 48, 40), "tile_shape": None},
    "zyx": {"axes": "zyx", "shape": (4, 96, 80)},
    "yx": {"axes": "yx", "shape": (96, 80)},
    "tczyx": {"axes": "tczyx", "shape": (2, 2, 3, 96, 80)},
    "tzyx": {"axes": "tzyx", "shape": (3, 2, 96, 80)},
    "several channels in a chunk": {"chunks": (2, 2, 32, 32)},
    "everything in one chunk": {"chunks": (2, 4, 96, 80)},
    "fill value": {"fill_value": 7},
}


@pytest.mark.slow
@pytest.mark.parametrize("style", VARIANTS.values(), ids=VARIANTS.keys())
def test_every_kind_of_image(style, make_mosaic, make_models, flatfield, many_blocks):
    style = dict(style)
    axes, dtype = style.get("axes", "czyx"), style.get("dtype", "uint16")
    tile_shape = style.get("tile_shape", (48, 40)) or (48, 40)
    source = make_mosaic(**style)
    models = make_models(tile_shape, LABELS if "c" in axes else LABELS[:1])
    dark = 4.0 if dtype == "uint8" else 100.0
    outside = "keep" if "missing" in style else "refuse"
    result = correct_flatfield(
        source, models_folder=str(models), camera_offset=dark, outside_tiles=outside
    )
    raw, got = _levels(source), _levels(result.image_url)
    flats = [flatfield(tile_shape, i) for i in range(2)]
    exact = _exact(raw[0], axes, flats, dark, tile_shape, style.get("missing", ()))
    _check_against(got[0], exact, raw[0], dtype)
    assert [level.shape for level in got] == [level.shape for level in raw]
    _check_pyramid(got, style.get("factors", ((1, 2, 2), (1, 2, 2))), dtype)
    counts = [result.counts[c.label] for c in MosaicImage.open(source).channels]
    assert sum(found.pixels for found in counts) == raw[0].size
    if dtype != "float32":
        top = np.iinfo(dtype).max
        assert sum(found.saturated for found in counts) == np.count_nonzero(raw[0] == top)
        low = np.count_nonzero(exact < -0.51)
        high = np.count_nonzero(exact > top + 0.51)
        assert sum(found.clipped_low for found in counts) == pytest.approx(low, abs=2)
        assert sum(found.clipped_high for found in counts) == pytest.approx(high, abs=2)


SAME = ("0.4", "0.4 dots", "0.4 big-endian", "0.4 column-major", "0.5", "odd chunks", "0.4 gzip")


@pytest.mark.slow
@pytest.mark.parametrize("style", [VARIANTS[name] for name in SAME], ids=SAME)
def test_arrays_are_stored_as_in_the_source(style, make_mosaic, make_models):
    source = make_mosaic(**style)
    result = correct_flatfield(source, models_folder=str(make_models()), camera_offset=100)
    for before, after in zip(
        MosaicImage.open(source).levels, MosaicImage.open(result.image_url).levels, strict=True
    ):
        assert after == before
    name = "zarr.json" if style.get("ngff_version") == "0.5" else ".zarray"
    for level in ("0", "1", "2"):
        documents = [
            json.loads(((folder / level) / name).read_text())
            for folder in (source, source.with_name("brain_flatfield_corr.zarr"))
        ]
        assert documents[0] == documents[1]


def test_shards_are_our_own_multiples_of_the_chunk(make_mosaic, make_models):
    source = make_mosaic(ngff_version="0.5", shards=(2, 16, 64))
    result = correct_flatfield(source, models_folder=str(make_models()), camera_offset=100)
    for before, after in zip(
        MosaicImage.open(source).levels, MosaicImage.open(result.image_url).levels, strict=True
    ):
        assert after.chunks == before.chunks
        assert after.shards is not None
        assert all(s % c == 0 for s, c in zip(after.shards, after.chunks, strict=True))
        assert all(s >= n or s == 1 for s, n in zip(after.shards, after.shape, strict=True))


@pytest.mark.slow
@pytest.mark.parametrize(("before", "after"), [("0.4", "0.5"), ("0.5", "0.4")])
def test_the_other_version(before, after, make_mosaic, make_models):
    shards = {"shards": (4, 32, 64)} if before == "0.5" else {}
    source = make_mosaic(ngff_version=before, **shards)
    models = str(make_models())
    same = correct_flatfield(source, models_folder=models, camera_offset=100)
    other = correct_flatfield(
        source,
        models_folder=models,
        camera_offset=100,
        ngff_version=after,
        output_image_name="{image_name}_other",
    )
    for one, two in zip(_levels(same.image_url), _levels(other.image_url), strict=True):
        np.testing.assert_array_equal(one, two)
    assert MosaicImage.open(other.image_url).metadata.version == after
    found = MosaicImage.open(other.image_url)
    assert found.layout.tiles == MosaicImage.open(source).layout.tiles
    assert found.channels == MosaicImage.open(source).channels


def test_shards_as_asked_for(make_mosaic, make_models):
    source = make_mosaic()
    result = correct_flatfield(
        source,
        models_folder=str(make_models()),
        camera_offset=100,
        ngff_version="0.5",
        output_shards=[4, 64, 64],
    )
    levels = MosaicImage.open(result.image_url).levels
    assert levels[0].shards == (1, 4, 64, 64)
    assert levels[0].chunks == (1, 2, 16, 32)
    # Chunks of a coarse level are no larger than the level.
    assert (levels[2].shards, levels[2].chunks) == ((1, 4, 32, 20), (1, 2, 16, 20))


@pytest.mark.parametrize("style", [{}, {"ngff_version": "0.5"}], ids=["0.4", "0.5"])
def test_metadata_are_kept_and_completed(style, make_mosaic, make_models):
    source = make_mosaic(attributes={"acquisition": {"operator": "N. N."}}, **style)
    result = correct_flatfield(
        source, models_folder=str(make_models()), camera_offset=100, seed=3, output_offset=10
    )
    before, after = _attributes(source), _attributes(result.image_url)
    mark = after.pop("mesospim_shading")
    assert mark["complete"] is True
    assert mark["parameters"]["seed"] == 3
    assert mark["version"]
    assert mark["models"]["488 nm"]["offset"] == 100
    assert mark["pixels"]["488 nm"]["pixels"] == 4 * 96 * 80
    for content in (before, after):
        for channel in content.get("ome", content)["omero"]["channels"]:
            channel["window_seen"] = channel.pop("window")
    windows = [c.pop("window_seen") for c in after.get("ome", after)["omero"]["channels"]]
    for channel in before.get("ome", before)["omero"]["channels"]:
        channel.pop("window_seen")
    assert after == before
    level = _levels(result.image_url)[0]
    for channel, window in zip(level, windows, strict=True):
        values = np.sort(channel[channel > 0])
        assert window["min"] == 0
        assert window["max"] == 65535
        assert window["start"] == pytest.approx(np.quantile(values, 0.001), rel=0.02)
        assert window["end"] == pytest.approx(np.quantile(values, 0.999), rel=0.02)


def test_a_second_correction_keeps_the_history(make_mosaic, make_models):
    models = str(make_models())
    first = correct_flatfield(make_mosaic(), models_folder=models, camera_offset=100)
    second = correct_flatfield(first.image_url, models_folder=models, camera_offset=0)
    mark = _attributes(second.image_url)["mesospim_shading"]
    assert [entry["parameters"]["camera_offset"] for entry in mark["history"]] == [100]
    assert mark["parameters"]["camera_offset"] == 0
    assert second.image_url.endswith("brain_flatfield_corr_flatfield_corr.zarr")


def test_tables_and_labels_come_along(make_mosaic, make_models, tree):
    source = make_mosaic()
    labels = zarr.open_group(str(source), mode="r+").create_group("labels/cells")
    labels.create_array("0", shape=(4, 96, 80), chunks=(2, 48, 40), dtype="uint32")[...] = 5
    result = correct_flatfield(source, models_folder=str(make_models()), camera_offset=100)
    before, after = tree(source), tree(source.with_name("brain_flatfield_corr.zarr"))
    assert str(source.with_name("brain_flatfield_corr.zarr")) == result.image_url
    for name, content in before.items():
        if name.startswith(("tables/", "labels/")):
            assert after[name] == content
    assert {name.split("/")[0] for name in after} == {name.split("/")[0] for name in before}


def test_empty_chunks_stay_unwritten(make_mosaic, make_models, pixels):
    array = pixels((1, 4, 96, 80))
    array[:, :2] = 0
    source = make_mosaic(array=array, channels=LABELS[:1])
    result = correct_flatfield(
        source, models_folder=str(make_models(labels=LABELS[:1])), camera_offset=100
    )
    for level in "012":
        folder = source.with_name(result.image_url.rpartition("/")[2]) / level / "0"
        assert sorted(path.name for path in folder.iterdir()) == ["1"]


class Counting:
    """Counts at our own seam which units are asked for."""

    def __init__(self, monkeypatch):
        self.reads, self.writes = [], []
        read, write = mosaic.MosaicImage.read, target.TargetImage.write

        def counted_read(image, level, box):
            self.reads += self._units(level, box, image.read_units(level))
            return read(image, level, box)

        def counted_write(image, level, box, data):
            unit = image.levels[level].unit
            shape = image.levels[level].shape
            for s, u, n in zip(box, unit, shape, strict=True):
                assert s.start % u == 0, "a write unit with two writers"
                assert s.stop % u == 0 or s.stop == n, "a write unit with two writers"
            self.writes += self._units(level, box, unit)
            return write(image, level, box, data)

        def no_read(*_):
            raise AssertionError("what was written is read back")

        monkeypatch.setattr(mosaic.MosaicImage, "read", counted_read)
        monkeypatch.setattr(target.TargetImage, "write", counted_write)
        monkeypatch.setattr(target.TargetImage, "read", no_read)

    @staticmethod
    def _units(level, box, unit):
        ranges = [range(s.start // u, ceil(s.stop / u)) for s, u in zip(box, unit, strict=True)]
        return [(level, *index) for index in product(*ranges)]


@pytest.mark.slow
@pytest.mark.parametrize(
    "style",
    [
        {},
        {"byte_order": ">"},
        {"ngff_version": "0.5", "shards": (4, 32, 64)},
        {"chunks": (3, 17, 23), "factors": ((2, 2, 2), (1, 2, 2))},
        {"ragged": "ceil", "shape": (2, 3, 94, 74), "tile_shape": (47, 37)},
    ],
    ids=["rust", "python", "shards", "odd", "ragged"],
)
@pytest.mark.parametrize("grouped", [False, True])
def test_each_chunk_is_read_once_and_each_unit_written_once(
    style, grouped, make_mosaic, make_models, monkeypatch, request
):
    if not grouped:
        request.getfixturevalue("many_blocks")
    source = make_mosaic(**style)
    models = make_models(style.get("tile_shape", (48, 40)))
    counting = Counting(monkeypatch)
    result = correct_flatfield(source, models_folder=str(models), camera_offset=100)
    monkeypatch.undo()
    image, made = MosaicImage.open(source), MosaicImage.open(result.image_url)

    def every(level, shape, unit):
        counts = (range(ceil(n / u)) for n, u in zip(shape, unit, strict=True))
        return [(level, *index) for index in product(*counts)]

    first = image.levels[0]
    assert sorted(counting.reads) == every(0, first.shape, first.chunks)
    written = []
    for number, level in enumerate(made.levels):
        written += every(number, level.shape, level.shards or level.chunks)
    assert sorted(counting.writes) == sorted(written)


@pytest.mark.slow
def test_results_do_not_depend_on_how_the_work_is_cut(
    make_mosaic, make_models, tree, tmp_path, monkeypatch
):
    from fractal_mesospim_shading.engine import plan

    source, models = make_mosaic(factors=((2, 2, 2), (1, 2, 2))), str(make_models())
    trees = []
    for number, (workers, size) in enumerate([(1, 1), (2, 1), (4, 20_000), (3, 2**25)]):
        monkeypatch.setattr(plan, "BLOCK_BYTES", size)
        folder = tmp_path / f"out{number}"
        result = correct_flatfield(
            source,
            models_folder=models,
            camera_offset=100,
            n_workers=workers,
            output_folder=str(folder),
        )
        assert result.image_url == str(folder / "brain_flatfield_corr.zarr")
        trees.append(tree(folder))
    assert all(other == trees[0] for other in trees)


@pytest.mark.slow
def test_two_jobs_in_threads_of_one_process(make_mosaic, make_models, tree, many_blocks, tmp_path):
    """Each keeps its own journal: blocks of one never count as blocks of the other."""
    import threading

    models = str(make_models())
    sources = [make_mosaic(f"image{i}.zarr") for i in range(2)]
    expected = correct_flatfield(
        sources[0],
        models_folder=models,
        camera_offset=100,
        output_folder=str(tmp_path / "alone"),
        output_image_name="out",
    )
    errors = []

    def run(number):
        try:
            correct_flatfield(
                sources[number],
                models_folder=models,
                camera_offset=100,
                output_folder=str(tmp_path / f"both{number}"),
                output_image_name="out",
            )
        except Exception as error:
            errors.append(error)

    threads = [threading.Thread(target=run, args=(number,)) for number in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert errors == []
    alone = tree(tmp_path / "alone")
    assert expected.image_url.endswith("alone/out.zarr")
    assert tree(tmp_path / "both0") == alone
    assert tree(tmp_path / "both1") == alone


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "template", "expected"),
    [
        ("a.zarr", "{image_name}_flatfield_corr", "a_flatfield_corr.zarr"),
        ("a.ome.zarr", "{image_name}_flatfield_corr", "a_flatfield_corr.ome.zarr"),
        ("0", "{image_name}_flatfield_corr", "0_flatfield_corr"),
        ("a.zarr", "other.zarr", "other.zarr"),
        ("a.b.zarr", "x_{image_name}", "x_a.b.zarr"),
    ],
)
def test_name_of_the_result(name, template, expected, make_mosaic, make_models, tmp_path):
    source = make_mosaic(name, shape=(2, 2, 48, 40))
    result = correct_flatfield(
        source, models_folder=str(make_models()), camera_offset=0, output_image_name=template
    )
    assert result.image_url == str(tmp_path / expected)
    assert MosaicImage.open(result.image_url).finished


def test_overwrite_replaces_only_at_the_end(make_mosaic, make_models, tree, tmp_path):
    source, models = make_mosaic(), str(make_models())
    first = correct_flatfield(source, models_folder=models, camera_offset=100)
    before = tree(tmp_path)
    second = correct_flatfield(source, models_folder=models, camera_offset=50, overwrite=True)
    assert second.image_url == first.image_url
    after = tree(tmp_path)
    assert after.keys() == before.keys()
    assert after != before
    assert {n: c for n, c in after.items() if n.startswith("brain.zarr")} == {
        n: c for n, c in before.items() if n.startswith("brain.zarr")
    }


def test_overwrite_input_takes_the_place_of_the_source(make_mosaic, make_models, tree, tmp_path):
    models = str(make_models())
    source = make_mosaic()
    apart = correct_flatfield(source, models_folder=models, camera_offset=100)
    expected = tree(tmp_path / "brain_flatfield_corr.zarr")
    result = correct_flatfield(
        source,
        models_folder=models,
        camera_offset=100,
        overwrite_input=True,
        output_image_name="{image_name}_another",
    )
    assert result.image_url == str(source)
    assert tree(source) == expected
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "brain.zarr",
        "brain_flatfield_corr.zarr",
        "models",
    ]
    assert apart.image_url != result.image_url


def test_within_a_plate_the_list_of_the_well_is_left_alone(make_mosaic, make_models, tmp_path):
    well = tmp_path / "plate.zarr" / "B" / "03"
    group = zarr.open_group(str(tmp_path / "plate.zarr"), mode="w", zarr_format=2)
    group.attrs["plate"] = {"wells": [{"path": "B/03"}]}
    inner = group.create_group("B/03")
    inner.attrs["well"] = {"images": [{"path": "0"}]}
    before = (well / ".zattrs").read_bytes()
    source = make_mosaic("0", folder=well, shape=(2, 2, 48, 40))
    result = correct_flatfield(source, models_folder=str(make_models()), camera_offset=0)
    assert result.image_url == str(well / "0_flatfield_corr")
    assert (well / ".zattrs").read_bytes() == before


@pytest.mark.slow
def test_saved_models_give_the_same_result(make_empty_mosaic, tmp_path):
    source = make_empty_mosaic()
    first = correct_flatfield(source, fov_list=[1, 4], save_models=True, n_zplanes=16)
    assert first.models_folder == str(tmp_path / "brain_shading_models")
    second = correct_flatfield(source, models_folder=first.models_folder, output_image_name="again")
    for one, two in zip(_levels(first.image_url), _levels(second.image_url), strict=True):
        np.testing.assert_array_equal(one, two)


def test_ome_zarr_models_and_ome_zarr_accept_the_result(make_mosaic, make_models):
    import ome_zarr_models
    from ome_zarr.io import parse_url
    from ome_zarr.reader import Reader

    models = str(make_models())
    for number, version in enumerate(("0.4", "0.5")):
        source = make_mosaic(f"image{number}.zarr", ngff_version=version)
        result = correct_flatfield(source, models_folder=models, camera_offset=100)
        group = zarr.open_group(result.image_url, mode="r")
        assert ome_zarr_models.open_ome_zarr(group).ome_zarr_version == version
        location = parse_url(result.image_url, mode="r")
        assert location is not None
        nodes = list(Reader(location)())
        np.testing.assert_array_equal(nodes[0].data[0], _levels(result.image_url)[0])
