"""Counts under the light, found without flat-field and gains."""

from __future__ import annotations

import pytest

from fractal_mesospim_shading.core.overlaps.pedestal import Pedestal, pedestal


@pytest.mark.parametrize("counts", [0.0, 100.0, 40.0, -15.0])
@pytest.mark.parametrize("bleaching", [0.0, 0.08])
def test_a_pedestal_is_found_within_its_uncertainty(make_pairs, counts, bleaching):
    hits = 0
    for seed in range(5):
        found = pedestal(make_pairs(pedestal=counts, bleaching=bleaching, seed=seed))
        assert found.known
        assert found.uncertainty < 4
        hits += abs(found.value - counts) <= 2 * found.uncertainty
    assert hits >= 4


def test_what_was_taken_off_does_not_matter(make_pairs):
    """The same camera offset, whether 0, 40 or 100 counts of it were taken off before."""
    found = [pedestal(make_pairs(pedestal=counts)).value - counts for counts in (0, 60, 100)]
    assert max(found) - min(found) < 1


def test_medium_alone_says_that_it_cannot_tell(make_pairs):
    found = pedestal(make_pairs(sample=0.0, pedestal=40.0))
    assert not found.known and found.supported == 0


def test_tissue_hardly_brighter_than_the_medium_cannot_tell(make_pairs):
    assert not pedestal(make_pairs(sample=30.0)).known


def test_few_pairs_cannot_tell(make_pairs):
    assert not pedestal(make_pairs()[:4]).known
    assert not pedestal([]).known


def test_only_what_is_beyond_its_uncertainty_is_supported():
    assert Pedestal(1.9, 1.0, 9).supported == 0
    assert 0 < Pedestal(3.0, 1.0, 9).supported < 3
    assert Pedestal(100.0, 1.0, 9).supported == pytest.approx(100, abs=0.1)
    assert Pedestal(100.0, 1.0, 4, light=10.0).supported == 0
    assert Pedestal(100.0, 1.0, 4, light=60.0).supported == pytest.approx(100, abs=0.1)
