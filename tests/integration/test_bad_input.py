"""Bad input: one clear error, nothing written, nothing lost."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest
import zarr

import fractal_mesospim_shading
from fractal_mesospim_shading import errors, estimate_flatfield
from fractal_mesospim_shading.engine import resources
from fractal_mesospim_shading.images.mosaic import MosaicImage

LABELS = ("488 nm", "561 nm")


def correct_flatfield(zarr_url, **arguments):
    """Without the report, which reads a few planes of its own and has tests of its own."""
    return fractal_mesospim_shading.correct_flatfield(zarr_url, **{"report": False, **arguments})


@pytest.fixture
def refused(tmp_path, tree):
    """`refused(kind, words, zarr_url, **arguments)`: it fails so, and the disk is the same."""

    def check(kind, words, zarr_url, **arguments):
        before = tree(tmp_path)
        with pytest.raises(kind, match=words) as caught:
            correct_flatfield(str(zarr_url), **arguments)
        assert isinstance(caught.value, errors.ShadingError)
        assert tree(tmp_path) == before
        return str(caught.value)

    return check


@pytest.fixture
def source(make_mosaic):
    return make_mosaic()


@pytest.fixture
def models(make_models):
    return str(make_models())


def _edit(path: Path, change):
    group = zarr.open_group(str(path), mode="r+", use_consolidated=False)
    content = json.loads(json.dumps(dict(group.attrs)))
    change(content)
    group.attrs.put(content)


@pytest.mark.parametrize("lacking", ["dask_jobqueue", "sbatch"])
def test_slurm_where_there_is_none(refused, source, monkeypatch, tmp_path, lacking):
    """Before a plane is read for the estimate, and without a job left behind."""
    monkeypatch.setenv("PATH", str(tmp_path))
    if lacking == "dask_jobqueue":
        monkeypatch.setattr(resources, "find_spec", lambda name: None)
    refused(errors.ParameterError, lacking.replace("_", "-"), source, execution="slurm")


# --- The image -------------------------------------------------------------------------------


def test_no_such_image(refused, tmp_path):
    refused(errors.ImageNotFoundError, "no image at.*nowhere.zarr", tmp_path / "nowhere.zarr")
    assert issubclass(errors.ImageNotFoundError, FileNotFoundError)


def test_not_an_ome_zarr(refused, tmp_path):
    (tmp_path / "folder").mkdir()
    (tmp_path / "file.txt").write_text("hello")
    refused(errors.ImageFormatError, "not an OME-Zarr", tmp_path / "folder")
    refused(errors.ImageFormatError, "not an OME-Zarr", tmp_path / "file.txt")


def test_a_level_instead_of_the_image(refused, source):
    refused(errors.ImageFormatError, "single array.*brain.zarr'", source / "0")


def test_unfinished_image(refused, source, models):
    _edit(source, lambda content: content.update(mesospim_shading={"complete": False}))
    refused(errors.ImageFormatError, "unfinished", source, models_folder=models)


@pytest.mark.parametrize("dtype", ["int16", "uint32", "float64"])
def test_a_type_that_is_not_read(refused, tmp_path, make_mosaic, dtype):
    path = make_mosaic()
    shutil.rmtree(path / "0")
    group = zarr.open_group(str(path), mode="r+")
    group.create_array("0", shape=(2, 4, 96, 80), chunks=(1, 2, 16, 32), dtype=dtype)
    refused(errors.ImageFormatError, f"type {dtype}; expected uint8, uint16, float32", path)


def test_zero_channels(refused, make_mosaic, models):
    path = make_mosaic(channels=None)
    shutil.rmtree(path / "0")
    group = zarr.open_group(str(path), mode="r+")
    group.create_array("0", shape=(0, 4, 96, 80), chunks=(1, 2, 16, 32), dtype="uint16")
    refused(errors.ImageFormatError, "no channel", path, models_folder=models)


def test_duplicate_channel_labels(refused, make_mosaic, models):
    path = make_mosaic(channels=("488 nm", "488 nm"))
    refused(
        errors.ImageFormatError, r"share a label: '488 nm' \(0, 1\)", path, models_folder=models
    )


@pytest.mark.parametrize(
    ("column", "value", "words"),
    [
        ("x_micrometer", -13.0, "begins at x = -13"),
        ("y_micrometer", 20.5, "pixel"),
        ("len_x_micrometer", 26.0, "size"),
        ("x_micrometer", 13.0, "overlap"),
    ],
    ids=["negative", "fractional", "unequal", "overlapping"],
)
def test_tables_that_make_no_mosaic(refused, make_mosaic, models, column, value, words):
    path = make_mosaic()
    table = zarr.open_group(str(path / "tables" / "FOV_ROI_table"), mode="r+")
    names = [str(name) for name in np.asarray(table["var/_index"][...])]
    numbers = table["X"]
    data = np.asarray(numbers[...])
    data[2, names.index(column)] = value
    numbers[...] = data
    refused(errors.LayoutError, words, path, models_folder=models)


def test_a_pyramid_that_does_not_follow(refused, make_mosaic, models):
    path = make_mosaic()
    shutil.rmtree(path / "1")
    group = zarr.open_group(str(path), mode="r+")
    group.create_array("1", shape=(2, 4, 70, 40), chunks=(1, 2, 16, 32), dtype="uint16")
    refused(errors.ImageFormatError, "does not follow", path, models_folder=models)


def test_a_pyramid_that_lists_a_level_that_is_not_there(refused, make_mosaic, models):
    path = make_mosaic()
    shutil.rmtree(path / "2")
    refused(errors.ImageFormatError, "missing", path, models_folder=models)


# --- What to estimate from -------------------------------------------------------------------


@pytest.mark.parametrize(
    ("numbers", "words"),
    [
        ([0], "Tile 0 is outside"),
        ([5], "Tile 5 is outside.*numbers 1 to 4"),
        ([-1], "Tile -1 is outside"),
        ([1, 4, 1], r"\[1\] more than once"),
    ],
)
def test_tile_numbers(refused, source, numbers, words):
    message = refused(errors.LayoutError, words, source, fov_list=numbers)
    if "outside" in words:
        assert "\n  1  3\n  2  4" in message


def test_number_of_a_missing_tile(refused, make_mosaic):
    path = make_mosaic(missing=(3,))
    refused(errors.LayoutError, "Tile 3 is missing", path, fov_list=[3])


@pytest.mark.parametrize(
    ("levels", "words"),
    [
        ([1, 4], "planes, numbered 0 to 3"),
        ([-1, 2], "planes, numbered 0 to 3"),
        ([0, 3], "leaves no empty plane"),
        ([3, 0], "leaves no empty plane"),
        ([2], "expected two"),
        ([1, 2, 3], "expected two"),
    ],
)
def test_z_levels(refused, source, levels, words):
    refused(errors.SamplingError, words, source, z_levels=levels)


@pytest.mark.parametrize("level", [3, 17])
def test_resolution_level_outside(refused, source, level):
    refused(errors.SamplingError, "levels 0 to 2", source, resolution_level=level)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("arguments", "name"),
    [
        ({"n_zplanes": 0}, "n_zplanes"),
        ({"resolution_level": -1}, "resolution_level"),
        ({"seed": -1}, "seed"),
        ({"basicpy_model_params": {"working_size": 0}}, "working_size"),
        ({"basicpy_model_params": {"working_size": "large"}}, "working_size"),
        (
            {"basicpy_model_params": {"working_sizes": 128}},
            "working_sizes of basicpy_model_params: there is no such",
        ),
        ({"basicpy_model_params": {"fitting_mode": "fast"}}, "fitting_mode"),
        ({"camera_ofset": 100}, "camera_ofset: there is no such parameter"),
        ({"camera_offset": "much"}, "camera_offset"),
        ({"camera_offset": float("nan")}, "camera_offset"),
        ({"output_offset": float("inf")}, "output_offset"),
        ({"fov_list": ["one"]}, "fov_list"),
        ({"fov_list": "1;2"}, "fov_list"),
        ({"ngff_version": "0.6"}, "ngff_version"),
        ({"memory_limit": "a lot"}, "memory_limit"),
        ({"n_workers": 0}, "n_workers"),
        ({"execution": "cloud"}, "execution"),
        ({"output_image_name": ""}, "output_image_name"),
    ],
)
def test_wrong_parameters(refused, source, models, arguments, name):
    refused(errors.ParameterError, name, source, **{"models_folder": models, **arguments})


def test_all_wrong_parameters_come_in_one_error(refused, source):
    message = refused(
        errors.ParameterError, "wrong", source, seed=-1, n_zplanes=0, colour="blue", fov_list=["x"]
    )
    for name in ("seed", "n_zplanes", "colour", "fov_list"):
        assert name in message


def test_all_problems_come_in_one_error(refused, source, tmp_path):
    message = refused(
        errors.ShadingError,
        "3 problems",
        source,
        fov_list=[99],
        darkfield_file=str(tmp_path / "dark.npy"),
        output_image_name="{image_name}",
    )
    for words in ("Tile 99", "dark.npy", "onto its own source"):
        assert words in message


# --- Models ----------------------------------------------------------------------------------


def test_models_folder_that_is_not_there(refused, source, tmp_path):
    refused(errors.ProfileError, "is not there", source, models_folder=str(tmp_path / "none"))


def test_models_folder_that_lacks_a_channel(refused, source, make_models):
    folder = make_models(labels=LABELS[:1])
    refused(errors.ProfileError, "561 nm", source, models_folder=str(folder))


def test_model_that_is_no_npz(refused, source, make_models):
    folder = make_models()
    (folder / "561 nm" / "profiles.npz").write_bytes(b"PK\x03\x04 and no more")
    refused(errors.ProfileError, "561 nm.*profiles.npz", source, models_folder=str(folder))


def _bad_flatfields():
    nan = np.ones((48, 40))
    nan[3, 3] = np.nan
    zero = np.ones((48, 40))
    zero[0, 0] = 0
    yield "nan", nan, "NaN"
    yield "zero", zero, "0 or below"
    yield "negative", -np.ones((48, 40)), "0 or below"
    yield "rank", np.ones((2, 48, 40)), "shape"
    yield "text", np.full((48, 40), "x"), "type|numbers"
    yield "objects", np.full((48, 40), None), "profiles.npz"


@pytest.mark.parametrize(
    ("values", "words"),
    [case[1:] for case in _bad_flatfields()],
    ids=[c[0] for c in _bad_flatfields()],
)
def test_flatfields_that_nothing_can_be_divided_by(refused, source, make_models, values, words):
    folder = make_models()
    np.savez(folder / "488 nm" / "profiles.npz", flatfield=values)
    refused(errors.ProfileError, words, source, models_folder=str(folder))


def test_model_without_flatfield(refused, source, make_models):
    folder = make_models()
    np.savez(folder / "488 nm" / "profiles.npz", flat=np.ones((48, 40)))
    refused(errors.ProfileError, "no key 'flatfield'.*flat", source, models_folder=str(folder))


def test_a_label_that_leaves_the_folder_of_models(refused, make_mosaic, make_models):
    path = make_mosaic(channels=("..", "561 nm"))
    refused(errors.ProfileError, r"'\.\.'", path, models_folder=str(make_models()))


def test_darkfield_of_a_kind_that_is_not_read(refused, source, tmp_path):
    (tmp_path / "dark.jpg").write_bytes(b"")
    refused(errors.ProfileError, "dark.jpg", source, darkfield_file=str(tmp_path / "dark.jpg"))


# --- The output ------------------------------------------------------------------------------


def test_output_exists(refused, make_mosaic, models):
    source = make_mosaic()
    make_mosaic("brain_flatfield_corr.zarr", shape=(1, 1, 48, 40), channels=None)
    refused(errors.OutputExistsError, "overwrite", source, models_folder=models)


def test_what_is_no_image_is_not_replaced_by_overwrite(refused, source, models, tmp_path):
    (tmp_path / "brain_flatfield_corr.zarr").mkdir()
    (tmp_path / "brain_flatfield_corr.zarr" / "thesis.doc").write_text("years of work")
    refused(
        errors.OutputExistsError, "no OME-Zarr image", source, models_folder=models, overwrite=True
    )


@pytest.mark.parametrize("name", ["{image_name}", "brain", "brain.zarr"])
def test_output_equals_source(refused, source, models, name):
    refused(
        errors.ParameterError,
        "onto its own source",
        source,
        models_folder=models,
        output_image_name=name,
        overwrite=True,
    )


def test_output_equals_source_through_a_link(refused, source, models, tmp_path):
    (tmp_path / "link").symlink_to(tmp_path)
    refused(
        errors.ParameterError,
        "onto its own source",
        source,
        models_folder=models,
        output_image_name="brain",
        output_folder=str(tmp_path / "link"),
        overwrite=True,
    )


def test_output_within_the_source(refused, source, models):
    refused(
        errors.ParameterError,
        "within its own source",
        source,
        models_folder=models,
        output_folder=str(source / "labels"),
    )


@pytest.mark.slow
@pytest.mark.parametrize(
    "name",
    [
        "../brain2",
        "a/b",
        "..",
        "/tmp/x",
        "{name}",
        "{0}",
        "  ",
        "{",
        "a\nb",
        "{image_name:>9}",
        "x" * 250,
    ],
)
def test_names_that_lead_elsewhere(refused, source, models, name):
    refused(
        errors.ParameterError,
        "output_image_name",
        source,
        models_folder=models,
        output_image_name=name,
    )


def test_shards_that_do_not_fit(refused, source, models):
    shards = {"models_folder": models, "ngff_version": "0.5"}
    for wish in ([3, 16, 32], [2, 20, 32], [0, 16, 32], [1, 1, 1, 2, 16, 32]):
        refused(errors.ParameterError, "output_shards", source, output_shards=wish, **shards)
    refused(errors.ParameterError, "0.5", source, output_shards=[2, 16, 32], models_folder=models)


def test_overwrite_input_and_output_folder(refused, source, models, tmp_path):
    refused(
        errors.ParameterError,
        "both given",
        source,
        models_folder=models,
        overwrite_input=True,
        output_folder=str(tmp_path / "out"),
    )


def test_a_file_where_the_folder_should_be(refused, source, models, tmp_path):
    (tmp_path / "file").write_text("")
    refused(
        errors.ParameterError,
        "output_folder",
        source,
        models_folder=models,
        output_folder=str(tmp_path / "file" / "out"),
    )


@pytest.fixture
def read_only(tmp_path):
    """A folder that cannot be written, not even by root."""
    folder = tmp_path / "read_only"
    folder.mkdir()
    if os.geteuid() != 0:
        folder.chmod(0o555)
        yield folder
        folder.chmod(0o755)
        return
    mount = ["mount", "-t", "tmpfs", "-o", "ro,size=1m", "tmpfs", str(folder)]
    if shutil.which("mount") is None or subprocess.run(mount, capture_output=True).returncode:
        pytest.skip("root can write everywhere here, and nothing can be mounted read-only")
    yield folder
    subprocess.run(["umount", str(folder)], check=True)


def test_a_folder_that_cannot_be_written(refused, source, models, read_only):
    refused(
        errors.ParameterError,
        "cannot be written. Set output_folder",
        source,
        models_folder=models,
        output_folder=str(read_only),
    )


def test_too_little_memory(refused, source, models):
    message = refused(
        errors.MemoryLimitError, "too small", source, models_folder=models, memory_limit="100MB"
    )
    assert "needs" in message
    assert "Raise memory_limit= to at least" in message


def test_too_little_room(refused, source, models, monkeypatch):
    def nearly_full(path):
        return shutil._ntuple_diskusage(10**9, 10**9, 1000)

    monkeypatch.setattr(shutil, "disk_usage", nearly_full)
    refused(errors.OutputWriteError, "needs about", source, models_folder=models)


def test_dask_without_a_scheduler(refused, source, models, monkeypatch):
    monkeypatch.delenv("DASK_SCHEDULER_ADDRESS", raising=False)
    refused(
        errors.ParameterError,
        "scheduler_address",
        source,
        models_folder=models,
        camera_offset=0,
        execution="dask",
    )


# --- In mid-run: what was finished stays ------------------------------------------------------


def _damage(chunk: Path, how: str) -> None:
    content = chunk.read_bytes()
    chunk.write_bytes(content[: len(content) // 2] if how == "cut" else b"\xff" * len(content))


@pytest.mark.slow
@pytest.mark.parametrize(
    "style",
    [
        {},
        {"codec": "zstd"},
        {"byte_order": ">"},
        {"byte_order": ">", "codec": "gzip"},
        {"ngff_version": "0.5"},
        {"ngff_version": "0.5", "codec": "gzip"},
    ],
    ids=["blosc rust", "zstd rust", "blosc python", "gzip python", "v3 blosc", "v3 gzip"],
)
@pytest.mark.parametrize("how", ["cut", "overwritten"])
def test_a_damaged_chunk_is_named_and_the_rest_is_kept(
    style, how, make_mosaic, models, tree, many_blocks, tmp_path
):
    source = make_mosaic(**style)
    good = tmp_path / "good.zarr"
    shutil.copytree(source, good)
    inner = "0/c/1/1/3/1" if "ngff_version" in style else "0/1/1/3/1"
    _damage(source / inner, how)
    before = tree(source)
    arguments = {"models_folder": models, "camera_offset": 100, "n_workers": 1}
    with pytest.raises(errors.SourceReadError, match=inner):
        correct_flatfield(source, **arguments)
    assert tree(source) == before
    names = {path.name for path in tmp_path.iterdir()}
    assert names == {"brain.zarr", "good.zarr", "models", ".brain_flatfield_corr.zarr.job"}
    # Repaired with the same bytes, and continued as the same source.
    stat = os.stat(source / inner)
    content = (good / inner).read_bytes()
    (source / inner).write_bytes(content)
    if len(content) == stat.st_size:
        os.utime(source / inner, ns=(stat.st_atime_ns, stat.st_mtime_ns))
        result = correct_flatfield(source, **arguments)
    else:
        with pytest.raises(errors.JobMismatchError, match="source_state"):
            correct_flatfield(source, **arguments)
        result = correct_flatfield(source, restart=True, **arguments)
    expected = correct_flatfield(good, **arguments)
    made, wanted = tree(Path(result.image_url)), tree(Path(expected.image_url))
    if style.get("codec") == "gzip" and "byte_order" in style:
        # numcodecs writes the time of day into bytes 4 to 7 of a gzip chunk.
        made, wanted = ({k: v[:4] + v[8:] for k, v in t.items()} for t in (made, wanted))
    assert made == wanted


@pytest.mark.slow
def test_a_damaged_chunk_in_the_sample(refused, make_mosaic):
    source = make_mosaic()
    _damage(source / "0/0/1/3/1", "overwritten")
    # Nothing was finished, so nothing is left behind.
    refused(errors.SourceReadError, "0/0/1/3/1", source, fov_list=[4], n_zplanes=1000)


def test_estimates_too_are_checked_first(source, tmp_path, tree):
    before = tree(tmp_path)
    with pytest.raises(errors.LayoutError, match="Tile 9"):
        estimate_flatfield(str(source), str(tmp_path / "models_out"), fov_list=[9])
    assert tree(tmp_path) == before


@pytest.mark.slow
def test_a_failing_run_keeps_an_earlier_result(make_mosaic, models, tree, many_blocks, tmp_path):
    source = make_mosaic()
    first = correct_flatfield(source, models_folder=models, camera_offset=100)
    before = tree(Path(first.image_url))
    _damage(source / "0/1/1/3/1", "overwritten")
    with pytest.raises(errors.SourceReadError):
        correct_flatfield(source, models_folder=models, camera_offset=90, overwrite=True)
    assert tree(Path(first.image_url)) == before
    assert MosaicImage.open(first.image_url).finished
