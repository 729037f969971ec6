"""The site of the documentation: complete, and built without a warning."""

from __future__ import annotations

import re
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

import fractal_mesospim_shading as shading

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"

pytestmark = pytest.mark.skipif(
    not DOCS.is_dir(), reason="needs the whole repository, not an sdist"
)

MISSING = [
    name for name in ("sphinx", "myst_parser", "furo", "sphinx_copybutton") if not find_spec(name)
]


def test_every_page_is_in_the_contents() -> None:
    contents = re.findall(
        r"^```\{toctree\}\n(.*?)^```", (DOCS / "index.md").read_text("utf-8"), re.M | re.S
    )
    listed = [line for block in contents for line in block.split() if not line.startswith(":")]
    pages = {path.stem for path in DOCS.glob("*.md")} - {"index"}
    assert pages <= set(listed)


def test_the_page_of_python_shows_all_public_names() -> None:
    page = (DOCS / "api.md").read_text("utf-8")
    missing = [
        name
        for name in shading.__all__
        if name != "__version__" and not re.search(rf"\b{name}\b", page)
    ]
    assert not missing


def test_the_table_of_errors_is_that_of_the_code() -> None:
    rows = re.findall(
        r"^\| `(\w+)` \| (\w+) \| (.*) \| (\d+) \|$", (DOCS / "api.md").read_text("utf-8"), re.M
    )
    kinds = [getattr(shading, name) for name in shading.__all__]
    errors = {kind.__name__: kind for kind in kinds if _is_error(kind)}
    assert {name for name, *_ in rows} == set(errors)
    for name, builtin, first_line, code in rows:
        kind = errors[name]
        assert builtin in {base.__name__ for base in kind.__mro__ if base.__module__ == "builtins"}
        assert first_line == (kind.__doc__ or "").splitlines()[0]
        assert int(code) == kind.exit_code


def _is_error(kind: object) -> bool:
    return isinstance(kind, type) and issubclass(kind, shading.ShadingError)


@pytest.mark.slow
@pytest.mark.skipif(
    bool(MISSING),
    reason=f"{', '.join(MISSING)} missing: pip install '.[docs]' brings what it takes",
)
def test_the_site_is_built_without_a_warning(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "sphinx", "-W", "--keep-going", "-q", DOCS, tmp_path],
        capture_output=True,
        text=True,
        timeout=280,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-5000:]
    shown = (tmp_path / "api.html").read_text("utf-8")
    assert "correct_flatfield" in shown
    assert "Four tiles hold no sample" in shown
