"""The command line. Options come from the same models as the arguments of the tasks."""

from __future__ import annotations

import gc
import os
import sys
import traceback
from collections.abc import Sequence

import click

from fractal_mesospim_shading.cli.command import Manner
from fractal_mesospim_shading.cli.commands import COMMANDS, COMPLETE, PROGRAM
from fractal_mesospim_shading.cli.wrong_use import show_wrong_use
from fractal_mesospim_shading.core.threads import use_one_arena
from fractal_mesospim_shading.engine.streams import steady_streams
from fractal_mesospim_shading.errors import ShadingError, StoppedError
from fractal_mesospim_shading.messages import Door, know_more_options, through

FAULT = 70
"""Exit code of what was not foreseen; those of all errors of ours are in `errors`."""


def _load_options() -> None:
    """Make all options known: the messages of every command name options of others."""
    import fractal_mesospim_shading.options.background
    import fractal_mesospim_shading.options.flatfield  # noqa: F401


know_more_options(_load_options)

# Objects made before the interpreter looks for cycles among the young ones. At its own 700 it
# does so again and again while libraries are loaded, which makes 250 000, for a sixth of a short
# run, and finds nothing. A block leaves some ten in cycles.
_OBJECTS_UNSEEN = 500_000


def program() -> int:
    """The command line as a process of its own."""
    gc.set_threshold(_OBJECTS_UNSEEN)
    with steady_streams():
        code = main()
    # Else the interpreter looks through all objects for cycles before it ends: 0.2 s.
    gc.freeze()
    return code


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command; returns 0, or the exit code of its error."""
    use_one_arena()
    words = list(sys.argv[1:] if arguments is None else arguments)
    with through(Door.COMMAND):
        asked = os.environ.get(COMPLETE)
        if asked is not None:
            from click.shell_completion import shell_complete

            return shell_complete(COMMANDS, {}, PROGRAM, COMPLETE, asked)
        return _run(words)


def _run(words: list[str]) -> int:
    manner = Manner()
    try:
        with COMMANDS.make_context(PROGRAM, words, obj=manner) as context:
            COMMANDS.invoke(context)
    except click.exceptions.Exit as end:
        return end.exit_code
    except click.UsageError as error:
        show_wrong_use(error)
        return error.exit_code
    except ShadingError as error:
        _trace(manner)
        print(f"Error: {error}", file=sys.stderr)
        return error.exit_code
    except KeyboardInterrupt:
        print("Stopped.", file=sys.stderr)
        return StoppedError.exit_code
    except BrokenPipeError:
        return 1
    except Exception as error:
        _trace(manner)
        print(
            f"Error: {type(error).__name__}: {error}\n(This was not foreseen; --debug shows where "
            "it happened. Please report it.)",
            file=sys.stderr,
        )
        return FAULT
    return 0


def _trace(manner: Manner) -> None:
    """Show where an error comes from, if that was asked for."""
    if manner.debug:
        traceback.print_exc()
