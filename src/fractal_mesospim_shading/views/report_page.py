"""The report as a page: one HTML file that needs no other, and its facts as JSON beside it."""

from __future__ import annotations

import base64
import json
import os
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from html import escape
from pathlib import Path

from fractal_mesospim_shading.core.threads import garbage_kept, in_order
from fractal_mesospim_shading.errors import OutputWriteError
from fractal_mesospim_shading.flatfield.planes_seen import PlanesSeen
from fractal_mesospim_shading.messages import counted, rendered, shown
from fractal_mesospim_shading.views.drawing import shortened
from fractal_mesospim_shading.views.figures import (
    flatfields_figure,
    medium_figure,
    sections_figure,
    truth_figure,
)
from fractal_mesospim_shading.views.pair_map import pair_map
from fractal_mesospim_shading.views.pictures import grey_pictures, small_pictures
from fractal_mesospim_shading.views.report_parts import ChannelReport, Facts, ImageReport, Pair
from fractal_mesospim_shading.views.report_style import CSS
from fractal_mesospim_shading.views.verdict import ChannelVerdict, Verdict

Part = str | Callable[[], str]
"""Some lines of the page, or what makes them: pictures are made beside each other."""

_MOST = 200
"""Letters of a label in a heading."""

_SIDE_BY_SIDE = 3
"""Channels in one table."""

_MARKS = {"good": "✓", "look": "?", "wrong": "✗"}
"""What is told by colour is told by a sign as well."""

_PAIR_CAPTION = "Both on one logarithmic scale, so that a ratio looks alike in medium and sample."

_MEDIUM_CAPTION = (
    "Tiles show other tissue, but one medium: a good correction leaves no step where they meet."
)

_FLAT_CAPTION = (
    "How bright the same medium looks in each place of a tile, on one scale for all channels. The "
    "lines follow the field without its noise."
)

_TRUTH_CAPTION = (
    "This image was made with a known flat-field: what is left of the error, on one scale. In the "
    "sections, the true ones are dashed."
)

_PAIRS_CAPTION = (
    "Tiles by number; each line is a pair of neighbours that show the same tissue, coloured by how "
    "much the two views differ in shape, which is what a flat-field should take off. One scale for "
    "before and after. Dashed grey: pairs that could not be compared."
)

_PLANES_CAPTION = (
    "As they were read, without correction, all on one logarithmic scale. Planes are counted from "
    "0, as in `z_levels`. In a solid frame: what the flat-field rests on; in a dashed one: what "
    "was looked at and left out."
)


def write_page(path: str | os.PathLike[str], report: ImageReport) -> None:
    """Write a report, and beside it its numbers as `.json`.

    Args:
        path: of the page, which ends with `.html`; folders above it are made.
        report: what to show.

    Raises:
        OutputWriteError: no permission, or no space.
    """
    page = Path(path)
    numbers = json.dumps(report.numbers, indent=2)
    for file, text in ((page, report_html(report)), (page.with_suffix(".json"), numbers)):
        try:
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_bytes(text.encode())
        except OSError as error:
            raise OutputWriteError(
                f"The report '{file}' cannot be written: {error}. Check the free space and the "
                "rights."
            ) from error


def report_html(report: ImageReport) -> str:
    """The report as the text of an HTML page."""
    with garbage_kept:
        return _html(report)


def _html(report: ImageReport) -> str:
    title = _text(report.title)
    what = _text(report.what)
    parts: list[Part] = [
        "<!DOCTYPE html>",
        '<html lang="en"><head><meta charset="utf-8">',
        '<meta name="viewport" content="width=device-width, initial-scale=1">',
        f"<title>{title}: {what.lower()}</title><style>{CSS}</style></head><body>",
        f"<h1>{what} of {title}</h1>",
        *([] if report.verdict is None else _verdict(report.verdict)),
        *(f'<p class="warning">WARNING: {_text(line)}</p>' for line in report.warnings),
        *_side_by_side(report.channels),
        *_flatfields(report.channels),
        *(part for channel in report.channels for part in _channel(channel)),
        "<h2>The job</h2>",
        _table(report.facts),
        *(f'<p class="note">{_text(note)}</p>' for note in report.notes),
        *_folded("What was asked for", [("", report.asked)]),
        *_folded(
            "How it was done, in the words of the method",
            [(own.label, own.method) for own in report.channels],
        ),
        "</body></html>",
    ]
    texts = in_order(lambda part: part if isinstance(part, str) else part(), parts, workers=2)
    return "\n".join(text for text in texts if text) + "\n"


def _verdict(verdict: Verdict) -> Iterator[str]:
    yield f'<section class="verdict {verdict.word}">'
    mark = f'<span class="mark" aria-hidden="true">{_MARKS[verdict.word]}</span>'
    yield f"<p class='headline'>{mark} {_said(verdict.headline)}</p>"
    for line in verdict.todo:
        yield f'<p class="todo">{_said(line)}</p>'
    for own in verdict.channels:
        yield from _reasons(own)
    yield "</section>"


def _reasons(own: ChannelVerdict) -> Iterator[str]:
    yield f"<h3>{_text(shortened(own.label, _MOST))}</h3><ul>"
    for finding in own.findings:
        text = _said(finding.text[:1].upper() + finding.text[1:])
        yield f'<li class="{finding.word}">{_MARKS[finding.word]} {text}</li>'
    yield "</ul>"


def _side_by_side(channels: Iterable[ChannelReport]) -> Iterator[str]:
    """The facts of channels in tables of a few columns."""
    every = [channel for channel in channels if channel.facts]
    for start in range(0, len(every), _SIDE_BY_SIDE):
        some = every[start : start + _SIDE_BY_SIDE]
        heads = "".join(f"<th>{_text(shortened(own.label, _MOST))}</th>" for own in some)
        known = [dict(own.facts) for own in some]
        rows = [f'<tr class="heads"><th></th>{heads}</tr>']
        for name in dict.fromkeys(name for facts in known for name in facts):
            values = "".join(f"<td>{_text(facts.get(name, ''))}</td>" for facts in known)
            rows.append(f"<tr><th>{_text(name)}</th>{values}</tr>")
        yield f"<table>{''.join(rows)}</table>"


def _flatfields(channels: Iterable[ChannelReport]) -> Iterator[Part]:
    """The flat-fields of all channels, and how far they are from true ones."""
    known = [own for own in channels if own.profile is not None]
    if not known:
        return
    names = _text(shortened(", ".join(own.label for own in known), _MOST))
    true = [own for own in known if own.truth is not None]
    number = counted(len(known), "channel")
    yield f"<h2>Flat-fields</h2><p class='caption'>{_FLAT_CAPTION}</p>"
    yield "<div class='pair'>"
    flat, through = (
        f"Flat-fields of {number}: {names}",
        "Flat-fields through the centre of the tile",
    )
    yield lambda: _figure(flat, flatfields_figure(known))
    yield lambda: _figure(through, sections_figure(known))
    if true:
        yield lambda: _figure("Error of the flat-fields in %", truth_figure(true), _TRUTH_CAPTION)
    yield "</div>"


def _channel(channel: ChannelReport) -> Iterator[Part]:
    """The pictures of one channel."""
    shown, check, planes = channel.shown, channel.check, channel.planes
    if shown is None and check is None and planes is None:
        return
    label = _text(shortened(channel.label, _MOST))
    yield f"<h2>Channel {label}</h2>"
    if shown is not None:
        yield partial(_pair, shown.whole, f"channel {label}")
        if shown.crop is not None:
            yield partial(_pair, shown.crop, f"channel {label} where tiles meet")
    yield "<div class='pair'>"
    if shown is not None and shown.lines:
        medium = partial(medium_figure, shown.lines, channel)
        name = f"Brightness of the medium of channel {label}"
        yield lambda: _figure(name, medium(), _MEDIUM_CAPTION)
    if check is not None:
        description = f"Pairs of tiles of channel {label}, by how much their views differ"
        yield lambda: _figure(description, pair_map(check, channel.layout), _PAIRS_CAPTION)
    yield "</div>"
    if planes is not None:
        yield lambda: "\n".join(_thumbnails(planes))


def _thumbnails(planes: PlanesSeen) -> Iterator[str]:
    """Some planes that the flat-field rests on, and some that were left out."""
    pictures = small_pictures([own.light for own in planes.thumbnails])
    shown = list(zip(planes.thumbnails, pictures, strict=True))
    for title, numbers, out in (
        ("used", planes.used, False),
        ("left out", planes.left_out, True),
    ):
        some = [(own, picture) for own, picture in shown if bool(own.left_out) == out]
        if not some:
            continue
        total = sum(len(own) for own in numbers.values())
        yield f"<h3>Planes {title}: {len(some)} of {total}</h3>"
        yield f"<div class='planes {'out' if out else 'in'}'>"
        for own, picture in some:
            name = f"tile {own.tile}, plane {own.plane}"
            reason = f" {title}: it {own.left_out}" if out else f" {title}"
            yield _figure(_text(name + reason), picture, _text(name))
        yield "</div>"
    if shown:
        yield f"<p class='caption'>{_said(_PLANES_CAPTION)}</p>"


def _pair(pair: Pair, what: str) -> str:
    """The same pixels before and after."""
    pictures = grey_pictures((pair.before, pair.after))
    figures = (
        _figure(f"{name}: {what}", picture, name)
        for name, picture in zip(("Before", "After"), pictures, strict=True)
    )
    caption = f"</div><p class='caption'>{_text(pair.caption)} {_PAIR_CAPTION}</p>"
    return "\n".join(("<div class='pair'>", *figures, caption))


def _figure(description: str, picture: bytes, caption: str = "") -> str:
    data = base64.b64encode(picture).decode()
    image = f'<img alt="{description}" src="data:image/png;base64,{data}">'
    under = f"<figcaption>{caption}</figcaption>" if caption else ""
    return f"<figure>{image}{under}</figure>"


def _folded(title: str, tables: list[tuple[str, Facts]]) -> Iterator[str]:
    """Tables that are folded away, each under its name."""
    full = [(name, facts) for name, facts in tables if facts]
    if not full:
        return
    yield f"<details><summary>{title}</summary>"
    for name, facts in full:
        if name:
            yield f"<h3>{_text(shortened(name, _MOST))}</h3>"
        yield _table(facts)
    yield "</details>"


def _table(facts: Facts) -> str:
    if not facts:
        return ""
    rows = "".join(f"<tr><th>{_text(n)}</th><td>{_text(v)}</td></tr>" for n, v in facts)
    return f"<table>{rows}</table>"


def _text(text: str) -> str:
    """A text from anywhere: no markup in it, nothing hidden."""
    return escape(shown(text))


def _said(text: str) -> str:
    """A text of our own, with options in the words of the door."""
    return _text(rendered(text))
