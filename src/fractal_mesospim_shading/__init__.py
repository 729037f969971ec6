"""Flat-field and local background correction of mesoSPIM images stored as OME-Zarr."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from fractal_mesospim_shading.errors import (
    BackgroundError,
    FolderError,
    ImageFormatError,
    ImageNotFoundError,
    JobLockedError,
    JobMismatchError,
    LayoutError,
    MemoryLimitError,
    NoLightError,
    OutputExistsError,
    OutputWriteError,
    ParameterError,
    ProfileError,
    SamplingError,
    ShadingError,
    SourceChangedError,
    SourceReadError,
    StoppedError,
    TileNumberError,
    WorkerLostError,
    WorkerVersionError,
)
from fractal_mesospim_shading.functions import (
    check_overlaps,
    correct_background,
    correct_flatfield,
    estimate_flatfield,
    find_empty,
    import_mesospim,
)
from fractal_mesospim_shading.messages import listen

if TYPE_CHECKING:
    from fractal_mesospim_shading.flatfield.models import ChannelModel
    from fractal_mesospim_shading.jobs.checking import CheckResult
    from fractal_mesospim_shading.jobs.estimating import EstimateResult
    from fractal_mesospim_shading.jobs.finding import EmptyResult
    from fractal_mesospim_shading.jobs.work import JobResult
    from fractal_mesospim_shading.options.background import BackgroundOptions, BackgroundStep
    from fractal_mesospim_shading.options.basic import BasicpyModelParams
    from fractal_mesospim_shading.options.flatfield import (
        FlatfieldOptions,
        ImportOptions,
    )

__all__ = [
    "BackgroundError",
    "BackgroundOptions",
    "BackgroundStep",
    "BasicpyModelParams",
    "ChannelModel",
    "CheckResult",
    "EmptyResult",
    "EstimateResult",
    "FlatfieldOptions",
    "FolderError",
    "ImageFormatError",
    "ImageNotFoundError",
    "ImportOptions",
    "JobLockedError",
    "JobMismatchError",
    "JobResult",
    "LayoutError",
    "MemoryLimitError",
    "NoLightError",
    "OutputExistsError",
    "OutputWriteError",
    "ParameterError",
    "ProfileError",
    "SamplingError",
    "ShadingError",
    "SourceChangedError",
    "SourceReadError",
    "StoppedError",
    "TileNumberError",
    "WorkerLostError",
    "WorkerVersionError",
    "__version__",
    "check_overlaps",
    "correct_background",
    "correct_flatfield",
    "estimate_flatfield",
    "find_empty",
    "import_mesospim",
]

__version__ = "0.1.0"

_HOME = {
    "BackgroundOptions": "options.background",
    "BackgroundStep": "options.background",
    "BasicpyModelParams": "options.basic",
    "ChannelModel": "flatfield.models",
    "CheckResult": "jobs.checking",
    "EmptyResult": "jobs.finding",
    "EstimateResult": "jobs.estimating",
    "FlatfieldOptions": "options.flatfield",
    "ImportOptions": "options.flatfield",
    "JobResult": "jobs.work",
}
"""Where the types lie; they are imported when somebody asks for them."""

listen()


def __dir__() -> list[str]:
    return sorted(__all__)


if not TYPE_CHECKING:

    def __getattr__(name: str) -> Any:
        """The public types, once somebody asks for one."""
        from importlib import import_module

        if name not in _HOME:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        return getattr(import_module(f"{__name__}.{_HOME[name]}"), name)
