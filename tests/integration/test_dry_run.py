"""`--dry-run`: everything is checked, what will happen is said, and nothing is written."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from fractal_mesospim_shading import cli, import_mesospim
from fractal_mesospim_shading.engine import plan
from fractal_mesospim_shading.engine.job_folder import job_url
from fractal_mesospim_shading.flatfield import overlap_check
from fractal_mesospim_shading.jobs import flatfield, outlook
from fractal_mesospim_shading.options.flatfield import FlatfieldOptions
from fractal_mesospim_shading.overlaps import sampling
from tests.support.acquisition import grid_stacks, write_acquisition
from tests.support.acquisition_table import SyntheticSettings

pytestmark = pytest.mark.slow


def _dry(capsys, *words) -> dict:
    assert cli.main([*map(str, words), "--dry-run", "--json"]) == 0
    (found,) = json.loads(capsys.readouterr().out)["dry_run"]
    return found


@pytest.fixture
def models(make_models):
    return ["--models-folder", make_models(), "--no-report"]


def test_what_is_said_is_what_comes(make_mosaic, models, capsys, tmp_path, tree, monkeypatch):
    source = make_mosaic()
    command = ["correct-flatfield", source, *models, "--save-models"]
    before = tree(tmp_path)
    said = _dry(capsys, *command)
    assert tree(tmp_path) == before
    written = []
    process = plan.process_block
    monkeypatch.setattr(
        "fractal_mesospim_shading.engine.schedule.process_block",
        lambda *work: written.append(work[1]) or process(*work),
    )
    assert cli.main([*map(str, command), "--json"]) == 0
    came = json.loads(capsys.readouterr().out)
    assert (said["result"], said["source"]) == (came["image_url"], came["source_url"])
    assert said["beside"] == {"models": came["models_folder"]}
    assert said["models"] == dict.fromkeys(came["models"], "a model that was given")
    result = Path(came["image_url"])
    size = sum(path.stat().st_size for path in result.rglob("*") if path.is_file())
    assert 0.5 < said["write_bytes"] / size < 2
    assert len(written) <= said["blocks"] and written
    assert said["memory_bytes"] <= said["memory_limit"]


@pytest.mark.parametrize(
    "command",
    [
        ["correct-background", "SOURCE", "--method", "median:5", "--save-background"],
        ["estimate", "SOURCE", "--fov-list", "1", "4", "--output", "models"],
        ["correct-flatfield", "SOURCE", "--fov-list", "1", "4"],
        ["correct-flatfield", "SOURCE"],
    ],
)
def test_nothing_is_written(make_empty_mosaic, capsys, tmp_path, tree, monkeypatch, command):
    monkeypatch.chdir(tmp_path)
    source = make_empty_mosaic()
    before = tree(tmp_path)
    words = [str(source) if word == "SOURCE" else word for word in command]
    assert cli.main([*words, "--dry-run"]) == 0
    text = capsys.readouterr().out
    assert str(source) in text and "Nothing was written" in text
    assert tree(tmp_path) == before


@pytest.mark.parametrize("more", [[], ["--tile-gains", "overlaps"]], ids=["", "gains"])
def test_the_report_and_the_overlaps_that_are_compared(
    capsys, tmp_path, make_models, monkeypatch, more
):
    """The tiles of an import tell where they were."""
    settings = SyntheticSettings(tile_shape=(48, 64))
    write_acquisition(tmp_path, "acquisition.ome.zarr", grid_stacks(2, 2, settings), settings)
    (imported,) = import_mesospim(str(tmp_path / "acquisition.ome.zarr"), str(tmp_path / "in"))
    models = make_models((48, 64), ("488 nm",), darkfield=100.0)
    command = ["correct-flatfield", imported.image_url, "--models-folder", models, *more]
    said = _dry(capsys, *command)
    decoded, plain = [], sampling.observe_overlaps

    def counted(*given, **named):
        seen = plain(*given, **named)
        decoded.append(seen.decoded_bytes)
        return seen

    for module in (sampling, overlap_check):
        monkeypatch.setattr(module, "observe_overlaps", counted)
    assert cli.main([*map(str, command), "--json"]) == 0
    came = json.loads(capsys.readouterr().out)
    assert len(decoded) == 1 + len(more) // 2
    assert said["overlap_bytes"] == sum(decoded) > 0
    assert said["beside"]["report"] == came["report"]
    folder = Path(came["report"]).parent
    beside = {Path(path).name for path in (*said["beside"].values(), said["result"])}
    assert {path.name for path in folder.iterdir()} - beside == {"raw_image", "zarr.json"}
    assert cli.main([*map(str, command), "--dry-run", "--overwrite"]) == 0
    assert "of pixels where tiles are compared" in capsys.readouterr().out


def test_planes_of_an_estimate_are_those_that_are_read(make_empty_mosaic, capsys):
    said = _dry(capsys, "correct-flatfield", make_empty_mosaic(), "--fov-list", "1", "4")
    # Two tiles of 8 planes, fewer than the 200 that would be drawn.
    text = "16 planes of level 0 thought empty, of tiles 1, 4"
    assert said["models"] == {"488 nm": text, "561 nm": text}


def test_an_import_and_its_container(native_v04, capsys, tmp_path):
    command = ["import", native_v04.container, "--zarr-dir", tmp_path]
    said = _dry(capsys, *command)
    assert not list(tmp_path.iterdir())
    assert cli.main([*map(str, command), "--json"]) == 0
    (came,) = json.loads(capsys.readouterr().out)["images"]
    assert said["result"] == came["image_url"]
    corrected = ["correct-flatfield", native_v04.container, "--output-folder", tmp_path / "new"]
    assert _dry(capsys, *corrected)["blocks"] > 1
    assert not (tmp_path / "new").exists()


def test_what_would_be_refused_is_refused(make_mosaic, models, capsys, tmp_path, tree):
    source = make_mosaic()
    assert cli.main(["correct-flatfield", str(source), *map(str, models)]) == 0
    before = tree(tmp_path)
    again = ["correct-flatfield", str(source), *map(str, models), "--dry-run"]
    assert cli.main(again) == 3
    assert "There is already something" in capsys.readouterr().err
    assert cli.main([*again, "--overwrite"]) == 0
    assert "in the place of what is there" in capsys.readouterr().out
    assert tree(tmp_path) == before


def test_an_unfinished_run(make_mosaic, make_models, capsys, monkeypatch):
    """The same command says what is left; another one is refused, as without the switch."""
    source, folder = make_mosaic(), str(make_models())
    options = FlatfieldOptions(models_folder=folder, report=False)
    monkeypatch.setattr(plan, "BLOCK_BYTES", 1)
    broken = []

    def break_off(*arguments):
        broken.append(1)
        if len(broken) > 2:
            raise KeyboardInterrupt
        return process(*arguments)

    process = plan.process_block
    with monkeypatch.context() as patch:
        patch.setattr("fractal_mesospim_shading.engine.schedule.process_block", break_off)
        patch.setenv("SLURM_CPUS_PER_TASK", "1")
        with pytest.raises(BaseException):  # noqa: B017
            flatfield.correct_flatfield(str(source), options)
    work = flatfield.plan_flatfield(str(source), options)
    assert Path(job_url(work.final_url)).is_dir()
    found = outlook.outlook(work)
    assert 0 < found.blocks_done < found.blocks
    assert f"{found.blocks_done} are there" in "\n".join(found.lines())
    other = ["correct-flatfield", str(source), "--models-folder", folder, "--no-report"]
    assert cli.main([*other, "--output-offset", "5", "--dry-run"]) == 3
    assert "it is not this one" in capsys.readouterr().err
    assert cli.main([*other, "--output-offset", "5", "--restart", "--dry-run"]) == 0
