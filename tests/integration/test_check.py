"""The overlaps of whole images: by the command, beside a correction, on every kind of source."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import zarr

from fractal_mesospim_shading import check_overlaps, correct_flatfield, import_mesospim
from fractal_mesospim_shading.cli import main
from fractal_mesospim_shading.errors import ParameterError, ShadingError
from fractal_mesospim_shading.images.mosaic import MosaicImage
from fractal_mesospim_shading.images.native.mosaic import NativeMosaic
from fractal_mesospim_shading.images.target import TargetImage
from fractal_mesospim_shading.jobs import outcome
from fractal_mesospim_shading.synthetic.images import write_image
from fractal_mesospim_shading.synthetic.overlapping import (
    OverlappingWorld,
    write_overlapping_mosaic,
)

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("two_threads")]

WORLD = OverlappingWorld(
    tile_shape=(128, 160), grid=(2, 3), planes=8, overlap=0.25, gain_range=0.1, contrast=0.3
)


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    url = tmp_path_factory.mktemp("check") / "brain.zarr"
    write_overlapping_mosaic(url, WORLD)
    return str(url)


@pytest.fixture(scope="module")
def true_models(tmp_path_factory):
    folder = tmp_path_factory.mktemp("models")
    (folder / "488 nm").mkdir()
    np.savez(folder / "488 nm" / "profiles.npz", flatfield=WORLD.flatfield(), darkfield=100.0)
    return str(folder)


def _tree(url):
    return {str(p.relative_to(url)): p.read_bytes() for p in Path(url).rglob("*") if p.is_file()}


def _shown(capsys):
    return json.loads(capsys.readouterr().out)


def test_the_command_foretells_what_models_do(source, true_models, capsys):
    before = _tree(source)
    assert main(["check", source, "--models-folder", true_models, "--json"]) == 0
    (channel,) = _shown(capsys)["channels"]
    assert (channel["label"], channel["side"], channel["pairs"]) == ("488 nm", None, 7)
    assert channel["before"]["median_percent"] > 3
    after = channel["after"]
    assert after["median_percent"] <= 1.3 * after["noise_floor_percent"]
    assert after["p90_percent"] < channel["before"]["p90_percent"] / 4
    assert _tree(source) == before and sorted(Path(source).parent.iterdir()) == [Path(source)]


def test_a_result_is_measured_as_it_was_foretold(source, true_models, tmp_path):
    result = correct_flatfield(
        source, models_folder=true_models, output_folder=str(tmp_path), output_offset=50
    )
    told = result.overlaps["488 nm"]
    seen = check_overlaps(source, against=result.image_url).channels[0]
    alone = check_overlaps(result.image_url).channels[0]
    for found in (seen.after, alone.before):
        assert found.whole.median == pytest.approx(told.after.whole.median, abs=0.002)
        assert found.whole.gain == pytest.approx(told.after.whole.gain, abs=0.004)
    assert seen.before.whole.median == pytest.approx(told.before.whole.median, rel=0.1)
    # Beside the result, for people and for programs.
    report = Path(result.report)
    page = report.read_text()
    assert "Same tissue in two tiles differs by" in page
    assert 'alt="Pairs of tiles of channel 488 nm, by how much their views differ"' in page
    written = json.loads(report.with_suffix(".json").read_text())
    assert written["channels"] == [told.facts()] == list(result.facts()["overlaps"].values())
    assert written["models"] == json.loads(json.dumps(result.facts()["models"]))
    assert written["pixels"] == result.facts()["pixels"]
    assert written["asked"]["output_offset"] == 50 and "storage_options" not in written["asked"]


def test_the_same_numbers_again(source, true_models):
    one, other = (check_overlaps(source, models_folder=true_models) for _ in range(2))
    assert one == other
    assert one.facts() == other.facts()


def test_a_flat_field_of_another_channel_is_warned_of(source, tmp_path, caplog):
    folder = tmp_path / "models" / "488 nm"
    folder.mkdir(parents=True)
    wrong = 1 / WORLD.flatfield()
    np.savez(folder / "profiles.npz", flatfield=wrong / wrong.mean(), darkfield=100.0)
    correct_flatfield(source, models_folder=str(tmp_path / "models"), output_folder=str(tmp_path))
    (line,) = [r.getMessage() for r in caplog.records if "differs more between tiles" in r.message]
    assert "the flat-field does not fit this image: tissue differs more" in line
    assert len(line) <= 120


def test_a_wrong_offset_is_warned_of(source, tmp_path, caplog):
    folder = tmp_path / "models" / "488 nm"
    folder.mkdir(parents=True)
    np.savez(folder / "profiles.npz", flatfield=WORLD.flatfield(), darkfield=20.0)
    result = correct_flatfield(
        source, models_folder=str(tmp_path / "models"), output_folder=str(tmp_path)
    )
    check = result.overlaps["488 nm"]
    if check.pedestal.known:
        assert check.pedestal.value == pytest.approx(80, abs=3 * check.pedestal.uncertainty + 5)
        assert any("is too small by" in record.getMessage() for record in caplog.records)
    assert check.after.whole.p90 > 0.01


def test_native_containers_and_imports_tell_the_same(native, tmp_path):
    """The sample holds two channels, each with its flat-field."""
    options = {"camera_offset": 100, "z_levels": native.z_levels}
    (imported,) = import_mesospim(
        str(native.container), str(tmp_path), correct_flatfield=True, **options
    )
    assert set(imported.overlaps) == {"488 nm", "561 nm"}
    corrected = correct_flatfield(str(native.container), output_folder=str(tmp_path), **options)
    _assert_reported(imported)
    _assert_reported(corrected)
    for label, check in imported.overlaps.items():
        assert len(check.before.pairs) >= 6
        assert check.after.whole.median < 0.3 * check.before.whole.median
        other = corrected.overlaps[label]
        assert other.after.whole.median == pytest.approx(check.after.whole.median, abs=1e-9)
    foretold = check_overlaps(str(native.container), against=corrected.image_url)
    for check in foretold.channels:
        told = corrected.overlaps[check.label]
        assert check.after.whole.median == pytest.approx(told.after.whole.median, abs=0.003)


def _assert_reported(result):
    """Models, pairs of tiles and numbers, of the same job by all ways."""
    page = Path(result.report).read_text()
    for label in result.models:
        assert f"<h2>Channel {label}</h2>" in page
        assert f"Pairs of tiles of channel {label}, by how much their views differ" in page
    names = ", ".join(result.models)
    assert f'alt="Flat-fields of {len(result.models)} channels: {names}"' in page
    # Flat-fields and sections of all, and a map of each; small planes, and none before and after.
    small = [own for model in result.models.values() for own in model.planes.thumbnails]
    assert page.count("data:image/png;base64,") == 2 + len(result.models) + len(small)
    assert "<th>Pixels clipped</th>" in page and "<th>z_levels</th>" in page
    written = json.loads(Path(result.report).with_suffix(".json").read_text())
    facts = json.loads(json.dumps(result.facts()))
    assert written["channels"] == list(facts["overlaps"].values())
    for name in ("models", "pixels", "verdict"):
        assert written[name] == facts[name]
    assert result.verdict.headline in page


def test_a_report_of_stacks_reads_no_pixel_and_can_be_left_out(native_v04, tmp_path, monkeypatch):
    write, reading = outcome.write_flatfield_report, []

    def watched(*arguments):
        with monkeypatch.context() as patch:
            for kind in (MosaicImage, NativeMosaic, TargetImage):

                def seen(*more, read=kind.read):
                    reading.append(more)
                    return read(*more)

                patch.setattr(kind, "read", seen)
            return write(*arguments)

    monkeypatch.setattr(outcome, "write_flatfield_report", watched)
    options = {"camera_offset": 100, "z_levels": native_v04.z_levels}
    container = str(native_v04.container)
    one = correct_flatfield(container, output_folder=str(tmp_path / "1"), **options)
    (two,) = import_mesospim(container, str(tmp_path / "2"), correct_flatfield=True, **options)
    assert one.report is not None and two.report is not None and not reading
    # Planes of a mosaic are shown: the count would see them.
    again = {"camera_offset": 0, "z_levels": native_v04.z_levels}
    correct_flatfield(two.image_url, output_folder=str(tmp_path), **again)
    assert reading
    plain = correct_flatfield(container, output_folder=str(tmp_path / "3"), report=False, **options)
    other = import_mesospim(
        container, str(tmp_path / "4"), correct_flatfield=True, report=False, **options
    )
    raw = import_mesospim(container, str(tmp_path / "5"))
    assert [done.report for done in (plain, *other, *raw)] == [None] * 3
    assert not [path for folder in "345" for path in (tmp_path / folder).rglob("*_report.*")]


def test_an_image_without_positions_is_refused_with_what_to_do(tmp_path):
    url = write_image(
        tmp_path / "a.zarr", np.ones((1, 2, 64, 64), np.uint16), channels=["A"], tile_shape=(32, 32)
    )
    with pytest.raises(ParameterError, match="where its tiles really were"):
        check_overlaps(str(url))
    assert main(["check", str(url)]) == 2


def test_tiles_that_show_nothing_twice_are_refused(tmp_path):
    places = {n: (100.0 * n, 0.0) for n in (1, 2)}
    url = write_image(
        tmp_path / "a.zarr",
        np.ones((1, 2, 64, 32), np.uint16),
        channels=["A"],
        tile_shape=(32, 32),
        original_um=places,
    )
    with pytest.raises(ParameterError, match="No two tiles"):
        check_overlaps(str(url))


def test_what_does_not_belong_together_is_refused(source, true_models, tmp_path):
    other = tmp_path / "other.zarr"
    write_overlapping_mosaic(other, WORLD, channels=("561 nm",))
    with pytest.raises(ParameterError, match="has the channels"):
        check_overlaps(source, against=str(other))
    planes = write_overlapping_mosaic(tmp_path / "planes.zarr", replace(WORLD, planes=2))
    with pytest.raises(ParameterError, match=r"pixels of c,z,y,x \(1, 2, .*the image \(1, 8"):
        check_overlaps(source, against=planes)
    with pytest.raises(ParameterError, match="give one of them"):
        check_overlaps(source, against=str(other), models_folder=true_models)
    with pytest.raises(ShadingError):
        check_overlaps(source, models_folder=str(tmp_path / "nothing"))


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"seed": -1}, "seed is -1; expected a number of at least 0"),
        ({"camera_offset": float("nan")}, "camera_offset is nan; expected a finite number"),
        ({"camera_offset": "x"}, "camera_offset is 'x'; expected a number"),
    ],
)
def test_wrong_numbers_are_told_before_the_image_is_looked_at(given, said, tmp_path):
    with pytest.raises(ParameterError, match=said):
        check_overlaps(str(tmp_path / "nothing.zarr"), **given)


def test_another_acquisition_is_no_result_of_this_one(source, tmp_path):
    other = write_overlapping_mosaic(tmp_path / "other.zarr", replace(WORLD, seed=1))
    with pytest.raises(ParameterError, match="no result of this image"):
        check_overlaps(source, against=other)


def test_a_result_of_another_program_need_not_know_the_places(source, true_models, tmp_path):
    result = correct_flatfield(source, models_folder=true_models, output_folder=str(tmp_path))
    pixels = np.asarray(zarr.open_array(f"{result.image_url}/0", mode="r")[...])
    plain = write_image(
        tmp_path / "plain.zarr", pixels, channels=["488 nm"], tile_shape=WORLD.tile_shape
    )
    one, other = (
        check_overlaps(source, against=url).channels[0] for url in (result.image_url, str(plain))
    )
    assert other.after.whole == one.after.whole
