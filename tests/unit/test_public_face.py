"""What the package gives to Python: complete, typed, and nothing else."""

from __future__ import annotations

import inspect
import subprocess
import sys
from collections.abc import Mapping, Sequence
from typing import Any, Literal, get_args, get_origin, get_type_hints

import pytest
from pydantic import BaseModel

import fractal_mesospim_shading as shading
from fractal_mesospim_shading import errors
from fractal_mesospim_shading.options import background, base, flatfield
from fractal_mesospim_shading.options.base import ExecutionOptions, OutputOptions
from fractal_mesospim_shading.options.flatfield import EstimationOptions
from fractal_mesospim_shading.options.values import ParameterError, combined

PAIRS = [
    (OutputOptions, base.OutputArguments),
    (ExecutionOptions, base.ExecutionArguments),
    (EstimationOptions, flatfield.EstimationArguments),
    (shading.FlatfieldOptions, flatfield.FlatfieldArguments),
    (shading.BackgroundOptions, background.BackgroundArguments),
    (shading.ImportOptions, flatfield.ImportArguments),
]
DOORS = {
    "correct_flatfield": shading.FlatfieldOptions,
    "estimate_flatfield": shading.FlatfieldOptions,
    "correct_background": shading.BackgroundOptions,
    "import_mesospim": shading.ImportOptions,
}


def _parts(kind: Any) -> set[Any]:
    """The members of a union, without what pydantic has to say of them."""
    if hasattr(kind, "__metadata__"):
        return _parts(get_args(kind)[0])
    inner = get_args(kind)
    if inner and get_origin(kind) not in (Literal, list, dict, Sequence, Mapping):
        return set().union(*map(_parts, inner))
    return {kind}


def _accepted(kind: Any) -> set[Any]:
    """What may be given for a field of this type."""
    models = {
        part for part in _parts(kind) if isinstance(part, type) and issubclass(part, BaseModel)
    }
    wider: dict[Any, set[Any]] = {
        list[int]: {Sequence[int], str},
        list[str]: {Sequence[str]},
        dict[str, Any]: {Mapping[str, Any], str},
        dict[str, str]: {Mapping[str, str], Sequence[str], str},
    }
    given = set().union(*(wider.get(part, {part}) for part in _parts(kind) - models))
    if models:
        given |= {Mapping[str, Any], str, models.pop() if len(models) == 1 else BaseModel}
    return given


@pytest.mark.parametrize(("model", "typed"), PAIRS, ids=lambda item: item.__name__)
def test_arguments_are_the_fields_of_the_options(model, typed):
    hints = get_type_hints(typed)
    assert hints.keys() == model.model_fields.keys()
    assert not typed.__required_keys__
    fields = get_type_hints(model)
    for name, kind in hints.items():
        assert _parts(kind) == _accepted(fields[name]), name


@pytest.mark.parametrize("door", DOORS)
def test_a_function_takes_the_options_as_an_object_or_by_name(door):
    function = getattr(shading, door)
    parameters = inspect.signature(function).parameters
    assert parameters["options"].annotation == f"{DOORS[door].__name__} | None"
    typed = DOORS[door].__name__.replace("Options", "Arguments")
    assert parameters["arguments"].annotation == f"Unpack[{typed}]"
    with pytest.raises(ParameterError, match="`?options.*expected .*Options"):
        given = [p for p in parameters.values() if p.kind is not p.VAR_KEYWORD]
        needed = [p for p in given if p.default is p.empty]
        function(*["nowhere"] * len(needed), options={"overwrite": True})


def test_arguments_go_before_the_object():
    options = shading.FlatfieldOptions(fov_list=[1, 9], overwrite=True, seed=0)
    both = combined(shading.FlatfieldOptions, options, {"fov_list": "2,3", "report": False})
    assert (both.fov_list, both.overwrite, both.report) == ([2, 3], True, False)
    assert both.model_fields_set == {"fov_list", "overwrite", "report", "seed"}
    assert combined(shading.FlatfieldOptions, options, {}) == options
    with pytest.raises(ParameterError, match="no such parameter"):
        combined(shading.FlatfieldOptions, options, {"fov_lst": [1]})


def test_what_is_public_is_seen_and_nothing_else():
    assert dir(shading) == sorted(shading.__all__)
    for name in shading.__all__:
        assert getattr(shading, name) is not None
    kinds = {name for name, kind in vars(errors).items() if inspect.isclass(kind)}
    ours = {name for name in kinds if issubclass(getattr(errors, name), errors.ShadingError)}
    assert ours <= set(shading.__all__)
    with pytest.raises(AttributeError, match="no attribute 'correct_flatfeild'"):
        shading.correct_flatfeild  # noqa: B018


@pytest.mark.slow
def test_a_type_checker_sees_wrong_arguments(tmp_path):
    pytest.importorskip("mypy")
    (tmp_path / "right.py").write_text(
        "from fractal_mesospim_shading import FlatfieldOptions, correct_flatfield\n"
        "result = correct_flatfield('a', FlatfieldOptions(seed=1), fov_list=[1, 9], seed=3)\n"
        "url: str = result.image_url\n"
    )
    (tmp_path / "wrong.py").write_text(
        "from fractal_mesospim_shading import correct_flatfield, import_mesospim\n"
        "correct_flatfield('a', fov_lst=[1])\n"
        "correct_flatfield('a', seed='x')\n"
        "import_mesospim('a', 'b', levels=[1])\n"
    )
    command = [sys.executable, "-m", "mypy", "--follow-imports=silent", "--no-error-summary"]
    files = [str(tmp_path / "right.py"), str(tmp_path / "wrong.py")]
    run = subprocess.run([*command, *files], capture_output=True, text=True, cwd=tmp_path)
    lines = run.stdout.splitlines()
    assert [line.split(":")[1] for line in lines if ": error:" in line] == ["2", "3", "4"], (
        run.stdout
    )
    assert all(line.startswith("wrong.py") for line in lines if ": error:" in line)
