from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from fractal_mesospim_shading.core.correct import correct, tile_correction
from fractal_mesospim_shading.core.profile import ShadingProfile
from fractal_mesospim_shading.core.pyramid import block_mean

SHAPE = (4, 6)


@settings(max_examples=200, deadline=None)
@given(
    raw=hnp.arrays("uint16", (2, *SHAPE)),
    flat=hnp.arrays("float64", SHAPE, elements=st.floats(0.2, 3.0)),
    dark=hnp.arrays("float64", SHAPE, elements=st.floats(0, 500)),
    output_offset=st.floats(-50, 500),
)
def test_within_one_count_of_double_precision(raw, flat, dark, output_offset):
    exact = (raw - dark.astype("f4").astype("f8")) / (flat / flat.mean()) + output_offset
    expected = np.clip(np.rint(exact), 0, 65535)
    linear = tile_correction(
        ShadingProfile.create(flat, dark),
        SHAPE,
        offset=0.0,
        subtract_baseline=False,
        output_offset=output_offset,
    ).linear()
    got = raw.copy()
    counts = correct(got, linear, zero_is_no_data=False)
    assert np.abs(got.astype(float) - expected).max() <= 1
    assert counts.saturated == np.count_nonzero(raw == 65535)
    sure_low, sure_high = exact < -0.6, exact > 65535.6
    assert counts.clipped_low >= np.count_nonzero(sure_low)
    assert counts.clipped_high >= np.count_nonzero(sure_high)


@settings(max_examples=100, deadline=None)
@given(
    block=hnp.arrays(
        st.sampled_from(["uint8", "uint16"]),
        hnp.array_shapes(min_dims=3, max_dims=3, min_side=1, max_side=9),
    ),
    factor=st.tuples(*[st.integers(1, 3)] * 3),
)
def test_block_means_are_within_half_a_count(block, factor):
    shape = tuple(-(-n // f) for n, f in zip(block.shape, factor, strict=True))
    got = block_mean(block, factor, shape)
    total, number = block.astype("f8"), np.ones(block.shape)
    for axis, f in enumerate(factor):
        starts = np.arange(0, block.shape[axis], f)
        total = np.add.reduceat(total, starts, axis)
        number = np.add.reduceat(number, starts, axis)
    assert np.abs(got - total / number).max() <= 0.5
