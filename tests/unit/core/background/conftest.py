"""Small images and the golden data for the background methods."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

cv2.setNumThreads(1)


@pytest.fixture(scope="session")
def golden(golden_folder: Path) -> Callable[[str], tuple[dict[str, Any], dict[str, Any]]]:
    """Reads the arrays and the metadata of a golden file."""

    def read(name: str) -> tuple[dict[str, Any], dict[str, Any]]:
        with np.load(golden_folder / name) as stored:
            arrays = {key: stored[key] for key in stored.files}
        return arrays, json.loads(str(arrays.pop("meta")))

    return read


@pytest.fixture
def scene() -> Callable[..., np.ndarray]:
    """A slope with noise and bright spots."""

    def make(shape: tuple[int, ...], dtype: Any = np.uint16, seed: int = 0) -> np.ndarray:
        rng = np.random.default_rng(seed)
        y, x = np.indices(shape)[-2:]
        image = 60 + 0.4 * x + 0.2 * y + rng.normal(0, 4, shape)
        for _ in range(max(1, y.shape[-1] // 12)):
            at = [rng.integers(0, n) for n in shape]
            image[tuple(slice(a, a + 4) for a in at)] += 90
        image = np.clip(image, 0, 255)
        return (np.rint(image) if np.issubdtype(dtype, np.integer) else image).astype(dtype)

    return make
