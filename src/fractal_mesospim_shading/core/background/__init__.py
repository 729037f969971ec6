"""Local background: methods as parameters, kernels as functions of arrays."""

from fractal_mesospim_shading.core.background.catalogue import (
    METHODS,
    check_fits,
    check_light,
    make_method,
    remark_on_height,
)
from fractal_mesospim_shading.core.background.contract import BackgroundMethod, BackgroundResult
from fractal_mesospim_shading.core.background.local_filters import (
    Constant,
    DifferenceOfFilters,
    Gaussian,
)
from fractal_mesospim_shading.core.background.methods import (
    Median,
    Opening,
    RollingBall,
    SlidingParaboloid,
    TileMedian,
)

__all__ = [
    "METHODS",
    "BackgroundMethod",
    "BackgroundResult",
    "Constant",
    "DifferenceOfFilters",
    "Gaussian",
    "Median",
    "Opening",
    "RollingBall",
    "SlidingParaboloid",
    "TileMedian",
    "check_fits",
    "check_light",
    "make_method",
    "remark_on_height",
]
