"""Local background: each method a file, its parameters and its kernel side by side."""

from fractal_mesospim_shading.core.background.catalogue import (
    ALIASES,
    METHODS,
    check_fits,
    check_light,
    make_method,
    method_named,
    method_of_radius,
    remark_on_height,
)
from fractal_mesospim_shading.core.background.contract import BackgroundMethod, BackgroundResult
from fractal_mesospim_shading.core.background.gaussian import gaussian_backgrounds
from fractal_mesospim_shading.core.background.noise import NoiseFactor

__all__ = [
    "ALIASES",
    "METHODS",
    "BackgroundMethod",
    "BackgroundResult",
    "NoiseFactor",
    "check_fits",
    "check_light",
    "gaussian_backgrounds",
    "make_method",
    "method_named",
    "method_of_radius",
    "remark_on_height",
]
