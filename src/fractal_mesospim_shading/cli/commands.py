"""The commands: what each is for, what it takes, and lines to copy."""

from __future__ import annotations

import click

from fractal_mesospim_shading import __version__
from fractal_mesospim_shading.cli import actions
from fractal_mesospim_shading.cli.command import Command, Heading, OneOf, Option, dashes

PROGRAM = "mesospim-shading"
COMPLETE = "_MESOSPIM_SHADING_COMPLETE"
"""Environment variable by which a shell asks for completions."""


def _storage() -> Option:
    return Option(
        "--storage-options",
        heading=Heading.INPUT,
        metavar="JSON",
        help="Options of the fsspec file system for remote addresses.",
    )


def _image(*, required: bool) -> click.Argument:
    text = "Address of the image: a folder on disk, s3://..., or within a zip archive."
    return click.Argument(["image"], required=required, type=click.UNPROCESSED, help=text)


def _common() -> list[click.Parameter]:
    """What all commands take."""
    # Messages of every command name options of others.
    import fractal_mesospim_shading.options.background
    import fractal_mesospim_shading.options.flatfield  # noqa: F401

    return [
        Option(
            "--debug",
            heading=Heading.RUNNING,
            is_flag=True,
            help="Show where an error comes from.",
        )
    ]


def _info_arguments() -> list[click.Parameter]:
    return [
        _image(required=True),
        _storage(),
        Option("--json", heading=Heading.OUTPUT, is_flag=True, help="Print JSON, for scripts."),
        *_common(),
    ]


def _flatfield_arguments() -> list[click.Parameter]:
    from fractal_mesospim_shading.cli.options import options_of
    from fractal_mesospim_shading.options.flatfield import FlatfieldOptions

    return [_image(required=False), *options_of(FlatfieldOptions), *_common()]


def _estimate_arguments() -> list[click.Parameter]:
    from fractal_mesospim_shading.cli.options import options_of
    from fractal_mesospim_shading.options.flatfield import FlatfieldOptions
    from fractal_mesospim_shading.options.precedence import IMAGE_OPTIONS

    return [
        _image(required=False),
        Option(
            "--output",
            heading=Heading.OUTPUT,
            required=True,
            metavar="FOLDER",
            type=click.UNPROCESSED,
            help="Folder for the models.",
        ),
        *options_of(FlatfieldOptions, hidden=IMAGE_OPTIONS),
        *_common(),
    ]


def _background_arguments() -> list[click.Parameter]:
    from fractal_mesospim_shading.cli.options import options_of
    from fractal_mesospim_shading.options.background import BackgroundOptions

    return [_image(required=False), *options_of(BackgroundOptions), *_common()]


def _import_arguments() -> list[click.Parameter]:
    from fractal_mesospim_shading.cli.options import options_of
    from fractal_mesospim_shading.options.flatfield import ImportOptions

    return [
        click.Argument(
            ["containers"],
            nargs=-1,
            required=True,
            metavar="CONTAINER...",
            type=click.UNPROCESSED,
            help="Folders that mesoSPIM-control wrote.",
        ),
        Option(
            "--zarr-dir",
            heading=Heading.OUTPUT,
            required=True,
            metavar="FOLDER",
            type=click.UNPROCESSED,
            help="Folder for the imported images.",
        ),
        *options_of(ImportOptions),
        *_common(),
    ]


def _demo_arguments() -> list[click.Parameter]:
    folder = Option(
        "--folder",
        heading=Heading.OUTPUT,
        default="demo_output",
        metavar="FOLDER",
        type=click.UNPROCESSED,
        show_default=True,
        help="Where to work.",
    )
    return [folder, *_common()]


def _preview_arguments() -> list[click.Parameter]:
    shown, output = Heading.INPUT, Heading.OUTPUT
    return [
        _image(required=True),
        Option(
            "--method",
            heading=Heading.BACKGROUND,
            multiple=True,
            metavar="NAME[:RADIUS]",
            help="A method, with a radius if you like; repeat for more. Unset: all.",
        ),
        Option(
            "--radius",
            heading=Heading.BACKGROUND,
            type=float,
            metavar="X",
            help="Radius of all methods, in pixels.",
        ),
        Option(
            "--output",
            heading=output,
            default="background_preview.png",
            metavar="FILE",
            type=click.UNPROCESSED,
            show_default=True,
            help="Picture to write.",
        ),
        Option("--channel", heading=shown, metavar="NAME", help="Label or index. Unset: the first"),
        Option("--tile", heading=shown, type=int, metavar="N", help="Number. Unset: a middle one."),
        Option("--z", heading=shown, type=int, metavar="N", help="Plane. Unset: the middle one."),
        Option(
            "--level", heading=shown, type=int, metavar="N", default=0, help="Level of the pyramid."
        ),
        Option("--label", heading=shown, metavar="NAME", help="Label image to leave out."),
        Option(
            "--zero-is",
            heading=shown,
            type=OneOf(("auto", "data", "no_data")),
            default="auto",
            show_default=True,
            help="What a pixel of 0 is, as in correct-background.",
        ),
        _storage(),
        *_common(),
    ]


class _Program(click.Group):
    """The program; without a command it shows its help."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """The commands in the order in which people need them."""
        return list(self.commands)


COMMANDS = _Program(
    PROGRAM,
    help="Flat-field (shading) and background correction of mesoSPIM OME-Zarr images.",
    context_settings={
        "help_option_names": ["-h", "--help"],
        "max_content_width": 100,
        "token_normalize_func": dashes,
    },
    params=[
        click.Option(
            ["--version"],
            is_flag=True,
            is_eager=True,
            expose_value=False,
            help="Show the version.",
            callback=lambda context, option, asked: _show_version(context, asked=asked),
        )
    ],
    subcommand_metavar="COMMAND ...",
    commands=[
        Command(
            "info",
            "Show what an image is: map of tile numbers, channels, pyramid.",
            actions.info,
            _info_arguments,
        ),
        Command(
            "correct-flatfield",
            "Correct the flat-field of an image.",
            actions.correct_flatfield,
            _flatfield_arguments,
        ),
        Command(
            "estimate",
            "Only estimate the flat-fields and write the models.",
            actions.estimate,
            _estimate_arguments,
        ),
        Command(
            "correct-background",
            "Take the local background of an image away.",
            actions.correct_background,
            _background_arguments,
        ),
        Command(
            "preview",
            "Show background methods side by side on one plane, to choose by eye.",
            actions.preview,
            _preview_arguments,
        ),
        Command(
            "import",
            "Import native acquisitions as mosaics for Fractal.",
            actions.import_,
            _import_arguments,
        ),
        Command(
            "demo",
            "Make a small mosaic of known truth, correct it, show the errors.",
            actions.demo,
            _demo_arguments,
        ),
    ],
)


def _show_version(context: click.Context, *, asked: bool) -> None:
    if asked:
        click.echo(f"{PROGRAM} {__version__}")
        context.exit()
