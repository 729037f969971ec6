"""The certificate: it orders flat-fields by their error, and is at its floor for the true one."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from fractal_mesospim_shading.core.overlaps.pedestal import pedestal
from fractal_mesospim_shading.core.overlaps.residual import pair_residuals, summary
from tests.unit.core.overlaps.conftest import error_of_flatfield, log_flatfield


def taken_by(log_flat):
    """What dividing by a flat-field takes off."""

    def taken(pair):
        return log_flat(pair.y_first, pair.x_first) - log_flat(pair.y_second, pair.x_second)

    return taken


def measured(pairs, log_flat=None, left=0.0):
    taken = None if log_flat is None else taken_by(log_flat)
    return summary(pair_residuals(pairs, taken, left))


def wrong_by(error):
    return lambda y, x: log_flatfield(y, x) + error * error_of_flatfield(y, x)


@pytest.mark.parametrize("bleaching", [0.0, 0.05])
@pytest.mark.parametrize("gains", [0.0, 0.2])
def test_flat_fields_are_ordered_by_their_error(make_pairs, bleaching, gains):
    pairs = make_pairs(bleaching=bleaching, gains=gains)
    true = measured(pairs, log_flatfield)
    medians = [measured(pairs, wrong_by(e)).median for e in (0.005, 0.01, 0.02, 0.05, 0.1)]
    assert true.median <= 1.3 * true.noise_floor
    assert true.median < medians[0]
    assert medians == sorted(medians)
    # Proportional to the error, once it is well above the floor.
    assert medians[-1] / medians[-3] == pytest.approx(5, rel=0.2)
    assert measured(pairs).median > 5 * true.noise_floor


def test_noise_is_taken_off(make_pairs):
    """Ten times the noise changes what is shown by less than what it is wrong by."""
    quiet, noisy = (
        measured(make_pairs(noise=noise, seed=3), wrong_by(0.03)) for noise in (0.002, 0.02)
    )
    assert noisy.median == pytest.approx(quiet.median, rel=0.15)
    assert noisy.p90 == pytest.approx(quiet.p90, rel=0.15)
    # Three sheets average it.
    assert noisy.noise_floor == pytest.approx(0.6745 * 0.02 / np.sqrt(3), rel=0.15)


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("every", [1, 3])
def test_bins_without_noise_are_measured_too(make_pairs, every):
    """Pixels that are all equal, as in synthetic images."""
    noisy = make_pairs(noise=0.002, seed=3)
    rows = [np.arange(len(pair.variance)) % every == 0 for pair in noisy]
    pairs = [
        replace(pair, variance=np.where(row, 0.0, pair.variance))
        for pair, row in zip(noisy, rows, strict=True)
    ]
    expected, found = measured(noisy, wrong_by(0.03)), measured(pairs, wrong_by(0.03))
    assert found.median == pytest.approx(expected.median, rel=0.05)
    assert found.gain == pytest.approx(expected.gain, abs=0.001)


def test_gains_are_told_apart_from_the_shape(make_pairs):
    equal, unequal = (
        measured(make_pairs(gains=gains, seed=1), log_flatfield) for gains in (0.0, 0.2)
    )
    assert equal.gain < 0.002
    assert unequal.gain > 0.05
    assert unequal.median == pytest.approx(equal.median, abs=0.001)


def test_the_gain_of_a_pair_is_the_first_over_the_second(make_pairs):
    pairs = make_pairs(rows=1, columns=2, gains=0.3, seed=2)
    rng = np.random.default_rng(2)
    brightness = np.exp(0.3 * rng.standard_normal(3))
    (found,) = pair_residuals(pairs, taken_by(log_flatfield))
    assert (found.first, found.second, found.axis) == (1, 2, "x")
    assert found.gain == pytest.approx(brightness[1] / brightness[2] - 1, abs=0.003)


@pytest.mark.parametrize("counts", [40.0, 100.0])
def test_a_wrong_offset_does_not_improve_it(make_pairs, counts):
    """Each with the flat-field that the medium shows where that offset is believed."""
    right, wrong = make_pairs(seed=1), make_pairs(seed=1, pedestal=counts)

    def of_medium(y, x):
        return np.log((60 * np.exp(log_flatfield(y, x)) + counts) / (60 + counts))

    left = pedestal(wrong).supported
    assert left == pytest.approx(counts, abs=5)
    true, false = measured(right, log_flatfield), measured(wrong, of_medium, left)
    assert false.median > true.median - true.error
    assert false.p90 > 3 * true.p90
    # Views that nothing was done to differ by as much as they do.
    raw = measured(right), measured(wrong, None, left)
    assert raw[1].median == pytest.approx(raw[0].median, rel=0.05)
    assert measured(wrong).median < 0.9 * raw[0].median, "what it would look like otherwise"


def test_the_uncertainty_covers_other_samples(make_pairs):
    found = [measured(make_pairs(seed=seed), wrong_by(0.03)) for seed in range(12)]
    medians = np.array([f.median for f in found])
    typical = float(np.mean([f.error for f in found]))
    assert np.std(medians) < 2 * typical


def test_nothing_to_measure():
    assert np.isnan(measured([]).median)
    assert pair_residuals([]) == ()
