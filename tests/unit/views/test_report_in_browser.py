"""The page of a report in a browser: nothing runs over its box, and no label is obeyed."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from html import escape, unescape
from pathlib import Path

import numpy as np
import pytest

from fractal_mesospim_shading.core.layout import TileLayout
from fractal_mesospim_shading.core.overlaps.observing import Rejected
from fractal_mesospim_shading.core.overlaps.pedestal import pedestal
from fractal_mesospim_shading.core.overlaps.residual import summary
from fractal_mesospim_shading.core.profile import ShadingProfile
from fractal_mesospim_shading.core.seams import medium_lines
from fractal_mesospim_shading.flatfield.planes_seen import PlanesSeen, Thumbnail
from fractal_mesospim_shading.overlaps.certificate import OverlapCheck, Views
from fractal_mesospim_shading.views.evidence import Evidence
from fractal_mesospim_shading.views.report_page import report_html
from fractal_mesospim_shading.views.report_parts import (
    ChannelReport,
    ImageReport,
    Pair,
    PlanesShown,
)
from fractal_mesospim_shading.views.verdict import judged

BROWSER = next(
    filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), ""
)
LABEL = '<script>document.title = "obeyed"</script>' + "x" * 150

WIDTHS = (500, 1400)

# The page in a frame of each width; then, which elements are wider than what they lie in.
_FRAMES = """<!DOCTYPE html><body>%s<script>
addEventListener("load", () => {
  const told = [...document.querySelectorAll("iframe")].map((frame) => {
    const view = frame.contentWindow, page = frame.contentDocument;
    page.querySelectorAll("details").forEach((e) => { e.open = true; });
    const boxes = [...page.images].map((e) => e.getBoundingClientRect());
    const meet = boxes.some((a, i) => boxes.some((b, k) => i < k && a.left < b.right - 1
      && b.left < a.right - 1 && a.top < b.bottom - 1 && b.top < a.bottom - 1));
    const over = [...page.body.querySelectorAll("*")].filter((e) =>
      e.scrollWidth > e.clientWidth + 1 && view.getComputedStyle(e).display !== "inline"
      || e.getBoundingClientRect().right > view.innerWidth + 1);
    return {width: view.innerWidth, title: page.title,
      headings: [...page.querySelectorAll("h2")].map((e) => e.textContent),
      meet: meet, over: over.map((e) => e.outerHTML.slice(0, 80)),
      pictures: [...page.images].filter((e) => !e.closest(".planes")).map((e) => e.naturalWidth),
      planes: [...page.querySelectorAll(".planes figure")].map((e) => {
        const picture = e.querySelector("img");
        return {name: e.textContent, alt: picture.alt, wide: picture.getBoundingClientRect().width,
          frame: view.getComputedStyle(picture).borderTopStyle};
      })};
  });
  document.body.innerHTML = "<pre id=told></pre>";
  document.getElementById("told").textContent = JSON.stringify(told);
});
</script></body>"""

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not BROWSER, reason="no Chromium on this machine"),
]


def planes() -> PlanesSeen:
    """Two that were used, one that was left out, in tiles with a name of some length."""
    picture = np.arange(1, 1025, dtype=np.float32).reshape(32, 32)
    shown = [(f"1 of {LABEL}", 4, ""), ("2", 1234, ""), ("3", 5, f"holds {LABEL}")]
    thumbnails = (Thumbnail(tile, z, picture, why) for tile, z, why in shown)
    numbers = {1: (4,), 2: tuple(range(0, 2000, 2))}
    return PlanesSeen(
        numbers, {3: (5,)}, 2000, {1: f"1 of {LABEL}", 2: "2", 3: "3"}, tuple(thumbnails)
    )


def page() -> str:
    layout = TileLayout.from_origins([(0, 0), (0, 32)], (24, 32), (24, 64))
    none = Views(summary(()), {}, ())
    check = OverlapCheck(LABEL, None, none, none, pedestal(()), rejected=(Rejected(1, 2, LABEL),))
    plane = np.full((24, 64), 200.0, np.float32)
    pair = Pair(plane, plane, "c" * 300)
    channel = ChannelReport(
        LABEL,
        layout,
        (0.001, 0.001),
        ShadingProfile.create(np.ones((24, 32))),
        PlanesShown(pair, pair, medium_lines(plane, plane, layout)),
        facts=(("A name of some length, as they are", "word " * 60), ("Path", "/a" * 200)),
        method=(("Camera offset", "o" * 200),),
        check=check,
        truth=np.ones((24, 32), np.float32),
        planes=planes(),
    )
    facts = (("Source", "z" * 240),)
    verdict = judged([Evidence(LABEL, unseen="u" * 200)] * 4, warnings=1)
    report = ImageReport(
        "brain" * 40,
        "Shading correction",
        [channel] * 4,
        verdict,
        facts,
        asked=facts,
        notes=("n" * 300,),
        warnings=(LABEL,),
    )
    return report_html(report)


def test_nothing_runs_over_its_box(tmp_path: Path) -> None:
    frames = [
        f'<iframe style="width: {width}px; border: 0" srcdoc="{escape(page())}"></iframe>'
        for width in WIDTHS
    ]
    (tmp_path / "frames.html").write_text(_FRAMES % "".join(frames))
    command = [BROWSER, "--headless", "--no-sandbox", "--disable-gpu", "--no-first-run"]
    command += [f"--user-data-dir={tmp_path / 'profile'}", "--disable-background-networking"]
    command += ["--disable-dev-shm-usage", "--dump-dom", (tmp_path / "frames.html").as_uri()]
    done = subprocess.run(command, capture_output=True, text=True, timeout=180, check=True)
    match = re.search(r'<pre id="told">(.*?)</pre>', done.stdout, re.DOTALL)
    assert match is not None, done.stderr
    told = json.loads(unescape(match[1]))
    assert [found["width"] for found in told] == list(WIDTHS)
    for found in told:
        assert found["over"] == [] and not found["meet"]
        assert found["title"] != "obeyed"
        assert found["headings"][1].startswith("Channel <script>document")
        # Flat-fields, sections and errors of all; two pairs of planes, medium and map of each.
        assert len(found["pictures"]) == 3 + 4 * 6 and min(found["pictures"]) > 450
        # Planes are told apart by number, by a word and by a frame, and are large enough to see.
        assert len(found["planes"]) == 4 * 3
        first, second, last = found["planes"][:3]
        assert first["name"] == f"tile 1 of {LABEL}, plane 4"
        assert second["alt"] == "tile 2, plane 1234 used" and second["frame"] == "solid"
        assert last["alt"] == f"tile 3, plane 5 left out: it holds {LABEL}"
        assert last["frame"] == "dashed"
        assert all(90 < own["wide"] < 250 for own in found["planes"])
