"""What each command does: reads what was typed, calls the package, prints where the result is."""

from __future__ import annotations

import json
import os
import sys
from typing import TYPE_CHECKING, Any

from fractal_mesospim_shading.cli.command import Given
from fractal_mesospim_shading.engine.streams import (
    is_terminal,
    read_file_or_pipe,
    refuse_lost_output,
)
from fractal_mesospim_shading.errors import ParameterError
from fractal_mesospim_shading.messages import rendered, shown

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from pydantic import BaseModel

    from fractal_mesospim_shading.images.arrays.documents import Document
    from fractal_mesospim_shading.jobs.outlook import Outlook
    from fractal_mesospim_shading.options.values import OptionsT


def _image_and_options(
    given: Given, model: type[OptionsT], more: Callable[[Document], Document] | None = None
) -> tuple[str, OptionsT]:
    """Address and options of a command.

    Args:
        given: what was typed.
        model: of the options.
        more: options that follow from those of the file and of the command together, and go
            before them.
    """
    images, options = _images_and_options(given, model, more)
    return images[0], options


def _images_and_options(
    given: Given, model: type[OptionsT], more: Callable[[Document], Document] | None = None
) -> tuple[list[str], OptionsT]:
    """The same of a command that takes several images."""
    from fractal_mesospim_shading.options.values import addresses, asked_for

    written = _parameter_file(given)
    of_file = written.pop("zarr_url", None)
    images = [*given["image"]] if isinstance(given["image"], tuple) else given["image"]
    if not images and of_file is None:
        raise ParameterError("Give the address of the image, or 'zarr_url' in the --params file.")
    typed = _typed_options(given, model)
    if more is not None:
        typed |= more({**written, **typed})
    options = asked_for(model, written, typed)
    return addresses(images or of_file, "zarr_url"), options


def _parameter_file(given: Given) -> dict[str, Any]:
    """What stands in the file of parameters, if one was given."""
    path = given["params"]
    if path is None:
        return {}
    try:
        arguments = json.loads(read_file_or_pipe(path).decode("utf-8-sig"))
    except (OSError, ValueError, RecursionError) as error:
        raise ParameterError(f"--params {path} cannot be read: {error}") from error
    if not isinstance(arguments, dict):
        raise ParameterError(f"--params {path} holds no JSON object.")
    return arguments


def _typed_options(given: Given, model: type[BaseModel]) -> dict[str, Any]:
    """What was typed of the options of a model; a repeated option is a list."""
    typed = {n: given[n] for n in model.model_fields if given.get(n) not in (None, ())}
    return {n: [*value] if isinstance(value, tuple) else value for n, value in typed.items()}


def _storage_options(given: Given) -> dict[str, Any] | None:
    """The storage options of commands that have no model of their options."""
    from fractal_mesospim_shading.options.base import ExecutionOptions
    from fractal_mesospim_shading.options.values import validated

    return validated(
        ExecutionOptions, {"storage_options": given["storage_options"]}
    ).storage_options


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


def _show(given: Given, addresses: Iterable[str], facts: Document) -> None:
    """Print where the results are, or all that is known of them as JSON."""
    if given["json"]:
        print(json.dumps(facts, indent=2))
    else:
        for url in addresses:
            _print_address(url)


def _show_outlooks(given: Given, outlooks: Sequence[Outlook]) -> None:
    """Print what would be done, and that nothing was."""
    if given["json"]:
        print(json.dumps({"dry_run": [outlook.facts() for outlook in outlooks]}, indent=2))
        return
    for outlook in outlooks:
        print("\n".join(outlook.lines()))
    print("Nothing was written: this was a dry run.")


def info(given: Given) -> None:
    """Print what an image or an acquisition is."""
    from fractal_mesospim_shading.views.inspection import as_text, describe

    found = describe(given["image"], _storage_options(given), given["input_roi_table"])
    print(json.dumps(found, indent=2) if given["json"] else as_text(found))
    refuse_lost_output()


def check(given: Given) -> None:
    """Print how far tiles differ where they show the same tissue."""
    from fractal_mesospim_shading.jobs.checking import CheckWanted, check_image

    names = ("models_folder", "against", "camera_offset", "seed", "input_roi_table")
    wanted = CheckWanted(**{n: given[n] for n in names}, storage_options=_storage_options(given))
    found = check_image(given["image"], wanted)
    if given["json"]:
        print(json.dumps(found.facts(), indent=2))
    else:
        print("\n".join(shown(line) for line in found.lines()))
    refuse_lost_output()


def find_empty(given: Given) -> None:
    """Print which tiles and planes are empty, and draw them."""
    from fractal_mesospim_shading.jobs.finding import EmptyWanted, find_empty, plan_find_empty

    wanted = EmptyWanted(
        given["channel"],
        given["output"],
        given["zero_is"],
        _storage_options(given),
        given["read_at_most"],
        given["input_roi_table"],
    )
    if given["dry_run"]:
        return _show_outlooks(given, [plan_find_empty(given["image"], wanted)])
    found = find_empty(given["image"], wanted)
    if given["json"]:
        print(json.dumps(found.facts(), indent=2))
    else:
        print("\n".join(rendered(shown(line)) for line in found.lines()))
    refuse_lost_output()


def correct_flatfield(given: Given) -> None:
    """Correct an image or an acquisition, and print the address of the result."""
    from fractal_mesospim_shading.jobs import flatfield
    from fractal_mesospim_shading.options.flatfield import FlatfieldOptions

    image, options = _image_and_options(given, FlatfieldOptions)
    if given["dry_run"]:
        from fractal_mesospim_shading.jobs.outlook import outlook

        return _show_outlooks(given, [outlook(flatfield.plan_flatfield(image, options))])
    result = flatfield.correct_flatfield(image, options)
    _show(given, [result.image_url], result.facts())


def estimate(given: Given) -> None:
    """Write models, and print their folder."""
    from fractal_mesospim_shading.jobs import estimating
    from fractal_mesospim_shading.jobs.outlook import Outlook, models_from
    from fractal_mesospim_shading.options.flatfield import FlatfieldOptions

    images, options = _images_and_options(given, FlatfieldOptions)
    if given["dry_run"]:
        choices = estimating.plan_estimate(images, given["output"], options)
        foreseen = Outlook(", ".join(images), given["output"], {}, models_from(choices))
        return _show_outlooks(given, [foreseen])
    found = estimating.estimate_models(
        images, given["output"], options, tiff=given["format"] == "tiff"
    )
    _show(given, [given["output"]], found.facts())


def correct_background(given: Given) -> None:
    """Take the background away, and print the addresses of what was written."""
    from fractal_mesospim_shading.core.background import method_of_radius
    from fractal_mesospim_shading.jobs import background
    from fractal_mesospim_shading.jobs.outlook import outlook
    from fractal_mesospim_shading.options.background import BackgroundOptions

    def with_radius(options: Document) -> Document:
        if given["radius"] is None:
            return {}
        method = options.get("method", BackgroundOptions().method.name)
        text = method if isinstance(method, str) else json.dumps(method)
        return {"method": method_of_radius(text, given["radius"])}

    image, options = _image_and_options(given, BackgroundOptions, with_radius)
    if given["dry_run"]:
        return _show_outlooks(given, [outlook(background.plan_background(image, options))])
    result = background.correct_background(image, options)
    _show(given, [result.image_url, *result.companions.values()], result.facts())


def preview(given: Given) -> None:
    """Draw background methods side by side, and print the picture's path."""
    from fractal_mesospim_shading.options.background import LocalBackgroundOptions
    from fractal_mesospim_shading.views.preview import write_preview

    options = _typed_options(given, LocalBackgroundOptions)
    methods = options.pop("method", None)
    names = ("radius", "channel", "tile", "z", "mosaic")
    choices = {name: given[name] for name in names}
    storage = _storage_options(given)
    picture = write_preview(
        given["image"],
        given["output"],
        methods=methods,
        storage_options=storage,
        **choices,
        **options,
    )
    _show(given, [picture], {"picture": picture})


def preview_flatfield(given: Given) -> None:
    """Draw a plane before and after its correction, and print the picture's path."""
    from fractal_mesospim_shading.options.flatfield import FlatfieldOptions
    from fractal_mesospim_shading.views.preview_flatfield import write_flatfield_preview
    from fractal_mesospim_shading.views.preview_plane import PlaneWanted

    image, options = _image_and_options(given, FlatfieldOptions)
    wanted = PlaneWanted(**{name: given[name] for name in ("channel", "tile", "z", "mosaic")})
    picture = write_flatfield_preview(image, given["output"], wanted, options)
    _show(given, [picture], {"picture": picture})


def import_(given: Given) -> None:
    """Import acquisitions, and print the addresses of the images, each when it is there."""
    from fractal_mesospim_shading.jobs import importing
    from fractal_mesospim_shading.jobs.outlook import outlook
    from fractal_mesospim_shading.options.flatfield import ImportOptions
    from fractal_mesospim_shading.options.values import asked_for

    options = asked_for(ImportOptions, _parameter_file(given), _typed_options(given, ImportOptions))
    images = []
    units = importing.plan_imports(given["containers"], given["zarr_dir"], options)
    if given["dry_run"]:
        works = [importing.plan_import(unit, options) for unit in units]
        left = [work for work in works if not importing.imported_before(work)]
        return _show_outlooks(given, [outlook(work) for work in left])
    for unit in units:
        result = importing.import_image(unit, options)
        images.append(result.facts())
        if not given["json"]:
            _print_address(result.image_url)
    if given["json"]:
        _show(given, (), {"images": images})


def demo(given: Given) -> None:
    """Show the package on a mosaic of known truth."""
    from fractal_mesospim_shading.synthetic.demo import run_demo

    came_out = run_demo(given["folder"])
    print(json.dumps(came_out.facts(), indent=2) if given["json"] else came_out.text())


def completion(given: Given) -> None:
    """Print what a shell has to read so that it completes commands and options."""
    from click.shell_completion import get_completion_class

    from fractal_mesospim_shading.cli.commands import COMMANDS, COMPLETE, PROGRAM

    made = get_completion_class(given["shell"])
    if made is None:
        raise ParameterError(f"There is no completion for the shell '{given['shell']}'.")
    print(made(COMMANDS, {}, PROGRAM, COMPLETE).source())
