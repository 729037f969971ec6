"""The files beside a corrected container: planned, refused, written."""

from __future__ import annotations

from pathlib import Path

import pytest

from fractal_mesospim_shading.errors import (
    OutputExistsError,
    ParameterError,
    SourceReadError,
)
from fractal_mesospim_shading.images.native.collection import TileCollection
from fractal_mesospim_shading.images.native.results import plan_companions
from tests.support.acquisition import grid_stacks, write_acquisition
from tests.support.acquisition_table import SyntheticSettings


@pytest.fixture
def container(tmp_path: Path) -> Path:
    settings = SyntheticSettings(tile_shape=(16, 16), xml=True, version="0.4")
    stacks = grid_stacks(1, 2, settings, lasers=("488 nm",), overlap_px=2)
    return write_acquisition(tmp_path / "data", "Größe.ome.zarr", stacks, settings)


def _plan(container: Path, name: str = "new.ome.zarr", overwrite: bool = False):
    collection = TileCollection.open(container)
    groups = {stack.group for stack in collection.stacks}
    final = str(container.parent / name)
    return plan_companions(collection, groups, final, None, overwrite=overwrite)


@pytest.mark.parametrize("encoding", ["utf-8", "cp1252", "utf-16", "cp850"])
def test_texts_name_the_result_in_their_own_encoding(container: Path, encoding: str) -> None:
    texts = sorted(container.parent.glob("*_meta.txt"))
    contents = [f"{text.read_text()}[Filter] µ\n" for text in texts]
    for text, content in zip(texts, contents, strict=True):
        text.write_bytes(content.encode(encoding))
    planned = _plan(container)
    assert len(planned) == len(texts) + 1
    for companion in planned:
        Path(companion.url).write_bytes(companion.data)
    for text, content in zip(texts, contents, strict=True):
        written = text.with_name(text.name.replace("Größe.ome.zarr", "new.ome.zarr"))
        first, *rest = written.read_bytes().decode(encoding).splitlines()
        before, *others = content.splitlines()
        assert first == before.replace("Größe.ome.zarr", "new.ome.zarr")
        assert rest == others
    # The same again is no obstacle: a run that was killed had written them.
    assert _plan(container) == planned


def test_a_file_of_another_content_is_not_replaced(container: Path) -> None:
    (container.parent / "new.ome.zarr.xml").write_text("<stitched/>")
    with pytest.raises(OutputExistsError, match="new.ome.zarr.xml already"):
        _plan(container)
    assert len(_plan(container, overwrite=True)) == 3


def test_names_that_become_too_long(container: Path) -> None:
    with pytest.raises(ParameterError, match="longer name than file systems allow"):
        _plan(container, "x" * 230 + ".ome.zarr")


def test_a_text_that_is_a_link_to_nothing(container: Path) -> None:
    text = sorted(container.parent.glob("*_meta.txt"))[0]
    collection = TileCollection.open(container)
    text.unlink()
    text.symlink_to("nowhere")
    groups = {stack.group for stack in collection.stacks}
    with pytest.raises(SourceReadError, match="a link to nothing"):
        plan_companions(
            collection, groups, str(container.parent / "n.ome.zarr"), None, overwrite=False
        )
