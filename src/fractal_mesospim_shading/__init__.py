"""Flat-field and local background correction of mesoSPIM images stored as OME-Zarr."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from fractal_mesospim_shading.estimation import ChannelModel
    from fractal_mesospim_shading.workflows import CorrectionResult

__all__ = ["correct_flatfield", "estimate_flatfield"]


def correct_flatfield(zarr_url: str, **arguments: Any) -> CorrectionResult:
    """Correct the flat-field (shading) of one OME-Zarr image.

    Args:
        zarr_url: address of the image, local or remote.
        **arguments: the fields of `params.FlatfieldOptions`, under the same names as in
            the Fractal task and on the command line.

    Returns:
        Address of the corrected image, the models used, and counts of clipped and
        saturated pixels.

    Raises:
        ShadingError: one readable error. The source and any earlier result are as they
            were; the same call continues what was finished.

    Example:
        >>> from fractal_mesospim_shading import correct_flatfield
        >>> result = correct_flatfield("brain.zarr", fov_list=[1, 9])  # doctest: +SKIP
    """
    from fractal_mesospim_shading import workflows
    from fractal_mesospim_shading.params import FlatfieldOptions, validated

    return workflows.correct_flatfield(str(zarr_url), validated(FlatfieldOptions, arguments))


def estimate_flatfield(
    zarr_url: str, output: str, **arguments: Any
) -> dict[str, ChannelModel]:
    """Estimate the flat-fields of an image and save them as a models folder.

    Args:
        zarr_url: address of the image.
        output: folder for the models, to be given as `models_folder` later.
        **arguments: the fields of `params.FlatfieldOptions` that concern the estimate.

    Returns:
        The models by channel label.
    """
    from fractal_mesospim_shading import workflows
    from fractal_mesospim_shading.params import FlatfieldOptions, validated

    return workflows.estimate_models(
        str(zarr_url), str(output), validated(FlatfieldOptions, arguments)
    )
