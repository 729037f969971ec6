"""What is said of a command that cannot be understood: what is wrong, what it could have been."""

from __future__ import annotations

import sys

import click

from fractal_mesospim_shading.messages import shown


def show_wrong_use(error: click.UsageError) -> None:
    """Print an error, and how the command that was meant is used; all help for a bare command."""
    if isinstance(error, click.exceptions.NoArgsIsHelpError):
        error.show(sys.stderr)
        return
    print(f"Error: {_sentence(error)}", file=sys.stderr)
    if error.ctx is not None:
        print(f"\n{error.ctx.get_usage()}", file=sys.stderr)
        print(f"All options: {error.ctx.command_path} --help", file=sys.stderr)


def _sentence(error: click.UsageError) -> str:
    if isinstance(error, click.exceptions.NoSuchOption):
        text = f"There is no option {shown(error.option_name)}."
        return text + _meant(error.possibilities)
    if isinstance(error, click.exceptions.NoSuchCommand):
        text = f"There is no command '{shown(error.command_name)}'."
        return text + _meant(error.possibilities)
    if isinstance(error, click.MissingParameter) or not isinstance(error, click.BadParameter):
        return shown(error.format_message())
    spelled = error.param.opts[0] if isinstance(error.param, click.Option) else "The argument"
    return shown(f"{spelled}: {error.message}")


def _meant(possibilities: list[str] | None) -> str:
    return f" Did you mean {possibilities[0]}?" if possibilities else ""
