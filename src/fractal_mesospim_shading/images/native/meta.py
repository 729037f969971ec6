"""The text file that mesoSPIM-control writes beside the container for each stack.

Lines are `[key] value`; a bare `[NAME]` after an empty line opens a section. Keys repeat
between sections, so every look-up names its section.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable
from dataclasses import dataclass

from fractal_mesospim_shading.images.native.text import NativeText, decode

_LINE = re.compile(r"^\[(.*?)\] ?(.*)$")
_NUMBER = re.compile(r"[+-]?[\d.,]*\d[.,]?(?:[eE][+-]?\d+)?")
_GROUPED = re.compile(r"[+-]?[1-9]\d{0,2}([.,])\d{3}(?:\1\d{3})*")
_FIRST_KEY = "metadata for file"
_PROCESSORS = "IMAGE PROCESSORS"
_AFTER_PROCESSORS = "TIMING INFORMATION"
_KNOWN_SECTIONS = {
    "CFG",
    "POSITION",
    "ETL PARAMETERS",
    "GALVO PARAMETERS",
    "CAMERA PARAMETERS",
    "MICROSCOPE PARAMETERS",
    _PROCESSORS,
    _AFTER_PROCESSORS,
}
_PROCESSOR_NAME = re.compile(
    r"BackgroundSubtraction|DifferenceOfGaussians|GaussianBlur|NeuralDenoise|Binning", re.IGNORECASE
)


_NUMBERS = {
    "POSITION": ("x_pos", "y_pos", "z_start", "z_end", "z_stepsize", "z_planes", "rot"),
    "CFG": ("Pixelsize in um",),
}
"""Numbers that decide where a stack lies, by section."""


@dataclass(frozen=True)
class MetaFile:
    """The content of a metadata file.

    Attributes:
        container, group: last two parts of the path in its first line, None without one; letters
            outside of ASCII may be wrong where the encoding of the file is not known.
        entries: (section, key, value) in the order of the file.
        source: the text and its encoding.
        decimal_mark: `.` or `,` where a number in the file shows which; None where none does.
    """

    container: str | None
    group: str | None
    entries: tuple[tuple[str, str, str], ...]
    source: NativeText
    decimal_mark: str | None

    def names_group(self, name: str) -> bool:
        """Whether the file says that it belongs to a group of this name, or nothing."""
        return self.group is None or self.source.spells(self.group, name)

    def names_container(self, name: str) -> bool | None:
        """Whether the file says that it belongs to a container of this name, or nothing.

        Returns:
            None where the encoding of the file hides which name it says.
        """
        if self.container is None or self.source.spells(self.container, name):
            return True
        if not self.source.guessed or self.container.isascii():
            return False
        return None

    def text(self, section: str, key: str) -> str | None:
        """The value of a key in a section; None where it is absent or empty."""
        wanted = (section.lower(), key.lower())
        for found_section, found_key, value in self.entries:
            if (found_section.lower(), found_key.lower()) == wanted:
                return value or None
        return None

    def number(self, section: str, key: str) -> float | None:
        """The value as a finite number; None where there is none.

        A comma is the mark of decimals where the file's numbers show that it is, or where it
        can be nothing else.
        """
        return number_of_text(self.text(section, key) or "", self.decimal_mark)

    @property
    def unreadable_numbers(self) -> tuple[str, ...]:
        """Entries that say where the stack lies, and are no numbers that can be read."""
        return tuple(
            f"[{key}] {self.text(section, key)}"
            for section, keys in _NUMBERS.items()
            for key in keys
            if self.text(section, key) is not None and self.number(section, key) is None
        )

    @property
    def side(self) -> str | None:
        """`left`, `right` or `both`, from the shutter."""
        return side_of_text(self.text("CFG", "Shutter"))

    @property
    def processors(self) -> tuple[str, ...]:
        """Image processors that changed the camera's data before they were written."""
        count = self.number(_PROCESSORS, "Processor count")
        if not count or count < 1:
            return ()
        named: list[str] = []
        for section, key, value in self._processor_entries():
            for text in (section, key, value):
                found = _PROCESSOR_NAME.search(text)
                if found and found[0] not in named:
                    named.append(found[0])
        unknown = max(0, int(count) - len(named)) if not named else 0
        return (*named, *(["unknown"] * unknown))

    def _processor_entries(self) -> list[tuple[str, str, str]]:
        sections = [section for section, _, _ in self.entries]
        start = sections.index(_PROCESSORS) if _PROCESSORS in sections else len(sections)
        inside = []
        for entry in self.entries[start:]:
            if entry[0] == _AFTER_PROCESSORS:
                break
            inside.append(entry)
        return inside

    def as_dict(self) -> dict[str, dict[str, str]]:
        """All entries by section, for the provenance of a result; the first of equal keys."""
        result: dict[str, dict[str, str]] = {}
        for section, key, value in self.entries:
            result.setdefault(section, {}).setdefault(key, value)
        return result


def parse_meta(data: bytes) -> MetaFile:
    """Read a metadata file; what is not understood is left out, never an error.

    Args:
        data: content of the file, any line ends, any encoding that Windows has.
    """
    source = decode(data)
    entries: list[tuple[str, str, str]] = []
    section, previous, path = "", "", None
    for line in re.split(r"\r\n|\r|\n", source.text):
        found = _LINE.match(line.strip())
        if found:
            key, value = found[1].strip(), found[2].strip()
            if key.lower() == _FIRST_KEY:
                path = value
            elif not value and (key in _KNOWN_SECTIONS or not previous):
                section = key
            else:
                entries.append((section, key, value))
        previous = line.strip()
    parts = [part for part in re.split(r"[\\/]", path or "") if part]
    return MetaFile(
        container=parts[-2] if len(parts) > 1 else None,
        group=parts[-1] if parts else None,
        entries=tuple(entries),
        source=source,
        decimal_mark=_decimal_mark(value for _, _, value in entries),
    )


def number_of_text(text: str, decimal_mark: str | None) -> float | None:
    """A finite number, with a point or a comma before its decimals.

    Args:
        text: such as `20000.5`, `20000,5`, `20.000,50`.
        decimal_mark: `.` or `,` where it is known which one the writer used.

    Returns:
        None where the text is no number, or could be two: `20,000` may be 20 or 20000.
    """
    plain = text.strip().replace("\u00a0", "").replace("\u202f", "").replace(" ", "")
    mark = _mark_of(plain) or decimal_mark
    grouped = _GROUPED.fullmatch(plain)
    if grouped and mark != grouped[1] and len(plain.split(grouped[1])) == 2:
        # One mark before three digits. A point alone is how Python writes numbers.
        if mark is not None or grouped[1] == ",":
            return None
        mark = "."
    if mark is not None:
        other = "," if mark == "." else "."
        whole, _, _ = plain.partition(mark)
        if other in plain and not _GROUPED.fullmatch(whole):
            return None
        plain = plain.replace(other, "").replace(mark, ".")
    try:
        value = float(plain)
    except ValueError:
        return None
    return value if math.isfinite(value) else None


def _mark_of(text: str) -> str | None:
    """The mark of decimals, where a number leaves no doubt."""
    if not _NUMBER.fullmatch(text):
        return None
    marks = [letter for letter in text if letter in ".,"]
    if not marks or _GROUPED.fullmatch(text):
        # Two groups of three, as in 1.234.567, say which mark is not the one of decimals.
        return {".": ",", ",": "."}[marks[0]] if len(marks) > 1 else None
    return marks[-1] if marks.count(marks[-1]) == 1 else None


def _decimal_mark(values: Iterable[str]) -> str | None:
    """The mark of decimals that the numbers of a file show; None where they do not agree."""
    found = {mark for mark in map(_mark_of, values) if mark is not None}
    return found.pop() if len(found) == 1 else None


def side_of_text(text: str | None) -> str | None:
    """The illumination side that a text means: `left`, `right`, `both`, or None."""
    words = (text or "").lower()
    if "both" in words or ("left" in words and "right" in words):
        return "both"
    for side in ("left", "right"):
        if side in words:
            return side
    return None


def removes_offset(processors: tuple[str, ...]) -> bool:
    """Whether one of these processors takes the camera offset or the background away."""
    names = [name.lower() for name in processors]
    return any("background" in name or "difference" in name for name in names)
