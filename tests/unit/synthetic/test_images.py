"""Images written for tests: their pixels, and that the package's own reader takes them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import zarr

from fractal_mesospim_shading.errors import OutputExistsError, ParameterError
from fractal_mesospim_shading.images.mosaic import MosaicImage
from fractal_mesospim_shading.images.tables import read_table
from fractal_mesospim_shading.synthetic.demo import write_mosaic
from fractal_mesospim_shading.synthetic.images import write_image
from fractal_mesospim_shading.synthetic.world import LightSheetWorld, grid_layout

RNG = np.random.default_rng(4)
PIXELS = RNG.integers(0, 60000, (2, 5, 24, 32)).astype(np.uint16)


def stored(path: Path, level: int = 0) -> np.ndarray:
    return np.asarray(zarr.open_group(path, mode="r")[str(level)][...])


def box_means(stack: np.ndarray, factor: tuple[int, int, int], ceil: bool) -> np.ndarray:
    """Means over blocks by a plain loop, rounded half to even."""
    shape = [-(-n // f) if ceil else n // f for n, f in zip(stack.shape, factor, strict=True)]
    result = np.empty(shape)
    for place in np.ndindex(*shape):
        block = stack[tuple(slice(i * f, (i + 1) * f) for i, f in zip(place, factor, strict=True))]
        result[place] = np.rint(block.astype(float).mean())
    return result


@pytest.mark.parametrize(
    "style",
    [
        {},
        {"byte_order": ">", "separator": ".", "codec": "blosc"},
        {"memory_order": "F", "codec": "gzip"},
        {"codec": None, "chunks": (2, 7, 11), "fill_value": 3},
        {"ngff_version": "0.5"},
        {"ngff_version": "0.5", "chunks": (1, 8, 8), "shards": (2, 16, 40), "codec": "blosc"},
        {"ngff_version": "0.5", "byte_order": ">", "separator": ".", "codec": "gzip"},
    ],
)
def test_every_style_holds_the_pixels(tmp_path: Path, style: dict[str, Any]) -> None:
    path = tmp_path / "image.zarr"
    write_image(path, PIXELS, channels=("a", "b"), tile_shape=(12, 16), **style)
    image = MosaicImage.open(path)
    whole = tuple(slice(0, n) for n in PIXELS.shape)
    np.testing.assert_array_equal(image.read(0, whole), PIXELS)
    assert [channel.label for channel in image.channels] == ["a", "b"]
    assert [level.shape for level in image.levels] == [(2, 5, 24, 32), (2, 5, 12, 16), (2, 5, 6, 8)]
    assert [level.scale for level in image.levels] == [(1, 5, s, s) for s in (1.3, 2.6, 5.2)]
    assert [(t.y, t.x) for t in image.layout.tiles] == [(0, 0), (12, 0), (0, 16), (12, 16)]
    assert (image.levels[0].shards is not None) == ("shards" in style)
    if "byte_order" in style:
        document = next(path.glob("0/.zarray"), None) or path / "0" / "zarr.json"
        text = document.read_text()
        assert ">u2" in text or '"big"' in text


@pytest.mark.parametrize("ragged", ["floor", "ceil"])
@pytest.mark.parametrize("kind", ["uint8", "uint16", "float32"])
def test_pyramid_of_odd_sizes(tmp_path: Path, ragged: str, kind: str) -> None:
    stack = (RNG.random((5, 15, 9)) * 250).astype(kind)
    factors = ((2, 2, 2), (1, 3, 2))
    write_image(
        tmp_path / "i.zarr", stack, axes="zyx", ragged=ragged, factors=factors, chunks=(2, 5, 5)
    )
    fine = stack
    for level, factor in enumerate(factors, 1):
        coarse = stored(tmp_path / "i.zarr", level)
        expected = box_means(fine, factor, ragged == "ceil")
        assert coarse.dtype == stack.dtype and coarse.shape == expected.shape
        tolerance = 0.51 if kind == "float32" else 0
        np.testing.assert_allclose(coarse, expected, rtol=0, atol=tolerance)
        fine = coarse


@pytest.mark.parametrize(
    ("axes", "shape"), [("yx", (24, 32)), ("cyx", (2, 24, 32)), ("tczyx", (3, 2, 5, 24, 32))]
)
def test_other_axes(tmp_path: Path, axes: str, shape: tuple[int, ...]) -> None:
    pixels = RNG.integers(0, 200, shape).astype(np.uint8)
    write_image(tmp_path / "i.zarr", pixels, axes=axes, tile_shape=(24, 16))
    image = MosaicImage.open(tmp_path / "i.zarr")
    assert image.axes == axes and image.dtype == np.uint8
    np.testing.assert_array_equal(image.read(0, tuple(slice(0, n) for n in shape)), pixels)
    coarse = stored(tmp_path / "i.zarr", 2)
    last = pixels[(-1,) * (len(shape) - 2)]
    halves = box_means(last[None], (1, 2, 2), False)
    np.testing.assert_array_equal(
        coarse[(-1,) * (len(shape) - 2)], box_means(halves, (1, 2, 2), False)[0]
    )


def test_empty_chunks_stay_unwritten(tmp_path: Path) -> None:
    write_image(
        tmp_path / "i.zarr", np.zeros((1, 1, 8, 8), np.uint16), factors=(), chunks=(1, 4, 4)
    )
    assert not (tmp_path / "i.zarr" / "0" / "0").exists()


def test_mosaic_holds_what_the_world_gives(tmp_path: Path) -> None:
    world = LightSheetWorld(tile_shape=(12, 16), grid=(2, 2), planes=3)
    write_mosaic(tmp_path / "m.zarr", world, missing=(3,), chunks=(2, 7, 9))
    pixels = stored(tmp_path / "m.zarr")
    assert pixels.shape == (2, 3, 24, 32) and pixels.dtype == np.uint16
    for channel in (0, 1):
        np.testing.assert_array_equal(pixels[channel, :, :12, :16], world.tile_stack(1, channel))
        np.testing.assert_array_equal(pixels[channel, :, 12:, 16:], world.tile_stack(4, channel))
        assert not pixels[channel, :, :12, 16:].any()
    image = MosaicImage.open(tmp_path / "m.zarr")
    assert image.layout.missing == (3,)
    table = read_table(str(tmp_path / "m.zarr"), "FOV_ROI_table")
    assert table is not None
    # A tenth of 16 pixels of 1.3 micrometers is lost to the overlap on the stage.
    steps = np.diff(table["x_micrometer_original"])
    np.testing.assert_allclose(steps, [0, 0.9 * 16 * 1.3])


def test_mosaic_of_another_type_is_clipped(tmp_path: Path) -> None:
    world = LightSheetWorld(tile_shape=(8, 8), grid=(1, 1), planes=1, medium=160, sample=0)
    write_mosaic(tmp_path / "m.zarr", world, ["a"], axes="yx", dtype="uint8", factors=())
    raw = world.tile_stack(1)[0]
    assert (raw > 255).any() and (raw < 255).any()
    np.testing.assert_array_equal(stored(tmp_path / "m.zarr"), np.minimum(raw, 255))


def test_nothing_is_replaced_by_accident(tmp_path: Path) -> None:
    write_image(tmp_path / "i.zarr", PIXELS)
    with pytest.raises(OutputExistsError, match="already"):
        write_image(tmp_path / "i.zarr", PIXELS)
    write_image(tmp_path / "i.zarr", PIXELS[:1], overwrite=True)
    assert stored(tmp_path / "i.zarr").shape[0] == 1


def test_what_does_not_fit_is_refused(tmp_path: Path) -> None:
    world = LightSheetWorld(tile_shape=(8, 8), grid=(1, 1), planes=2)
    with pytest.raises(ParameterError, match="axes are 'zyx'"):
        write_image(tmp_path / "i.zarr", PIXELS, axes="zyx")
    with pytest.raises(ParameterError, match="do not fill"):
        write_image(tmp_path / "i.zarr", PIXELS, tile_shape=(10, 16))
    with pytest.raises(ParameterError, match="3 channel labels for 2"):
        write_image(tmp_path / "i.zarr", PIXELS, channels="abc")
    with pytest.raises(ParameterError, match="along z"):
        write_mosaic(tmp_path / "i.zarr", world, axes="cyx")
    with pytest.raises(ParameterError, match=r"ngff_version.? is '0.3'"):
        write_image(tmp_path / "i.zarr", PIXELS, ngff_version="0.3")
    with pytest.raises(ParameterError, match="at least one"):
        grid_layout((8, 8), (8, 8), missing=(1,))
    assert not (tmp_path / "i.zarr").exists()
