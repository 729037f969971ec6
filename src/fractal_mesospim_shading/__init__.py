"""Flat-field and local background correction of mesoSPIM images stored as OME-Zarr."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from fractal_mesospim_shading.messages import listen

if TYPE_CHECKING:
    from fractal_mesospim_shading.flatfield.models import ChannelModel
    from fractal_mesospim_shading.jobs.work import JobResult

__all__ = ["correct_background", "correct_flatfield", "estimate_flatfield", "import_mesospim"]

listen()


def correct_flatfield(zarr_url: str, **arguments: Any) -> JobResult:
    """Correct the flat-field (shading) of one OME-Zarr image, or of a native acquisition.

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
    from fractal_mesospim_shading.jobs import flatfield
    from fractal_mesospim_shading.options.flatfield import FlatfieldOptions
    from fractal_mesospim_shading.options.values import address, validated

    return flatfield.correct_flatfield(
        address(zarr_url, "zarr_url"), validated(FlatfieldOptions, arguments)
    )


def estimate_flatfield(zarr_url: str, output: str, **arguments: Any) -> dict[str, ChannelModel]:
    """Estimate the flat-fields of an image and save them as a models folder.

    Args:
        zarr_url: address of the image.
        output: folder for the models, to be given as `models_folder` later.
        **arguments: the fields of `params.FlatfieldOptions` that concern the estimate.

    Returns:
        The models by channel label.
    """
    from fractal_mesospim_shading.jobs import flatfield
    from fractal_mesospim_shading.options.flatfield import FlatfieldOptions
    from fractal_mesospim_shading.options.values import address, validated

    return flatfield.estimate_models(
        address(zarr_url, "zarr_url"),
        address(output, "output"),
        validated(FlatfieldOptions, arguments),
    )


def correct_background(zarr_url: str, **arguments: Any) -> JobResult:
    """Take the local background of one OME-Zarr image away.

    For arrays instead of images, see `core.background.arrays`.

    Args:
        zarr_url: address of the image.
        **arguments: the fields of `background_params.BackgroundOptions`.

    Returns:
        Addresses of the results, and counts of clipped pixels.

    Raises:
        ShadingError: one readable error; the source and any earlier result are as they were.
    """
    from fractal_mesospim_shading.jobs import background
    from fractal_mesospim_shading.options.background import BackgroundOptions
    from fractal_mesospim_shading.options.values import address, validated

    return background.correct_background(
        address(zarr_url, "zarr_url"), validated(BackgroundOptions, arguments)
    )


def import_mesospim(
    containers: str | list[str], zarr_dir: str, **arguments: Any
) -> list[JobResult]:
    """Import native mesoSPIM acquisitions as mosaics, with or without flat-field correction.

    Args:
        containers: one address or several: what mesoSPIM-control wrote.
        zarr_dir: folder for the imported images.
        **arguments: the fields of `params.ImportOptions`.

    Returns:
        One entry for each image written.

    Raises:
        ShadingError: one readable error; the acquisition is as it was.
    """
    from fractal_mesospim_shading.jobs import importing
    from fractal_mesospim_shading.options.importing import ImportOptions
    from fractal_mesospim_shading.options.values import address, addresses, validated

    options = validated(ImportOptions, arguments)
    units = importing.plan_imports(
        addresses(containers, "containers"), address(zarr_dir, "zarr_dir"), options
    )
    return [importing.import_image(unit, options) for unit in units]
