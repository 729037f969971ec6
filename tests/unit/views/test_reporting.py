"""Reports: complete in one file, the same bytes each time, and no trace in matplotlib."""

from __future__ import annotations

import base64
import gc
import io
import json
import re
import shlex
import struct
import subprocess
import sys
from pathlib import Path

import matplotlib
import numpy as np
import pytest

from fractal_mesospim_shading.core.layout import TileLayout
from fractal_mesospim_shading.core.profile import ShadingProfile
from fractal_mesospim_shading.core.seams import medium_lines
from fractal_mesospim_shading.errors import OutputWriteError
from fractal_mesospim_shading.options.base import asked_of
from fractal_mesospim_shading.options.flatfield import FlatfieldOptions
from fractal_mesospim_shading.views import report_page
from fractal_mesospim_shading.views.evidence import Evidence
from fractal_mesospim_shading.views.figures import sections_figure
from fractal_mesospim_shading.views.pictures import grey_pictures
from fractal_mesospim_shading.views.report_facts import command_line
from fractal_mesospim_shading.views.report_page import report_html, write_page
from fractal_mesospim_shading.views.report_parts import (
    ChannelReport,
    ImageReport,
    Pair,
    PlanesShown,
)
from fractal_mesospim_shading.views.verdict import judged

LAYOUT = TileLayout.from_origins([(0, 0), (0, 32), (24, 0)], (24, 32), (48, 64))
FLAT = np.linspace(0.6, 1.4, 32)[None, :] * np.ones((24, 1))


def channel(label: str = "488 nm", level: float = 1.0) -> ChannelReport:
    after = np.full((48, 64), 400 * level, np.float32)
    after[24:, 32:] = 0
    before = (after * np.tile(FLAT, (2, 2))).astype(np.float32)
    whole = Pair(before, after, "The whole mosaic, plane 3.")
    return ChannelReport(
        label,
        LAYOUT,
        (0.0013, 0.0013),
        ShadingProfile.create(FLAT),
        PlanesShown(whole, whole, medium_lines(before, after, LAYOUT)),
        facts=(("Counts at no light", "100 ± 0.4"), ("Flat-field from", "<empty> & done")),
        method=(("Camera offset", "100.0 +- 0.4 (given), counts"),),
    )


def report(*channels: ChannelReport, **more: object) -> ImageReport:
    return ImageReport("a & b.zarr", "Shading correction", channels, **more)  # type: ignore[arg-type]


def size_of(png: bytes) -> tuple[int, int]:
    assert png.startswith(b"\x89PNG\r\n\x1a\n")
    return struct.unpack(">II", png[16:24])  # type: ignore[return-value]


def pixels_of(png: bytes) -> np.ndarray:
    from matplotlib.image import imread

    return np.asarray(imread(io.BytesIO(png)))


def test_one_file_with_everything(tmp_path: Path) -> None:
    verdict = judged([Evidence("488 nm"), Evidence("561 nm")])
    whole = report(
        channel(),
        channel("561 nm"),
        verdict=verdict,
        facts=(("Time", "3 s"),),
        asked=(("fov_list", "[1, 4]"),),
        notes=("Look here <now>.",),
        warnings=("It is <late>.",),
        numbers={"verdict": verdict.facts()},
    )
    write_page(tmp_path / "new" / "r.html", whole)
    text = (tmp_path / "new" / "r.html").read_text(encoding="utf-8")
    assert not re.search(r"https?://|<script|<link|src=\"(?!data:)", text)
    images = re.findall(r"data:image/png;base64,([^\"]+)", text)
    assert len(images) == 2 + 2 * 5
    assert min(size_of(base64.b64decode(image))[0] for image in images) >= 480
    expected = (
        "<h1>Shading correction of a &amp; b.zarr</h1>",
        verdict.headline,
        "WARNING: It is &lt;late&gt;.",
        # Channels stand side by side.
        "<th>488 nm</th><th>561 nm</th>",
        "<tr><th>Counts at no light</th><td>100 ± 0.4</td><td>100 ± 0.4</td></tr>",
        "<td>&lt;empty&gt; &amp; done</td>",
        "<h2>Channel 561 nm</h2>",
        "The whole mosaic, plane 3.",
        "<tr><th>Time</th><td>3 s</td></tr>",
        "Look here &lt;now&gt;.",
        "<details><summary>What was asked for</summary>",
        "<td>[1, 4]</td>",
        "<td>100.0 +- 0.4 (given), counts</td>",
    )
    places = [text.index(part) for part in expected]
    assert places[:3] == sorted(places[:3])
    written = json.loads((tmp_path / "new" / "r.json").read_text())
    assert written["verdict"]["word"] == "look"


def test_many_channels_make_tables_of_a_few() -> None:
    labels = [f"{number} nm" for number in range(7)]
    text = report_html(report(*(channel(label) for label in labels)))
    heads = re.findall(r'<tr class="heads">(.*?)</tr>', text)
    assert [re.findall(r"<th>([^<]+)</th>", head) for head in heads] == [
        labels[:3],
        labels[3:6],
        labels[6:],
    ]


def test_same_content_same_bytes_and_settings_of_the_user_stay() -> None:
    first = report_html(report(channel()))
    with matplotlib.rc_context({"font.size": 30, "axes.facecolor": "red"}):
        before = dict(matplotlib.rcParams)
        assert report_html(report(channel())) == first
        assert dict(matplotlib.rcParams) == before


def test_no_time_goes_into_the_search_for_garbage(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of all objects of all libraries, which takes a fifth of the time of a page."""
    enabled: list[bool] = []

    def drawn(*given: object) -> bytes:
        enabled.append(gc.isenabled())
        return sections_figure(*given)  # type: ignore[arg-type]

    monkeypatch.setattr(report_page, "sections_figure", drawn)
    report_html(report(channel()))
    assert enabled == [False] and gc.isenabled()
    # Whoever does without it has it so afterwards, and it comes back after an error.
    gc.disable()
    try:
        report_html(report())
        assert not gc.isenabled()
    finally:
        gc.enable()
    monkeypatch.setattr(report_page, "sections_figure", None)
    with pytest.raises(TypeError):
        report_html(report(channel()))
    assert gc.isenabled()


@pytest.mark.slow
def test_no_window_and_no_backend() -> None:
    """In a process of its own: pyplot is never loaded, and the package loads no matplotlib."""
    code = (
        "import sys, numpy as np\n"
        "from fractal_mesospim_shading.views import preview, reporting\n"
        "assert 'matplotlib' not in sys.modules\n"
        "image = np.arange(64.0).reshape(8, 8)\n"
        "preview.background_preview(image, {'a': (image, image - image)})\n"
        "import matplotlib\n"
        "assert 'matplotlib.pyplot' not in sys.modules\n"
        "assert matplotlib.get_backend(auto_select=False) is None\n"
        if hasattr(matplotlib, "get_backend") and matplotlib.__version_info__ >= (3, 10)
        else "import fractal_mesospim_shading.views.preview\n"
    )
    environment = {"PATH": "", "MPLCONFIGDIR": matplotlib.get_configdir()}
    subprocess.run([sys.executable, "-c", code], check=True, env=environment, timeout=120)


@pytest.mark.parametrize("light", [0.0, -40.0, np.nan])
def test_what_has_no_light_can_be_drawn(light: float) -> None:
    """A uniform profile, an empty plane or one below its offset, a single tile."""
    before, after = np.full((3, 4), light, np.float32), np.zeros((3, 4), np.float32)
    odd = ChannelReport(
        "no light",
        TileLayout.single((7, 9)),
        (0.001, 0.001),
        ShadingProfile.create(np.ones((7, 9))),
        PlanesShown(Pair(before, after, "x"), None, medium_lines(before, after, LAYOUT)),
    )
    assert "no light" in report_html(report(odd))
    assert "<h1>" in report_html(report())


def test_before_and_after_have_one_contrast_and_keep_their_shape() -> None:
    """Equal light is the same grey in both; twice the light is so many greys more everywhere."""
    ramp = np.geomspace(10, 1000, 1600, dtype=np.float32)[None, :].repeat(400, axis=0)
    first, second = grey_pictures([ramp, ramp * 2])
    assert size_of(first) == size_of(second) == (800, 200)
    one, other = (pixels_of(png)[100] * 255 for png in (first, second))
    inner = (one > 10) & (other < 245)
    apart = (other - one)[inner]
    assert inner.sum() > 300 and np.ptp(apart) <= 2 and apart.min() > 30
    same = grey_pictures([ramp, ramp])
    assert same[0] == same[1]


def test_a_small_plane_is_enlarged_without_new_values() -> None:
    plane = np.array([[1, 2, 4], [8, 16, 32]], np.float32)
    picture = pixels_of(grey_pictures([plane])[0])
    assert picture.shape == (320, 480) and len(np.unique(picture)) == 6


def test_a_report_that_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputWriteError, match="cannot be written"):
        write_page(tmp_path / "file" / "r.html", report(channel()))


def test_the_command_of_a_report_asks_for_the_same() -> None:
    """What it says, typed again, gives the options that were given."""
    from fractal_mesospim_shading.cli.actions import _image_and_options
    from fractal_mesospim_shading.cli.commands import COMMANDS

    options = FlatfieldOptions(
        fov_list=[1, 4],
        z_levels="20,40",
        camera_offset=99.5,
        report=False,
        save_models=True,
        basicpy_model_params={"smoothness_flatfield": 2.0},
        output_folder="a folder",
        flatfield_files={"488 nm": "flat.tif"},
        n_workers=2,
    )
    line = command_line("correct_flatfield", ["brain image.zarr"], asked_of(options))
    program, name, *words = shlex.split(line)
    assert (program, name) == ("mesospim-shading", "correct-flatfield")
    command = COMMANDS.get_command(None, name)  # type: ignore[arg-type]
    assert command is not None
    given = command.make_context(name, words).params
    assert _image_and_options(given, FlatfieldOptions) == ("brain image.zarr", options)
