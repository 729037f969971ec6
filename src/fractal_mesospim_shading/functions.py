"""What Python code calls: a function for each kind of job.

What takes long to import is imported when a function is called.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal

from fractal_mesospim_shading.engine.progress import progress_shown
from fractal_mesospim_shading.errors import ParameterError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from typing import Unpack

    from fractal_mesospim_shading.engine.progress import Told
    from fractal_mesospim_shading.jobs.checking import CheckResult
    from fractal_mesospim_shading.jobs.estimating import EstimateResult
    from fractal_mesospim_shading.jobs.finding import EmptyResult
    from fractal_mesospim_shading.jobs.work import JobResult
    from fractal_mesospim_shading.options.background import BackgroundArguments, BackgroundOptions
    from fractal_mesospim_shading.options.flatfield import (
        FlatfieldArguments,
        FlatfieldOptions,
        ImportArguments,
        ImportOptions,
    )


def correct_flatfield(
    zarr_url: str,
    options: FlatfieldOptions | None = None,
    *,
    progress: bool | Told | None = None,
    **arguments: Unpack[FlatfieldArguments],
) -> JobResult:
    """Correct the flat-field (shading) of one OME-Zarr image, or of a native acquisition.

    Args:
        zarr_url: address of the image, local or remote.
        options: what is asked for, as an object; None for the defaults.
        progress: True for a bar, or a function that is called with what is done, how much of it
            is finished, and how much there is; None to work in silence.
        **arguments: fields of `FlatfieldOptions`, under the same names as in the Fractal task
            and on the command line. They go before those of `options`.

    Returns:
        Address of the corrected image, the models used, and counts of clipped and
        saturated pixels.

    Raises:
        ShadingError: one readable error. The source and any earlier result are as they
            were; the same call continues what was finished.

    Example:
        Four tiles hold no sample, and the camera gives 100 counts at no light:

        >>> from fractal_mesospim_shading import correct_flatfield
        >>> result = correct_flatfield(
        ...     "brain.zarr/raw_image", fov_list=[1, 3, 7, 9], camera_offset=100
        ... )
        >>> result.image_url
        '.../brain.zarr/raw_image_flatfield_corr'
        >>> flatfield = result.models["488 nm"].profile.flatfield
        >>> flatfield.shape, round(float(flatfield.mean()), 3)
        ((96, 96), 1.0)
    """
    from fractal_mesospim_shading.jobs import flatfield
    from fractal_mesospim_shading.options.flatfield import FlatfieldOptions
    from fractal_mesospim_shading.options.values import address, combined

    url, chosen = address(zarr_url, "zarr_url"), combined(FlatfieldOptions, options, {**arguments})
    with progress_shown(progress):
        return flatfield.correct_flatfield(url, chosen)


def estimate_flatfield(
    zarr_url: str | Sequence[str],
    output: str | None = None,
    options: FlatfieldOptions | None = None,
    *,
    tiff: bool = False,
    progress: bool | Told | None = None,
    **arguments: Unpack[FlatfieldArguments],
) -> EstimateResult:
    """Estimate the flat-fields of an image, or of several together.

    Args:
        zarr_url: address of the image; or several, of the same light path, that share one
            flat-field of each channel. Numbers of tiles are then those of each image.
        output: folder for the models, to be given as `models_folder` later; None to write none.
        options: what is asked for, as an object; None for the defaults.
        tiff: also write `flatfield.tif` and `darkfield.tif` beside each model, for ImageJ and
            stitchers.
        progress: True for a bar, or a function that is called with what is done, how much of it
            is finished, and how much there is; None to work in silence.
        **arguments: fields of `FlatfieldOptions` that concern the estimate. They go before
            those of `options`.

    Returns:
        The models by channel label, like a dict; with them whether they fit the image, and the
        report.

    Raises:
        ShadingError: one readable error; an earlier folder of models is as it was.

    Example:
        Estimate once, look at it, and use it for every image of the day:

        >>> from fractal_mesospim_shading import correct_flatfield, estimate_flatfield
        >>> models = estimate_flatfield("brain.zarr/raw_image", "models", fov_list=[1, 3, 7, 9])
        >>> models["488 nm"].profile.flatfield.shape, models["488 nm"].planes_used
        ((96, 96), 48)
        >>> models.verdict.word  # this image does not say where its tiles overlap
        'look'
        >>> result = correct_flatfield("brain.zarr/raw_image", models_folder="models")
    """
    from fractal_mesospim_shading.jobs import estimating
    from fractal_mesospim_shading.options.flatfield import FlatfieldOptions
    from fractal_mesospim_shading.options.values import address, addresses, combined

    if tiff and output is None:
        raise ParameterError("TIFF files need a folder: give `output`, or leave tiff out.")
    urls = addresses(zarr_url, "zarr_url")
    folder = None if output is None else address(output, "output")
    chosen = combined(FlatfieldOptions, options, {**arguments})
    with progress_shown(progress):
        return estimating.estimate_models(urls, folder, chosen, tiff=tiff)


def check_overlaps(
    zarr_url: str,
    *,
    models_folder: str | None = None,
    against: str | None = None,
    camera_offset: float | None = None,
    seed: int = 0,
    input_roi_table: str = "FOV_ROI_table",
    storage_options: Mapping[str, Any] | None = None,
    progress: bool | Told | None = None,
) -> CheckResult:
    """Measure how far the tiles of an image differ where they show the same tissue.

    Nothing is written, and any program may have corrected the image.

    Args:
        zarr_url: address of the image, or of a native acquisition; its metadata must tell where
            the tiles really were.
        models_folder: of models whose correction is foretold.
        against: address of the same image, corrected.
        camera_offset: counts without light in the image; None where the overlaps are to tell.
        seed: of the sample of planes and places.
        input_roi_table: name of the table of the fields of view.
        storage_options: of remote addresses.
        progress: True for a bar, or a function that is called with what is done, how much of it
            is finished, and how much there is; None to work in silence.

    Returns:
        For each channel and illumination side the differences before and after, of gain and of
        shape, with their uncertainty, and what is left of the camera offset.

    Raises:
        ShadingError: one readable error, before a pixel is read.

    Example:
        >>> from fractal_mesospim_shading import check_overlaps
        >>> found = check_overlaps("acquisition.ome.zarr")
        >>> [check.label for check in found.channels]
        ['488 nm']
    """
    from fractal_mesospim_shading.jobs.checking import CheckWanted, check_image
    from fractal_mesospim_shading.options.values import address

    wanted = CheckWanted(
        models_folder=None if models_folder is None else address(models_folder, "models_folder"),
        against=None if against is None else address(against, "against"),
        camera_offset=camera_offset,
        seed=seed,
        storage_options=storage_options,
        input_roi_table=input_roi_table,
    )
    url = address(zarr_url, "zarr_url")
    with progress_shown(progress):
        return check_image(url, wanted)


def find_empty(
    zarr_url: str,
    *,
    channel: str | int | None = None,
    picture: str | None = None,
    zero_is: Literal["auto", "data", "no_data"] = "auto",
    read_at_most: str | int = "8GiB",
    input_roi_table: str = "FOV_ROI_table",
    storage_options: Mapping[str, Any] | None = None,
    progress: bool | Told | None = None,
) -> EmptyResult:
    """Find the tiles and planes of an image that hold medium and no sample.

    Precision goes first: what is called empty holds no light of sample that would matter, and
    some of what is empty may be missed. Some slabs of the image are read, or a coarse level of
    its pyramid.

    Args:
        zarr_url: address of the image, or of a native acquisition.
        channel: label, wavelength or index; None for all.
        picture: PNG file to write: the mosaic with the numbers of its tiles, and a strip along z
            for each; None for none.
        zero_is: what a pixel of 0 is, as in `correct_flatfield`.
        read_at_most: pixels to read of each channel and illumination side, such as 2GB, or bytes;
            of less, less is found.
        input_roi_table: name of the table of the fields of view.
        storage_options: of remote addresses.
        progress: True for a bar, or a function that is called with what is done, how much of it
            is finished, and how much there is; None to work in silence.

    Returns:
        For each channel and side the share of empty planes of each tile and their range along
        z, with a confidence from 0 to 1, and `fov_list` and `z_levels` as `correct_flatfield`
        takes them.

    Raises:
        ShadingError: one readable error.

    Example:
        >>> from fractal_mesospim_shading import correct_flatfield, find_empty
        >>> found = find_empty("brain.zarr/raw_image")
        >>> found.fov_list
        (1, 3, 7, 9)
        >>> result = correct_flatfield("brain.zarr/raw_image", fov_list=found.fov_list)
    """
    from fractal_mesospim_shading.jobs.finding import EmptyWanted
    from fractal_mesospim_shading.jobs.finding import find_empty as find
    from fractal_mesospim_shading.options.values import address

    where = None if picture is None else address(picture, "picture")
    wanted = EmptyWanted(channel, where, zero_is, storage_options, read_at_most, input_roi_table)
    url = address(zarr_url, "zarr_url")
    with progress_shown(progress):
        return find(url, wanted)


def correct_background(
    zarr_url: str,
    options: BackgroundOptions | None = None,
    *,
    progress: bool | Told | None = None,
    **arguments: Unpack[BackgroundArguments],
) -> JobResult:
    """Take the local background of one OME-Zarr image away.

    For arrays instead of images, see `core.background.arrays`.

    Args:
        zarr_url: address of the image.
        options: what is asked for, as an object; None for the defaults.
        progress: True for a bar, or a function that is called with what is done, how much of it
            is finished, and how much there is; None to work in silence.
        **arguments: fields of `BackgroundOptions`. They go before those of `options`.

    Returns:
        Addresses of the results, and counts of clipped pixels.

    Raises:
        ShadingError: one readable error; the source and any earlier result are as they were.

    Example:
        >>> from fractal_mesospim_shading import correct_background
        >>> result = correct_background(
        ...     "brain.zarr/raw_image", method="median:15", save_background=True
        ... )
        >>> result.image_url
        '.../brain.zarr/raw_image_background_corr'
        >>> result.companions
        {'background': '.../brain.zarr/raw_image_background_corr_background'}
    """
    from fractal_mesospim_shading.jobs import background
    from fractal_mesospim_shading.options.background import BackgroundOptions
    from fractal_mesospim_shading.options.values import address, combined

    url = address(zarr_url, "zarr_url")
    chosen = combined(BackgroundOptions, options, {**arguments})
    with progress_shown(progress):
        return background.correct_background(url, chosen)


def import_mesospim(
    containers: str | list[str],
    zarr_dir: str,
    options: ImportOptions | None = None,
    *,
    progress: bool | Told | None = None,
    **arguments: Unpack[ImportArguments],
) -> list[JobResult]:
    """Import native mesoSPIM acquisitions as mosaics, with or without flat-field correction.

    Args:
        containers: one address or several: what mesoSPIM-control wrote.
        zarr_dir: folder for the imported images.
        options: what is asked for, as an object; None for the defaults.
        progress: True for a bar, or a function that is called with what is done, how much of it
            is finished, and how much there is; None to work in silence.
        **arguments: fields of `ImportOptions`. They go before those of `options`.

    Returns:
        One entry for each image written.

    Raises:
        ShadingError: one readable error; the acquisition is as it was.

    Example:
        >>> from fractal_mesospim_shading import import_mesospim
        >>> results = import_mesospim("acquisition.ome.zarr", "imported")
        >>> [result.image_url for result in results]
        ['.../imported/acquisition.zarr/raw_image']
    """
    from fractal_mesospim_shading.jobs import importing
    from fractal_mesospim_shading.options.flatfield import ImportOptions
    from fractal_mesospim_shading.options.values import address, addresses, combined

    chosen = combined(ImportOptions, options, {**arguments})
    sources, folder = addresses(containers, "containers"), address(zarr_dir, "zarr_dir")
    with progress_shown(progress):
        units = importing.plan_imports(sources, folder, chosen)
        return [importing.import_image(unit, chosen) for unit in units]
