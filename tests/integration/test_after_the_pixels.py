"""What comes after the pixels warns and never fails; every warning is in the report."""

from __future__ import annotations

import logging
import re
import shutil
from pathlib import Path

import pytest

from fractal_mesospim_shading import cli, correct_flatfield
from fractal_mesospim_shading.images.mosaic import MosaicImage
from fractal_mesospim_shading.views import reporting

pytestmark = pytest.mark.slow

ODD = {
    "dollar": "CD3 $^{+$",
    "two dollars": "A$_b$ \\frac",
    "html": "<script>alert(1)</script> & \"quoted\" 'x'",
    "no glyphs": "日本語 \U0001f9e0 عربى",
    "control": "red \x1b[31m and\nWARNING of\ttwo lines\x07",
    "bidi": "a\u202eb\u2028c",
    "percent": "50 % {0} %s {x:g}",
}


@pytest.fixture
def corrected(make_mosaic, make_models):
    """`corrected(labels, name)`: result of an image with such labels and name."""

    def run(labels=("A",), name: str = "brain.zarr", **arguments):
        source = make_mosaic(name, shape=(len(labels), 2, 96, 80), channels=tuple(labels))
        plain = tuple(f"m{number}" for number in range(len(labels)))
        folder = Path(make_models(labels=plain))
        for model, label in zip(plain, labels, strict=True):
            shutil.move(folder / model, folder / re.sub(r"[/\\]", "_", label))
        return correct_flatfield(
            str(source), models_folder=str(folder), camera_offset=100, **arguments
        )

    return run


@pytest.mark.filterwarnings("error")
def test_any_name_and_any_label_is_reported(corrected, caplog, capfd):
    with caplog.at_level(logging.INFO):
        result = corrected(ODD.values(), "cost$ $^x <b> & 日本.zarr")
    assert MosaicImage.open(result.image_url).finished
    page = Path(result.report).read_text(encoding="utf-8")
    # Flat-fields and sections of all; of each, two pictures whole, two of a seam, and its medium.
    assert page.count("data:image/png;base64,") == 2 + 5 * len(ODD)
    for hidden in ("\x1b", "\x07", "\u202e", "\u2028", "<script>", "<b>"):
        assert hidden not in page
    assert "Channel &lt;script&gt;alert(1)&lt;/script&gt; &amp; &quot;quoted&quot;" in page
    assert not [r for r in caplog.records if r.levelno >= logging.WARNING]
    assert all("\n" not in line and "\x1b" not in line for line in caplog.messages)
    assert "userwarning" not in "".join(capfd.readouterr()).lower()


def test_the_longest_name_is_reported(corrected):
    result = corrected(name="x" * 200 + ".zarr")
    assert Path(result.report).exists()


@pytest.mark.parametrize(
    "error", [RuntimeError("boom"), MemoryError(), OSError(28, "No space left"), KeyError("x")]
)
@pytest.mark.parametrize("where", ["write_flatfield_report", "ShadingQuality"])
def test_a_report_that_fails_does_not_fail_the_run(corrected, caplog, monkeypatch, error, where):
    def fail(*_arguments, **_more):
        raise error

    if where == "write_flatfield_report":
        monkeypatch.setattr("fractal_mesospim_shading.jobs.outcome.write_flatfield_report", fail)
    else:
        monkeypatch.setattr(reporting.ShadingQuality, "measure", fail)
    result = corrected()
    assert result.report is None
    assert MosaicImage.open(result.image_url).finished
    (warning,) = (r for r in caplog.records if r.levelno >= logging.WARNING)
    assert type(error).__name__ in warning.getMessage()
    assert "The result is complete all the same" in warning.getMessage()


def test_a_picture_in_the_way_of_the_report(corrected, tmp_path, caplog):
    (tmp_path / "brain_flatfield_corr_report.html").mkdir()
    result = corrected()
    assert MosaicImage.open(result.image_url).finished
    assert "report.html is not written: something else is in its place." in caplog.text
    assert not list(tmp_path.glob(".*"))


def test_every_warning_is_in_the_report(make_empty_mosaic, caplog, monkeypatch):
    """Those before the job, those of its models, and those of the report itself."""
    log = logging.getLogger("fractal_mesospim_shading.test")
    measure = reporting.ShadingQuality.measure

    def early(image, options):
        log.warning("before the job & <all>")
        return original(image, options)

    def late(*arguments, **more):
        log.warning("while it is measured")
        return measure(*arguments, **more)

    from fractal_mesospim_shading.jobs import flatfield

    original = flatfield.prepare_flatfield
    monkeypatch.setattr(flatfield, "prepare_flatfield", early)
    monkeypatch.setattr(reporting.ShadingQuality, "measure", late)
    result = correct_flatfield(str(make_empty_mosaic()), fov_list=[1, 4], camera_offset=100)
    page = Path(result.report).read_text()
    assert page.count("WARNING: before the job &amp; &lt;all&gt;") == 1
    assert page.count("WARNING: while it is measured") == 1
    warned = {r.getMessage() for r in caplog.records if r.levelno >= logging.WARNING}
    assert len(re.findall('class="warning"', page)) == len(warned)


def test_a_run_that_goes_on_says_again_what_its_models_were_warned_of(
    make_empty_mosaic, caplog, monkeypatch, many_blocks
):
    from fractal_mesospim_shading.flatfield import job_models
    from fractal_mesospim_shading.jobs import story

    log = logging.getLogger("fractal_mesospim_shading.test")
    estimate, run = job_models.estimate_model, story._run

    def warns(*arguments, **more):
        log.warning("look at the estimate")
        return estimate(*arguments, **more)

    def breaks_off(*_arguments):
        raise RuntimeError("killed")

    monkeypatch.setattr(job_models, "estimate_model", warns)
    monkeypatch.setattr(story, "_run", breaks_off)
    source = str(make_empty_mosaic())
    arguments = {"fov_list": [1, 4], "camera_offset": 100}
    with pytest.raises(RuntimeError, match="killed"):
        correct_flatfield(source, **arguments)
    monkeypatch.setattr(story, "_run", run)
    caplog.clear()
    result = correct_flatfield(source, **arguments)
    assert caplog.messages.count("look at the estimate") == 1
    assert "WARNING: look at the estimate" in Path(result.report).read_text()


def test_warnings_of_the_terminal_carry_the_word(make_mosaic, make_models, capsys, monkeypatch):
    root = logging.getLogger()
    monkeypatch.setattr(root, "handlers", [])
    monkeypatch.setattr("fractal_mesospim_shading.jobs.outcome.write_flatfield_report", None)
    source, models = str(make_mosaic()), str(make_models())
    words = ["--models-folder", models, "--camera-offset", "100"]
    assert cli.main(["correct-flatfield", source, *words]) == 0
    lines = capsys.readouterr().err.splitlines()
    # What is no terminal is a log that is kept: its lines have their times in front.
    marked = [line for line in lines if " WARNING: " in line]
    assert len(marked) == 1
    assert "The report could not be made" in marked[0]
