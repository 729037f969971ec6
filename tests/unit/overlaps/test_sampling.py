"""Overlaps of whole images: chunks read once, a budget kept, stage errors found, the same again."""

from __future__ import annotations

from collections import Counter
from itertools import product

import numpy as np
import pytest

from fractal_mesospim_shading.core.overlaps.neighbours import neighbours
from fractal_mesospim_shading.images.mosaic import MosaicImage
from fractal_mesospim_shading.overlaps.choosing import ChunkGrid, choose_parts
from fractal_mesospim_shading.overlaps.sampling import budget_of, observe_overlaps
from fractal_mesospim_shading.synthetic.overlapping import (
    OverlappingWorld,
    write_overlapping_mosaic,
)

WORLD = OverlappingWorld(
    tile_shape=(128, 160), grid=(2, 2), planes=8, overlap=0.25, gain_range=0.1, contrast=0.3
)


@pytest.fixture(scope="module")
def image(tmp_path_factory):
    url = tmp_path_factory.mktemp("overlaps") / "a.zarr"
    # Neither chunk nor tile divides the other.
    write_overlapping_mosaic(url, WORLD, chunks=(3, 48, 56))
    return MosaicImage.open(url)


class Watched:
    """An image that counts how often each chunk of it is decoded."""

    def __init__(self, image):
        self.image, self.decoded = image, Counter()

    def __getattr__(self, name):
        return getattr(self.image, name)

    def read(self, level, box):
        ranges = [
            range(part.start // unit, -(-part.stop // unit))
            for part, unit in zip(box, self.image.read_units(level), strict=True)
        ]
        self.decoded.update(product(*ranges))
        return self.image.read(level, box)


def test_gains_flat_field_and_stage_errors_are_those_of_the_world(image):
    evidence = observe_overlaps(image, image.model_groups[0], WORLD.offset)
    assert not evidence.rejected
    assert [(p.first, p.second, p.axis) for p in evidence.pairs] == [
        (1, 2, "y"),
        (1, 3, "x"),
        (2, 4, "x"),
        (3, 4, "y"),
    ]
    flat, true = np.log(WORLD.flatfield()), WORLD.true_positions
    nominal = {(n.first, n.second): n.shift for n in neighbours(image.origins_px, (128, 160))}
    for pair in evidence.pairs:
        a, b = pair.first - 1, pair.second - 1
        y, x = true[a] - true[b] + nominal[pair.first, pair.second]
        assert (pair.registration.y, pair.registration.x) == pytest.approx((y, x), abs=0.1)
        left = pair.log_ratio_after(
            lambda y, x: flat[np.rint(y).astype(int), np.rint(x).astype(int)]
        )
        gains = WORLD.gains()
        assert np.median(left) == pytest.approx(np.log(gains[a] / gains[b]), abs=0.01)


def test_each_chunk_is_decoded_once_and_counted(image):
    watched = Watched(image)
    evidence = observe_overlaps(watched, image.model_groups[0], WORLD.offset)
    assert set(watched.decoded.values()) == {1}
    chunk = np.prod(image.read_units(0)) * 2
    assert evidence.decoded_bytes == len(watched.decoded) * chunk


def test_the_same_again_and_others_with_another_seed(image):
    whole = ChunkGrid(image, 0).chunk_bytes * 60
    runs = [
        observe_overlaps(image, image.model_groups[0], 100.0, seed=seed, budget=whole)
        for seed in (1, 1, 2)
    ]
    for one, other in zip(runs[0].pairs, runs[1].pairs, strict=True):
        np.testing.assert_array_equal(one.log_ratio, other.log_ratio)
    assert any(
        len(one.log_ratio) != len(other.log_ratio) or np.any(one.log_ratio != other.log_ratio)
        for one, other in zip(runs[0].pairs, runs[2].pairs, strict=False)
    )


@pytest.mark.parametrize("chunks", [12, 40, 90, 10**6])
def test_a_budget_is_kept(image, chunks):
    budget = ChunkGrid(image, 0).chunk_bytes * chunks
    watched = Watched(image)
    evidence = observe_overlaps(watched, image.model_groups[0], 100.0, budget=budget)
    # One part is read, however large it is.
    parts = choose_parts(image, image.model_groups[0], 0, budget)
    one = len(set(ChunkGrid(image, 0).cells(parts[0])))
    assert len(watched.decoded) <= max(chunks, one)
    assert evidence.decoded_bytes <= max(chunks, one) * ChunkGrid(image, 0).chunk_bytes


def test_all_of_a_small_image_may_be_read_and_little_of_a_large_one(image):
    assert budget_of(image) >= image.levels[0].shape[-3] * 256 * 320 * 2


def test_without_positions_nothing_is_compared(image, tmp_path):
    from dataclasses import replace

    evidence = observe_overlaps(replace(image, origins_px=None), image.model_groups[0], 100.0)
    assert not evidence.pairs and not evidence.rejected and not evidence.decoded_bytes


def test_a_dark_frame_is_taken_off_where_it_lies(image):
    """One that rises along x is no shading then."""
    ramp = np.broadcast_to(np.linspace(90, 110, 160, dtype=np.float32), (128, 160))
    plain = observe_overlaps(image, image.model_groups[0], 100.0)
    other = observe_overlaps(image, image.model_groups[0], ramp)
    pair, changed = plain.pairs[1], other.pairs[1]
    assert len(pair.log_ratio) == len(changed.log_ratio)
    np.testing.assert_allclose(
        pair.light_first - changed.light_first,
        ramp[0, np.rint(pair.x_first).astype(int)] - 100,
        atol=0.2,
    )
