"""What runs on which kind of source is what `docs/sources.md` says."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.support import sources

PAGE = Path(__file__).parents[2] / "docs" / "sources.md"

pytestmark = pytest.mark.skipif(not PAGE.exists(), reason="needs the pages of the repository")


@pytest.mark.slow
@pytest.mark.usefixtures("two_threads")
@pytest.mark.parametrize("kind", sources.KINDS)
def test_a_kind_of_source(kind: str, tmp_path: Path) -> None:
    told = sources.told(PAGE.read_text(encoding="utf-8"))[kind]
    assert sources.row(kind, tmp_path) == told


def test_the_page_is_that_of_its_rows() -> None:
    """Nothing on it was written by hand."""
    page = PAGE.read_text(encoding="utf-8")
    assert sources.page(sources.told(page)) == page


def test_what_has_to_be_read_once_is_read_once() -> None:
    told = sources.told(PAGE.read_text(encoding="utf-8"))
    for kind, cells in told.items():
        runs = {door: cell.reads for door, cell in cells.items() if not cell.reason}
        once = {door: reads for door, reads in runs.items() if door in sources.PASSES}
        assert set(once.values()) == {1}, kind
        assert runs["flat-field, dry run"] == 0, kind
        assert all(reads is not None and reads <= 1 for reads in runs.values()), kind
