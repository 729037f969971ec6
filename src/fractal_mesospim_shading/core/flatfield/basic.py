"""BaSiC (Peng et al. 2017, doi:10.1038/ncomms14836), run in a child process.

The same fit gives different bytes with one CPU and with two, and only a process that
is tied to one CPU before it imports jax is free of that. The child also keeps jax's
threads, memory and messages away from the caller, and may be of another Python than these.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fractal_mesospim_shading.core.flatfield import basic_child
from fractal_mesospim_shading.core.flatfield.basic_python import basic_environment, module_places
from fractal_mesospim_shading.core.flatfield.binning import BinnedStack
from fractal_mesospim_shading.core.flatfield.pixels import to_pixels
from fractal_mesospim_shading.core.kernel_cache import scratch_folder
from fractal_mesospim_shading.core.profile import ShadingProfile, resample
from fractal_mesospim_shading.errors import ProfileError, SamplingError

FloatStack = NDArray[np.float32]

LEAST_PLANES = 3
"""BaSiC cannot be fitted to fewer planes."""
FEW_PLANES = 8
"""From fewer planes BaSiC prints the sample into the flat-field."""


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


def basic_planes(stack: BinnedStack, offset: float, working_size: int | None) -> FloatStack:
    """Reduce the binned planes to the working size, offset taken off.

    Bins without data take the median of their plane; planes without any are left out.

    Args:
        stack: binned planes of one channel.
        offset: counts to subtract; 0 where a dark frame was taken off.
        working_size: side of the planes in the fit, which are never larger than they were binned;
            None takes them as they are.

    Raises:
        SamplingError: fewer than 3 planes with data, or most of them below the offset.
    """
    height, width = stack.mean.shape[1:]
    shape = min(height, working_size or height), min(width, working_size or width)
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


def fit_basic(
    planes: FloatStack, settings: Mapping[str, Any], python: str = sys.executable
) -> BasicFit:
    """Fit BaSiC in a child process that is tied to one CPU.

    Args:
        planes: (n, y, x) of the working size, offset taken off.
        settings: arguments of `basicpy.BaSiC`, as JSON.
        python: interpreter that has BaSiCPy, from `find_basic_python`.

    Raises:
        ProfileError: the fit failed, or gave a flat-field that is not above 0 everywhere.
    """
    if not np.isfinite(planes).all():
        raise ProfileError("The planes for BaSiC hold NaN or infinite values.")
    with tempfile.TemporaryDirectory(prefix="basic-fit-", dir=scratch_folder()) as folder:
        source, target = Path(folder, "planes.npz"), Path(folder, "fit.npz")
        parameters = np.array(json.dumps(dict(settings)))
        np.savez(source, planes=planes.astype(np.float32), parameters=parameters)
        done = subprocess.run(
            _child_command(python, source, target),
            env=basic_environment(python),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            errors="replace",
            check=False,
        )
        if done.returncode != 0 or not target.exists():
            raise ProfileError(_failure(done, planes.shape))
        with np.load(target, allow_pickle=False) as content:
            fit = BasicFit(content["flatfield"], content["darkfield"], content["baseline"])
    flat = fit.flatfield
    if not np.isfinite(flat).all() or float(flat.min()) <= 0:
        raise ProfileError(
            f"BaSiC gave a flat-field from {float(flat.min()):g} to {float(flat.max()):g}; every "
            "value must be above 0. Try the other 'fitting_mode', or give empty tiles or planes."
        )
    return fit


def fit_in_turn(
    stack: BinnedStack,
    offset: float,
    uncertainty: float,
    settings: Mapping[str, Any],
    python: str = sys.executable,
) -> tuple[BasicFit, FloatStack, float, str | None]:
    """Fit BaSiC; where nothing comes of it, with a lower offset and in the other mode.

    An offset too high leaves too little light in dark corners, and BaSiC then may end below 0.

    Args:
        stack: binned planes of one channel.
        offset: counts to subtract; 0 where a dark frame was taken off.
        uncertainty: of the offset, counts; 0 where it was given.
        settings: of `basicpy.BaSiC`, with `working_size`.
        python: interpreter that has BaSiCPy, from `find_basic_python`.

    Returns:
        The fit, the planes that it was made from, the offset taken off them, and what was changed
        for it, in words; None for nothing.

    Raises:
        SamplingError, ProfileError: nothing came of any, with what was tried.
    """
    mode = settings["fitting_mode"]
    other = "ladmap" if mode == "approximate" else "approximate"
    attempts = dict.fromkeys(
        (max(offset - lower * uncertainty, min(offset, 0.0)), fitting)
        for lower, fitting in ((0, mode), (1, mode), (0, other), (2, other))
    )
    first: ProfileError | SamplingError | None = None
    for counts, fitting in attempts:
        try:
            planes = basic_planes(stack, counts, settings["working_size"])
            fit = fit_basic(planes, {**settings, "fitting_mode": fitting}, python)
        except (ProfileError, SamplingError) as error:
            first = first or error
            continue
        return fit, planes, counts, None if first is None else _changed(counts, fitting, first)
    tried = "; ".join(f"{counts:.4g} counts, {fitting}" for counts, fitting in attempts)
    raise ProfileError(
        f"{first} Tried: {tried}. Dark corners that hardly differ from the camera offset do that: "
        "give the right `camera_offset`, or `fov_list` or `z_levels` without sample."
    )


def _changed(counts: float, mode: str, error: Exception) -> str:
    cause = str(error).partition(";")[0]
    return f"fitted with an offset of {counts:.4g} counts and in mode '{mode}', because: {cause}"


def profile_from_basic(
    fit: BasicFit, tile_shape: tuple[int, int], offset: float = 0.0
) -> ShadingProfile:
    """Bring a fit to the shape of the tile.

    Args:
        fit: from `fit_basic`.
        tile_shape: (y, x) in pixels.
        offset: counts that were subtracted before the fit.
    """
    fields = []
    for field in (fit.flatfield, fit.darkfield):
        edges = [
            np.linspace(0, size, n + 1) for size, n in zip(tile_shape, field.shape, strict=True)
        ]
        fields.append(to_pixels(field.astype(np.float64), (edges[0], edges[1]), tile_shape))
    flat = np.maximum(fields[0], float(fit.flatfield.min()) / 2)
    dark = offset + fields[1] if np.any(fit.darkfield) else offset
    return ShadingProfile.create(flat, dark, float(np.median(fit.baseline)))


def _child_command(python: str, source: Path, target: Path) -> Sequence[str]:
    # -P: what lies beside the script or in the working directory must not be imported. Where
    # the caller finds modules comes last for the same reason.
    places = json.dumps(module_places(python))
    return [python, "-P", str(basic_child.__file__), str(source), str(target), places]


def _failure(done: subprocess.CompletedProcess[str], shape: tuple[int, ...]) -> str:
    lines = [line for line in done.stderr.splitlines() if line.strip()]
    end = f"signal {-done.returncode}" if done.returncode < 0 else f"code {done.returncode}"
    cause = lines[-1].strip().rstrip(".") if lines else f"the child process ended with {end}"
    return (
        f"BaSiC could not fit {shape[0]} planes of {shape[1]} x {shape[2]}: {cause}. "
        "Try the other 'fitting_mode' or fewer planes, or give empty tiles or planes."
    )
