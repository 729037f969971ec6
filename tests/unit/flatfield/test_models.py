from __future__ import annotations

import pytest

from fractal_mesospim_shading.errors import ImageFormatError
from fractal_mesospim_shading.flatfield.models import refuse_duplicate_labels
from fractal_mesospim_shading.images.source import Channel


def test_duplicate_labels_are_listed_with_their_indices() -> None:
    channels = [Channel(0, "A"), Channel(1, "B"), Channel(2, "A")]
    with pytest.raises(ImageFormatError, match=r"'A' \(0, 2\)"):
        refuse_duplicate_labels(channels, "image.zarr")
    refuse_duplicate_labels(channels[:2], "image.zarr")
