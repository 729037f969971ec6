"""The text file that mesoSPIM-control writes beside the container for each stack.

Lines are `[key] value`; a bare `[NAME]` after an empty line opens a section. Keys repeat
between sections, so every look-up names its section.
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass

_LINE = re.compile(r"^\[(.*?)\] ?(.*)$")
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


@dataclass(frozen=True)
class MetaFile:
    """The content of a metadata file.

    Attributes:
        container, group: last two parts of the path in its first line, None without one.
        entries: (section, key, value) in the order of the file.
    """

    container: str | None
    group: str | None
    entries: tuple[tuple[str, str, str], ...]

    def text(self, section: str, key: str) -> str | None:
        """The value of a key in a section; None where it is absent or empty."""
        wanted = (section.lower(), key.lower())
        for found_section, found_key, value in self.entries:
            if (found_section.lower(), found_key.lower()) == wanted:
                return value or None
        return None

    def number(self, section: str, key: str) -> float | None:
        """The value as a finite number; None where there is none."""
        try:
            value = float(self.text(section, key) or "")
        except ValueError:
            return None
        return value if math.isfinite(value) else None

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
        data: content of the file, any line ends.
    """
    entries: list[tuple[str, str, str]] = []
    section, previous, path = "", "", None
    for line in data.decode("utf-8-sig", errors="replace").splitlines():
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
    )


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
