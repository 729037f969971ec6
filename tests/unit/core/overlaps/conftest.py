"""Overlaps of a grid of tiles in bins, made without any pixel."""

from __future__ import annotations

import numpy as np
import pytest

from fractal_mesospim_shading.core.overlaps.observations import OverlapPair

SHAPE = (256, 320)
OVERLAP = 48


def log_flatfield(y, x):
    """Darker towards the edges, and off centre."""
    v, u = y / SHAPE[0] - 0.5, x / SHAPE[1] - 0.56
    return -1.2 * u**2 - 0.9 * v**2 + 0.1 * u


def error_of_flatfield(y, x):
    """A bowl of RMS 1."""
    v, u = y / SHAPE[0] - 0.5, x / SHAPE[1] - 0.5
    return 9 * (u**2 + v**2 - 1 / 6)


def grid_pairs(
    *,
    rows=3,
    columns=3,
    medium=60.0,
    sample=300.0,
    gains=0.1,
    pedestal=0.0,
    bleaching=0.0,
    noise=0.004,
    sheets=3,
    seed=0,
    log_flat=log_flatfield,
):
    """What neighbours of a grid see: structured tissue in two thirds of each overlap."""
    rng = np.random.default_rng(seed)
    brightness = np.exp(gains * rng.standard_normal(rows * columns + 1))
    pairs = []
    for column in range(columns):
        for row in range(rows):
            number = column * rows + row + 1
            if row + 1 < rows:
                pairs.append((number, number + 1, "y"))
            if column + 1 < columns:
                pairs.append((number, number + rows, "x"))
    result = []
    for first, second, axis in pairs:
        along = 1 if axis == "x" else 0
        corner, extent = [0, 0], list(SHAPE)
        corner[along], extent[along] = SHAPE[along] - OVERLAP, OVERLAP
        y, x = np.meshgrid(
            *(c + 8 * np.arange(n // 8) + 3.5 for c, n in zip(corner, extent, strict=True)),
            indexing="ij",
        )
        y, x = (np.tile(v.ravel(), sheets) for v in (y, x))
        sheet = np.repeat(np.arange(sheets), len(y) // sheets)
        tissue = sample * np.exp(0.4 * rng.standard_normal(len(y)))
        tissue *= rng.random(len(y)) < 2 / 3
        move = rng.normal(0, 2, 2) - np.array(corner)
        y2, x2 = y + move[0], x + move[1]
        one = (medium + tissue) * brightness[first] * np.exp(log_flat(y, x)) + pedestal
        other = (medium + (1 - bleaching) * tissue) * brightness[second]
        other = other * np.exp(log_flat(y2, x2)) + pedestal
        each = noise / np.sqrt(2)
        one, other = (v * np.exp(each * rng.standard_normal(len(y))) for v in (one, other))
        pair = OverlapPair(
            first=first,
            second=second,
            axis=axis,
            y_first=y,
            x_first=x,
            y_second=y2,
            x_second=x2,
            light_first=one,
            light_second=other,
            variance=np.full(len(y), noise**2),
            planes=np.ones(len(y)),
            sheet=sheet,
        )
        result.append(pair)
    return result


@pytest.fixture
def make_pairs():
    return grid_pairs
