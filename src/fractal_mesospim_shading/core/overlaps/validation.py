"""How well overlaps agree from which nothing was learnt."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from fractal_mesospim_shading.core.overlaps.joint import Expected, PairEquations, solve, total

FloatArray = NDArray[np.float64]

_FOLDS = 5


@dataclass(frozen=True)
class Residual:
    """Of log ratios about the mean of their part, absolute, as fractions."""

    median: float
    p90: float


def cross_validated(
    equations: Sequence[PairEquations],
    pairs: Sequence[int],
    expected: Expected,
    estimate: FloatArray,
) -> tuple[Residual, Residual]:
    """Residuals of pairs before, and after what the other pairs have changed.

    Args:
        equations: of parts of overlaps.
        pairs: number of the pair that each is of, from 0; those of one are held back together.
        expected: of all unknowns before the overlaps.
        estimate: coefficients of the flat-field, the first of the unknowns, as estimated.
    """
    count = len(estimate)
    before: list[FloatArray] = []
    after: list[FloatArray] = []
    numbered = list(zip(pairs, equations, strict=True))
    folds = min(_FOLDS, 1 + max(pairs))
    for fold in range(folds):
        rest = [part for number, part in numbered if number % folds != fold]
        learnt = solve(total(rest), expected).mean[:count]
        for part in (part for number, part in numbered if number % folds == fold):
            shape = part.design[:, :count]
            before.append(_about_mean(part, part.ratio - shape @ estimate))
            after.append(_about_mean(part, part.ratio - shape @ learnt))
    return _residual(before), _residual(after)


def _about_mean(part: PairEquations, values: FloatArray) -> FloatArray:
    return np.abs(values - np.average(values, weights=part.weight))


def _residual(parts: Sequence[FloatArray]) -> Residual:
    every = np.concatenate(parts)
    return Residual(float(np.median(every)), float(np.quantile(every, 0.9)))
