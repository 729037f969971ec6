"""Metadata that nobody wrote: whatever stands in them, a person gets one readable error."""

from __future__ import annotations

import copy
import json
import random
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fractal_mesospim_shading import correct_background, correct_flatfield, import_mesospim
from fractal_mesospim_shading.errors import ImageFormatError, ShadingError
from fractal_mesospim_shading.synthetic.images import write_image
from fractal_mesospim_shading.views.inspection import as_text, describe
from tests.support.acquisition import grid_stacks, write_acquisition
from tests.support.acquisition_table import SyntheticSettings

pytestmark = pytest.mark.slow

NESTED: list[Any] = []
for _ in range(400):
    NESTED = [NESTED]

VALUES = [
    None,
    True,
    0,
    -1,
    10**15,
    10**25,
    0.5,
    float("nan"),
    float("inf"),
    "",
    "\x00\ud800",
    "../..",
    [],
    [0, 0, 0, 0],
    [10**15] * 4,
    {"a": 1},
    NESTED,
]
TEXTS = [
    "",
    "{",
    "[" * 5000,
    '{"a": ' * 5000,
    "\ufeff{}",
    "[]",
    "1",
    '{"shape": 1' + "0" * 5000 + "}",
]


def _paths(document: Any, prefix: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    if isinstance(document, dict):
        for key, value in document.items():
            yield (*prefix, key)
            yield from _paths(value, (*prefix, key))
    elif isinstance(document, list):
        for index, value in enumerate(document):
            yield (*prefix, index)
            yield from _paths(value, (*prefix, index))


def _changed(document: Any, path: tuple[Any, ...], change: Callable[[Any, Any], None]) -> str:
    result = copy.deepcopy(document)
    place = result
    for key in path[:-1]:
        place = place[key]
    change(place, path[-1])
    return json.dumps(result)


def _variants(text: str) -> Iterator[str]:
    """Texts in which one thing of the document differs."""
    document = json.loads(text)
    for path in _paths(document):
        yield _changed(document, path, lambda place, key: place.pop(key))
        for value in VALUES:
            yield _changed(document, path, lambda place, key, v=value: place.__setitem__(key, v))
    yield from TEXTS
    yield text[: len(text) // 2]


def _write(path: Path, text: str) -> None:
    path.write_bytes(text.encode("utf-8", "surrogatepass"))


def _tried(work: Callable[[], Any]) -> bool:
    """Whether it works; an error that is not ours is not caught."""
    try:
        work()
    except ShadingError as error:
        assert str(error)
        assert "please report" not in str(error)
        return False
    return True


PIXELS = np.random.default_rng(0).integers(100, 900, (1, 2, 32, 40)).astype(np.uint16)


@pytest.fixture(scope="module")
def images(tmp_path_factory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("odd")
    styles: dict[str, dict[str, Any]] = {
        "v2": {"ngff_version": "0.4", "codec": "blosc"},
        "v3": {"ngff_version": "0.5", "codec": "blosc"},
        "shards": {"ngff_version": "0.5", "codec": "zstd", "shards": (2, 32, 40)},
    }
    for name, style in styles.items():
        path = folder / f"{name}.zarr"
        write_image(path, PIXELS, channels=("A",), tile_shape=(16, 20), chunks=(1, 16, 20), **style)
    settings = SyntheticSettings(tile_shape=(20, 28), chunks=(4, 16, 16))
    write_acquisition(folder, "native.zarr", grid_stacks(1, 2, settings), settings)
    return {path.stem: path for path in folder.glob("*.zarr")}


@pytest.fixture(scope="module")
def models(tmp_path_factory) -> str:
    folder = tmp_path_factory.mktemp("models")
    (folder / "A").mkdir()
    np.savez(folder / "A" / "profiles.npz", flatfield=np.ones((16, 20)), darkfield=np.float32(100))
    return str(folder)


def _documents(image: Path) -> list[Path]:
    """The metadata that matter most: of the image, its finest level, and the table of tiles."""
    names = {".zarray", ".zattrs", ".zgroup", "zarr.json"}
    found = {p: p.parent.relative_to(image).as_posix() for p in image.rglob("*") if p.name in names}
    keep = {".", "0", "tables", "tables/FOV_ROI_table", "tables/FOV_ROI_table/X"}
    stacks = sorted(place for place in found.values() if place.startswith("Mag"))
    if stacks:
        keep = {".", stacks[0], f"{stacks[0]}/0"}
    return sorted(path for path, place in found.items() if place in keep)


@pytest.mark.parametrize("name", ["v2", "v3", "shards", "native"])
def test_whatever_metadata_say_is_described_or_refused(images, name, tmp_path, models):
    """All variants are looked at; of those that can be, some are corrected as well."""
    image = tmp_path / "image.zarr"
    shutil.copytree(images[name], image)
    rng = random.Random(0)
    described = 0
    for path in _documents(image):
        whole = path.read_text()
        variants = sorted(set(_variants(whole)))
        for text in rng.sample(variants, min(len(variants), 30)):
            _write(path, text)
            if _tried(lambda: as_text(describe(str(image)))):
                described += 1
                if described % 10 == 0:
                    _corrected(image, models, tmp_path / "out")
        path.write_text(whole)
    assert described > 10


def _corrected(image: Path, models: str, out: Path) -> None:
    shutil.rmtree(out, ignore_errors=True)
    more: dict[str, Any] = {"output_folder": str(out)}
    if any(image.glob("Mag*")):
        _tried(lambda: import_mesospim(str(image), str(out), levels=2))
        return
    more["ngff_version"] = "0.5" if (image / ".zgroup").exists() else "0.4"
    _tried(lambda: correct_flatfield(str(image), models_folder=models, report=False, **more))
    method = {"method": "constant", "value": 5.0}
    _tried(lambda: correct_background(str(image), method=method, **more))


def _regular(*shape: int) -> dict[str, Any]:
    """A grid of chunks, or of shards, of one size."""
    return {"name": "regular", "configuration": {"chunk_shape": list(shape)}}


@pytest.mark.parametrize(
    ("name", "key", "value", "words"),
    [
        ("v2", "chunks", [1, 0, 16, 20], "has chunks of the shape .*at least 1"),
        ("v3", "chunk_grid", _regular(1, 0, 16, 20), "has chunks of the shape .*at least 1"),
        ("shards", "chunk_grid", _regular(1, 0, 32, 40), "has chunks of the shape .*at least 1"),
        ("v2", "shape", [1, 2, 10**15, 10**15], "more bytes than can be counted"),
        ("v2", "chunks", "DEL", "0/.zarray' lacks the key 'chunks'"),
        ("v2", "shape", "DEL", "0/.zarray' lacks the key 'shape'"),
        ("v2", "dtype", "DEL", "0/.zarray' lacks the key 'dtype'"),
        ("v2", "shape", None, "key 'shape' of '.*0/.zarray' is null"),
        ("v3", "fill_value", None, "key 'fill_value' of '.*0/zarr.json' is null"),
        ("v3", "fill_value", "DEL", "0/zarr.json' lacks the key 'fill_value'"),
        ("v3", "codecs", "DEL", "lacks the key 'codecs'"),
        ("v3", "data_type", "DEL", "lacks the key 'data_type'"),
        ("v3", "shape", [1, 2, 1e300, 40], "The shape in '.*' is .*; expected a whole number"),
        ("v3", "shape", NESTED, "The shape in '.*' is .*; expected a whole number"),
    ],
)
def test_the_file_and_the_key_are_named(images, name, key, value, words, tmp_path):
    image = tmp_path / "image.zarr"
    shutil.copytree(images[name], image)
    path = image / "0" / (".zarray" if name == "v2" else "zarr.json")
    document = json.loads(path.read_text())
    if value == "DEL":
        del document[key]
    else:
        document[key] = value
    path.write_text(json.dumps(document))
    with pytest.raises(ImageFormatError, match=words):
        describe(str(image))


def test_settings_of_a_codec_that_no_library_follows(images, models, tmp_path):
    image = tmp_path / "image.zarr"
    shutil.copytree(images["v2"], image)
    for path in image.glob("?/.zarray"):
        document = json.loads(path.read_text())
        document["compressor"]["clevel"] = 10**15
        path.write_text(json.dumps(document))
    with pytest.raises(ImageFormatError, match="compression of the array '0' of the source"):
        correct_flatfield(str(image), models_folder=models)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["image.zarr"]
