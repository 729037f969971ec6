"""Planes used and left out, by number and as small pictures of what was read anyway."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fractal_mesospim_shading.core.profile import ShadingProfile
from fractal_mesospim_shading.errors import Problems
from fractal_mesospim_shading.flatfield.estimate_planes import sampled_planes
from fractal_mesospim_shading.flatfield.job_models import choose_models
from fractal_mesospim_shading.flatfield.models import ChannelModel, model_facts
from fractal_mesospim_shading.flatfield.planes_seen import PlanesSeen, Thumbnail
from fractal_mesospim_shading.flatfield.sampling import PlaneChoice, planes_behind
from fractal_mesospim_shading.flatfield.thumbnails import planes_seen
from fractal_mesospim_shading.images.mosaic import MosaicImage
from fractal_mesospim_shading.options.flatfield import FlatfieldOptions

OFFSET = 100.0


def _choice(path: Path, **options: Any) -> PlaneChoice:
    image = MosaicImage.open(str(path))
    problems = Problems()
    choice = choose_models(image, FlatfieldOptions(**options), problems)
    problems.raise_all()
    assert choice is not None
    return choice


def test_pictures_are_means_of_the_planes_with_their_numbers(
    make_empty_mosaic: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Against the whole array: counts above the offset, tile and plane as people count.

    Nothing is read for them.
    """
    choice = _choice(make_empty_mosaic(), fov_list=[1, 2, 3])
    group = choice.image.model_groups[0]
    sampled = sampled_planes(choice, group, 1)
    out = {k: "holds something" for k, (tile, _) in enumerate(sampled.refs) if tile == 2}
    with monkeypatch.context() as unread:
        unread.setattr(MosaicImage, "read", None)
        seen = planes_seen(choice, sampled, out, OFFSET)
    n_z = choice.image.levels[0].shape[-3]
    assert dict(seen.used) == {tile: tuple(range(n_z)) for tile in (1, 3)}
    assert dict(seen.left_out) == {2: tuple(range(n_z))}
    used = [own for own in seen.thumbnails if not own.left_out]
    left = [own for own in seen.thumbnails if own.left_out]
    assert {own.tile for own in used} == {"1", "3"} and {own.tile for own in left} == {"2"}
    assert 0 < len(left) <= 12 and len(seen.thumbnails) <= 24
    whole = np.squeeze(
        choice.image.read(0, tuple(slice(0, n) for n in choice.image.levels[0].shape))
    )
    planes = whole if whole.ndim == 3 else whole[0]
    for own in seen.thumbnails:
        tile = choice.image.layout.tile(int(own.tile))
        height, width = choice.image.layout.tile_shape
        true = planes[own.plane, tile.y : tile.y + height, tile.x : tile.x + width]
        ratio = [a // b for a, b in zip(true.shape, own.light.shape, strict=True)]
        assert max(own.light.shape) <= 48 and all(n > 0 for n in ratio)
        shape = (own.light.shape[0], ratio[0], own.light.shape[1], ratio[1])
        expected = true.reshape(shape).mean(axis=(1, 3), dtype=np.float64) - OFFSET
        np.testing.assert_allclose(own.light, expected, rtol=0, atol=1e-3)


def test_a_plane_of_a_coarse_level_stands_for_those_behind_it(make_empty_mosaic: Any) -> None:
    image = MosaicImage.open(str(make_empty_mosaic()))
    fine = image.levels[0]
    *before, n_z, height, width = fine.shape
    *rest, z, y, x = fine.scale
    coarse = replace(fine, shape=(*before, -(-n_z // 2), height, width), scale=(*rest, 2 * z, y, x))
    image = replace(image, levels=(fine, coarse))
    behind = [z for k in range(-(-n_z // 2)) for z in planes_behind(image, 1, k)]
    assert behind == list(range(n_z)) and list(planes_behind(image, 1, 1)) == [2, 3]
    # Those of a later time point go on counting.
    assert planes_behind(image, 1, -(-n_z // 2)).start == n_z


def _seen() -> PlanesSeen:
    pictures = [np.full((2, 3), 7.5, np.float32), np.full((4, 4), np.nan, np.float32)]
    return PlanesSeen(
        {3: (*range(1, 41), *range(88, 97)), 4: (7,)},
        {5: (0, 1, 102)},
        100,
        {3: "3", 4: "4", 5: "1 of b.zarr"},
        (Thumbnail("3", 1, pictures[0]), Thumbnail("1 of b.zarr", 0, pictures[1], "is dark")),
    )


def test_the_numbers_in_words_and_in_json() -> None:
    seen = _seen()
    assert seen.text_of(seen.used) == "tile 3: planes 1 to 40, 88 to 96; tile 4: plane 7"
    assert seen.text_of(seen.left_out) == (
        "tile 1 of b.zarr at time point 0: planes 0 to 1; tile 1 of b.zarr at time point 1: plane 2"
    )
    assert seen.facts() == {
        "used": {"3": [[1, 40], [88, 96]], "4": [[7, 7]]},
        "left_out": {"1 of b.zarr": [[0, 1], [102, 102]]},
    }


def test_a_model_that_a_job_keeps_has_its_planes() -> None:
    """A continued run reports what the first one has read."""
    profile = ShadingProfile.create(np.ones((8, 8), np.float32))
    model = ChannelModel(profile, OFFSET, {"scenario": "empty regions"}, _seen())
    again = ChannelModel.from_bytes(model.to_bytes())
    assert again.planes == model.planes and again.planes is not None
    for one, other in zip(again.planes.thumbnails, _seen().thumbnails, strict=True):
        assert (one.tile, one.plane, one.left_out) == (other.tile, other.plane, other.left_out)
        np.testing.assert_array_equal(one.light, other.light)
    assert json.loads(json.dumps(model_facts({"a": again})))["a"]["planes"] == _seen().facts()
    given = ChannelModel.from_bytes(replace(model, planes=None).to_bytes())
    assert given.planes is None and model_facts({"a": given})["a"]["planes"] is None


@pytest.mark.parametrize("tiles", [1, 5, 40])
def test_no_more_pictures_than_fit_however_many_tiles(tiles: int) -> None:
    from fractal_mesospim_shading.flatfield.thumbnails import _Plane, _some

    planes = [
        _Plane(tile, range(z, z + 1), np.zeros((2, 2)), 0.0)
        for tile in range(tiles)
        for z in range(9)
    ]
    chosen = _some(planes, 12)
    places = [(own.tile, own.numbers[0]) for own in chosen]
    assert places == sorted(set(places)) and len(places) <= 12
    assert len({tile for tile, _ in places}) == min(tiles, 12)
