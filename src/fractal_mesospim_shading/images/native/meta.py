"""The text file that mesoSPIM-control writes beside the container for each stack.

Lines are `[key] value`; a bare `[NAME]` after an empty line opens a section. Keys repeat
between sections, so every look-up names its section. mesoSPIM-control does not say how to
encode it, so that on Windows letters such as ü have the bytes of the computer's own code page.
Nothing in a file tells which one that is; but a name that is known can be looked for in each.
"""

from __future__ import annotations

import codecs
import math
import re
import unicodedata
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass
from itertools import dropwhile, takewhile

_MARKS = (
    (codecs.BOM_UTF8, "utf-8"),
    (codecs.BOM_UTF32_LE, "utf-32-le"),
    (codecs.BOM_UTF32_BE, "utf-32-be"),
    (codecs.BOM_UTF16_LE, "utf-16-le"),
    (codecs.BOM_UTF16_BE, "utf-16-be"),
)
# The code pages of Windows for languages of the world, the commonest first.
_CODE_PAGES = (
    *("cp1252", "cp1250", "cp1251", "cp932", "cp936", "cp949", "cp950", "cp1253", "cp1254"),
    *("cp1255", "cp1256", "cp1257", "cp1258", "cp874", "cp850", "cp437", "mac_roman"),
)
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
class NativeText:
    """A text and how it was encoded.

    Attributes:
        text: decoded; letters outside of ASCII may be wrong where the encoding is a guess.
        encoding: as Python calls it.
        mark: the bytes before the text that name its encoding; empty without.
        guessed: whether the bytes fit no encoding that tells itself.
        data: the bytes after the mark.
    """

    text: str
    encoding: str
    mark: bytes
    guessed: bool
    data: bytes

    def spells(self, part: str, name: str) -> bool:
        """Whether a part of the text is a name, in whatever code page the text may be.

        Args:
            part: of `text`.
            name: as it is on disk; with surrogates where its bytes are no UTF-8.
        """
        if unicodedata.normalize("NFC", part) == unicodedata.normalize("NFC", name):
            return True
        if self.guessed:
            return self.raw(part) in [encoded for _, encoded in _encodings(name)]
        return part in _readings(name)

    def raw(self, part: str) -> bytes:
        """The bytes of a part of the text."""
        errors = "surrogateescape" if self.guessed else "replace"
        return part.encode(self.encoding, errors=errors)

    def with_name(self, before: str, after: str) -> bytes:
        """The bytes of the file with the last occurrence of a name in its first line replaced.

        Args:
            before: the name to look for, as it is on disk.
            after: what takes its place.

        Returns:
            Every other byte is as it was; the file as it is where the name does not occur.
        """
        line = re.split("[\r\n]", self.text, maxsplit=1)[0]
        size = len(self.raw(line))
        first, rest = self.data[:size], self.data[size:]
        for encoding, spelled in self._spellings(before):
            start, at, tail = first.rpartition(spelled)
            with suppress(UnicodeEncodeError):
                written = after.encode(encoding, errors="surrogateescape")
                if at:
                    return self.mark + start + written + tail + rest
        return self.mark + self.data

    def _spellings(self, name: str) -> list[tuple[str, bytes]]:
        if self.guessed:
            return _encodings(name)
        forms = dict.fromkeys((name, *(unicodedata.normalize(f, name) for f in ("NFC", "NFD"))))
        return [(self.encoding, form.encode(self.encoding, "surrogateescape")) for form in forms]


def decode(data: bytes) -> NativeText:
    """Decode a text that does not say how it is encoded.

    In this order: by the mark at its start; UTF-16 without a mark, which shows by its zeros;
    UTF-8; else the code page of western Windows.

    Args:
        data: the whole file.
    """
    for mark, encoding in _MARKS:
        if data.startswith(mark):
            return _decoded(data[len(mark) :], encoding, mark)
    if data[1:200:2].count(0) * 3 > len(data[:200]) and not data[:200:2].count(0):
        return _decoded(data, "utf-16-le", b"")
    if data[:200:2].count(0) * 3 > len(data[:200]) and not data[1:200:2].count(0):
        return _decoded(data, "utf-16-be", b"")
    try:
        return NativeText(data.decode("utf-8"), "utf-8", b"", False, data)
    except UnicodeDecodeError:
        # What this code page does not know keeps its byte.
        text = data.decode("cp1252", errors="surrogateescape")
        return NativeText(text, "cp1252", b"", True, data)


def _decoded(data: bytes, encoding: str, mark: bytes) -> NativeText:
    return NativeText(data.decode(encoding, errors="replace"), encoding, mark, False, data)


def _encodings(name: str) -> list[tuple[str, bytes]]:
    """A name in each code page that has all of its letters, and as it is on disk."""
    encoded = []
    for page in _CODE_PAGES:
        for form in dict.fromkeys((unicodedata.normalize("NFC", name), name)):
            with suppress(UnicodeEncodeError):
                encoded.append((page, form.encode(page)))
    return [*encoded, ("utf-8", name.encode("utf-8", errors="surrogateescape"))]


def _readings(name: str) -> list[str]:
    """What a name whose bytes are no UTF-8 says in each code page."""
    if not any("\udc80" <= letter <= "\udcff" for letter in name):
        return []
    data = name.encode("utf-8", errors="surrogateescape")
    texts = []
    for page in _CODE_PAGES:
        with suppress(UnicodeDecodeError):
            texts.append(data.decode(page))
    return texts


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
        asked = (section.lower(), key.lower())
        values = (value for *named, value in self.entries if tuple(map(str.lower, named)) == asked)
        return next(values, None) or None

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
                match = _PROCESSOR_NAME.search(text)
                if match and match[0] not in named:
                    named.append(match[0])
        unknown = max(0, int(count) - len(named)) if not named else 0
        return (*named, *(["unknown"] * unknown))

    def _processor_entries(self) -> Iterable[tuple[str, str, str]]:
        entries = dropwhile(lambda entry: entry[0] != _PROCESSORS, self.entries)
        return takewhile(lambda entry: entry[0] != _AFTER_PROCESSORS, entries)

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
        match = _LINE.match(line.strip())
        if match:
            key, value = match[1].strip(), match[2].strip()
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
    marks = {mark for mark in map(_mark_of, values) if mark is not None}
    return marks.pop() if len(marks) == 1 else None


def side_of_text(text: str | None) -> str | None:
    """The illumination side that a text means: `left`, `right`, `both`, or None."""
    words = (text or "").lower()
    if "both" in words or ("left" in words and "right" in words):
        return "both"
    for side in ("left", "right"):
        if side in words:
            return side
    return None
