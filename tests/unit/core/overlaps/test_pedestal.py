"""Counts under the light, found without flat-field and gains."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from fractal_mesospim_shading.core.overlaps.pedestal import Pedestal, pedestal


@pytest.mark.parametrize("counts", [0.0, 100.0, 40.0, -15.0])
@pytest.mark.parametrize("bleaching", [0.0, 0.08])
def test_a_pedestal_is_found_within_its_uncertainty(make_pairs, counts, bleaching):
    hits = 0
    for seed in range(5):
        found = pedestal(make_pairs(pedestal=counts, bleaching=bleaching, seed=seed), 0.0)
        assert found.known
        assert found.uncertainty < 4
        hits += abs(found.value - counts) <= 2 * found.uncertainty
    assert hits >= 4


def test_what_was_taken_off_does_not_matter(make_pairs):
    """The same camera offset, whether 0, 40 or 100 counts of it were taken off before."""
    found = [pedestal(make_pairs(pedestal=counts)).value - counts for counts in (0, 60, 100)]
    assert max(found) - min(found) < 1


def test_many_times_the_light_of_the_medium_is_found(make_pairs):
    """All that is below the light of the dimmest bins can be no light."""
    found = pedestal(make_pairs(medium=4.0, sample=60.0, pedestal=300.0), 0.0)
    assert abs(found.value - 300) <= 3 * found.uncertainty < 3


def test_what_a_dark_frame_looks_like_counts_is_in_the_uncertainty(make_pairs):
    """A slope of the dark frame cannot be told from counts; how much it is taken for them, can."""

    def sloped(pair, counts):
        first, second = (
            counts * np.sqrt(12) * (x / 320 - 0.5) for x in (pair.x_first, pair.x_second)
        )
        return replace(
            pair,
            light_first=pair.light_first + first,
            light_second=pair.light_second + second,
        )

    pairs = make_pairs(noise=1e-4)
    exact = pedestal(pairs, 0.0)
    wrong = abs(pedestal([sloped(pair, 1.0) for pair in pairs], 0.0).value - exact.value)
    assert wrong > 3 * exact.uncertainty
    assert wrong <= 2 * pedestal(pairs, 1.0).uncertainty
    one, two = (pedestal(pairs, counts).uncertainty for counts in (1.0, 2.0))
    assert two == pytest.approx(2 * one, rel=0.05)


@pytest.mark.parametrize("scale", [1e-5, 1e4])
def test_floats_of_any_scale_tell_the_same(make_pairs, scale):
    pairs = make_pairs(pedestal=30.0)
    scaled = [
        replace(p, light_first=scale * p.light_first, light_second=scale * p.light_second)
        for p in pairs
    ]
    one, other = pedestal(pairs, None), pedestal(scaled, None)
    assert other.value == pytest.approx(scale * one.value, rel=1e-6)
    assert other.uncertainty == pytest.approx(scale * one.uncertainty, rel=1e-6)
    assert other.bright_pairs == one.bright_pairs


def test_medium_alone_says_that_it_cannot_tell(make_pairs):
    found = pedestal(make_pairs(sample=0.0, pedestal=40.0))
    assert not found.known and found.supported == 0


def test_tissue_hardly_brighter_than_the_medium_cannot_tell(make_pairs):
    assert not pedestal(make_pairs(sample=30.0)).known


def test_few_pairs_cannot_tell(make_pairs):
    assert not pedestal(make_pairs()[:4]).known
    assert not pedestal([]).known


def test_only_what_is_beyond_its_uncertainty_is_supported():
    assert Pedestal(1.9, 1.0, 9, light=60.0).supported == 0
    assert 0 < Pedestal(3.0, 1.0, 9, light=60.0).supported < 3
    assert Pedestal(100.0, 1.0, 9, light=60.0).supported == pytest.approx(100, abs=0.1)
    assert Pedestal(100.0, 1.0, 4, light=10.0).supported == 0
    assert Pedestal(100.0, 6.0, 9, light=10.0).likely == 0
    assert Pedestal(-5.0, 3.0, 9, light=60.0).likely == pytest.approx(-4)
    assert Pedestal(1.0, 3.0, 9, light=60.0).likely == 0
    assert Pedestal(100.0, 1.0, 4, light=60.0).supported == pytest.approx(100, abs=0.1)
