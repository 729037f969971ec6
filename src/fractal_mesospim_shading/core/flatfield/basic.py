"""BaSiC (Peng et al. 2017, doi:10.1038/ncomms14836), run in a child process.

The same fit gives different bytes with one CPU and with two, and only a process that
is tied to one CPU before it imports jax is free of that. The child also keeps jax's
threads, memory and messages away from the caller.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fractal_mesospim_shading.core.flatfield.binning import BinnedStack
from fractal_mesospim_shading.core.flatfield.smoothing import to_pixels
from fractal_mesospim_shading.core.kernel_cache import scratch_folder
from fractal_mesospim_shading.core.profile import ShadingProfile, resample
from fractal_mesospim_shading.errors import ProfileError, SamplingError

FloatStack = NDArray[np.float32]

FITTING_MODES = ("approximate", "ladmap")
_SMALLEST_SIZE = 8
LEAST_PLANES = 3
"""BaSiC cannot be fitted to fewer planes."""
FEW_PLANES = 8
"""From fewer planes BaSiC prints the sample into the flat-field."""


@dataclass(frozen=True)
class BasicParameters:
    """What BaSiC may be told. The defaults are those that did best in `benchmarks/accuracy.py`.

    Attributes:
        autosegment: leave out what Otsu's threshold calls bright; for few, bright objects.
        autosegment_margin: pixels of the working size by which that mask grows.
        epsilon: of the reweighting; smaller ignores bright objects more strongly.
        get_darkfield: fit a dark-field as well; makes the flat-field worse in every case tried.
        max_workers: passed on; the fit itself uses one CPU whatever it says.
        smoothness_darkfield: weight of the smoothness of the dark-field.
        smoothness_flatfield: weight of the smoothness of the flat-field; higher is smoother.
        working_size: side of the planes in the fit, one number or (y, x). None takes the
            planes as they were binned.
        fitting_mode: `approximate` or `ladmap`.
    """

    autosegment: bool = False
    autosegment_margin: int = 10
    epsilon: float = 0.1
    get_darkfield: bool = False
    max_workers: int = 1
    smoothness_darkfield: float = 1.0
    smoothness_flatfield: float = 1.0
    working_size: int | tuple[int, int] | None = 128
    fitting_mode: str = "approximate"

    def working_shape(self, shape: tuple[int, int]) -> tuple[int, int]:
        """Shape of the planes in the fit, never larger than the planes are.

        Raises:
            ProfileError: the working size is no size.
        """
        size = self.working_size
        if size is None:
            return shape
        wanted = tuple(size) if isinstance(size, tuple | list) else (size, size)
        whole = all(isinstance(n, int) and not isinstance(n, bool) for n in wanted)
        if len(wanted) != 2 or not whole or min(wanted) < _SMALLEST_SIZE:
            raise ProfileError(
                f"working_size is {size!r}; expected a whole number of at least "
                f"{_SMALLEST_SIZE}, two of them (y, x), or nothing for the size of the planes."
            )
        return min(wanted[0], shape[0]), min(wanted[1], shape[1])


@dataclass(frozen=True)
class BasicFit:
    """What BaSiC found.

    Attributes:
        flatfield: (y, x) of the working size, mean 1.
        darkfield: (y, x), counts above what was subtracted before; 0 unless fitted.
        baseline: (n,) brightness of each plane, counts.
    """

    flatfield: NDArray[np.float32]
    darkfield: NDArray[np.float32]
    baseline: NDArray[np.float32]


def basic_planes(stack: BinnedStack, offset: float, parameters: BasicParameters) -> FloatStack:
    """Reduce the binned planes to the working size, offset taken off.

    Bins without data take the median of their plane; planes without any are left out.

    Args:
        stack: binned planes of one channel.
        offset: counts to subtract; 0 where a dark frame was taken off.
        parameters: for the working size.

    Raises:
        SamplingError: fewer than 3 planes with data, or most of them below the offset.
    """
    shape = parameters.working_shape((stack.mean.shape[1], stack.mean.shape[2]))
    planes = []
    for mean in stack.mean:
        known = np.isfinite(mean)
        if known.any():
            filled = np.where(known, mean, np.median(mean[known]))
            planes.append(resample(filled, shape) - np.float32(offset))
    if len(planes) < LEAST_PLANES:
        raise SamplingError(
            f"BaSiC was given {len(planes)} planes with data; expected at least "
            f"{LEAST_PLANES}, better 100."
        )
    result: FloatStack = np.stack(planes)
    middle = float(np.median(result))
    if middle <= 0:
        raise SamplingError(
            f"The planes for BaSiC are {-middle:.1f} counts below the camera offset of {offset:g} "
            "counts in the median; expected them above it. Give `camera_offset`."
        )
    return result


def fit_basic(planes: FloatStack, parameters: BasicParameters) -> BasicFit:
    """Fit BaSiC in a child process that is tied to one CPU.

    Args:
        planes: (n, y, x) of the working size, offset taken off.
        parameters: for the fit.

    Raises:
        ProfileError: the fit failed, or gave a flat-field that is not above 0 everywhere.
    """
    if parameters.fitting_mode not in FITTING_MODES:
        raise ProfileError(
            f"fitting_mode is {parameters.fitting_mode!r}; expected one of {FITTING_MODES}."
        )
    if not np.isfinite(planes).all():
        raise ProfileError("The planes for BaSiC hold NaN or infinite values.")
    with tempfile.TemporaryDirectory(prefix="basic-fit-", dir=scratch_folder()) as folder:
        source, target = Path(folder, "planes.npz"), Path(folder, "fit.npz")
        settings = json.dumps(asdict(parameters))
        np.savez(source, planes=planes.astype(np.float32), parameters=np.array(settings))
        done = subprocess.run(
            _child_command(source, target),
            env=_child_environment(),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            errors="replace",
            check=False,
        )
        if done.returncode != 0 or not target.exists():
            raise ProfileError(_failure(done, planes.shape))
        with np.load(target, allow_pickle=False) as found:
            fit = BasicFit(found["flatfield"], found["darkfield"], found["baseline"])
    flat = fit.flatfield
    if not np.isfinite(flat).all() or float(flat.min()) <= 0:
        raise ProfileError(
            f"BaSiC gave a flat-field from {float(flat.min()):g} to {float(flat.max()):g}; every "
            "value must be above 0. Try the other 'fitting_mode', or give empty tiles or planes."
        )
    return fit


def profile_from_basic(
    fit: BasicFit,
    tile_shape: tuple[int, int],
    offset: float = 0.0,
    dark_frame: NDArray[np.floating[Any]] | None = None,
) -> ShadingProfile:
    """Bring a fit to the shape of the tile.

    Args:
        fit: from `fit_basic`.
        tile_shape: (y, x) in pixels.
        offset: counts that were subtracted before the fit.
        dark_frame: (y, x) the dark frame that was, instead.
    """
    fields = []
    for field in (fit.flatfield, fit.darkfield):
        edges = [
            np.linspace(0, size, n + 1) for size, n in zip(tile_shape, field.shape, strict=True)
        ]
        fields.append(to_pixels(field.astype(np.float64), (edges[0], edges[1]), tile_shape))
    flat = np.maximum(fields[0], float(fit.flatfield.min()) / 2)
    dark: NDArray[np.floating[Any]] | float = offset if dark_frame is None else dark_frame
    if np.any(fit.darkfield):
        dark = dark + fields[1]
    return ShadingProfile.create(flat, dark, float(np.median(fit.baseline)))


_CHILD = """
import json, sys
sys.path.extend(json.loads(sys.argv[1]))
from fractal_mesospim_shading.core.flatfield.basic_child import main
main(*sys.argv[2:])
"""


def _child_command(source: Path, target: Path) -> Sequence[str]:
    # -P: what lies in the working directory must not be imported. Where the caller finds
    # modules comes last for the same reason.
    places = [place for place in sys.path if os.path.isabs(place)]
    return [sys.executable, "-P", "-c", _CHILD, json.dumps(places), str(source), str(target)]


def _child_environment() -> dict[str, str]:
    environment = dict(os.environ)
    environment["JAX_PLATFORMS"] = "cpu"
    environment["PYTHONWARNINGS"] = "ignore"
    for name in ("XLA_FLAGS", "JAX_ENABLE_X64", "PYTHONSTARTUP"):
        environment.pop(name, None)
    return environment


def _failure(done: subprocess.CompletedProcess[str], shape: tuple[int, ...]) -> str:
    lines = [line for line in done.stderr.splitlines() if line.strip()]
    how = f"signal {-done.returncode}" if done.returncode < 0 else f"code {done.returncode}"
    cause = lines[-1].strip().rstrip(".") if lines else f"the child process ended with {how}"
    return (
        f"BaSiC could not fit {shape[0]} planes of {shape[1]} x {shape[2]}: {cause}. "
        "Try the other 'fitting_mode' or fewer planes, or give empty tiles or planes."
    )
