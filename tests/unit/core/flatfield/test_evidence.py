"""All that is known of an offset, weighed: against draws of random cameras, and limits."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from fractal_mesospim_shading.core.flatfield.evidence import Evidence, posterior
from fractal_mesospim_shading.core.flatfield.moments import Line
from fractal_mesospim_shading.core.flatfield.noise import Level, Scales

CENTRE, GAIN = 160.0, 2.0


def _evidence(
    at_zero: float = 95.0, third: tuple[float, float] | None = None, **changes: object
) -> Evidence:
    """A sure line of variance; `third`: offset and slope over gain squared of the other line."""
    by_third = None
    if third is not None:
        offset, slope = third
        by_third = Line(slope * GAIN**2, 0.05, CENTRE, GAIN**2 * (CENTRE - offset), 0.4)
    whole = Evidence(
        variance=Line(GAIN, 0.004, CENTRE, GAIN * (CENTRE - at_zero), 0.05),
        gain_error=0.001,
        third=by_third,
        scales=Scales(),
        pairs=True,
        darkest=Level(140.0, 0.3),
        raw=False,
        zeros=0.0,
        processed=False,
        integer=True,
    )
    return replace(whole, **changes)  # type: ignore[arg-type]


def test_photons_tell_offset_and_read_noise() -> None:
    found = posterior(_evidence(third=(100.0, 1.0)))
    assert found.value == pytest.approx(100, abs=0.3)
    assert found.uncertainty < 1.5
    assert found.photons > 0.95
    # 95 + 2 r^2 = 100
    assert found.read_noise == pytest.approx(np.sqrt(2.5), rel=0.1)


@pytest.mark.parametrize("slope", [0.0, 0.5, 1.5, -0.3])
@pytest.mark.parametrize("offset", [120.0, 135.0, 60.0])
def test_a_slope_that_is_not_of_photons_takes_the_word_from_the_third_moment(
    slope: float, offset: float
) -> None:
    alone, found = posterior(_evidence()), posterior(_evidence(third=(offset, slope)))
    assert found.photons < 0.05
    assert abs(found.value - alone.value) < 1
    assert found.uncertainty > 2


def test_a_filter_takes_it_as_well() -> None:
    found = posterior(_evidence(third=(100.0, 1.0), scales=Scales(fine=0.8, coarse=1.5)))
    assert found.photons < 0.01
    # The gain of the camera is larger than that of the line, and so is the read variance.
    assert found.value > posterior(_evidence()).value + 0.5


def test_against_draws_of_random_cameras() -> None:
    """The line alone: offset = zero of the line + gain * read variance * what a change adds."""
    random = np.random.default_rng(3)
    number = 400_000
    read = np.exp(
        np.choose(
            random.choice(3, number, p=[0.5, 0.35, 0.15]),
            [np.log(m) + s * random.standard_normal(number) for m, s in _READ_NOISES],
        )
    )
    ratio = np.choose(
        random.choice(4, number, p=[0.425, 0.075, 0.35, 0.15]),
        [
            np.zeros(number),
            *(
                m + s * random.standard_normal(number)
                for m, s in ((1.4, 0.7), (0, 0.1), (0.5, 0.5))
            ),
        ],
    )
    drawn = 95 + GAIN * read**2 * np.exp(ratio)
    drawn = drawn[drawn < 140]
    middle, low, high = np.quantile(drawn, [0.5, 0.023, 0.977])
    found = posterior(_evidence())
    assert found.value == pytest.approx(middle, abs=0.3)
    assert found.uncertainty == pytest.approx(max(middle - low, high - middle) / 2, rel=0.05)


_READ_NOISES = ((1.45, 0.2), (2.0, 0.5), (0.7, 0.4))


def test_no_offset_is_above_the_darkest() -> None:
    found = posterior(_evidence(variance=None, darkest=Level(97.0, 0.3), raw=True))
    assert found.value <= 97.5
    assert found.uncertainty > 2
    bounded = posterior(_evidence(at_zero=95.0, darkest=Level(98.0, 0.3)))
    assert 95 < bounded.value < 98.3
    assert bounded.uncertainty < posterior(_evidence()).uncertainty


def test_what_cameras_are_like_counts_for_raw_pixels_alone() -> None:
    nothing = {"variance": None, "darkest": Level(400.0, 0.3)}
    usual = posterior(_evidence(**nothing, raw=True))
    assert usual.value == pytest.approx(100, abs=3)
    # Never 0 because nothing is known, and never sure of it.
    assert usual.uncertainty > 20
    others = posterior(_evidence(**nothing))
    assert others.uncertainty > 100
    # Where pixels are darker than cameras are, something was taken off.
    dark = posterior(_evidence(variance=None, darkest=Level(40.0, 0.3), raw=True))
    assert 0 <= dark.value < 40


def test_a_line_decides_against_what_is_usual() -> None:
    found = posterior(_evidence(at_zero=145.0, raw=True, darkest=Level(190.0, 0.3)))
    assert abs(found.value - 149.5) < 2 * found.uncertainty
    assert found.value > 145


def test_an_offset_that_was_taken_off() -> None:
    found = posterior(_evidence(at_zero=-4.0, third=None, darkest=Level(35.0, 0.3)))
    assert found.value == 0
    # The same line of a camera with a small offset and more read noise is not excluded.
    assert 0.2 < found.uncertainty < 10


def test_zeros_among_values_are_of_no_camera_with_an_offset() -> None:
    nothing = {"variance": None, "darkest": Level(150.0, 0.3), "raw": True}
    assert posterior(_evidence(**nothing)).value > 90
    assert posterior(_evidence(**nothing, zeros=0.01)).value == 0


def test_the_unit_of_floats_does_not_matter() -> None:
    unit = 1 / 65535
    line, third = _evidence().variance, _evidence(third=(100.0, 1.0)).third
    assert line is not None
    assert third is not None
    small = replace(
        _evidence(),
        integer=False,
        variance=_scaled(line, unit, 1),
        third=_scaled(third, unit, 2),
        darkest=Level(140 * unit, 0.3 * unit),
    )
    large = replace(_evidence(third=(100.0, 1.0)), integer=False)
    expected, found = posterior(large), posterior(small)
    assert found.value / unit == pytest.approx(expected.value, rel=1e-3)
    assert found.uncertainty / unit == pytest.approx(expected.uncertainty, rel=0.02)


def _scaled(line: Line, unit: float, power: int) -> Line:
    """A line whose mean is in other units, and its height in that many powers more."""
    return Line(
        line.slope * unit**power,
        line.slope_error * unit**power,
        line.centre * unit,
        line.level * unit ** (power + 1),
        line.level_error * unit ** (power + 1),
    )
