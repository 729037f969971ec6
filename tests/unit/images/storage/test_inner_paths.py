"""Names from inside a source: which of them may become part of an address."""

from __future__ import annotations

import pytest

from fractal_mesospim_shading.errors import ImageFormatError
from fractal_mesospim_shading.images.storage.inner_paths import checked_path, what_is_wrong

HARMLESS = ["0", "s0", "a b", "ä", "..a", "a..", "...", "-", ":b", ".hidden", "x" * 255]


@pytest.mark.parametrize("name", HARMLESS)
def test_harmless_names(name: str) -> None:
    assert what_is_wrong(name) is None
    assert checked_path(f"scale0/{name}", "'a.zarr'") == f"scale0/{name}"


@pytest.mark.parametrize(
    "name", ["", ".", "..", "/", "a/b", "\\", "..\\x", "C:", "c:x", "a\0b", "/etc/passwd"]
)
def test_names_that_lead_elsewhere(name: str) -> None:
    assert what_is_wrong(name)


@pytest.mark.parametrize(
    "path", ["../0", "0/../../1", "/0", "a//b", "", ".", "a/.", "C:/x", "a\\b", "0/"]
)
def test_paths_that_lead_elsewhere(path: str) -> None:
    with pytest.raises(ImageFormatError, match="The metadata of 'a.zarr' holds the name"):
        checked_path(path, "The metadata of 'a.zarr'")
