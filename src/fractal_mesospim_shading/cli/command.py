"""Commands as click has them, with options in groups, and with the spellings that people type."""

from __future__ import annotations

import logging
import os
import re
import sys
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

import click

from fractal_mesospim_shading.engine.progress import progress_shown
from fractal_mesospim_shading.engine.streams import is_terminal
from fractal_mesospim_shading.messages import PACKAGE, LogLines, shown

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
        shown: how the help spells it; None for all spellings.
        settings: those of click.
    """

    def __init__(
        self,
        *declarations: str,
        heading: Heading,
        numbers: bool = False,
        shown: str | None = None,
        **settings: Any,
    ) -> None:
        super().__init__(declarations, **settings)
        self.heading = heading
        self.numbers = numbers
        self._shown = shown

    def get_help_record(self, ctx: click.Context) -> tuple[str, str] | None:
        """The line of the help; None for an option that is not offered."""
        record = super().get_help_record(ctx)
        return record if record is None or self._shown is None else (self._shown, record[1])


class OneOf(click.Choice[str]):
    """One of several words, which are shown as the options have them."""

    def get_metavar(self, param: click.Parameter, ctx: click.Context) -> str:
        """All of the words."""
        return f"[{'|'.join(self.choices)}]"

    def get_invalid_choice_message(self, value: object, ctx: click.Context | None) -> str:
        """What was found and what was expected."""
        return f"'{shown(value)}' is none of {', '.join(self.choices)}."


class Place(click.Path):
    """A path or an address; an empty one is a variable of the shell that was not set."""

    def convert(
        self,
        value: str | os.PathLike[str],
        param: click.Parameter | None,
        ctx: click.Context | None,
    ) -> Any:
        """The same, if it is not empty."""
        if value == "":
            self.fail("it is empty; give a path, or leave the option out.", param, ctx)
        return super().convert(value, param, ctx)


@dataclass
class Manner:
    """How a command runs, as it was typed before or behind the command's name.

    Attributes:
        verbosity: above 0 where more than usual is to be said, below where less.
        debug: whether an error shows where it comes from.
    """

    verbosity: int = 0
    debug: bool = False

    def begin_log(self) -> None:
        """Show the lines of the log: bare in a terminal, else with their times and levels."""
        lines = logging.StreamHandler(sys.stderr)
        lines.setFormatter(LogLines(dated=self.verbosity > 0 or not is_terminal(sys.stderr)))
        least = min(max(logging.INFO - 10 * self.verbosity, logging.DEBUG), logging.ERROR)
        lines.setLevel(least)
        if logging.getLogger().handlers:
            return  # whoever called us has a log, and says what goes there
        # Other libraries speak up from warnings on, however much is asked of us. Our warnings are
        # also kept for the report, shown or not.
        logging.basicConfig(level=logging.WARNING, handlers=[lines])
        logging.getLogger(PACKAGE).setLevel(min(least, logging.WARNING))


def manner_options() -> list[click.Parameter]:
    """The options that say how a command runs."""

    def louder(ctx: click.Context, _: click.Parameter, times: int) -> None:
        ctx.ensure_object(Manner).verbosity += times

    def quieter(ctx: click.Context, _: click.Parameter, times: int) -> None:
        ctx.ensure_object(Manner).verbosity -= times

    def traced(ctx: click.Context, _: click.Parameter, asked: bool) -> None:
        ctx.ensure_object(Manner).debug |= asked

    settings: dict[str, Any] = {"heading": Heading.RUNNING, "expose_value": False}
    return [
        Option(
            "-v",
            "--verbose",
            count=True,
            callback=louder,
            help="Say more: lines with their times and levels.",
            **settings,
        ),
        Option(
            "-q",
            "--quiet",
            count=True,
            callback=quieter,
            help="Say less: warnings and errors; twice: errors.",
            **settings,
        ),
        Option(
            "--debug",
            is_flag=True,
            callback=traced,
            help="Show where an error comes from.",
            **settings,
        ),
    ]


class Command(click.Command):
    """A command; its arguments are made when it is typed, as the options take time to load.

    Args:
        name: of the command.
        text: what it does, a sentence.
        run: does it.
        arguments: makes what it takes.
        examples: lines to copy, for the help.
        tables: makes further sections of the help, by their headings.
    """

    def __init__(
        self,
        name: str,
        text: str,
        run: Callable[[Given], None],
        arguments: Callable[[], list[click.Parameter]],
        examples: Sequence[str] = (),
        tables: Callable[[], Mapping[str, Sequence[tuple[str, str]]]] = dict,
    ) -> None:
        super().__init__(name, help=text, short_help=text, callback=lambda **given: run(given))
        self._arguments = arguments
        self._examples = examples
        self._tables = tables

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

    def invoke(self, ctx: click.Context) -> Any:
        """Run it."""
        manner = ctx.ensure_object(Manner)
        manner.begin_log()
        with progress_shown(manner.verbosity >= 0 and is_terminal(sys.stderr)):
            return super().invoke(ctx)

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
        for heading, rows in self._tables().items():
            with formatter.section(heading):
                formatter.write_dl(rows)
        program = ctx.find_root().info_name or ""
        write_examples(formatter, program, self._examples)
        formatter.write_paragraph()
        formatter.write_text(f"What the exit codes mean: {program} --help")


def write_examples(formatter: click.HelpFormatter, program: str, lines: Sequence[str]) -> None:
    """Lines to copy, each on a line of its own however long it is."""
    with formatter.section("Examples"):
        for line in lines:
            formatter.write(f"{'':>{formatter.current_indent}}{program} {line}\n")


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
