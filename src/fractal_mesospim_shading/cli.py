"""The command line. Options come from the same models as the arguments of the tasks."""

from __future__ import annotations

import argparse
import gc
import json
import logging
import sys
import traceback
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal, get_args, get_origin

from pydantic import BaseModel

from fractal_mesospim_shading.allocation import use_one_arena
from fractal_mesospim_shading.background_params import BackgroundOptions
from fractal_mesospim_shading.errors import ParameterError, ShadingError, StoppedError
from fractal_mesospim_shading.messages import Door, LogLines, rendered, through
from fractal_mesospim_shading.params import (
    FlatfieldOptions,
    ImportOptions,
    ordered_fields,
    validated,
)


def program() -> int:
    """The command line as a process of its own."""
    code = main()
    # Else the interpreter looks through all objects for cycles before it ends: 0.2 s.
    gc.freeze()
    return code


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command; returns 0, or 1 after an error of the run, or 2 of the command line."""
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
        if isinstance(error, StoppedError):
            return 130
        return 2 if isinstance(error, ParameterError) else 1
    except KeyboardInterrupt:
        print("Stopped.", file=sys.stderr)
        return 130
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
        return 1
    return 0


def _parser() -> argparse.ArgumentParser:
    common = argparse.ArgumentParser(add_help=False)
    common.add_argument("--debug", action="store_true", help="show the traceback of an error")
    parser = argparse.ArgumentParser(
        prog="mesospim-shading",
        description="Flat-field (shading) and background correction of mesoSPIM OME-Zarr images.",
    )
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    def add(name: str, function: Any, text: str) -> argparse.ArgumentParser:
        command = commands.add_parser(
            name, parents=[common], help=text, description=text, allow_abbrev=False
        )
        command.set_defaults(command=function)
        return command

    info = add("info", _info, "Show what an image is: map of tile numbers, channels, pyramid.")
    info.add_argument("image", help="address of the image")
    info.add_argument("--json", action="store_true", help="print JSON, for scripts")
    info.add_argument("--storage-options", help="JSON of fsspec options for remote addresses")

    correct = add("correct-flatfield", _correct_flatfield, "Correct the flat-field of an image.")
    correct.add_argument("image", nargs="?", help="address of the image")
    _add_options(correct, FlatfieldOptions)

    estimate = add("estimate", _estimate, "Only estimate the flat-fields and write the models.")
    estimate.add_argument("image", nargs="?", help="address of the image")
    estimate.add_argument("--output", required=True, help="folder for the models")
    _add_options(estimate, FlatfieldOptions)

    background = add(
        "correct-background", _correct_background, "Take the local background of an image away."
    )
    background.add_argument("image", nargs="?", help="address of the image")
    _add_options(background, BackgroundOptions)

    preview = add(
        "preview", _preview, "Show background methods side by side on one plane, to choose by eye."
    )
    preview.add_argument("image", help="address of the image")
    _add_preview_options(preview)

    importer = add("import", _import, "Import native acquisitions as mosaics for Fractal.")
    importer.add_argument("containers", nargs="+", help="folders that mesoSPIM-control wrote")
    importer.add_argument("--zarr-dir", required=True, help="folder for the imported images")
    _add_options(importer, ImportOptions)

    demo = add("demo", _demo, "Make a small mosaic of known truth, correct it, show the errors.")
    demo.add_argument(
        "--folder", default="demo_output", help="where to work (default: %(default)s)"
    )
    return parser


def _add_options(command: argparse.ArgumentParser, model: type[BaseModel]) -> None:
    """An option for each field; texts are passed on, and pydantic understands them."""
    command.add_argument(
        "--params", metavar="FILE", help="JSON file of arguments, as a Fractal server writes them"
    )
    for name in ordered_fields(model):
        info = model.model_fields[name]
        flag = "--" + name.replace("_", "-")
        text = rendered(info.description or "").replace("%", "%%")
        options: dict[str, Any] = {"dest": f"option_{name}", "default": None, "help": text}
        kinds = get_args(info.annotation) or (info.annotation,)
        if info.annotation is bool:
            command.add_argument(flag, action=argparse.BooleanOptionalAction, **options)
        elif get_origin(info.annotation) is Literal:
            command.add_argument(flag, choices=kinds, **options)
        elif any(get_origin(kind) is list for kind in _flat(kinds)):
            command.add_argument(flag, action="append", metavar="N,N", **options)
        else:
            command.add_argument(flag, metavar=_metavar(_flat(kinds)), **options)


def _add_preview_options(preview: argparse.ArgumentParser) -> None:
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


def _flat(kinds: Sequence[Any]) -> list[Any]:
    """The members of unions and annotated types."""
    result: list[Any] = []
    for kind in kinds:
        if hasattr(kind, "__metadata__"):
            result += _flat([get_args(kind)[0]])
        else:
            result.append(kind)
    return result


def _metavar(kinds: Sequence[Any]) -> str:
    names = {int: "N", float: "X", str: "TEXT"}
    return next((names[kind] for kind in kinds if kind in names), "JSON")


def _arguments(given: argparse.Namespace) -> tuple[str, dict[str, Any]]:
    """Address and options of a command."""
    arguments = _given_options(given)
    image = given.image or arguments.get("zarr_url")
    arguments.pop("zarr_url", None)
    if image is None:
        raise ParameterError("Give the address of the image, or 'zarr_url' in the --params file.")
    return image, arguments


def _given_options(given: argparse.Namespace) -> dict[str, Any]:
    """Options from the file of parameters, and over them those given."""
    arguments: dict[str, Any] = {}
    if given.params is not None:
        try:
            arguments = json.loads(Path(given.params).read_text())
        except (OSError, ValueError) as error:
            raise ParameterError(f"--params {given.params} cannot be read: {error}") from error
        if not isinstance(arguments, dict):
            raise ParameterError(f"--params {given.params} holds no JSON object.")
    for name, value in vars(given).items():
        if name.startswith("option_") and value is not None:
            arguments[name.removeprefix("option_")] = value
    return arguments


def _info(given: argparse.Namespace) -> None:
    from fractal_mesospim_shading.inspection import as_text, describe

    options = json.loads(given.storage_options) if given.storage_options else None
    found = describe(given.image, options)
    print(json.dumps(found, indent=2) if given.json else as_text(found))


def _correct_flatfield(given: argparse.Namespace) -> None:
    from fractal_mesospim_shading import workflows

    image, arguments = _arguments(given)
    result = workflows.correct_flatfield(image, validated(FlatfieldOptions, arguments))
    print(result.image_url)


def _estimate(given: argparse.Namespace) -> None:
    from fractal_mesospim_shading import workflows

    image, arguments = _arguments(given)
    workflows.estimate_models(image, given.output, validated(FlatfieldOptions, arguments))
    print(given.output)


def _correct_background(given: argparse.Namespace) -> None:
    from fractal_mesospim_shading import background

    image, arguments = _arguments(given)
    result = background.correct_background(image, validated(BackgroundOptions, arguments))
    print(result.image_url)
    for url in result.companions.values():
        print(url)


def _preview(given: argparse.Namespace) -> None:
    from fractal_mesospim_shading.preview import write_preview

    storage = json.loads(given.storage_options) if given.storage_options else None
    print(
        write_preview(
            given.image,
            given.output,
            methods=given.method,
            radius=given.radius,
            channel=given.channel,
            tile=given.tile,
            z=given.z,
            level=given.level,
            label=given.label,
            zero_is=given.zero_is,
            storage_options=storage,
        )
    )


def _import(given: argparse.Namespace) -> None:
    from fractal_mesospim_shading import importing

    arguments = _given_options(given)
    options = validated(ImportOptions, arguments)
    for unit in importing.plan_imports(given.containers, given.zarr_dir, options):
        print(importing.import_image(unit, options).image_url)


def _demo(given: argparse.Namespace) -> None:
    from fractal_mesospim_shading.demo import run_demo

    print(run_demo(given.folder))


if __name__ == "__main__":
    sys.exit(program())
