"""The report as a page: one HTML file that needs no other, and its picture."""

from __future__ import annotations

import base64
import os
from dataclasses import dataclass
from html import escape
from pathlib import Path

from fractal_mesospim_shading.errors import OutputWriteError
from fractal_mesospim_shading.messages import shown
from fractal_mesospim_shading.views.drawing import shortened
from fractal_mesospim_shading.views.figures import (
    ChannelReport,
    Facts,
    channel_figure,
    overview_figure,
)
from fractal_mesospim_shading.views.pair_map import pair_map

_CSS = """
body { font-family: system-ui, "Segoe UI", "DejaVu Sans", sans-serif; color: #222;
       max-width: 1200px; margin: 2em auto; padding: 0 1em; line-height: 1.4;
       overflow-wrap: anywhere; }
h1 { font-size: 1.5em; }
h2 { font-size: 1.2em; margin-top: 2em; border-bottom: 1px solid #ccc; }
table { border-collapse: collapse; margin: 1em 0; }
th, td { text-align: left; vertical-align: top; padding: 0.25em 1.2em 0.25em 0;
         border-bottom: 1px solid #e4e4e4; }
th { font-weight: normal; color: #555; white-space: nowrap; overflow-wrap: normal; }
img { max-width: 100%; height: auto; }
.note { background: #f3f3f3; border-left: 4px solid #999; padding: 0.4em 0.8em; }
.warning { background: #fff6df; border-left: 4px solid #d9a400; padding: 0.4em 0.8em; }
@media (max-width: 700px) {
  th { white-space: normal; }
  th, td { padding-right: 0.6em; }
}
.caption { color: #555; font-size: 0.9em; }
"""

_MOST = 200
"""Letters of a label in a heading."""

_CAPTION = (
    "Before and after have the same logarithmic contrast; the ticks at their edges mark where "
    "tiles meet. A good correction leaves no step there, while the sample keeps its brightness."
)


_PAIRS_CAPTION = (
    "Tiles by number; each line is a pair of neighbours that show the same tissue, coloured by how "
    "much the two views differ in shape, which is what a flat-field should take off. One scale for "
    "before and after. Dashed grey: pairs that could not be compared."
)


@dataclass(frozen=True)
class ImageReport:
    """A corrected image, or a container of such.

    Attributes:
        title: such as the name of the image.
        channels: in the order of the image.
        facts: of the whole image: shape, size, time, throughput.
        asked: options with their values.
        notes: lines that a person may want to read.
        warnings: lines that a person should look at.
    """

    title: str
    channels: tuple[ChannelReport, ...]
    facts: Facts = ()
    notes: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()
    asked: Facts = ()


def write_report(
    path_html: str | os.PathLike[str], path_png: str | os.PathLike[str], report: ImageReport
) -> None:
    """Write the report of an image.

    Args:
        path_html: one file that needs no other; folders above it are made.
        path_png: the overview picture.
        report: what to show.

    Raises:
        OutputWriteError: no permission, or no space.
    """
    page, picture = report_html(report).encode(), overview_figure(report.title, report.channels)
    for path, content in ((Path(path_html), page), (Path(path_png), picture)):
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content)
        except OSError as error:
            raise OutputWriteError(
                f"The report '{path}' cannot be written: {error}. Check the free space and the "
                "rights."
            ) from error


def report_html(report: ImageReport) -> str:
    """The report as the text of an HTML page."""
    title = _text(report.title)
    parts = [
        "<!DOCTYPE html>",
        '<html lang="en"><head><meta charset="utf-8">',
        f"<title>{title}: shading correction</title><style>{_CSS}</style></head><body>",
        f"<h1>Shading correction of {title}</h1>",
        *(f'<p class="warning">WARNING: {_text(line)}</p>' for line in report.warnings),
        *(f'<p class="note">{_text(note)}</p>' for note in report.notes),
        _table(report.facts),
        *(_channel(channel) for channel in report.channels),
        *_asked(report.asked),
        "</body></html>",
    ]
    return "\n".join(part for part in parts if part) + "\n"


def _channel(channel: ChannelReport) -> str:
    label = _text(shortened(channel.label, _MOST))
    description = f"Flat-field of channel {label}"
    if channel.shown is not None:
        description += ", and one plane before and after"
    parts = (
        f"<h2>Channel {label}</h2>",
        _table(channel.facts),
        _image(description, channel_figure(channel)),
        "" if channel.shown is None else f'<p class="caption">{_CAPTION}</p>',
        *_pairs(channel, label),
    )
    return "\n".join(part for part in parts if part)


def _asked(asked: Facts) -> tuple[str, ...]:
    """What was asked for, folded away."""
    if not asked:
        return ()
    return ("<details><summary>What was asked for</summary>", _table(asked), "</details>")


def _pairs(channel: ChannelReport, label: str) -> tuple[str, ...]:
    """The map of the pairs of tiles, where overlaps were looked at."""
    if channel.check is None:
        return ()
    description = f"Pairs of tiles of channel {label}, by how much their views differ"
    picture = pair_map(channel.check, channel.layout)
    return _image(description, picture), f'<p class="caption">{_PAIRS_CAPTION}</p>'


def _image(description: str, picture: bytes) -> str:
    data = base64.b64encode(picture).decode()
    return f'<img alt="{description}" src="data:image/png;base64,{data}">'


def _table(facts: Facts) -> str:
    if not facts:
        return ""
    rows = (f"<tr><th>{_text(name)}</th><td>{_text(value)}</td></tr>" for name, value in facts)
    return "<table>\n" + "\n".join(rows) + "\n</table>"


def _text(value: str) -> str:
    """A text from outside as it may stand in a page."""
    return escape(shown(value))
