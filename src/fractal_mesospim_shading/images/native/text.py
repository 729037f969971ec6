"""The encoding of the texts beside a container, and names in texts of an encoding not known.

mesoSPIM-control opens its metadata files without saying how to encode them, so that on
Windows letters such as ü have the bytes of the computer's own code page. Nothing in a file
tells which one that is; but a name that is known can be looked for in each of them.
"""

from __future__ import annotations

import codecs
import re
import unicodedata
from contextlib import suppress
from dataclasses import dataclass

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
        for encoding, found in self._spellings(before):
            start, at, tail = first.rpartition(found)
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
    found = []
    for page in _CODE_PAGES:
        for form in dict.fromkeys((unicodedata.normalize("NFC", name), name)):
            with suppress(UnicodeEncodeError):
                found.append((page, form.encode(page)))
    return [*found, ("utf-8", name.encode("utf-8", errors="surrogateescape"))]


def _readings(name: str) -> list[str]:
    """What a name whose bytes are no UTF-8 says in each code page."""
    if not any("\udc80" <= letter <= "\udcff" for letter in name):
        return []
    data = name.encode("utf-8", errors="surrogateescape")
    found = []
    for page in _CODE_PAGES:
        with suppress(UnicodeDecodeError):
            found.append(data.decode(page))
    return found
