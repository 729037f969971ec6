"""What a person reads of the overlaps, and what a program does."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest

from fractal_mesospim_shading.core.overlaps.observing import Rejected
from fractal_mesospim_shading.core.overlaps.pedestal import DARK_STRUCTURE
from fractal_mesospim_shading.overlaps.certificate import OverlapCheck
from fractal_mesospim_shading.overlaps.sampling import OverlapEvidence
from tests.unit.core.overlaps.conftest import error_of_flatfield, grid_pairs, log_flatfield


def taken_by(log_flat):
    def taken(pair):
        return log_flat(pair.y_first, pair.x_first) - log_flat(pair.y_second, pair.x_second)

    return taken


ROW = "Same tissue in two tiles differs by"


def evidence(pairs, rejected=(), dark_structure=DARK_STRUCTURE):
    return OverlapEvidence(tuple(pairs), tuple(rejected), 0, dark_structure)


def checked(log_flat=log_flatfield, pairs=None, rejected=(), dark_structure=DARK_STRUCTURE):
    taken = None if log_flat is None else taken_by(log_flat)
    seen = evidence(grid_pairs() if pairs is None else pairs, rejected, dark_structure)
    return OverlapCheck.of_models("488 nm", "left", seen, taken)


def test_a_right_correction_is_said_to_be_right():
    check = checked()
    assert check.measured and not check.grew and not check.offset_doubted
    first, second, third, last = check.lines()
    assert "before" in first and "after" in first and "12 overlaps" in first
    assert second == "That is as good as the overlaps can tell."
    assert (
        third == f"Noise and stage errors alone give {100 * check.after.whole.noise_floor:.2g} %."
    )
    assert last.startswith("Camera offset: right, as far as the overlaps can tell")


def test_a_flat_field_of_something_else_made_it_worse():
    check = checked(lambda y, x: -log_flatfield(y, x))
    assert check.grew
    assert "as good as" not in " ".join(check.lines())


def test_a_small_error_is_no_growth():
    assert not checked(lambda y, x: log_flatfield(y, x) + 0.01 * error_of_flatfield(y, x)).grew


@pytest.mark.parametrize(("counts", "said"), [(80.0, "too small by"), (-25.0, "too large by")])
def test_a_wrong_offset_is_told_with_its_counts(counts, said):
    check = checked(pairs=grid_pairs(pedestal=counts))
    assert check.offset_doubted
    assert said in check.lines()[-1]
    assert check.facts()["offset"]["right"] is False
    assert check.facts()["offset"]["counts_left"] == pytest.approx(counts, abs=5)


def test_counts_beyond_their_uncertainty_are_not_said_to_be_right():
    """Too few to be sure that the offset is wrong, too many to call it right."""
    check = checked(pairs=grid_pairs(pedestal=2.5))
    found = check.pedestal
    assert 2 * found.uncertainty < found.value < 4 * found.uncertainty
    assert check.lines()[-1].startswith("Camera offset: not far off, but perhaps not right: by the")
    assert check.facts()["offset"]["right"] is None and not check.offset_doubted


def test_views_that_are_alike_everywhere_tell_nothing_of_the_offset():
    """As in a mosaic that was cut out of one fused image: no shading, no word of the offset."""
    pairs = [replace(pair, light_second=pair.light_first) for pair in grid_pairs()]
    assert checked(pairs=pairs).lines()[-1].endswith("there is too little shading in them.")


def test_small_counts_matter_where_there_is_little_light():
    check = checked(pairs=grid_pairs(medium=2.0, sample=60.0, pedestal=-0.8), dark_structure=0.0)
    assert check.offset_doubted and "too large by 0." in check.lines()[-1]


def test_what_cannot_be_told_is_said():
    assert "overlaps cannot tell: fewer than" in checked(pairs=grid_pairs(sample=0.0)).lines()[-1]
    nothing = checked(pairs=[], rejected=[Rejected(1, 2, "dark")])
    assert not nothing.measured and not nothing.grew
    assert nothing.lines() == (
        "overlaps say nothing of the correction: the one overlap cannot be used.",
        "Mostly because: dark.",
    )
    assert nothing.why_unmeasured == "the one overlap cannot be used (dark)"
    assert nothing.details() == ()
    assert nothing.facts()["before"]["median_percent"] is None
    json.dumps(nothing.facts(), allow_nan=False)


def test_one_overlap_tells_no_uncertainty():
    check = checked(pairs=grid_pairs()[:1])
    assert "; 1 overlap; uncertainty not known; " in dict(check.rows())[ROW]
    assert check.lines()[0].endswith(", in 1 overlap.")
    assert check.details()[-1] == "The uncertainty of the difference is not known."
    assert "inf" not in " ".join((*check.lines(), *check.details()))
    assert check.facts()["uncertainty_percent"] is None


@pytest.mark.parametrize(
    "check",
    [
        checked(),
        checked(None),
        checked(lambda y, x: -log_flatfield(y, x)),
        checked(pairs=grid_pairs(pedestal=80.0)),
        checked(pairs=grid_pairs(pedestal=-25.0)),
        checked(pairs=grid_pairs(pedestal=2.5)),
        checked(pairs=grid_pairs(sample=0.0)),
        checked(pairs=[], rejected=[Rejected(1, n, f"{'so ' * 9} ({n})") for n in range(2, 90)]),
    ],
)
def test_a_line_fits_a_terminal(check):
    """With "Channel 488 nm: " before it; the details are for the report and for `check`."""
    lines = (*check.lines(), *check.details())
    assert max(len(f"Channel 488 nm: {line}") for line in lines) <= 120
    assert not any(". " in line for line in lines)


def test_the_json_is_that_of_the_command():
    facts = checked(rejected=[Rejected(3, 6, "dark")]).facts()
    assert json.loads(json.dumps(facts, allow_nan=False)) == facts
    numbers = {"median_percent", "p90_percent", "noise_floor_percent", "gain_percent"}
    assert set(facts["before"]) == set(facts["after"]) == numbers
    assert (facts["label"], facts["side"], facts["pairs"]) == ("488 nm", "left", 12)
    assert set(facts["along"]) == {"x", "y"}
    assert facts["rejected"] == [{"tiles": [3, 6], "reason": "dark"}]
    assert len(facts["map"]) == 12
    assert facts["after"]["median_percent"] < facts["before"]["median_percent"] / 5


def test_an_image_alone_has_no_after():
    check = checked(None)
    assert check.after is None and check.facts()["after"] is None
    assert "before" not in check.lines()[0]
    assert dict(check.rows())["Tiles differ in brightness by"].count("%") == 1


def test_a_result_is_compared_with_its_source_where_both_show_a_pair():
    raw = grid_pairs(pedestal=100.0)
    done = [pair for pair in grid_pairs(log_flat=lambda y, x: np.zeros_like(y)) if pair.first > 1]
    check = OverlapCheck.of_result("488 nm", None, evidence(raw), evidence(done))
    facts = check.facts()
    assert facts["pairs"] == len(done) == 10
    assert facts["after"]["median_percent"] < 0.2 * facts["before"]["median_percent"]
    assert facts["offset"]["right"] is True and facts["offset"]["counts_left"] is None
