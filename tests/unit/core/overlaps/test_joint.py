"""The equations of flat-field and gains, against the same solved with whole covariances."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from scipy.linalg import block_diag
from scipy.stats import multivariate_normal

from fractal_mesospim_shading.core.overlaps import joint
from fractal_mesospim_shading.core.overlaps.cosines import shading_cosines
from fractal_mesospim_shading.core.overlaps.joint import (
    Expected,
    pair_equations,
    robustly_weighted,
    solve,
    total,
)
from fractal_mesospim_shading.core.overlaps.observations import OverlapPair

TILE = (96, 128)
COSINES = shading_cosines(TILE, (4, 4))


def pair(first, second, axis, rng, error=0.01, bins=60):
    """Bins at random places of an overlap, with a log ratio of noise alone."""
    y, x = rng.uniform(0, 95, bins), rng.uniform(100, 127, bins)
    shift = (0.0, 100.0)
    if axis == "y":
        y, x, shift = rng.uniform(72, 95, bins), rng.uniform(0, 127, bins), (72.0, 0.0)
    return OverlapPair(
        first=first,
        second=second,
        axis=axis,
        y_first=y,
        x_first=x,
        y_second=y - shift[0],
        x_second=x - shift[1],
        light_first=200 * np.exp(error * rng.standard_normal(bins)),
        light_second=np.full(bins, 200.0),
        variance=np.full(bins, 1e-8),
        planes=np.ones(bins),
        sheet=np.zeros(bins, np.intp),
    )


def problem(seed=0):
    """Equations of four tiles in a square, and an expectation."""
    rng = np.random.default_rng(seed)
    pairs = [pair(1, 2, "y", rng), pair(3, 4, "y", rng), pair(1, 3, "x", rng), pair(2, 4, "x", rng)]
    equations = pair_equations(pairs, COSINES, {1: 0, 2: 1, 3: 2, 4: 3})
    number = len(COSINES.y) + 4
    root = rng.standard_normal((number, number)) / 5
    expected = Expected(
        rng.standard_normal(number) / 10, np.linalg.inv(root @ root.T + np.eye(number) / 50)
    )
    return equations, expected


def dense(equations):
    """Design, ratios and covariance of their errors, all pairs one below the other."""
    covariance = block_diag(*(np.diag(1 / pair.weight) + pair.common for pair in equations))
    design = np.concatenate([pair.design for pair in equations])
    return design, np.concatenate([pair.ratio for pair in equations]), covariance


def test_the_solution_is_that_of_whole_covariances():
    equations, expected = problem()
    design, ratio, errors = dense(equations)
    prior = np.linalg.inv(expected.precision)
    gain = prior @ design.T @ np.linalg.inv(design @ prior @ design.T + errors)
    found = solve(total(equations), expected)
    np.testing.assert_allclose(
        found.mean, expected.mean + gain @ (ratio - design @ expected.mean), atol=1e-9
    )
    np.testing.assert_allclose(found.covariance, prior - gain @ design @ prior, atol=1e-9)


def test_differences_of_evidence_are_those_of_log_densities():
    equations, expected = problem()
    design, ratio, errors = dense(equations)
    found, density = [], []
    for factor in (1.0, 30.0):
        other = Expected(expected.mean / factor, expected.precision * factor)
        found.append(solve(total(equations), other).evidence)
        prior = design @ np.linalg.inv(other.precision) @ design.T + errors
        density.append(multivariate_normal.logpdf(ratio, design @ other.mean, prior))
    assert found[1] - found[0] == pytest.approx(density[1] - density[0], rel=1e-6)


def test_a_pair_that_went_wrong_counts_for_little():
    equations, expected = problem()
    rng = np.random.default_rng(1)
    broken = [replace(equations[0], ratio=0.3 * rng.standard_normal(60)), *equations[1:]]
    found = robustly_weighted(broken, expected)
    assert np.median(found[0].weight) < np.median(found[1].weight) / 50
    without = solve(total(robustly_weighted(equations[1:], expected)), expected).mean
    assert np.abs(solve(total(found), expected).mean - without).max() < 0.05


def test_bins_that_show_the_same_error_count_once():
    """Twice the same bins tell no more than once."""
    equations, expected = problem()
    twice = []
    for one in equations:
        near = np.stack([np.arange(60), np.arange(60) + 60], axis=1)
        twice.append(
            replace(
                one,
                design=np.concatenate([one.design, one.design]),
                ratio=np.tile(one.ratio, 2),
                noise=np.tile(one.noise, 2),
                weight=np.tile(one.weight, 2),
                near=near,
            )
        )
    alone = [replace(one, near=np.zeros((0, 2), np.intp)) for one in equations]
    once = solve(total(robustly_weighted(alone, expected)), expected)
    found = solve(total(robustly_weighted(twice, expected)), expected)
    np.testing.assert_allclose(
        np.sqrt(np.diag(found.covariance)), np.sqrt(np.diag(once.covariance)), rtol=0.05
    )


def test_heights_of_a_place_are_joined_and_large_mosaics_thinned(monkeypatch):
    """A place seen at many heights is one; of many places some are looked at, always the same."""
    rng = np.random.default_rng(0)
    one = pair(1, 2, "x", rng, bins=400)
    repeated = {
        name: np.tile(getattr(one, name), 3)
        for name in ("y_first", "x_first", "y_second", "x_second", "planes", "variance")
    }
    ratio = 0.01 * rng.standard_normal((3, 400))
    high = replace(
        one,
        **repeated,
        sheet=np.repeat(np.arange(3), 400),
        light_first=200 * np.exp(ratio).ravel(),
        light_second=np.full(1200, 200.0),
    )
    (joined,) = pair_equations([high], COSINES, {1: 0, 2: 1})
    order = np.lexsort((one.x_first, one.y_first))
    np.testing.assert_allclose(joined.ratio, ratio.mean(axis=0)[order], atol=1e-12)
    np.testing.assert_allclose(joined.noise, one.variance[order] / 3)
    monkeypatch.setattr(joint, "_MOST_PLACES", 150)
    first, again = (pair_equations([high], COSINES, {1: 0, 2: 1})[0] for _ in range(2))
    assert len(first.ratio) == 150 and set(first.ratio) < set(joined.ratio)
    np.testing.assert_array_equal(first.ratio, again.ratio)
