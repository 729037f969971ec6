"""Variance and third cumulant as lines: what they tell, and that their errors cover."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from fractal_mesospim_shading.core.flatfield.moments import Line, photon_transfer, third_cumulant
from fractal_mesospim_shading.core.flatfield.noise import NoiseSquares

OFFSET, GAIN, READ_VARIANCE = 100.0, 2.0, 9.0
CELLS, PIXELS = 768, 1024


def _squares(
    seed: int = 0, defects: int = 0, add: NDArray[np.float64] | float = 0.0
) -> NoiseSquares:
    """Squares of a camera whose moments scatter as their theory says, 40 planes of 12 x 12."""
    random = np.random.default_rng(seed)
    light = np.broadcast_to(np.linspace(30, 80, 144).reshape(12, 12), (40, 12, 12))
    variance = GAIN * light + READ_VARIANCE
    temporal = (variance + add) * (1 + np.sqrt(2 / CELLS) * random.standard_normal(light.shape))
    spread = 4 * 16**2 / (15 * 14) * variance**3 / PIXELS
    third = GAIN**2 * light + np.sqrt(spread) * random.standard_normal(light.shape)
    for place in random.choice(144, defects, replace=False):
        third.reshape(40, -1)[:, place] += 30000
        temporal.reshape(40, -1)[:, place] *= 1.4
    whole = np.full(light.shape, CELLS)
    return NoiseSquares(
        square_px=1000,
        integer=False,
        noise_mean=OFFSET + light,
        halves=np.stack([OFFSET + light] * 2),
        half_pixels=np.full((2, *light.shape), 512.0),
        spatial=temporal,
        spatial_cells=whole,
        temporal=temporal,
        temporal_cells=whole,
        third=third,
        third_pixels=np.full(light.shape, PIXELS),
        roughness=np.ones(light.shape),
        roughness_bins=whole.astype(float),
        change=temporal,
        change_bins=whole.astype(float),
    )


def _lines(squares: NoiseSquares) -> tuple[Line, Line]:
    every = np.ones(squares.noise_mean.shape, bool)
    transfer = photon_transfer(squares, every, one_sided=False, structure=0.2)
    assert transfer is not None
    third = third_cumulant(squares, transfer, one_sided=False)
    assert third is not None
    return transfer.line, third


@pytest.mark.parametrize("defects", [0, 6])
def test_errors_cover_and_are_no_larger_than_they_have_to(defects: int) -> None:
    """Also where some places of the camera are defect in all planes."""
    scores = []
    for seed in range(30):
        line, third = _lines(_squares(seed, defects))
        scores.append(
            (
                (line.slope - GAIN) / line.slope_error,
                (line.at_zero - OFFSET + READ_VARIANCE / GAIN) / line.zero_error,
                (third.slope - GAIN**2) / third.slope_error,
                (third.at_zero - OFFSET) / third.zero_error,
                (third.level - GAIN**2 * (third.centre - OFFSET)) / third.level_error,
            )
        )
    size = np.sqrt(np.mean(np.square(scores), axis=0))
    assert (size < 1.2).all()
    assert (size > 0.4).all()


def test_the_zero_of_a_line_has_the_error_of_both_its_numbers() -> None:
    line = Line(2.0, 0.02, 160.0, 130.0, 0.6)
    assert line.at_zero == 95.0
    random = np.random.default_rng(1)
    level, slope = (m + s * random.standard_normal(100_000) for m, s in ((130, 0.6), (2, 0.02)))
    assert line.zero_error == pytest.approx(np.std(160 - level / slope), rel=0.02)


def test_texture_adds_to_the_variance_and_the_envelope_leaves_it_out() -> None:
    add = np.where(np.random.default_rng(2).random((40, 12, 12)) < 0.3, 100.0, 0.0)
    every = np.ones(add.shape, bool)
    found = {
        one_sided: photon_transfer(_squares(add=add), every, one_sided=one_sided, structure=0.2)
        for one_sided in (True, False)
    }
    envelope = found[True]
    assert envelope is not None
    expected = OFFSET - READ_VARIANCE / GAIN
    assert abs(envelope.line.at_zero - expected) < 2 * envelope.line.zero_error
    assert not envelope.used[add > 0].any()
    assert envelope.share == pytest.approx(0.7 * 0.93, abs=0.03)


def test_few_or_equal_squares_are_no_line() -> None:
    squares = _squares()
    few = np.zeros(squares.noise_mean.shape, bool)
    few[0, 0, :4] = True
    assert photon_transfer(squares, few, one_sided=False, structure=0.2) is None
