"""Reports: complete in one file, the same bytes each time, and no trace in matplotlib."""

from __future__ import annotations

import base64
import io
import re
import struct
import subprocess
import sys
from pathlib import Path

import matplotlib
import numpy as np
import pytest

from fractal_mesospim_shading.core.layout import TileLayout
from fractal_mesospim_shading.core.profile import ShadingProfile
from fractal_mesospim_shading.core.quality import ShadingQuality
from fractal_mesospim_shading.errors import OutputWriteError
from fractal_mesospim_shading.views.figures import ChannelReport, PlaneShown, overview_figure
from fractal_mesospim_shading.views.report_page import ImageReport, report_html, write_report

LAYOUT = TileLayout.from_origins([(0, 0), (0, 32), (24, 0)], (24, 32), (48, 64))
FLAT = np.linspace(0.6, 1.4, 32)[None, :] * np.ones((24, 1))


def channel(label: str = "488 nm", level: float = 1.0) -> ChannelReport:
    after = np.full((48, 64), 400 * level)
    after[24:, 32:] = 0
    before = np.where(after > 0, 100 + after * np.tile(FLAT, (2, 2)), 0)
    return ChannelReport(
        label,
        ShadingProfile.create(FLAT),
        LAYOUT,
        (0.0013, 0.0013),
        PlaneShown(before.astype(np.uint16), after.astype(np.uint16), offset=100),
        facts=(
            ("Offset", "100 ± 0.4 counts"),
            ("Scenario", "<empty> & done"),
            *ShadingQuality(0.61, 1.39, 0.8, 0.0, clipped=0.25).rows(),
        ),
    )


def size_of(png: bytes) -> tuple[int, int]:
    assert png.startswith(b"\x89PNG\r\n\x1a\n")
    return struct.unpack(">II", png[16:24])  # type: ignore[return-value]


def pixels_of(png: bytes) -> np.ndarray:
    from matplotlib.image import imread

    return np.asarray(imread(io.BytesIO(png)))


@pytest.mark.slow
def test_one_file_with_everything(tmp_path: Path) -> None:
    report = ImageReport(
        "a & b.zarr", (channel(), channel("561 nm")), (("Time", "3 s"),), ("Look here <now>.",)
    )
    write_report(tmp_path / "new" / "r.html", tmp_path / "r.png", report)
    text = (tmp_path / "new" / "r.html").read_text(encoding="utf-8")
    assert not re.search(r"https?://|<script|<link|src=\"(?!data:)", text)
    images = re.findall(r"data:image/png;base64,([^\"]+)", text)
    assert len(images) == 2
    for image in images:
        assert size_of(base64.b64decode(image))[0] == 1450
    for expected in (
        "<h1>Shading correction of a &amp; b.zarr</h1>",
        "Look here &lt;now&gt;.",
        "<tr><th>Time</th><td>3 s</td></tr>",
        "<tr><th>Scenario</th><td>&lt;empty&gt; &amp; done</td></tr>",
        "<tr><th>Offset</th><td>100 ± 0.4 counts</td></tr>",
        "<tr><th>Step across tile seams, in empty medium</th>",
        "<td>80.0% before, 0.0% after</td></tr>",
        "<tr><th>Pixels clipped</th><td>25.00%</td></tr>",
        "<h2>Channel 561 nm</h2>",
    ):
        assert expected in text
    one = overview_figure("a", (channel(),))
    assert size_of((tmp_path / "r.png").read_bytes())[1] > 1.5 * size_of(one)[1]


@pytest.mark.slow
def test_same_content_same_bytes_and_settings_of_the_user_stay() -> None:
    report = ImageReport("a", (channel(),))
    first = report_html(report)
    with matplotlib.rc_context({"font.size": 30, "axes.facecolor": "red"}):
        before = dict(matplotlib.rcParams)
        assert report_html(report) == first
        assert dict(matplotlib.rcParams) == before


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


@pytest.mark.parametrize(("before", "offset"), [(0, 0.0), (60, 100.0)])
def test_what_has_no_light_can_be_drawn(before: int, offset: float) -> None:
    """A uniform profile, an empty plane or one below its offset, a single tile, a coarse level."""
    odd = ChannelReport(
        "no light",
        ShadingProfile.create(np.ones((7, 9))),
        TileLayout.single((7, 9)),
        (0.001, 0.001),
        PlaneShown(
            np.full((3, 4), before, np.uint16), np.zeros((3, 4), np.uint16), (2, 2), offset=offset
        ),
    )
    assert size_of(overview_figure("x" * 300, (odd,)))[0] == 1450
    assert "no light" in report_html(ImageReport("x", (odd,)))


def test_before_and_after_have_one_contrast() -> None:
    """Equal planes are drawn alike: the two panels hold the same greys."""
    flat = channel()
    shown = PlaneShown(flat.shown.before, flat.shown.before, offset=100, output_offset=100)
    same = ChannelReport("a", flat.profile, LAYOUT, flat.pixel_mm, shown)
    image = pixels_of(overview_figure("a", (same,)))[..., :3]
    third = image.shape[1] // 3
    # Half-way down, where both panels show tiles.
    row = image[image.shape[0] // 2]
    middle, right = (np.unique(part, axis=0) for part in (row[third : 2 * third], row[2 * third :]))
    common = {tuple(colour) for colour in middle} & {tuple(colour) for colour in right}
    assert len(common) > 20


def test_a_report_that_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputWriteError, match="cannot be written"):
        write_report(
            tmp_path / "file" / "r.html", tmp_path / "r.png", ImageReport("a", (channel(),))
        )
