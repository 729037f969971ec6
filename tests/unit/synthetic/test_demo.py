"""The demo: its image is quickly made, and its scores are right for known corrections."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from fractal_mesospim_shading.core.profile import ShadingProfile
from fractal_mesospim_shading.errors import OutputExistsError, ParameterError
from fractal_mesospim_shading.images.mosaic import MosaicImage
from fractal_mesospim_shading.synthetic.demo import (
    DemoScore,
    DemoTruth,
    evaluate_demo,
    make_demo_image,
)
from fractal_mesospim_shading.synthetic.images import write_image

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def demo(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, DemoTruth]:
    return make_demo_image(tmp_path_factory.mktemp("demo") / "new" / "folder")


def whole(image: MosaicImage) -> np.ndarray:
    return image.read(0, tuple(slice(0, n) for n in image.levels[0].shape))


def test_image_has_empty_corners_and_a_sample_across_seams(demo: tuple[str, DemoTruth]) -> None:
    url, truth = demo
    image = MosaicImage.open(url)
    assert image.levels[0].shape == (2, 40, 576, 768) and len(image.levels) == 3
    assert [channel.label for channel in image.channels] == list(truth.channels)
    assert truth.empty_tiles == image.layout.corners == (1, 3, 7, 9)
    pixels = whole(image)
    # Medium of 60 counts over an offset of 100, seen through a flat-field of mean 1.
    assert pixels[0, :, :192, :256].mean() == pytest.approx(160, abs=1)
    seam = pixels[:, 20, 280:296, 254:258]
    assert (seam.mean(axis=(1, 2)) > 300).all()
    with pytest.raises(OutputExistsError):
        make_demo_image(Path(url).parent)


def test_scores_of_known_corrections(demo: tuple[str, DemoTruth], tmp_path: Path) -> None:
    """With the truth the error is 0; a profile 10 % off in one half gives what it must."""
    url, truth = demo
    pixels = whole(MosaicImage.open(url)).astype(np.float32)
    tiled = np.stack([np.tile(truth.flatfield(label), (3, 3)) for label in truth.channels])
    corrected = (pixels - 100) / tiled[:, None] + 50
    target = write_image(
        tmp_path / "c.zarr",
        corrected,
        channels=truth.channels,
        tile_shape=(192, 256),
        factors=(),
        chunks=(8, 192, 256),
        codec=None,
    )
    first, second = (truth.flatfield(label) for label in truth.channels)
    wrong = second.copy()
    wrong[:96] *= 1.1
    profiles = {
        truth.channels[0]: ShadingProfile.create(first),
        truth.channels[1]: ShadingProfile.create(wrong),
    }
    scores = evaluate_demo(truth, profiles, url, target, output_offset=50)
    assert [score.label for score in scores] == list(truth.channels)
    assert scores[0].flatfield_error < 1e-6
    scale = wrong.astype(np.float64).mean()
    expected = np.sqrt(((1.1 / scale - 1) ** 2 + (1 / scale - 1) ** 2) / 2)
    assert scores[1].flatfield_error == pytest.approx(expected, rel=1e-4)
    for score in scores:
        assert score.seam_before > 0.05 and score.seam_after < 0.025


def test_a_channel_that_is_not_there(demo: tuple[str, DemoTruth]) -> None:
    url, truth = demo
    with pytest.raises(ParameterError, match="561 nm"):
        evaluate_demo(truth, {"488 nm": ShadingProfile.create(np.ones((2, 2)))}, url, url)
    with pytest.raises(ParameterError, match="no channel 'x'"):
        truth.flatfield("x")


def test_line_for_a_person() -> None:
    assert DemoScore("488 nm", 0.0049, 0.182, 0.0061).text() == (
        "488 nm: flat-field error 0.49%, step across tile seams 18.2% before, 0.6% after"
    )
