"""The command line. Options come from the same models as the arguments of the tasks."""

from __future__ import annotations

import argparse
import gc
import json
import logging
import os
import sys
import traceback
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from fractal_mesospim_shading.core.threads import use_one_arena
from fractal_mesospim_shading.engine.streams import (
    is_terminal,
    read_file_or_pipe,
    refuse_lost_output,
    steady_streams,
)
from fractal_mesospim_shading.errors import ParameterError, ShadingError, StoppedError
from fractal_mesospim_shading.messages import Door, LogLines, shown, through

if TYPE_CHECKING:
    from fractal_mesospim_shading.options.values import OptionsT

FAULT = 70
"""Exit code of what was not foreseen; those of all errors of ours are in `errors`."""


def program() -> int:
    """The command line as a process of its own."""
    with steady_streams():
        code = main()
    # Else the interpreter looks through all objects for cycles before it ends: 0.2 s.
    gc.freeze()
    return code


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command; returns 0, or the exit code of its error."""
    use_one_arena()
    with through(Door.COMMAND):
        given = _parser().parse_args(arguments)
        lines = logging.StreamHandler(sys.stderr)
        lines.setFormatter(LogLines())
        logging.basicConfig(level=logging.INFO, handlers=[lines])
        return _run(given)


def _run(given: argparse.Namespace) -> int:
    try:
        given.command(given)
    except ShadingError as error:
        if given.debug:
            traceback.print_exc()
        print(f"Error: {error}", file=sys.stderr)
        return error.exit_code
    except KeyboardInterrupt:
        print("Stopped.", file=sys.stderr)
        return StoppedError.exit_code
    except BrokenPipeError:
        return 1
    except Exception as error:
        if given.debug:
            traceback.print_exc()
        print(
            f"Error: {type(error).__name__}: {error}\n(This was not foreseen; --debug shows where "
            "it happened. Please report it.)",
            file=sys.stderr,
        )
        return FAULT
    return 0


class _Command(argparse.ArgumentParser):
    """A command; its arguments are made when it is typed, as the options take time to load."""

    def __init__(
        self, *, arguments: Callable[[argparse.ArgumentParser], None] | None = None, **settings: Any
    ) -> None:
        """A command without arguments yet; `arguments` adds them."""
        super().__init__(**settings)
        self._add_arguments = arguments

    def parse_known_args(self, args: Any = None, namespace: Any = None) -> Any:
        """Make the arguments, and understand what was typed."""
        # Messages of every command name options of others.
        import fractal_mesospim_shading.options.background
        import fractal_mesospim_shading.options.flatfield  # noqa: F401

        if self._add_arguments is not None:
            self._add_arguments(self)
        return super().parse_known_args(args, namespace)


def _parser() -> argparse.ArgumentParser:
    common = _Command(add_help=False)
    common.add_argument("--debug", action="store_true", help="show the traceback of an error")
    parser = argparse.ArgumentParser(
        prog="mesospim-shading",
        description="Flat-field (shading) and background correction of mesoSPIM OME-Zarr images.",
    )
    commands = parser.add_subparsers(required=True, metavar="COMMAND", parser_class=_Command)

    def add(
        name: str, function: Any, arguments: Callable[[argparse.ArgumentParser], None], text: str
    ) -> None:
        commands.add_parser(
            name,
            parents=[common],
            help=text,
            description=text,
            allow_abbrev=False,
            arguments=arguments,
        ).set_defaults(command=function)

    text = "Show what an image is: map of tile numbers, channels, pyramid."
    add("info", _info, _info_arguments, text)
    text = "Correct the flat-field of an image."
    add("correct-flatfield", _correct_flatfield, _flatfield_arguments, text)
    text = "Only estimate the flat-fields and write the models."
    add("estimate", _estimate, _estimate_arguments, text)
    text = "Take the local background of an image away."
    add("correct-background", _correct_background, _background_arguments, text)
    text = "Show background methods side by side on one plane, to choose by eye."
    add("preview", _preview, _preview_arguments, text)
    text = "Import native acquisitions as mosaics for Fractal."
    add("import", _import, _import_arguments, text)
    text = "Make a small mosaic of known truth, correct it, show the errors."
    add("demo", _demo, _demo_arguments, text)
    return parser


def _info_arguments(info: argparse.ArgumentParser) -> None:
    info.add_argument("image", help="address of the image")
    info.add_argument("--json", action="store_true", help="print JSON, for scripts")
    info.add_argument("--storage-options", help="JSON of fsspec options for remote addresses")


def _flatfield_arguments(correct: argparse.ArgumentParser) -> None:
    from fractal_mesospim_shading.options.base import add_options
    from fractal_mesospim_shading.options.flatfield import FlatfieldOptions

    correct.add_argument("image", nargs="?", help="address of the image")
    add_options(correct, FlatfieldOptions)


def _estimate_arguments(estimate: argparse.ArgumentParser) -> None:
    from fractal_mesospim_shading.options.base import add_options
    from fractal_mesospim_shading.options.flatfield import FlatfieldOptions
    from fractal_mesospim_shading.options.precedence import IMAGE_OPTIONS

    estimate.add_argument("image", nargs="?", help="address of the image")
    estimate.add_argument("--output", required=True, help="folder for the models")
    add_options(estimate, FlatfieldOptions, hidden=IMAGE_OPTIONS)


def _background_arguments(background: argparse.ArgumentParser) -> None:
    from fractal_mesospim_shading.options.background import BackgroundOptions
    from fractal_mesospim_shading.options.base import add_options

    background.add_argument("image", nargs="?", help="address of the image")
    add_options(background, BackgroundOptions)


def _import_arguments(importer: argparse.ArgumentParser) -> None:
    from fractal_mesospim_shading.options.base import add_options
    from fractal_mesospim_shading.options.flatfield import ImportOptions

    importer.add_argument("containers", nargs="+", help="folders that mesoSPIM-control wrote")
    importer.add_argument("--zarr-dir", required=True, help="folder for the imported images")
    add_options(importer, ImportOptions)


def _demo_arguments(demo: argparse.ArgumentParser) -> None:
    demo.add_argument(
        "--folder", default="demo_output", help="where to work (default: %(default)s)"
    )


def _preview_arguments(preview: argparse.ArgumentParser) -> None:
    preview.add_argument("image", help="address of the image")
    preview.add_argument(
        "--method",
        action="append",
        metavar="NAME[:RADIUS]",
        help="a method, with a radius if you like; repeat for more (default: all)",
    )
    preview.add_argument("--output", default="background_preview.png", help="picture to write")
    preview.add_argument("--channel", default=None, help="label or index (default: the first)")
    preview.add_argument(
        "--tile", type=int, default=None, help="tile number (default: a middle one)"
    )
    preview.add_argument("--z", type=int, default=None, help="plane (default: the middle)")
    preview.add_argument("--level", type=int, default=0, help="pyramid level (default: 0)")
    preview.add_argument("--label", default=None, help="label image to leave out")
    preview.add_argument(
        "--zero-is",
        choices=("auto", "data", "no_data"),
        default="auto",
        help="what a pixel of 0 is, as in correct-background (default: auto)",
    )
    preview.add_argument(
        "--radius", type=float, default=None, help="radius of all methods, in pixels"
    )
    preview.add_argument("--storage-options", help="JSON of fsspec options for remote addresses")


def _image_and_options(given: argparse.Namespace, model: type[OptionsT]) -> tuple[str, OptionsT]:
    """Address and options of a command."""
    from fractal_mesospim_shading.options.values import address, asked_for

    written = _parameter_file(given)
    of_file = written.pop("zarr_url", None)
    if given.image is None and of_file is None:
        raise ParameterError("Give the address of the image, or 'zarr_url' in the --params file.")
    image = given.image if given.image is not None else address(of_file, "zarr_url")
    return image, asked_for(model, written, _typed_options(given))


def _parameter_file(given: argparse.Namespace) -> dict[str, Any]:
    """What stands in the file of parameters, if one was given."""
    if given.params is None:
        return {}
    try:
        arguments = json.loads(read_file_or_pipe(given.params).decode("utf-8-sig"))
    except (OSError, ValueError, RecursionError) as error:
        raise ParameterError(f"--params {given.params} cannot be read: {error}") from error
    if not isinstance(arguments, dict):
        raise ParameterError(f"--params {given.params} holds no JSON object.")
    return arguments


def _typed_options(given: argparse.Namespace) -> dict[str, Any]:
    return {
        name.removeprefix("option_"): value
        for name, value in vars(given).items()
        if name.startswith("option_") and value is not None
    }


def _storage_options(given: argparse.Namespace) -> dict[str, Any] | None:
    """The storage options of commands that have no model of their options."""
    from fractal_mesospim_shading.options.base import ExecutionOptions
    from fractal_mesospim_shading.options.values import validated

    return validated(ExecutionOptions, {"storage_options": given.storage_options}).storage_options


def _print_address(url: str) -> None:
    """Print an address for people and scripts; in a terminal, nothing is hidden in it."""
    if is_terminal(sys.stdout):
        print(shown(url))
        return
    try:
        print(url)
    except UnicodeEncodeError:
        sys.stdout.flush()
        sys.stdout.buffer.write(os.fsencode(url) + b"\n")


def _info(given: argparse.Namespace) -> None:
    from fractal_mesospim_shading.views.inspection import as_text, describe

    found = describe(given.image, _storage_options(given))
    print(json.dumps(found, indent=2) if given.json else as_text(found))
    refuse_lost_output()


def _correct_flatfield(given: argparse.Namespace) -> None:
    from fractal_mesospim_shading.jobs import flatfield
    from fractal_mesospim_shading.options.flatfield import FlatfieldOptions

    result = flatfield.correct_flatfield(*_image_and_options(given, FlatfieldOptions))
    _print_address(result.image_url)


def _estimate(given: argparse.Namespace) -> None:
    from fractal_mesospim_shading.jobs import flatfield
    from fractal_mesospim_shading.options.flatfield import FlatfieldOptions

    image, options = _image_and_options(given, FlatfieldOptions)
    flatfield.estimate_models(image, given.output, options)
    _print_address(given.output)


def _correct_background(given: argparse.Namespace) -> None:
    from fractal_mesospim_shading.jobs import background
    from fractal_mesospim_shading.options.background import BackgroundOptions

    result = background.correct_background(*_image_and_options(given, BackgroundOptions))
    for url in (result.image_url, *result.companions.values()):
        _print_address(url)


def _preview(given: argparse.Namespace) -> None:
    from fractal_mesospim_shading.views.preview import write_preview

    names = ("radius", "channel", "tile", "z", "level", "label", "zero_is")
    choices = {name: vars(given)[name] for name in names}
    storage = _storage_options(given)
    picture = write_preview(
        given.image, given.output, methods=given.method, storage_options=storage, **choices
    )
    _print_address(picture)


def _import(given: argparse.Namespace) -> None:
    from fractal_mesospim_shading.jobs import importing
    from fractal_mesospim_shading.options.flatfield import ImportOptions
    from fractal_mesospim_shading.options.values import asked_for

    options = asked_for(ImportOptions, _parameter_file(given), _typed_options(given))
    for unit in importing.plan_imports(given.containers, given.zarr_dir, options):
        _print_address(importing.import_image(unit, options).image_url)


def _demo(given: argparse.Namespace) -> None:
    from fractal_mesospim_shading.synthetic.demo import run_demo

    print(run_demo(given.folder))


if __name__ == "__main__":
    sys.exit(program())
