"""What each command takes: what its model holds, and what it has of its own."""

from __future__ import annotations

import click

from fractal_mesospim_shading.cli.command import Heading, OneOf, Option, Place, manner_options


def _storage() -> Option:
    return Option(
        "--storage-options",
        heading=Heading.INPUT,
        metavar="JSON",
        help="Options of the fsspec file system for remote addresses.",
    )


def _roi_table() -> Option:
    return Option(
        "--input-roi-table",
        heading=Heading.INPUT,
        default="FOV_ROI_table",
        metavar="NAME",
        show_default=True,
        help="Table of the fields of view (tiles) of the image.",
    )


def _radius() -> Option:
    return Option(
        "--radius",
        heading=Heading.BACKGROUND,
        metavar="X",
        help="Radius of methods that were given none, in pixels or as 15um; of the squares of "
        "tile_median a quarter of the side.",
    )


def _dry_run() -> Option:
    return Option(
        "--dry-run",
        heading=Heading.RUNNING,
        is_flag=True,
        help="Check all, and say what would be read, written and needed; write nothing.",
    )


def _image(*, required: bool, several: bool = False) -> click.Argument:
    text = "Address of the image: a folder on disk, s3://..., or within a zip archive."
    if several:
        text += " Several share one flat-field of each channel; numbers of tiles are those of each."
    nargs, metavar = (-1, "[IMAGE...]") if several else (1, None)
    return click.Argument(
        ["image"], required=required, nargs=nargs, metavar=metavar, type=Place(), help=text
    )


def _common() -> list[click.Parameter]:
    """What all commands take."""
    as_json = Option(
        "--json", heading=Heading.OUTPUT, is_flag=True, help="Print what came out as JSON."
    )
    return [as_json, *manner_options()]


def info_arguments() -> list[click.Parameter]:
    """Of `info`."""
    return [
        _image(required=True),
        _roi_table(),
        _storage(),
        *_common(),
    ]


def flatfield_arguments() -> list[click.Parameter]:
    """Of `correct-flatfield`."""
    from fractal_mesospim_shading.cli.options import options_of
    from fractal_mesospim_shading.options.flatfield import FlatfieldOptions

    return [_image(required=False), *options_of(FlatfieldOptions), _dry_run(), *_common()]


def estimate_arguments() -> list[click.Parameter]:
    """Of `estimate`."""
    from fractal_mesospim_shading.cli.options import options_of
    from fractal_mesospim_shading.options.flatfield import FlatfieldOptions
    from fractal_mesospim_shading.options.precedence import IMAGE_OPTIONS

    return [
        _image(required=False, several=True),
        Option(
            "--output",
            heading=Heading.OUTPUT,
            required=True,
            metavar="FOLDER",
            type=Place(),
            help="Folder for the models.",
        ),
        Option(
            "--format",
            heading=Heading.OUTPUT,
            type=OneOf(("npz", "tiff")),
            default="npz",
            show_default=True,
            help="tiff: also flatfield.tif and darkfield.tif beside each file, which ImageJ and "
            "stitchers read.",
        ),
        *options_of(FlatfieldOptions, hidden=IMAGE_OPTIONS),
        _dry_run(),
        *_common(),
    ]


def background_arguments() -> list[click.Parameter]:
    """Of `correct-background`."""
    from fractal_mesospim_shading.cli.options import options_of
    from fractal_mesospim_shading.options.background import BackgroundOptions

    return [
        _image(required=False),
        *options_of(BackgroundOptions),
        _radius(),
        _dry_run(),
        *_common(),
    ]


def methods() -> dict[str, list[tuple[str, str]]]:
    """The section of the help on background methods."""
    from fractal_mesospim_shading.cli.options import methods_table

    return {"Methods, with the radius that they have by default": methods_table()}


def check_arguments() -> list[click.Parameter]:
    """Of `check`."""
    source = Heading.INPUT
    return [
        _image(required=True),
        Option(
            "--models-folder",
            heading=source,
            metavar="FOLDER",
            type=Place(),
            help="Models whose correction is foretold. Unset: the image as it is.",
        ),
        Option(
            "--against",
            heading=source,
            metavar="RESULT",
            type=Place(),
            help="The same image, corrected by whatever program.",
        ),
        Option(
            "--camera-offset",
            heading=source,
            type=float,
            metavar="COUNTS",
            help="Counts without light in the image. Unset: the overlaps tell it themselves.",
        ),
        Option(
            "--seed",
            heading=source,
            type=int,
            default=0,
            metavar="N",
            show_default=True,
            help="Of the sample of planes and places.",
        ),
        _roi_table(),
        _storage(),
        *_common(),
    ]


def find_empty_arguments() -> list[click.Parameter]:
    """Of `find-empty`."""
    return [
        _image(required=True),
        Option(
            "--channel",
            heading=Heading.INPUT,
            metavar="NAME",
            help="Label, wavelength or index. Unset: all.",
        ),
        Option(
            "--zero-is",
            heading=Heading.INPUT,
            type=OneOf(("auto", "data", "no_data")),
            default="auto",
            show_default=True,
            help="What a pixel of 0 is, as in correct-flatfield.",
        ),
        Option(
            "--read-at-most",
            heading=Heading.INPUT,
            default="8GiB",
            metavar="SIZE",
            show_default=True,
            help="Pixels to read of each channel and illumination side. Of less, less is found.",
        ),
        Option(
            "--output",
            heading=Heading.OUTPUT,
            default="empty_regions.png",
            metavar="FILE",
            type=Place(),
            show_default=True,
            help="Picture to write: tiles with their numbers, and a strip along z for each.",
        ),
        _dry_run(),
        _roi_table(),
        _storage(),
        *_common(),
    ]


def import_arguments() -> list[click.Parameter]:
    """Of `import`."""
    from fractal_mesospim_shading.cli.options import options_of
    from fractal_mesospim_shading.options.flatfield import ImportOptions

    return [
        click.Argument(
            ["containers"],
            nargs=-1,
            required=True,
            metavar="CONTAINER...",
            type=Place(),
            help="Folders that mesoSPIM-control wrote.",
        ),
        Option(
            "--zarr-dir",
            heading=Heading.OUTPUT,
            required=True,
            metavar="FOLDER",
            type=Place(),
            help="Folder for the imported images.",
        ),
        *options_of(ImportOptions),
        _dry_run(),
        *_common(),
    ]


def demo_arguments() -> list[click.Parameter]:
    """Of `demo`."""
    folder = Option(
        "--folder",
        heading=Heading.OUTPUT,
        default="demo_output",
        metavar="FOLDER",
        type=Place(),
        show_default=True,
        help="Where to work.",
    )
    return [folder, *_common()]


def completion_arguments() -> list[click.Parameter]:
    """Of `completion`."""
    shells = OneOf(("bash", "zsh", "fish"))
    return [
        click.Argument(["shell"], type=shells, help="bash, zsh or fish."),
        *manner_options(),
    ]


def preview_arguments() -> list[click.Parameter]:
    """Of `preview`."""
    from fractal_mesospim_shading.cli.options import options_of
    from fractal_mesospim_shading.options.background import LocalBackgroundOptions

    # Several methods are compared; a picture has nothing beside it.
    apart = ("params", "method", "save_background", "save_noise")
    method = Option(
        "--method",
        heading=Heading.BACKGROUND,
        multiple=True,
        metavar="NAME[:RADIUS]",
        help="A method, with a radius if you like, or as JSON; repeat for more. Unset: all.",
    )
    options = [one for one in options_of(LocalBackgroundOptions) if one.name not in apart]
    return [
        _image(required=True),
        *_plane_shown(),
        method,
        _radius(),
        *options,
        _picture("background_preview.png"),
        _storage(),
        *_common(),
    ]


def preview_flatfield_arguments() -> list[click.Parameter]:
    """Of `preview-flatfield`."""
    from fractal_mesospim_shading.cli.options import options_of
    from fractal_mesospim_shading.options.flatfield import FlatfieldOptions
    from fractal_mesospim_shading.options.precedence import IMAGE_OPTIONS

    shown = ("output_offset", "output_type", "subtract_baseline")
    hidden = [name for name in IMAGE_OPTIONS if name not in shown]
    return [
        _image(required=False),
        *_plane_shown(),
        *options_of(FlatfieldOptions, hidden=hidden),
        _picture("flatfield_preview.png"),
        *_common(),
    ]


def _plane_shown() -> list[click.Parameter]:
    """Which plane a preview shows."""
    shown = Heading.INPUT
    return [
        Option(
            "--channel",
            heading=shown,
            metavar="NAME",
            help="Label, wavelength or index. Unset: the first.",
        ),
        Option("--tile", heading=shown, type=int, metavar="N", help="Number. Unset: a middle one."),
        Option("--z", heading=shown, type=int, metavar="N", help="Plane. Unset: the middle one."),
        Option(
            "--mosaic",
            heading=shown,
            metavar="NAME",
            help="Which one of an acquisition with several (angles, sides), as info names it.",
        ),
    ]


def _picture(name: str) -> Option:
    return Option(
        "--output",
        heading=Heading.OUTPUT,
        default=name,
        metavar="FILE",
        type=Place(),
        show_default=True,
        help="Picture to write.",
    )
