"""The commands: what each is for, and lines to copy."""

from __future__ import annotations

import click

from fractal_mesospim_shading import __version__
from fractal_mesospim_shading.cli import actions, arguments
from fractal_mesospim_shading.cli.command import Command, dashes, manner_options, write_examples

PROGRAM = "mesospim-shading"

COMPLETE = "_MESOSPIM_SHADING_COMPLETE"
"""Environment variable by which a shell asks for completions."""

EXAMPLES = {
    "": [
        "demo",
        "info brain.zarr/raw_image",
        "find-empty brain.zarr/raw_image",
        "correct-flatfield brain.zarr/raw_image --fov-list 1 3 7 9",
        "correct-background brain.zarr/raw_image_flatfield_corr --method median:25",
        "correct-background brain.zarr/raw_image_flatfield_corr --method tophat:15um",
        "correct-background brain.zarr/raw_image_flatfield_corr --mask nuclei:3",
        "correct-background brain.zarr/raw_image_flatfield_corr --mask threshold:400",
        "correct-background acquisition.ome.zarr --method median:25",
    ],
    "info": [
        "info brain.zarr/raw_image",
        "info acquisition.ome.zarr",
        "info brain.zarr/raw_image --json",
    ],
    "find-empty": [
        "find-empty brain.zarr/raw_image",
        "find-empty acquisition.ome.zarr --channel 488 --output empty.png",
        "find-empty acquisition.ome.zarr --read-at-most 2GB --dry-run",
        "find-empty brain.zarr/raw_image --json",
    ],
    "correct-flatfield": [
        "correct-flatfield brain.zarr/raw_image --fov-list 1 3 7 9",
        "correct-flatfield brain.zarr/raw_image --z-levels 50 600 --camera-offset 100",
        "correct-flatfield brain.zarr/raw_image --models-folder models",
        "correct-flatfield acquisition.ome.zarr --z-levels 20 400",
    ],
    "estimate": [
        "estimate empty.zarr/raw_image --fov-list 1 3 7 9 --output models",
        "estimate monday.zarr/raw_image tuesday.zarr/raw_image --fov-list 1 9 --output models",
        "estimate empty.zarr/raw_image --fov-list 1 3 7 9 --output models --format tiff",
    ],
    "check": [
        "check brain.zarr/raw_image --models-folder models",
        "check brain.zarr/raw_image --against brain.zarr/raw_image_flatfield_corr",
        "check acquisition.ome.zarr --json",
    ],
    "correct-background": [
        "correct-background brain.zarr/raw_image_flatfield_corr --method median:25",
        "correct-background brain.zarr/raw_image_flatfield_corr --method tophat:15um",
        "correct-background brain.zarr/raw_image_flatfield_corr --mask nuclei:3",
        "correct-background brain.zarr/raw_image_flatfield_corr --mask threshold:400",
        "correct-background acquisition.ome.zarr --method median:25",
    ],
    "preview": [
        "preview brain.zarr/raw_image",
        "preview brain.zarr/raw_image --method median:25 --method rolling_ball:50 --z 200",
        "preview brain.zarr/raw_image --method median:15um --mask threshold:400:2um",
        "preview acquisition.ome.zarr --tile 4 --channel 488",
    ],
    "preview-flatfield": [
        "preview-flatfield brain.zarr/raw_image --models-folder models",
        "preview-flatfield brain.zarr/raw_image --fov-list 1 3 7 9 --channel 488 --z 200",
    ],
    "import": [
        "import acquisition.ome.zarr --zarr-dir imported",
        "import acquisition.ome.zarr --zarr-dir imported --correct-flatfield --z-levels 20 400",
    ],
    "demo": ["demo", "demo --folder somewhere"],
    "completion": [
        "completion bash > ~/.local/share/bash-completion/completions/mesospim-shading",
        "completion zsh > ~/.zfunc/_mesospim-shading",
        "completion fish > ~/.config/fish/completions/mesospim-shading.fish",
    ],
}
"""Lines to copy, by command; the first are those of the program."""

EXIT_CODES = (
    ("0", "Done."),
    ("1", "The data: an image, a table, a model is not there, or cannot be read or used."),
    ("2", "Wrong use: an option or a value is wrong, or does not fit the image."),
    (
        "3",
        "The place: no right or room to write, no memory or worker, something in the way.",
    ),
    ("70", "A fault of this program: please report it."),
    ("130", "Stopped, by Ctrl-C or SIGTERM; the same command goes on."),
)
"""What the exit code of a command means; `errors` says which error has which."""


class _Program(click.Group):
    """The program; without a command it shows its help."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """The commands in the order in which people need them."""
        return list(self.commands)

    def format_epilog(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """What a beginner types, and the exit codes."""
        write_examples(formatter, PROGRAM, EXAMPLES[""])
        with formatter.section("Exit codes"):
            formatter.write_dl(EXIT_CODES)


def _show_version(context: click.Context, option: click.Parameter, asked: bool) -> None:
    if asked:
        click.echo(f"{PROGRAM} {__version__}")
        context.exit()


_COMMANDS = (
    (
        "info",
        "Show what an image is: map of tile numbers, channels, pyramid.",
        actions.info,
        arguments.info_arguments,
    ),
    (
        "find-empty",
        "Find the tiles and planes without sample, draw them, and say what to type.",
        actions.find_empty,
        arguments.find_empty_arguments,
    ),
    (
        "correct-flatfield",
        "Correct the flat-field of an image.",
        actions.correct_flatfield,
        arguments.flatfield_arguments,
    ),
    (
        "estimate",
        "Only estimate the flat-fields and write the models.",
        actions.estimate,
        arguments.estimate_arguments,
    ),
    (
        "check",
        "Measure how far tiles differ where they show the same tissue; write nothing.",
        actions.check,
        arguments.check_arguments,
    ),
    (
        "correct-background",
        "Take the local background of an image away.",
        actions.correct_background,
        arguments.background_arguments,
    ),
    (
        "preview",
        "Show background methods side by side on one plane, to choose by eye.",
        actions.preview,
        arguments.preview_arguments,
    ),
    (
        "preview-flatfield",
        "Show one plane before and after its flat-field correction.",
        actions.preview_flatfield,
        arguments.preview_flatfield_arguments,
    ),
    (
        "import",
        "Import native acquisitions as mosaics for Fractal.",
        actions.import_,
        arguments.import_arguments,
    ),
    (
        "demo",
        "Make a small mosaic of known truth, correct it, show the errors.",
        actions.demo,
        arguments.demo_arguments,
    ),
    (
        "completion",
        "Print a script with which a shell completes commands, options and paths.",
        actions.completion,
        arguments.completion_arguments,
    ),
)

_TABLES = {"correct-background": arguments.methods, "preview": arguments.methods}

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
            callback=_show_version,
        ),
        *manner_options(),
    ],
    subcommand_metavar="COMMAND ...",
    commands=[
        Command(*parts, EXAMPLES[parts[0]], _TABLES.get(parts[0], dict)) for parts in _COMMANDS
    ],
)
