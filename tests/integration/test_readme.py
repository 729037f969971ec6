"""What the README and the pages of docs/ say is true: commands, links, parameters."""

from __future__ import annotations

import re
import runpy
import shlex
from collections.abc import Iterator
from importlib.metadata import version
from pathlib import Path

import click
import pytest

import fractal_mesospim_shading
from fractal_mesospim_shading.cli.commands import COMMANDS
from fractal_mesospim_shading.messages import Door, through

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text(encoding="utf-8")
CONTRIBUTING = ROOT / "CONTRIBUTING.md"
PAGES = [ROOT / "README.md", CONTRIBUTING, *sorted((ROOT / "docs").glob("*.md"))]

pytestmark = pytest.mark.skipif(
    not (ROOT / ".ci").is_dir(), reason="needs the whole repository, not an sdist"
)


def blocks(text: str, language: str) -> list[str]:
    """Fenced blocks of a page."""
    return re.findall(rf"^```{language}\n(.*?)^```", text, re.MULTILINE | re.DOTALL)


def fenced(text: str) -> str:
    """All that stands in fenced blocks of a page, whatever their language, in unbroken lines."""
    inside = re.findall(r"^```[^\n`]*\n(.*?)^```", text, re.MULTILINE | re.DOTALL)
    return re.sub(r"\\\n\s*", "", "".join(inside))


def commands(text: str) -> list[list[str]]:
    """Our commands in the fenced blocks of a page, as words."""
    lines = [line for line in fenced(text).splitlines() if line.startswith("mesospim-shading")]
    ours = [shlex.split(line, comments=True)[1:] for line in lines]
    return [line[: line.index(">")] if ">" in line else line for line in ours]


def test_two_lines_install_and_run() -> None:
    demo, tests = (block.strip() for block in blocks(README, "sh")[:2])
    assert "\n" not in demo
    assert "\n" not in tests
    assert demo.endswith("pip install . && mesospim-shading demo")
    assert "pip install '.[test]' && python -m pytest" in tests


def test_ci_runs_the_tests_by_the_command_of_the_readme() -> None:
    tests = blocks(README, "sh")[1].strip()
    lines = (ROOT / ".ci" / "run").read_text().splitlines()
    assert [line for line in lines if line.startswith(f"{tests} || fail")]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_commands_are_understood(page: Path) -> None:
    for words in commands(page.read_text(encoding="utf-8")):
        if words == ["--version"]:
            continue
        try:
            with through(Door.COMMAND):
                COMMANDS.commands[words[0]].make_context(words[0], words[1:])
        except click.UsageError as error:
            pytest.fail(f"{page.name}: mesospim-shading {shlex.join(words)}: {error}")


def test_the_readme_shows_the_main_commands() -> None:
    shown = {words[0] for words in commands(README)}
    assert {"info", "correct-flatfield", "estimate", "import"} <= shown


def test_no_command_is_overlooked() -> None:
    text = """
```
mesospim-shading info a.zarr
```
```bash
mesospim-shading import a.ome.zarr \\
    --zarr-dir imported  # more
python docs/generate_tasks.py
```
"""
    assert commands(text) == [
        ["info", "a.zarr"],
        ["import", "a.ome.zarr", "--zarr-dir", "imported"],
    ]
    assert sum(len(commands(page.read_text(encoding="utf-8"))) for page in PAGES) > 20


@pytest.fixture(scope="module")
def known_options() -> set[str]:
    """All spellings of all options, those of the benchmarks, and of others that the pages name."""
    known = {"--version", "--no-", "--ffp", "--dfp", "--durations"}
    for script in (ROOT / "benchmarks").glob("*.py"):
        known |= set(re.findall(r"\"(--[a-z][\w-]*)\"", script.read_text("utf-8")))
    for name, command in COMMANDS.commands.items():
        command.make_context(name, [], resilient_parsing=True)
        for parameter in command.params:
            known |= {*parameter.opts, *parameter.secondary_opts}
    return known


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_options_that_pages_name_exist(page: Path, known_options: set[str]) -> None:
    named = set(re.findall(r"`(--[a-z][\w-]*)", page.read_text("utf-8")))
    assert not {name.replace("_", "-") for name in named} - known_options


def test_messages_are_quoted_as_they_are_said() -> None:
    """Each piece between quotes in the tables of `troubleshooting.md` is one of our messages."""
    text = (ROOT / "docs" / "troubleshooting.md").read_text("utf-8")
    cells = re.findall(r"^\| (.*?\".*?) \|", text, re.MULTILINE)
    pieces = [
        piece.strip(" ,")
        for cell in cells
        for quoted in re.findall(r'"([^"]+)"', cell)
        for piece in quoted.split("...")
    ]
    assert len(pieces) > 15
    files = (ROOT / "src" / "fractal_mesospim_shading").rglob("*.py")
    source = " ".join(path.read_text("utf-8") for path in files)
    said = re.sub(r"\"\s*f?\"", "", re.sub(r"\{[^{}\n]*\}|%[.\d]*[sdfg]", "...", source))
    assert not [piece for piece in pieces if piece not in said]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_scripts_that_pages_call_are_there(page: Path) -> None:
    called = re.findall(r"python3? ((?:docs|benchmarks|examples)/\w+\.py)", page.read_text("utf-8"))
    assert not [script for script in called if not (ROOT / script).is_file()]


def test_no_page_keeps_what_a_merge_left() -> None:
    pages = [*PAGES, ROOT / "CHANGELOG.md", *sorted((ROOT / "tests").rglob("README.md"))]
    left = re.compile(r"^(<{7} |={7}$|>{7} )", re.MULTILINE)
    assert not [page.name for page in pages if left.search(page.read_text("utf-8"))]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_somewhere(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    for target in re.findall(r"\]\(([^)]+)\)", text):
        place, _, anchor = target.partition("#")
        if re.match(r"[a-z]+:", target):
            continue
        linked = page.parent / place if place else page
        assert linked.exists(), f"{page.name} links to {target}"
        if anchor:
            headings = re.findall(r"^#+ (.*)$", linked.read_text(encoding="utf-8"), re.MULTILINE)
            names = {re.sub(r"[^\w -]", "", h.lower()).replace(" ", "-") for h in headings}
            assert anchor in names, f"{page.name} links to {target}"


def test_python_of_the_readme_is_python() -> None:
    for block in blocks(README, "python"):
        compile(block, "README.md", "exec")
        for line in block.splitlines():
            if line.startswith(("import ", "from ")):
                exec(line, {})


def test_the_page_of_tasks_is_that_of_the_models() -> None:
    """Names, defaults and help of all parameters; `python docs/generate_tasks.py` renews it."""
    generator = runpy.run_path(str(ROOT / "docs" / "generate_tasks.py"))
    assert (ROOT / "docs" / "tasks.md").read_text(encoding="utf-8") == generator["page"]()


def test_the_architecture_page_names_every_module_and_no_other() -> None:
    page = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")
    package = ROOT / "src" / "fractal_mesospim_shading"
    modules = {path.relative_to(package).with_suffix("") for path in package.rglob("*.py")}
    named = {Path(span) for span in re.findall(r"`([a-z_]+(?:/[a-z_]+)+)`", page)}
    words = set(re.findall(r"\w+", page))
    rooms = {path.parent for path in modules} - {Path()}
    unnamed = [path for path in modules - named if path.stem not in words]
    assert not [path for path in unnamed if path.parts[0] not in ("tasks", "dev", "__main__")]
    assert not named - modules - rooms - {Path(*path.parts[1:]) for path in modules} - TESTS
    assert all(f"{room}" in page for room in rooms)


TESTS = {Path("tests/unit"), Path("tests/property"), Path("tests/integration"), Path("tests/e2e")}


def _code_of(page: Path) -> Iterator[str]:
    """The words between backticks, and those of the shell blocks."""
    text = page.read_text(encoding="utf-8")
    for block in blocks(text, "sh"):
        yield from block.split()
    for line in re.sub(r"^```.*?^```", "", text, flags=re.MULTILINE | re.DOTALL).splitlines():
        for span in re.findall(r"`([^`]+)`", line):
            yield from span.split()


def test_what_contributing_names_is_there() -> None:
    """Its paths, below the repository or the package, and its names of classes and functions."""
    package = ROOT / "src" / "fractal_mesospim_shading"
    sources = [*package.rglob("*.py"), *ROOT.glob("tests/**/*.py"), ROOT / "pyproject.toml"]
    known = set(re.findall(r"\w+", " ".join(path.read_text("utf-8") for path in sources)))
    paths, names = set(), set()
    for word in _code_of(CONTRIBUTING):
        if re.fullmatch(r"[\w.-]+/[\w./-]*|[\w.-]+\.(md|cff|toml|yaml)", word):
            paths.add(word)
        elif re.fullmatch(r"[A-Za-z_]\w*", word):
            names.add(word)
    paths -= {".venv/bin/activate", "build/site"}  # made by the commands that name them
    assert len(paths) > 30
    assert not [p for p in paths if not (ROOT / p).exists() and not (package / p).exists()]
    assert {"BackgroundMethod", "choose_scenario", "read_stacks", "slow"} <= names & known
    assert not [n for n in names if re.search(r"[a-z]_|[a-z][A-Z]|^_", n) and n not in known]


def test_samples_are_small_and_say_where_they_come_from() -> None:
    folder = ROOT / "tests" / "data"
    files = [path for path in folder.rglob("*") if path.is_file()]
    assert sum(path.stat().st_size for path in files) < 20_000_000
    rows = re.findall(r"^\|(.*)\|$", (folder / "README.md").read_text("utf-8"), re.MULTILINE)[2:]
    named = {name: row for row in rows for name in re.findall(r"`([^`]+)`", row.split("|")[0])}
    assert all(row.count("|") == 3 and "BSD" in row.split("|")[3] for row in rows)
    for path in set(files) - {folder / "README.md"}:
        assert any(path.relative_to(folder).match(name) for name in named), path


def test_versions_agree() -> None:
    """One place says it, the package's own; what cannot ask there says the same."""
    ours = fractal_mesospim_shading.__version__
    assert version("fractal-mesospim-shading") == ours
    assert f"\nversion: {ours}\n" in (ROOT / "CITATION.cff").read_text()
    newest = re.findall(r"^## (.+?)(?: - .*)?$", (ROOT / "CHANGELOG.md").read_text(), re.M)
    assert newest[:2] == ["Unreleased", ours]
