"""Did it work: each case of what is known, and the word that follows."""

from __future__ import annotations

import json
import logging
import math
from dataclasses import replace

import pytest

from fractal_mesospim_shading.views.background_verdict import judged_background
from fractal_mesospim_shading.views.evidence import (
    BackgroundEvidence,
    Evidence,
    OffsetSeen,
    Steps,
    Views,
)
from fractal_mesospim_shading.views.verdict import Verdict, judged, percent

GOOD = Evidence(
    "488 nm",
    views=Views(before=0.06, after=0.004, floor=0.006, pairs=12),
    offset=100.0,
    seen=(OffsetSeen("the noise", 0.5, 1.0),),
    planes=160,
    uncertainty=0.007,
    harm=0.0025,
    saturated=0.0,
)


def word(**changes: object) -> str:
    return judged([replace(GOOD, **changes)]).word  # type: ignore[arg-type]


def seen(apart: float, uncertainty: float, **more: bool) -> tuple[OffsetSeen, ...]:
    return (OffsetSeen("the noise", apart, uncertainty, **more),)


@pytest.mark.parametrize(
    ("after", "floor", "grew", "expected"),
    [
        (0.004, 0.006, False, "good"),
        # Below 2 %, whatever the floor.
        (0.019, 0.001, False, "good"),
        # Within twice the floor, whatever that is.
        (0.059, 0.03, False, "good"),
        (0.021, 0.010, False, "look"),
        (0.061, 0.03, False, "look"),
        (0.03, 0.02, True, "wrong"),
        (float("nan"), 0.01, False, "look"),
    ],
)
def test_how_far_tiles_differ(after: float, floor: float, grew: bool, expected: str) -> None:
    assert word(views=Views(0.06, after, floor, 12, grew=grew)) == expected


@pytest.mark.parametrize(
    ("apart", "uncertainty", "expected"),
    [
        (0.0, 0.1, "good"),
        (-3.9, 2.0, "good"),
        (4.1, 2.0, "look"),
        (-9.9, 2.0, "look"),
        (10.1, 2.0, "wrong"),
        (-10.1, 2.0, "wrong"),
        # Five times the uncertainty, and yet nothing that does harm.
        (4.9, 0.1, "look"),
        # As exact as offsets are typed.
        (0.9, 0.01, "good"),
        (50.0, 0.0, "wrong"),
    ],
)
def test_offset_given_and_seen(apart: float, uncertainty: float, expected: str) -> None:
    assert word(seen=seen(apart, uncertainty)) == expected


def test_one_way_alone_contradicts_no_offset() -> None:
    assert word(seen=seen(50.0, 1.0, independent=False)) == "look"


def test_the_worst_of_what_is_seen_decides() -> None:
    both = (OffsetSeen("the noise", 0.0, 1.0), OffsetSeen("tissue in overlaps", 20.0, 2.0))
    verdict = judged([replace(GOOD, seen=both)])
    assert verdict.word == "wrong"
    (worst, *_) = verdict.channels[0].findings
    assert "tissue in overlaps says 120.0 +- 2.0" in worst.text and "too flat" in worst.text
    assert "Do it again with the right offset." in verdict.todo[0]


def test_an_offset_that_nothing_tells_is_not_good() -> None:
    assert word(seen=()) == "look"
    assert word(seen=(), offset_uncertainty=1.5) == "good"
    given = judged([replace(GOOD, seen=())])
    assert "nothing in the image tells" in given.channels[0].findings[0].text


@pytest.mark.parametrize(("planes", "expected"), [(8, "good"), (7, "look"), (None, "good")])
def test_planes(planes: int | None, expected: str) -> None:
    assert word(planes=planes) == expected


@pytest.mark.parametrize(
    ("uncertainty", "expected"), [(0.02, "good"), (0.021, "look"), (None, "good")]
)
def test_how_sure(uncertainty: float | None, expected: str) -> None:
    assert word(uncertainty=uncertainty) == expected


def test_saturated_pixels() -> None:
    assert word(saturated=0.0009) == "good"
    assert word(saturated=0.0011) == "look"


def test_without_overlaps_nothing_is_good() -> None:
    assert word(views=None) == "look"
    assert word(views=None, steps=Steps(0.1, 0.001)) == "look"
    assert word(views=None, steps=Steps(0.1, 0.2, grew=True)) == "wrong"
    text = judged([replace(GOOD, views=None, unseen="there is one tile")]).channels[0].findings[0]
    assert text.text == "nothing tells how good the correction is: there is one tile."


def test_a_line_that_asks_for_a_look_is_never_good() -> None:
    verdict = judged([GOOD], warnings=1)
    assert verdict.word == "look" and verdict.todo == ("Read what the log asks to look at.",)
    bad = replace(GOOD, views=Views(0.01, 0.05, 0.001, 12, grew=True))
    assert judged([bad], warnings=1).word == "wrong"


def test_the_worst_channel_decides() -> None:
    few = replace(GOOD, label="561 nm", planes=3)
    verdict = judged([GOOD, few])
    assert verdict.word == "look"
    assert [own.word for own in verdict.channels] == ["good", "look"]
    assert verdict.todo == ("Choose more tiles or planes without sample.",)


def test_a_channel_without_light() -> None:
    verdict = judged([replace(GOOD, copied=True)])
    assert verdict.word == "look"
    assert "holds no light" in verdict.channels[0].findings[0].text


def test_the_uncertainty_holds_the_doubt_about_the_offset() -> None:
    """0.7 % beside an offset that is 20 counts off would be a number that lies."""
    off = replace(GOOD, seen=seen(20.0, 2.0))
    assert off.whole_uncertainty == pytest.approx(math.hypot(0.007, 20 * 0.0025))
    assert replace(off, harm=None).whole_uncertainty is None
    # Where the estimate has counted it, it is not counted twice.
    assert replace(GOOD, seen=seen(20.0, 2.0, counted=True)).whole_uncertainty == 0.007
    assert GOOD.whole_uncertainty == 0.007
    assert GOOD.offset_supported and not off.offset_supported
    assert not replace(GOOD, seen=()).offset_supported


def test_lines_for_the_log() -> None:
    def lines(verdict: Verdict) -> str:
        return "\n".join(verdict.lines())

    good = lines(judged([GOOD]))
    assert good.startswith("Good: it worked.\n488 nm: The same tissue in two tiles")
    # A server marks a job by that word anywhere in its log.
    assert "warning" not in lines(judged([replace(GOOD, planes=2)], warnings=3)).lower()
    wrong = lines(judged([replace(GOOD, seen=seen(-30.0, 2.0))]))
    assert wrong.startswith("Wrong: ") and "too steep" in wrong
    assert "rests on" not in wrong


def test_wrong_is_one_warning_that_repeats_none() -> None:
    """What the log has warned of is not said again; what it has not is said with the verdict."""
    grew = replace(GOOD, label="561 nm", views=Views(0.01, 0.05, 0.001, 12, grew=True))
    for bad in (
        grew,
        replace(GOOD, seen=seen(-30.0, 2.0)),
        replace(GOOD, views=None, steps=Steps(0.1, 0.2, grew=True)),
    ):
        (level, line), *rest = judged([GOOD, bad], warnings=1).log_lines()
        assert level == logging.WARNING and line.startswith("Wrong: this is not to be used")
        assert line.endswith(f" {bad.label}: see the warnings above.")
        assert rest and all(level == logging.INFO for level, _ in rest)
    (_, line), *_ = judged([grew, replace(grew, label="640 nm")]).log_lines()
    assert line.endswith("as it is. 561 nm, 640 nm: see the warnings above.")
    cut = BackgroundEvidence("488 nm", cut=0.7)
    (level, line), *_ = judged_background([cut]).log_lines()
    assert level == logging.WARNING
    assert line == (
        "Wrong: this is not to be used as it is. 488 nm: 70 % of the pixels became 0 or the "
        "largest value: noise explains half of them at most."
    )
    assert {level for level, _ in judged([GOOD], warnings=1).log_lines()} == {logging.INFO}


def test_lines_say_one_thing_each() -> None:
    """As wide as a terminal is, with a label as long as they are."""
    verdict = judged([GOOD, replace(GOOD, planes=2)])
    assert verdict.lines()[1:-1] == tuple(
        f"{own.label}: {found.text[0].upper()}{found.text[1:]}"
        for own in verdict.channels
        for found in own.decisive
    )
    assert max(map(len, verdict.lines())) <= 120


def test_as_json() -> None:
    facts = judged([GOOD, replace(GOOD, planes=1)]).facts()
    assert json.loads(json.dumps(facts)) == facts
    assert facts["word"] == "look"
    assert [own["word"] for own in facts["channels"]] == ["good", "look"]
    unknown = replace(GOOD, views=Views(0.1, float("nan"), 0.1, 1), uncertainty=float("inf"))
    assert "NaN" not in json.dumps(unknown.facts()) and "Inf" not in json.dumps(unknown.facts())
    assert unknown.facts()["views"]["after"] is None


@pytest.mark.parametrize(
    ("cut", "unestimated", "expected"),
    [
        (0.0, 0, "good"),
        (0.01, 0, "good"),
        (0.011, 0, "look"),
        # Noise alone takes half of an empty image below its background.
        (0.5, 0, "look"),
        (0.61, 0, "wrong"),
        (0.0, 1, "look"),
        (0.7, 1, "wrong"),
    ],
)
def test_backgrounds(cut: float, unestimated: int, expected: str) -> None:
    own = BackgroundEvidence("488 nm", cut, unestimated)
    assert judged_background([own]).word == expected
    assert judged_background([own], warnings=1).word == max(
        expected, "look", key=("good", "look", "wrong").index
    )


@pytest.mark.parametrize(
    ("fraction", "text"),
    [(0.0, "0 %"), (0.00432, "0.43 %"), (0.0576, "5.8 %"), (0.123, "12 %"), (0.0996, "10 %")],
)
def test_fractions_as_people_read_them(fraction: float, text: str) -> None:
    assert percent(fraction) == text
