"""An offset that came with a model is held against what the pass reads, in every kind of job."""

from __future__ import annotations

import logging

import numpy as np
import pytest

from fractal_mesospim_shading import correct_flatfield, import_mesospim
from fractal_mesospim_shading.synthetic.demo import write_mosaic
from fractal_mesospim_shading.synthetic.images import write_image
from fractal_mesospim_shading.synthetic.world import LightSheetWorld

pytestmark = pytest.mark.slow

WORLD = LightSheetWorld(tile_shape=(128, 128), grid=(2, 2), planes=16, sample_radius=0.5)


@pytest.fixture
def run(tmp_path, caplog):
    """`run(dark, world, **options)`: warnings and plain lines of a correction."""
    source = tmp_path / "brain.zarr"

    def correct(dark, world=WORLD, flat=None, pixels=None, **options):
        if pixels is not None:
            write_image(source, pixels, channels=["A"], tile_shape=(64, 80), overwrite=True)
        elif not source.exists():
            write_mosaic(source, world, ("A",), chunks=(4, 64, 64))
        folder = tmp_path / "models" / "A"
        folder.mkdir(parents=True, exist_ok=True)
        dark_field = {} if dark is None else {"darkfield": np.float32(dark)}
        flat = world.flatfield() if flat is None else flat
        np.savez(folder / "profiles.npz", flatfield=flat, **dark_field)
        caplog.clear()
        with caplog.at_level(logging.INFO):
            correct_flatfield(
                str(source),
                models_folder=str(folder.parent),
                report=False,
                overwrite=True,
                **options,
            )
        warned = [r.getMessage() for r in caplog.records if r.levelno >= logging.WARNING]
        plain = [r.getMessage() for r in caplog.records if r.levelno == logging.INFO]
        # That a result is wrong is said once, after what was warned of, and does not say it again.
        verdict = [line for line in warned if line.startswith("Wrong: ")]
        assert verdict in ([], warned[-1:])
        assert all(line.endswith("A: see the warnings above.") for line in verdict)
        return [line for line in warned if line not in verdict], plain

    return correct


@pytest.mark.parametrize("dark", [0.0, 80.0, 120.0])
@pytest.mark.parametrize("many", [False, True])
def test_a_dark_field_against_the_noise_is_warned_of_at_the_end(run, dark, many, request):
    if many:
        request.getfixturevalue("many_blocks")
    (line,), _ = run(dark)
    assert line.startswith(f"Channel A: the dark-field given has {dark:g} counts in the mean")
    said = float(line.partition("the noise says ")[2].partition(" +- ")[0])
    assert said == pytest.approx(100, abs=6)
    if dark == 0:
        low, high = np.percentile(said / WORLD.flatfield(), [1, 99])
        assert f"makes {low:.0f} to {high:.0f} of them" in line


@pytest.mark.parametrize("many", [False, True])
def test_a_right_one_brings_no_word(run, many, request):
    if many:
        request.getfixturevalue("many_blocks")
    assert run(100.0)[0] == []
    assert run(WORLD.measured_dark_frame())[0] == []
    assert run(None, camera_offset=100)[0] == []
    assert run(None)[0] == []


def test_a_number_that_was_given_is_named_as_such(run):
    (line,), _ = run(None, camera_offset=0)
    assert line.startswith("Channel A: you gave a camera offset of 0 counts, but the noise says")


def test_the_same_is_said_whatever_the_workers(run):
    found = {tuple(run(20.0, n_workers=n)[0]) for n in (1, 2, 3)}
    assert len(found) == 1


def test_more_pixels_below_than_noise_explains(run):
    """A dark frame of 700 under random pixels of 100 to 900: no camera, but plainly too high."""
    rng = np.random.default_rng(0)
    pixels = rng.integers(100, 900, (1, 3, 128, 160)).astype(np.uint16)
    (line,), _ = run(700.0, flat=np.ones((64, 80)), pixels=pixels)
    assert "no offset can be higher" in line
    assert "75.1 % of the pixels became 0" in line


@pytest.mark.parametrize("medium", [0.0, 2.0, 5.0])
def test_what_noise_explains_is_a_plain_line(run, medium):
    """Of clear medium a fifth of the pixels may be below the offset, in the dark half of them."""
    world = LightSheetWorld(**{**vars(WORLD), "medium": medium, "sample": 0.0})
    warned, plain = run(100.0, world)
    assert warned == []
    (line,) = [text for text in plain if "darker than the camera offset" in text]
    assert "as their noise explains" in line
    assert "output_offset" in line


def test_a_table_of_bright_light_says_nothing(run):
    warned, plain = run(100.0)
    assert warned == []
    assert not [text for text in plain if "darker than the camera offset" in text]


@pytest.fixture
def dark_models(native_v04, tmp_path):
    """Models of a native sample with a dark-field of so many counts: `dark_models(counts)`."""

    def write(counts):
        for label, flat in native_v04.flats.items():
            folder = tmp_path / "models" / label
            folder.mkdir(parents=True, exist_ok=True)
            np.savez(folder / "profiles.npz", flatfield=flat, darkfield=np.float32(counts))
        return str(tmp_path / "models")

    return write


@pytest.mark.usefixtures("two_threads")
@pytest.mark.parametrize(("counts", "words"), [(0, 2), (100, 0)])
def test_native_acquisitions_are_looked_at_alike(
    native_v04, dark_models, tmp_path, caplog, counts, words
):
    container = str(native_v04.container)
    models = dark_models(counts)
    for job in (
        lambda: correct_flatfield(container, models_folder=models, output_folder=str(tmp_path)),
        lambda: import_mesospim(
            container, str(tmp_path / "out"), correct_flatfield=True, models_folder=models
        ),
    ):
        caplog.clear()
        job()
        # Of the models that were given; the verdict at the end says what the noise says as well.
        said_early = [r.getMessage() for r in caplog.records if "given" in r.getMessage()]
        lines = [line for line in said_early if "the noise says" in line]
        assert len(lines) == words
        for line in lines:
            said = float(line.partition("the noise says ")[2].partition(" +- ")[0])
            assert said == pytest.approx(100, abs=6)


# --- The seams -------------------------------------------------------------------------------


def _seam_lines(lines):
    return [line for line in lines if "step at the tile seams grew" in line]


@pytest.mark.parametrize(("shape", "said"), [("sheet", 0), ("tilted", 1)])
def test_seams_that_grew_are_warned_of(run, shape, said):
    world = LightSheetWorld(tile_shape=(128, 128), grid=(3, 3), planes=8)
    flat = LightSheetWorld(**{**vars(world), "shape": shape}).flatfield()
    lines = _seam_lines(run(100.0, world, flat=flat)[0])
    assert len(lines) == said
    if said:
        assert lines[0].startswith("Channel A: the step at the tile seams grew from ")
        assert "the flat-field does not fit this image" in lines[0]
