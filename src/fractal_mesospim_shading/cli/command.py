"""Commands as click has them, with options in groups, and with the spellings that people type."""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Mapping, Sequence
from enum import StrEnum
from typing import Any

import click

from fractal_mesospim_shading.messages import shown

Given = Mapping[str, Any]
"""What was typed: values of options and arguments by their names, None for what was not."""


class Heading(StrEnum):
    """The groups of options in the help, in their order."""

    INPUT = "Input"
    ESTIMATE = "Estimate"
    BACKGROUND = "Background"
    OUTPUT = "Output"
    RUNNING = "Running"
    ADVANCED = "Advanced"


class Option(click.Option):
    """An option of a command.

    Args:
        declarations: its spellings, and its name where that is another.
        heading: its group in the help.
        numbers: whether it takes a list of whole numbers.
        settings: those of click.
    """

    def __init__(
        self, *declarations: str, heading: Heading, numbers: bool = False, **settings: Any
    ) -> None:
        super().__init__(declarations, **settings)
        self.heading = heading
        self.numbers = numbers


class OneOf(click.Choice[str]):
    """One of several words, which are shown as the options have them."""

    def get_metavar(self, param: click.Parameter, ctx: click.Context) -> str:
        """All of the words."""
        return f"[{'|'.join(self.choices)}]"

    def get_invalid_choice_message(self, value: object, ctx: click.Context | None) -> str:
        """What was found and what was expected."""
        return f"{shown(value)!r} is none of {', '.join(self.choices)}."


class Command(click.Command):
    """A command; its arguments are made when it is typed, as the options take time to load.

    Args:
        name: of the command.
        text: what it does, a sentence.
        run: does it.
        arguments: makes what it takes.
        examples: lines to copy, for the help.
    """

    def __init__(
        self,
        name: str,
        text: str,
        run: Callable[[Given], None],
        arguments: Callable[[], list[click.Parameter]],
        examples: Sequence[str] = (),
    ) -> None:
        super().__init__(name, help=text, short_help=text, callback=lambda **given: run(given))
        self._arguments = arguments
        self._examples = examples

    def make_context(
        self,
        info_name: str | None,
        args: list[str],
        parent: click.Context | None = None,
        **extra: Any,
    ) -> click.Context:
        """Make the arguments, and understand what was typed."""
        if not self.params:
            self.params = self._arguments()
        return super().make_context(info_name, args, parent, **extra)

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Understand what was typed, lists of numbers in separate words included."""
        lists = [param for param in self.params if isinstance(param, Option) and param.numbers]
        return super().parse_args(ctx, joined_numbers(args, {n for p in lists for n in p.opts}))

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """The options, a section for each group."""
        groups: dict[Heading, list[tuple[str, str]]] = {heading: [] for heading in Heading}
        for param in self.get_params(ctx):
            record = param.get_help_record(ctx)
            if record is not None and not isinstance(param, click.Argument):
                heading = param.heading if isinstance(param, Option) else Heading.RUNNING
                groups[heading].append(record)
        for heading, records in groups.items():
            if records:
                with formatter.section(heading):
                    formatter.write_dl(records)

    def format_epilog(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """The examples, each on a line of its own."""
        if self._examples:
            with formatter.section("Examples"):
                for line in self._examples:
                    formatter.write(f"  {line}\n")


def dashes(word: str) -> str:
    """The spelling of options, commands and choices: `fov_list` is `fov-list`."""
    return word.replace("_", "-")


_NUMBER = re.compile(r"\d+,?")


def joined_numbers(words: Sequence[str], flags: Collection[str]) -> list[str]:
    """`--fov-list 1 3 7` as `--fov-list 1,3,7`; a list with commas in one word is left alone."""
    left, result = list(words), []
    while left:
        word = left.pop(0)
        result.append(word)
        if word == "--":
            return result + left
        if f"--{dashes(word[2:])}" not in flags or not left:
            continue
        numbers = []
        while left and _NUMBER.fullmatch(left[0]):
            numbers.append(left.pop(0).rstrip(","))
        result += [",".join(numbers)] if numbers else []
    return result
