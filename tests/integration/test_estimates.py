"""What an estimate rests on is looked at: the offset, the planes, the light."""

from __future__ import annotations

import json
import logging
import shutil
from pathlib import Path

import numpy as np
import pytest
import zarr

from fractal_mesospim_shading import correct_flatfield, estimate_flatfield, import_mesospim
from fractal_mesospim_shading.errors import NoLightError, ProfileError, SamplingError
from fractal_mesospim_shading.flatfield.model_texts import facts_line, offset_text
from fractal_mesospim_shading.flatfield.models import ChannelModel
from fractal_mesospim_shading.synthetic.demo import write_mosaic
from fractal_mesospim_shading.synthetic.images import write_image
from fractal_mesospim_shading.synthetic.world import LightSheetWorld
from fractal_mesospim_shading.views.inspection import as_text, describe

WORLD = LightSheetWorld(tile_shape=(128, 128), grid=(2, 2), planes=16, sample=0.0)


@pytest.fixture
def estimated(tmp_path, caplog):
    """`estimated(world, **options)`: the models, and the warnings on the way."""

    def run(world=WORLD, **options):
        source = tmp_path / "brain.zarr"
        if not source.exists():
            write_mosaic(source, world, ("A",), chunks=(8, 64, 64))
        caplog.clear()
        models = estimate_flatfield(str(source), str(tmp_path / "models"), **options)
        warned = [r.getMessage() for r in caplog.records if r.levelno >= logging.WARNING]
        # That a result is wrong is said once, after what was warned of, and does not say it again.
        verdict = [line for line in warned if line.startswith("Wrong: ")]
        assert verdict in ([], warned[-1:])
        assert all(line.endswith("A: see the warnings above.") for line in verdict)
        return models, [line for line in warned if line not in verdict]

    return run


# --- The offset ------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize("given", [0, 80, 120])
def test_an_offset_against_the_noise_is_warned_of(estimated, given):
    models, warnings = estimated(fov_list=[1, 2, 3, 4], camera_offset=given)
    assert len(warnings) == 1
    line = warnings[0]
    assert line.startswith(f"Channel A: you gave a camera offset of {given} counts, but the noise")
    said = float(line.partition("the noise says ")[2].partition(" +- ")[0])
    assert said == pytest.approx(WORLD.offset, abs=5)
    assert f"too {'flat' if given < 100 else 'steep'}, wrong by about " in line
    # The harm is what the truth says, as far as the flat-field tells it.
    wrong = models["A"].profile.flatfield / WORLD.flatfield() - 1
    harm = float(line.partition("wrong by about ")[2].partition(" %")[0])
    assert harm == pytest.approx(100 * np.sqrt(np.mean(wrong**2)), rel=0.5)


@pytest.mark.slow
def test_a_right_offset_brings_no_word(estimated):
    assert estimated(fov_list=[1, 2, 3, 4], camera_offset=100)[1] == []
    assert estimated(fov_list=[1, 2, 3, 4])[1] == []


@pytest.mark.slow
@pytest.mark.parametrize(("too_high", "said"), [(0, False), (-40, True), (25, True)])
def test_a_dark_frame_of_other_settings_is_warned_of(estimated, tmp_path, too_high, said):
    np.save(tmp_path / "dark.npy", WORLD.measured_dark_frame() + too_high)
    _, warnings = estimated(fov_list=[1, 2, 3, 4], darkfield_file=str(tmp_path / "dark.npy"))
    assert len(warnings) == said
    if said:
        assert f"the dark-field given has {100 + too_high} counts in the mean" in warnings[0]


def test_an_offset_above_the_light_is_named_where_nothing_can_be_made_of_it(estimated):
    with pytest.raises((SamplingError, ProfileError), match="Channel A") as error:
        estimated(fov_list=[1, 2, 3, 4], camera_offset=160)
    assert "you gave a camera offset of 160 counts, but the noise says" in str(error.value)
    assert "no offset can be higher" in str(error.value)
    with pytest.raises(SamplingError, match="counts darker than the camera offset") as error:
        estimated(fov_list=[1, 2, 3, 4], camera_offset=700)
    assert not isinstance(error.value, NoLightError)


@pytest.mark.slow
def test_planes_of_a_coarser_level_tell_of_the_darkest_alone(estimated):
    """The noise of means of pixels is not the camera's."""
    options = {"fov_list": [1, 2, 3, 4], "resolution_level": 1}
    assert estimated(**options, camera_offset=100)[1] == []
    assert estimated(**options, camera_offset=60)[1] == []
    with pytest.raises((SamplingError, ProfileError), match="no offset can be higher") as error:
        estimated(**options, camera_offset=150)
    assert "the noise says" not in str(error.value)


def test_what_was_estimated_and_not_used_is_said():
    facts = {
        "scenario": "BaSiCPy",
        "offset": 0.0,
        "offset_from": "estimated (noise within planes)",
        "offset_uncertainty": 1.25,
        "offset_rejected": 0.84,
        "offset_rejected_because": "no different from 0",
        "scale": 1.0,
    }
    assert offset_text(facts) == (
        "0.0, none taken off (0.8 +- 1.2 was estimated (noise within planes), no different from 0, "
        "and is not used)"
    )
    model = ChannelModel(_profile(), 0.0, facts)
    assert "0.0 +- 1.2" not in facts_line("A", model)
    assert "0.8 +- 1.2" in facts_line("A", model)
    assert "nan" not in offset_text({**facts, "offset_uncertainty": None})
    used = {"offset": 99.4, "offset_uncertainty": 1.44, "offset_from": "estimated (x)"}
    assert offset_text(used) == "99.4 +- 1.4 (estimated (x))"
    assert offset_text({"offset": 100.0, "offset_from": "given"}) == "100.0 (given)"


def _profile():
    from fractal_mesospim_shading.core.profile import ShadingProfile

    return ShadingProfile.create(np.ones((4, 4)))


# --- The planes ------------------------------------------------------------------------------

FILLED = LightSheetWorld(
    tile_shape=(128, 128), grid=(2, 2), planes=16, sample=600.0, sample_radius=3.0
)


@pytest.fixture
def full_of_cells(tmp_path, caplog):
    """`full_of_cells(**options)`: the warnings of an estimate from planes that all hold cells."""
    stacks = [FILLED.tile_planes(number, range(3, 13)) for number in FILLED.tile_numbers]
    pixels = np.block([[stacks[0], stacks[2]], [stacks[1], stacks[3]]])[None]
    path = write_image(
        tmp_path / "cells.zarr",
        pixels,
        channels=["A"],
        tile_shape=(128, 128),
        chunks=(1, 5, 64, 64),
    )

    def run(**options):
        estimate_flatfield(path, str(tmp_path / "models"), camera_offset=100, **options)
        return [r.getMessage() for r in caplog.records if r.levelno >= logging.WARNING]

    return run


def test_a_tile_full_of_cells_is_refused_by_name(full_of_cells):
    with pytest.raises(SamplingError, match="planes chosen as empty share one shape") as error:
        full_of_cells(fov_list=[3])
    assert "10 planes of tile 3" in str(error.value)
    assert str(error.value).startswith("Channel A: ")


def test_one_plane_full_of_cells_cannot_be_told_and_is_warned_of(full_of_cells):
    warnings = full_of_cells(fov_list=[2], n_zplanes=1)
    assert any("rests on 1 plane (tile 2)" in line for line in warnings)
    assert any("may be a picture of the sample" in line for line in warnings)


def test_the_ends_of_a_stack_without_cells_are_enough(estimated):
    """Four of 16 planes of the tile hold none, and are found; that the others do is said."""
    models, warnings = estimated(FILLED, fov_list=[3], camera_offset=100)
    assert models["A"].facts["planes_used"] == 4
    (line,) = warnings
    assert "tile 3 was given as empty, but 12 of the 16 planes read in it hold" in line


@pytest.mark.slow
def test_three_empty_planes_are_enough(estimated):
    assert estimated(fov_list=[1], n_zplanes=4, camera_offset=100)[1] == []
    (line,) = estimated(fov_list=[1], n_zplanes=2, camera_offset=100)[1]
    assert "rests on 2 planes (tile 1)" in line


@pytest.mark.slow
def test_basic_says_what_few_planes_do(estimated, tmp_path):
    (line,) = estimated(n_zplanes=5, camera_offset=100)[1]
    assert "BaSiC was fitted to 5 planes" in line
    assert line.endswith("Raise n_zplanes=.")
    with pytest.raises(SamplingError, match="BaSiC was given 2 planes .* Raise n_zplanes="):
        estimated(n_zplanes=2, camera_offset=100)
    assert estimated(camera_offset=100)[1] == []
    image = write_image(
        tmp_path / "one.zarr", WORLD.tile_planes(1, [3])[None], channels=["A"], chunks=(1, 64, 64)
    )
    with pytest.raises(SamplingError, match="BaSiC was given 1 plane with data") as error:
        estimate_flatfield(image, str(tmp_path / "models"), camera_offset=100)
    assert "n_zplanes" not in str(error.value)
    assert "models_folder" in str(error.value)


# --- A channel without light -----------------------------------------------------------------


@pytest.fixture
def half_dark(tmp_path):
    """An image whose second channel had no laser: `half_dark(kind)`."""

    def write(kind="zero"):
        path = tmp_path / "brain.zarr"
        write_mosaic(path, WORLD, ("488 nm", "561 nm"), chunks=(8, 64, 64))
        dark = LightSheetWorld(**{**vars(WORLD), "medium": 0.0})
        for name, array in zarr.open_group(str(path)).arrays():
            if kind == "zero":
                array[1] = 0
            elif name == "0":
                tiles = [dark.tile_stack(number) for number in dark.tile_numbers]
                array[1] = np.block([[tiles[0], tiles[2]], [tiles[1], tiles[3]]])
        return str(path)

    return write


@pytest.mark.slow
@pytest.mark.parametrize(
    ("kind", "options"),
    [
        ("zero", {"fov_list": [1, 2]}),
        ("offset alone", {"fov_list": [1, 2], "camera_offset": 100, "report": False}),
    ],
)
def test_a_channel_without_light_is_named_and_can_be_left(half_dark, kind, options, caplog):
    source = half_dark(kind)
    with pytest.raises(NoLightError, match="Channel 561 nm holds no light") as error:
        correct_flatfield(source, **options)
    assert "Set skip_empty_channels=" in str(error.value)
    assert "488" not in str(error.value)
    caplog.clear()
    result = correct_flatfield(
        source, **options, skip_empty_channels=True, output_offset=7, overwrite=True
    )
    (line,) = [r.getMessage() for r in caplog.records if r.levelno >= logging.WARNING]
    assert line.startswith("Channel 561 nm holds no light: it is copied as it is")
    got = zarr.open_array(result.image_url + "/0", mode="r")[:]
    raw = zarr.open_array(source + "/0", mode="r")[:]
    np.testing.assert_array_equal(got[1], raw[1])
    corrected = np.median(got[0])
    assert corrected == pytest.approx(WORLD.medium + 7, abs=8)
    attributes = zarr.open_group(result.image_url, mode="r").attrs.asdict()
    models = attributes["mesospim_shading"]["models"]
    assert models["561 nm"]["corrected"] is False
    assert "corrected" not in models["488 nm"]
    if result.report is not None:
        assert "not corrected: no light" in Path(result.report).read_text()
    found = describe(result.image_url)
    assert any("Channel 561 nm is not corrected" in note for note in found["notes"])
    assert "Channel 561 nm is not corrected" in as_text(found)


@pytest.mark.slow
def test_basic_names_the_channel_without_light(half_dark, tmp_path):
    with pytest.raises(NoLightError, match="Channel 561 nm holds no light") as error:
        estimate_flatfield(half_dark(), str(tmp_path / "models"), camera_offset=100)
    assert "n_zplanes" not in str(error.value)


def test_an_image_without_any_light_is_an_error_all_the_same(tmp_path):
    path = write_image(
        tmp_path / "brain.zarr",
        np.zeros((2, 4, 128, 128), np.uint16),
        channels=["A", "B"],
        tile_shape=(64, 64),
        chunks=(1, 64, 64),
    )
    for options in ({"fov_list": [1]}, {}):
        with pytest.raises(NoLightError, match="was the light on") as error:
            correct_flatfield(path, skip_empty_channels=True, **options)
        assert "Channel A" in str(error.value)
        assert "Channel B" in str(error.value)
        assert "skip_empty_channels" not in str(error.value)


@pytest.mark.slow
def test_dark_planes_of_a_lit_channel_are_no_empty_channel(tmp_path):
    """The medium shines in one channel; in the other only the sample does."""
    world = LightSheetWorld(tile_shape=(128, 128), grid=(3, 3), planes=16)
    path = tmp_path / "brain.zarr"
    write_mosaic(path, world, ("488 nm", "561 nm"), chunks=(8, 64, 64))
    array = zarr.open_array(str(path / "0"))
    lit = array[1]
    lit[:, :128, :128] = 0
    array[1] = lit
    with pytest.raises(SamplingError, match="Channel 561 nm.*Other planes of the channel") as error:
        correct_flatfield(str(path), fov_list=[1], skip_empty_channels=True)
    assert not isinstance(error.value, NoLightError)


def test_saved_models_leave_out_what_was_not_corrected(half_dark, tmp_path):
    models = estimate_flatfield(
        half_dark(), str(tmp_path / "models"), fov_list=[1, 2], skip_empty_channels=True
    )
    assert not models["561 nm"].corrects
    assert [p.name for p in (tmp_path / "models").iterdir()] == ["488 nm"]


@pytest.fixture
def half_dark_acquisition(native_v04, tmp_path):
    """A native acquisition whose second laser was off."""
    home = tmp_path / "acquisition"
    shutil.copytree(native_v04.folder, home)
    container = home / native_v04.container.name
    for group, (channel, _, _) in native_v04.places().items():
        if channel == 1:
            for _, array in zarr.open_group(str(container / group)).arrays():
                array[:] = 0
    return container


@pytest.mark.slow
@pytest.mark.usefixtures("two_threads")
def test_native_acquisitions_can_leave_a_channel_too(
    half_dark_acquisition, native_v04, tmp_path, caplog
):
    options = {"z_levels": native_v04.z_levels, "camera_offset": 100}
    with pytest.raises(NoLightError, match="Channel 561 nm holds no light"):
        correct_flatfield(str(half_dark_acquisition), **options)
    with pytest.raises(NoLightError, match="Channel 561 nm holds no light"):
        import_mesospim(
            str(half_dark_acquisition), str(tmp_path), correct_flatfield=True, **options
        )
    result = correct_flatfield(str(half_dark_acquisition), **options, skip_empty_channels=True)
    marks = {}
    for group, (channel, _, _) in native_v04.places().items():
        got = zarr.open_array(f"{result.image_url}/{group}/0", mode="r")[:]
        assert got.any() == (channel == 0)
        mark = zarr.open_group(f"{result.image_url}/{group}", mode="r").attrs["mesospim_shading"]
        marks.setdefault(channel, set()).update(json.dumps(m) for m in mark["models"].values())
    assert all('"corrected": false' in text for text in marks[1])
    assert not any('"corrected": false' in text for text in marks[0])
    assert "Channel 561 nm is not corrected" in as_text(describe(result.image_url))
    (imported,) = import_mesospim(
        str(half_dark_acquisition),
        str(tmp_path),
        correct_flatfield=True,
        skip_empty_channels=True,
        **options,
    )
    got = zarr.open_array(imported.image_url + "/0", mode="r")[:]
    assert got[0].any()
    assert not got[1].any()
    assert "Channel 561 nm is not corrected" in as_text(describe(imported.image_url))
