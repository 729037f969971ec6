from __future__ import annotations

import json
import logging
import re
from contextlib import contextmanager

import pytest

import fractal_mesospim_shading
from fractal_mesospim_shading import cli, errors
from fractal_mesospim_shading.cli.command import Manner, joined_numbers
from fractal_mesospim_shading.cli.commands import COMMANDS, EXAMPLES, EXIT_CODES
from fractal_mesospim_shading.core.background import METHODS
from fractal_mesospim_shading.jobs import background, flatfield
from fractal_mesospim_shading.jobs.work import JobResult
from fractal_mesospim_shading.messages import PACKAGE, Door, rendered, through
from fractal_mesospim_shading.options import precedence


@pytest.fixture(autouse=True)
def _logging_as_it_was():
    root = logging.getLogger()
    before = root.handlers[:], root.level
    yield
    root.handlers[:], root.level = before


@pytest.fixture
def asked(monkeypatch):
    """What the command hands over to the workflow."""
    calls = []

    def correct(url, options):
        calls.append((url, options))
        return JobResult("/made", url)

    monkeypatch.setattr(flatfield, "correct_flatfield", correct)
    return calls


@pytest.mark.parametrize(
    "words",
    [
        ["--fov-list", "1,9", "--z-levels", "4,60"],
        ["--fov-list", "[1,9]", "--z-levels", "[4, 60]"],
        ["--fov-list", "1", "--fov-list", "9", "--z-levels", "4", "--z-levels=60"],
        ["--fov-list", "1", "9", "--z-levels", "4,", "60"],
        ["--fov_list", "1", "9", "--z_levels=4,60"],
    ],
)
def test_lists(asked, capsys, words):
    assert cli.main(["correct-flatfield", "/a.zarr", *words, "--overwrite", "--no-report"]) == 0
    ((url, options),) = asked
    assert (url, options.fov_list, options.z_levels) == ("/a.zarr", [1, 9], [4, 60])
    assert (options.overwrite, options.report) == (True, False)
    assert capsys.readouterr().out == "/made\n"


def test_a_file_of_the_server_and_options_that_go_before_it(asked, tmp_path):
    path = tmp_path / "params.json"
    path.write_text(json.dumps({"zarr_url": "/a.zarr", "seed": 3, "basicpy_model_params": {}}))
    assert cli.main(["correct-flatfield", "--params", str(path), "--seed", "5"]) == 0
    assert asked[0][0] == "/a.zarr"
    assert asked[0][1].seed == 5
    assert cli.main(["correct-flatfield", "/b.zarr", "--params", str(path)]) == 0
    assert asked[1][0] == "/b.zarr"


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (errors.ImageNotFoundError("bad"), 1),
        (errors.ImageFormatError("bad"), 1),
        (errors.SourceReadError("bad"), 1),
        (errors.LayoutError("bad"), 1),
        (errors.ProfileError("bad"), 1),
        (errors.ParameterError("bad"), 2),
        (errors.TileNumberError("bad"), 2),
        (errors.SamplingError("bad"), 2),
        (errors.BackgroundError("bad"), 2),
        (errors.FolderError("bad"), 3),
        (errors.OutputExistsError("bad"), 3),
        (errors.OutputWriteError("bad"), 3),
        (errors.JobLockedError("bad"), 3),
        (errors.JobMismatchError("bad"), 3),
        (errors.MemoryLimitError("bad"), 3),
        (errors.WorkerLostError("bad"), 3),
        (errors.StoppedError("s"), 130),
        (KeyboardInterrupt(), 130),
        (ZeroDivisionError("x"), 70),
    ],
)
def test_errors_are_one_message_and_a_code(monkeypatch, capsys, error, code):
    def fail(url, options):
        raise error

    monkeypatch.setattr(flatfield, "correct_flatfield", fail)
    assert cli.main(["correct-flatfield", "/a.zarr"]) == code
    text = capsys.readouterr().err
    assert "Traceback" not in text
    if isinstance(error, KeyboardInterrupt):
        assert text == "Stopped.\n"
        return
    assert text.startswith("Error: ")
    assert cli.main(["correct-flatfield", "/a.zarr", "--debug"]) == code
    assert "Traceback" in capsys.readouterr().err


@pytest.mark.parametrize("command", [[], ["correct-flatfield", "/a", "--fov", "1"], ["nothing"]])
def test_wrong_commands(command):
    assert cli.main(command) == 2


def test_help_names_every_parameter(capsys):
    from fractal_mesospim_shading.options.flatfield import FlatfieldOptions

    assert cli.main(["correct-flatfield", "--help"]) == 0
    text = capsys.readouterr().out
    with through(Door.COMMAND):
        flags = [rendered(f"`{name}`") for name in FlatfieldOptions.model_fields]
    assert "--flatfield-file" in flags and "--fov-list" in flags
    assert not [flag for flag in flags if flag not in text]


@pytest.mark.parametrize(
    ("words", "files"),
    [
        (["--flatfield-file", "flat.tif"], {"": "flat.tif"}),
        (
            ["--flatfield_files", "488=a.tif", "--flatfield-file", "b.npy"],
            {"488": "a.tif", "": "b.npy"},
        ),
        (["--flatfield-file", '{"488": "a.tif"}'], {"488": "a.tif"}),
    ],
)
def test_flatfields_in_files(asked, words, files):
    assert cli.main(["correct-flatfield", "/a.zarr", *words]) == 0
    assert asked[0][1].flatfield_files == files


@pytest.mark.parametrize(
    ("words", "joined"),
    [
        (["--z", "1", "3", "7", "a.zarr"], ["--z", "1,3,7", "a.zarr"]),
        (["--z", "1,", "3,", "7"], ["--z", "1,3,7"]),
        # A list in one word is whole: what follows may be an image that is called 0.
        (["--z", "1,9", "0"], ["--z", "1,9", "0"]),
        (["--z=1,9", "0"], ["--z=1,9", "0"]),
        (["--z", "[1,9]", "--z", "3", "4"], ["--z", "[1,9]", "--z", "3,4"]),
        (["--z", "a", "1"], ["--z", "a", "1"]),
        (["a", "--", "--z", "1", "2"], ["a", "--", "--z", "1", "2"]),
        (["a", "--z"], ["a", "--z"]),
    ],
)
def test_lists_in_words_of_their_own(words, joined):
    assert joined_numbers(words, {"--z"}) == joined


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["correct-flatfeld", "/a"], ["correct-flatfield?", "mesospim-shading [OPTIONS] COMMAND"]),
        (["correct_flatfield", "/a", "--fov-lists", "1"], ["--fov-list?", "correct-flatfield"]),
        (["correct_flatfield", "/a", "--fov_lists", "1"], ["--fov-list?", "correct-flatfield"]),
        (["estimate", "/a"], ["--output", "Usage: mesospim-shading estimate"]),
        (["import"], ["CONTAINER", "Usage: mesospim-shading import"]),
        (["estimate", "/a", "--output", "m", "--zero-is", "x"], ["--zero-is: 'x'", "no_data"]),
        (["preview", "/a", "--z", "x"], ["--z", "'x'", "Usage: mesospim-shading preview"]),
        (["info", "/a", "/b"], ["/b", "Usage: mesospim-shading info"]),
        (["correct-flatfield", "/a", "--models-folder", ""], ["--models-folder: it is empty"]),
        (["check", "/a", "--against", ""], ["--against: it is empty", "give a path"]),
    ],
)
def test_wrong_use_says_what_was_meant_and_how_it_is_used(words, said, capsys):
    assert cli.main(words) == 2
    text = capsys.readouterr().err
    assert text.startswith("Error: ")
    assert all(part in text for part in said), text


def test_without_a_command_there_is_help_and_with_version_a_number(capsys):
    assert cli.main([]) == 2
    text = capsys.readouterr().err
    assert all(f"\n  {name} " in text for name in COMMANDS.commands)
    assert cli.main(["--version"]) == 0
    assert capsys.readouterr().out == f"mesospim-shading {fractal_mesospim_shading.__version__}\n"


def test_help_tells_all_exit_codes(capsys):
    kinds = vars(errors).values()
    raised = {k.exit_code for k in kinds if isinstance(k, type) and issubclass(k, Exception)}
    assert {int(code) for code, _ in EXIT_CODES} == {0, cli.FAULT, *raised}
    assert cli.main(["--help"]) == 0
    text = capsys.readouterr().out
    assert all(meaning[:30] in text for _, meaning in EXIT_CODES)


@pytest.mark.parametrize("command", [name for name in EXAMPLES if name])
def test_examples_of_the_help_are_understood(command, capsys):
    assert cli.main([command, "--help"]) == 0
    text = capsys.readouterr().out
    for line in EXAMPLES[command]:
        assert f"\n  mesospim-shading {line}\n" in text
        first, *words = line.split(" > ")[0].split()
        assert first == command
        COMMANDS.commands[command].make_context(command, words)


def test_every_option_has_a_group_of_its_own(capsys):
    """Those that are seldom needed come last."""
    cli.main(["correct-flatfield", "--help"])
    text = capsys.readouterr().out
    places = [text.index(f"\n{heading}:\n") for heading in ("Input", "Estimate", "Output")]
    places += [text.index("\nRunning:\n"), text.index("\nAdvanced:\n")]
    assert places == sorted(places)
    assert places[1] < text.index("--fov-list") < places[2] < text.index("--output-folder")
    assert places[4] < text.index("--basicpy-model-params")
    cli.main(["correct-background", "--help"])
    text = capsys.readouterr().out
    own = text[text.index("\nBackground:\n") : text.index("\nOutput:\n")]
    assert all(f"\n  --{name} " in own for name in ("method", "mask", "mode", "weight", "tiles"))


def test_an_estimate_offers_nothing_of_an_image_it_does_not_write(capsys):
    cli.main(["estimate", "--help"])
    text = capsys.readouterr().out
    for name in precedence.IMAGE_OPTIONS:
        assert f"\n  --{name.replace('_', '-')} " not in text, name


@contextmanager
def log_of_a_process(monkeypatch):
    """Logging as a new process finds it; afterwards as it was."""
    loggers = [logging.getLogger(), logging.getLogger(PACKAGE)]
    levels = [logger.level for logger in loggers]
    with monkeypatch.context() as patch:
        patch.setattr(loggers[0], "handlers", [])
        loggers[0].setLevel(logging.WARNING)
        loggers[1].setLevel(logging.NOTSET)
        try:
            yield
        finally:
            for logger, level in zip(loggers, levels, strict=True):
                logger.setLevel(level)


@pytest.mark.parametrize("before", [True, False])
@pytest.mark.parametrize(
    ("manner", "levels", "others"),
    [
        ([], "IW", "W"),
        (["-v"], "DIW", "W"),
        (["-vv"], "DIW", "W"),
        (["-q"], "W", "W"),
        (["-qq"], "", ""),
        (["-q", "-v"], "IW", "W"),
    ],
)
def test_how_much_is_said(monkeypatch, capsys, manner, levels, others, before):

    def correct(url, options):
        log = logging.getLogger("fractal_mesospim_shading.jobs")
        log.debug("one D")
        log.info("one I")
        log.warning("one W")
        library = logging.getLogger("numcodecs")
        library.debug("its D")
        library.info("its I")
        library.warning("its W")
        return JobResult("/made", url)

    monkeypatch.setattr(flatfield, "correct_flatfield", correct)
    command = ["correct-flatfield", "/a.zarr"]
    with log_of_a_process(monkeypatch):
        assert cli.main([*manner, *command] if before else [*command, *manner]) == 0
    lines = capsys.readouterr().err.splitlines()
    assert [line[-1] for line in lines if "its" not in line] == list(levels)
    assert [line[-1] for line in lines if "its" in line] == list(others)
    # Not a terminal: each line with its time and level.
    for line in lines:
        start, _, said = line.partition(": ")
        assert re.fullmatch(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d (DEBUG|INFO|WARNING)", start)
        assert said[:-2] in ("one", "its")


def test_a_log_that_was_there_is_left_as_it_was(monkeypatch):
    root, ours = logging.getLogger(), logging.getLogger(PACKAGE)
    with log_of_a_process(monkeypatch):
        root.addHandler(logging.NullHandler())
        before = (root.level, ours.level, list(root.handlers))
        Manner(verbosity=1).begin_log()
        assert (root.level, ours.level, root.handlers) == before


def test_json_tells_what_came_out(asked, capsys):
    assert cli.main(["correct-flatfield", "/a.zarr", "--json"]) == 0
    facts = json.loads(capsys.readouterr().out)
    assert (facts["image_url"], facts["source_url"]) == ("/made", "/a.zarr")
    assert facts["models"] == {} and facts["report"] is None


@pytest.mark.parametrize("command", [name for name in COMMANDS.commands if name != "completion"])
def test_every_command_prints_json(command):
    context = COMMANDS.commands[command].make_context(command, [], resilient_parsing=True)
    assert "json" in {param.name for param in context.command.params}


@pytest.mark.parametrize(
    ("words", "found"),
    [
        ("correct-flatfield --fov", "--fov-list"),
        ("correct-flatfield --execution ", "processes"),
        ("cor", "correct-background"),
    ],
)
def test_shells_complete(monkeypatch, capsys, words, found):
    monkeypatch.setenv("_MESOSPIM_SHADING_COMPLETE", "bash_complete")
    monkeypatch.setenv("COMP_WORDS", f"mesospim-shading {words}")
    monkeypatch.setenv("COMP_CWORD", str(len(words.split(" "))))
    cli.main([])
    assert f"plain,{found}" in capsys.readouterr().out.splitlines()


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_what_a_shell_reads(shell, capsys):
    assert cli.main(["completion", shell]) == 0
    assert f"_MESOSPIM_SHADING_COMPLETE={shell}_complete" in capsys.readouterr().out


@pytest.fixture
def background_asked(monkeypatch):
    """What `correct-background` hands over to the workflow."""
    calls = []

    def correct(url, options):
        calls.append(options)
        return JobResult("/made", url)

    monkeypatch.setattr(background, "correct_background", correct)
    return calls


@pytest.mark.parametrize(
    "words",
    [
        ["--method", "median:25"],
        ["--method", "median", "--radius", "25"],
        ["--method", '{"method": "median", "radius": 25}'],
        ["--params", "method.json", "--radius", "25"],
    ],
)
def test_a_method_and_its_radius(background_asked, tmp_path, monkeypatch, words):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "method.json").write_text('{"method": "median"}')
    assert cli.main(["correct-background", "/a.zarr", *words]) == 0
    ((method),) = [options.method for options in background_asked]
    assert (method.name, method.radius) == ("median", 25)


def test_a_radius_alone_is_that_of_the_default_method(background_asked):
    assert cli.main(["correct-background", "/a.zarr", "--radius", "16um"]) == 0
    method = background_asked[0].method
    assert (method.name, method.tile_size, method.radius_unit) == ("tile_median", 64, "micrometers")


def test_two_radii(background_asked, capsys):
    assert cli.main(["correct-background", "/a", "--method", "median:3", "--radius", "4"]) == 2
    assert "--radius was given, and the method median:3 has one" in capsys.readouterr().err


def test_help_lists_the_methods(capsys):
    assert cli.main(["correct-background", "--help"]) == 0
    text = capsys.readouterr().out
    for name in METHODS:
        assert f"\n  {name}" in text
    assert "median:25 " in text and "tophat" in text and "threshold:400" in text
