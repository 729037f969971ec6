"""Where in the second view of an overlap the tissue of the first lies: stage errors, found again.

Phase correlation finds the whole pixel (Kuglin, Hines, The phase correlation image alignment
method, Proc. IEEE Conf. Cybernetics and Society 1975), least squares the rest (Lucas, Kanade, An
iterative image registration technique, IJCAI 1981), which the edges of narrow overlaps do not
bias. All pieces of a pair of tiles share one shift.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Image = NDArray[np.float32]
FloatArray = NDArray[np.float64]
Pieces = Sequence[tuple[Image, Image]]

# Detail between these radii is looked at: below is noise, above are shading and glow. The edges
# of a narrow overlap must not reach its middle.
_FINE_PX = 1.0
_COARSE_PX = 6.0
# Darker pixels, as a fraction of the typical light, count as this.
_DARKEST = 0.05
# What share of a typical power a frequency needs to count fully.
_LEAST_POWER = 0.3
# Rounds of least squares, at most, and the step from which on they have come to rest, in pixels.
_ROUNDS = 8
_AT_REST = 0.003
# Pixels of a pair that are looked at, at most: those pieces with the most detail.
_MOST_PIXELS = 2**19
# Views agree from this correlation of their details on, and two parts of a pair to this distance.
_LEAST_CORRELATION = 0.4
_MOST_APART_PX = 1.0
# Part of a side over which the edge of a piece fades.
_FADE = 0.15


@dataclass(frozen=True)
class Registration:
    """How the two views of an overlap lie to each other.

    Attributes:
        y, x: what lies at `p` in the first view lies at `p + (y, x)` in the second, pixels.
        error: standard deviation of a shift, from two parts of the pair, pixels.
        correlation: of the details of both views at that shift; noise lowers it.
        reason: why it does not hold; None where it does.
    """

    y: float
    x: float
    error: float
    correlation: float
    reason: str | None = None

    @property
    def holds(self) -> bool:
        """Whether the views show the same tissue at that shift."""
        return self.reason is None


def register(pieces: Pieces, reach: int) -> Registration:
    """Find the one shift between two views.

    Args:
        pieces: images (y, x) of the same places in both views, counts above the offset; pixels
            that are not to be looked at are NaN. Equal in shape within a piece.
        reach: largest shift, in pixels; the outcome is no farther.

    Returns:
        The shift; rejected where the details do not correlate, or where two halves of the
        pieces lie more than a pixel apart.
    """
    details = _most_detailed([(_detail(a), _detail(b)) for a, b in _halved(pieces)])
    reach = min(reach, *(min(first.shape) // 3 for first, _ in details))
    start = _whole_pixels(details, reach)
    y, x, correlation = _between_pixels(details, start)
    halves = [_between_pixels(details[k::2], start)[:2] for k in (0, 1)]
    apart = float(np.hypot(halves[0][0] - halves[1][0], halves[0][1] - halves[1][1]))
    jump = [_whole_pixels(details[k::2], reach) for k in (0, 1)]
    reason = None
    if not correlation >= _LEAST_CORRELATION:
        reason = f"what both views show does not correlate ({max(correlation, 0):.2f})"
    elif apart > _MOST_APART_PX or np.hypot(*(a - b for a, b in zip(*jump, strict=True))) > 2:
        reason = "its parts are shifted differently"
    # A thousandth of a pixel is less than anything that is known of it.
    return Registration(round(y, 3), round(x, 3), apart / 2, correlation, reason)


def _halved(pieces: Pieces) -> Pieces:
    """The pieces; a single one is cut in two, so that there are parts to be compared."""
    if len(pieces) > 1:
        return pieces
    first, second = pieces[0]
    along = int(np.argmax(first.shape))
    ones, others = (np.array_split(view, 2, axis=along) for view in (first, second))
    return list(zip(ones, others, strict=True))


def _detail(view: Image) -> Image:
    """What an image shows between noise and shading, with the same noise everywhere.

    Of the logarithm, to which shading is something smooth that is added; any slope that is left
    would look like a shift. The root of the light gives the noise of photons its weight.
    """
    from scipy.ndimage import gaussian_filter

    known = np.isfinite(view)
    typical = float(np.median(view[known])) if known.any() else 0.0
    if typical <= 0:
        return np.zeros_like(view)
    fine = gaussian_filter(np.where(known, view, typical), _FINE_PX)
    light = np.log(np.maximum(fine, _DARKEST * typical))
    smooth = gaussian_filter(light, min(_COARSE_PX, min(view.shape) / 8))
    detail: Image = (light - smooth) * np.exp(smooth / 2)
    detail[~known] = 0
    return detail


def _most_detailed(details: Pieces) -> Pieces:
    """The pieces with the most detail, in their order, as far as they are few enough pixels."""
    energy = [float(np.mean(np.abs(first)) * np.mean(np.abs(second))) for first, second in details]
    chosen: list[int] = []
    pixels = 0
    for number in np.argsort(energy, kind="stable")[::-1]:
        pixels += details[number][0].size
        if len(chosen) >= 2 and pixels > _MOST_PIXELS:
            break
        chosen.append(int(number))
    return [details[number] for number in sorted(chosen)]


def _window(shape: tuple[int, ...]) -> Image:
    from scipy.signal.windows import tukey

    rows, columns = (tukey(size, 2 * _FADE).astype(np.float32) for size in shape)
    return np.asarray(rows[:, None] * columns[None, :], dtype=np.float32)


def _whole_pixels(details: Pieces, reach: int) -> tuple[int, int]:
    surface = sum(_phase_correlation(first, second, reach) for first, second in details)
    peak = np.unravel_index(int(np.argmax(surface)), (2 * reach + 1, 2 * reach + 1))
    return int(peak[0]) - reach, int(peak[1]) - reach


def _phase_correlation(first: Image, second: Image, reach: int) -> FloatArray:
    """The correlation at shifts from -reach to reach, (y, x)."""
    from scipy import fft

    window = _window(first.shape)
    cross = np.conj(fft.rfft2(first * window)) * fft.rfft2(second * window)
    power = np.abs(cross)
    floor = _LEAST_POWER * float(np.sqrt(np.mean(power**2)))
    surface = fft.irfft2(cross / (power + max(floor, 1e-30)), first.shape)
    lags = np.arange(-reach, reach + 1)
    found: FloatArray = surface[np.ix_(lags, lags)] * first.size
    return found


def _between_pixels(details: Pieces, start: tuple[int, int]) -> tuple[float, float, float]:
    """The shift (y, x) that makes the views most alike, and their correlation then."""
    from scipy.ndimage import spline_filter

    views = [(first, spline_filter(second, 3, np.float32)) for first, second in details]
    shift = np.array(start, dtype=np.float64)
    for _ in range(_ROUNDS):
        sums = sum(_normal_equations(first, second, shift) for first, second in views)
        step = _step(np.asarray(sums))
        shift += step
        if np.hypot(*step) < _AT_REST:
            break
    if np.abs(shift - start).max() > 2 * _MOST_APART_PX:
        return float(start[0]), float(start[1]), 0.0
    sums = np.asarray(sum(_normal_equations(first, second, shift) for first, second in views))
    scale = float(np.sqrt(sums[0, 0] * sums[1, 1]))
    return float(shift[0]), float(shift[1]), float(sums[0, 1]) / scale if scale > 0 else 0.0


def _normal_equations(first: Image, second: Image, shift: FloatArray) -> FloatArray:
    """Products of the first view and what it is made of.

    That is the second one moved, the gradient of that along y and x, and it times both coordinates:
    by what shading makes one end of an overlap brighter than the other.
    """
    from scipy.ndimage import shift as moved_by

    moved = moved_by(second, -shift, order=3, prefilter=False, mode="mirror")
    rows, columns = np.gradient(moved)
    inner = [
        slice(max(0, int(np.ceil(-d))) + 1, n - max(0, int(np.ceil(d))) - 1)
        for d, n in zip(shift, first.shape, strict=True)
    ]
    shape = (inner[0].stop - inner[0].start, inner[1].stop - inner[1].start)
    y, x = (np.linspace(-1, 1, size, dtype=np.float32) for size in shape)
    views = [view[inner[0], inner[1]] for view in (first, moved, rows, columns)]
    parts = [view.ravel() for view in (*views, views[1] * y[:, None], views[1] * x)]
    window = _window(shape).ravel()
    vectors = np.stack(parts).astype(np.float64)
    products: FloatArray = (vectors * window) @ vectors.T
    return products


def _step(products: FloatArray) -> FloatArray:
    """How far to go, where the second view may also differ by a factor."""
    try:
        factor, y, x, *_ = np.linalg.solve(products[1:, 1:], products[1:, 0])
    except np.linalg.LinAlgError:
        return np.zeros(2)
    if factor <= 0:
        return np.zeros(2)
    step: FloatArray = np.clip(np.array([y, x]) / factor, -1, 1)
    return step
