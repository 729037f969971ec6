"""Which planes are looked at."""

from __future__ import annotations

import pytest

from fractal_mesospim_shading.views.coarse import PLANES, middle_planes


@pytest.mark.parametrize("chunk", [1, 2, 5, 7, 8, 9, 16, 32, 64])
def test_the_planes_nearest_to_the_middle_that_one_chunk_holds(chunk: int) -> None:
    for depth in range(1, 100):
        found = middle_planes(depth, chunk)
        number = min(PLANES, depth)
        assert len(found) == number
        assert 0 <= found.start and found.stop <= depth
        centred = (depth - number) // 2
        windows = [
            start
            for start in range(depth - number + 1)
            if start // chunk == (start + number - 1) // chunk
        ]
        if chunk < number:
            assert found.start == centred
        else:
            nearest = min(abs(start - centred) for start in windows)
            assert found.start in windows
            assert abs(found.start - centred) == nearest
