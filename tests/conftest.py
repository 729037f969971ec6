"""Small mosaics, models and looks at disk that tests of all kinds share."""

from __future__ import annotations

import os
import tarfile
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

import fractal_mesospim_shading.options.background
import fractal_mesospim_shading.options.flatfield  # noqa: F401 messages know their options
from fractal_mesospim_shading.core.flatfield.basic_python import find_basic_python
from fractal_mesospim_shading.errors import ParameterError
from fractal_mesospim_shading.synthetic.demo import write_mosaic
from fractal_mesospim_shading.synthetic.images import write_image
from fractal_mesospim_shading.synthetic.world import LightSheetWorld
from tests.support.native_samples import extract_sample, state_of_files

LABELS = ("488 nm", "561 nm")
DATA = Path(__file__).parent / "data"


@pytest.fixture(scope="module")
def _first_numbers(request: pytest.FixtureRequest) -> Mapping[str, Any] | None:
    rng: np.random.Generator | None = getattr(request.module, "RNG", None)
    return None if rng is None else rng.bit_generator.state


@pytest.fixture(autouse=True)
def _same_numbers(request: pytest.FixtureRequest, _first_numbers: Mapping[str, Any] | None) -> None:
    """A test of a module with an `RNG` draws the same numbers, whichever ran before it."""
    if _first_numbers is not None:
        request.module.RNG.bit_generator.state = _first_numbers


@pytest.fixture(scope="session")
def unpack() -> Callable[[str, Path], None]:
    """`unpack(name, folder)`: one of the samples of `tests/data`."""

    def unpacked(name: str, folder: Path) -> None:
        with tarfile.open(DATA / f"{name}.tar.xz") as file:
            # The filter came with 3.11.4.
            safe = {"filter": "data"} if hasattr(tarfile, "data_filter") else {}
            file.extractall(folder, **safe)

    return unpacked


@pytest.fixture(scope="session", params=["v04", "v05"])
def native(
    request: pytest.FixtureRequest,
    tmp_path_factory: pytest.TempPathFactory,
    unpack: Callable[[str, Path], None],
) -> Any:
    """Each sample; after all tests every byte and modification time of it is as it was."""
    sample = extract_sample(request.param, tmp_path_factory.mktemp("native"), unpack)
    before = state_of_files(sample.folder)
    yield sample
    assert state_of_files(sample.folder) == before


@pytest.fixture(scope="session")
def basic_python() -> str:
    """The Python that fits BaSiC; who asks for it is skipped where there is none."""
    try:
        return find_basic_python()
    except ParameterError as error:
        pytest.skip(str(error))


@pytest.fixture(scope="session")
def golden_folder() -> Path:
    """Outputs of other programs for the background methods."""
    return DATA / "background"


def _pixels(shape: tuple[int, ...], dtype: str = "uint16", seed: int = 0) -> NDArray[Any]:
    """Values from 0 to the top of the type, most of them as a camera would give."""
    rng = np.random.default_rng(seed)
    top = np.iinfo(dtype).max if dtype != "float32" else 5000
    values = np.minimum(rng.gamma(4.0, top / 40, shape) + 0.1 * top / 60, top)
    if dtype != "float32":
        values = np.rint(values)
    corner = (..., slice(0, 3), slice(0, 5))
    values[corner] = top
    values[(..., slice(3, 5), slice(0, 5))] = 0
    return values.astype(dtype)


def _flatfield(tile_shape: tuple[int, int], seed: int = 0) -> NDArray[np.float64]:
    """Falls off to about half, with streaks along x."""
    y = np.linspace(-1, 1, tile_shape[0])[:, None]
    x = np.linspace(-1, 1, tile_shape[1])[None, :]
    streaks = 1 + 0.03 * np.sin(np.arange(tile_shape[0]) * 0.7 + seed)[:, None]
    return np.asarray(np.exp(-0.4 * (x**2 + (y - 0.2) ** 2)) * streaks)


@pytest.fixture
def pixels() -> Callable[..., NDArray[Any]]:
    """`pixels(shape, dtype, seed)`: random pixels with saturated and zero ones."""
    return _pixels


@pytest.fixture
def flatfield() -> Callable[..., NDArray[np.float64]]:
    """`flatfield(tile_shape, seed)`: a flat-field that is not scaled to mean 1."""
    return _flatfield


@pytest.fixture
def make_mosaic(tmp_path: Path) -> Callable[..., Path]:
    """Write a mosaic of 2 x 2 tiles of 48 x 40 pixels, or what the arguments say."""

    def write(
        name: str = "brain.zarr",
        shape: tuple[int, ...] = (2, 4, 96, 80),
        tile_shape: tuple[int, int] | None = (48, 40),
        *,
        dtype: str = "uint16",
        channels: tuple[str, ...] | None = LABELS,
        array: NDArray[Any] | None = None,
        folder: Path | None = None,
        **style: Any,
    ) -> Path:
        axes = style.get("axes", "czyx")
        if "c" not in axes:
            channels = channels[:1] if channels else None
        path = (folder or tmp_path) / name
        data = _pixels(shape, dtype) if array is None else array
        style.setdefault("chunks", (2, 16, 32))
        style.setdefault("codec", "blosc")
        write_image(path, data, channels=channels, tile_shape=tile_shape, **style)
        return path

    return write


@pytest.fixture
def make_empty_mosaic(tmp_path: Path) -> Callable[..., Path]:
    """Write a mosaic of 2 x 2 tiles of 64 x 64 pixels that hold nothing but the medium."""

    def write(name: str = "brain.zarr", folder: Path | None = None, **style: Any) -> Path:
        path = (folder or tmp_path) / name
        world = LightSheetWorld(tile_shape=(64, 64), grid=(2, 2), planes=8, sample=0.0)
        style = {"chunks": (2, 32, 32), "codec": "blosc", **style}
        write_mosaic(path, world, LABELS, **style)
        return path

    return write


@pytest.fixture
def make_models(tmp_path: Path) -> Callable[..., Path]:
    """Write a models folder; each channel has a flat-field of its own."""

    def write(
        tile_shape: tuple[int, int] = (48, 40),
        labels: tuple[str, ...] = LABELS,
        name: str = "models",
        darkfield: Any = None,
    ) -> Path:
        folder = tmp_path / name
        for i, label in enumerate(labels):
            (folder / label).mkdir(parents=True)
            arrays: dict[str, Any] = {"flatfield": _flatfield(tile_shape, i)}
            if darkfield is not None:
                arrays["darkfield"] = darkfield
            np.savez(folder / label / "profiles.npz", **arrays)
        return folder

    return write


def _tree(root: Path) -> dict[str, bytes]:
    """Every file below a folder with its content; folders that are empty as well."""
    found: dict[str, bytes] = {}
    for folder, folders, names in os.walk(root):
        for name in names:
            path = Path(folder, name)
            found[path.relative_to(root).as_posix()] = path.read_bytes()
        if not names and not folders:
            found[Path(folder).relative_to(root).as_posix() + "/"] = b""
    return found


@pytest.fixture
def tree() -> Callable[[Path], dict[str, bytes]]:
    """`tree(folder)`: relative path -> content."""
    return _tree


@pytest.fixture
def many_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Do not group small write units: even a small image has many blocks."""
    from fractal_mesospim_shading.engine import plan

    monkeypatch.setattr(plan, "BLOCK_BYTES", 1)


@pytest.fixture(scope="session")
def two_cpus() -> Iterator[None]:
    """Tests that start processes of their own leave the rest of the machine alone."""
    if not hasattr(os, "sched_getaffinity"):
        yield
        return
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, set(sorted(before)[:2]))
    yield
    os.sched_setaffinity(0, before)
