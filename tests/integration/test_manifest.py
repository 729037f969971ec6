"""The manifest of the package is that of its code."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import jsonschema
import pytest

import fractal_mesospim_shading
from tests.support.fractal.form import not_drawn

ROOT = Path(__file__).parents[2]
PACKAGE = Path(fractal_mesospim_shading.__file__).parent
MANIFEST = PACKAGE / "__FRACTAL_MANIFEST__.json"


def test_manifest_is_up_to_date():
    code = (
        "import sys; from fractal_task_tools._cli import main;"
        "sys.argv = ['fractal-manifest', 'check', '--package', 'fractal_mesospim_shading']; main()"
    )
    run = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, check=False
    )
    assert run.returncode == 0, run.stdout + run.stderr


def test_the_file_at_the_top_is_a_link_to_that_of_the_package():
    link = ROOT / "__FRACTAL_MANIFEST__.json"
    assert link.is_symlink()
    assert not Path(os.readlink(link)).is_absolute()
    assert json.loads(link.read_text()) == json.loads(MANIFEST.read_text())


def test_what_a_server_looks_at():
    manifest = json.loads(MANIFEST.read_text())
    assert manifest["manifest_version"] == "2"
    assert manifest["args_schema_version"] == "fractal_schema_v1"
    assert manifest["has_args_schemas"] is True
    tasks = {task["name"]: task for task in manifest["task_list"]}
    assert len(tasks) == len(manifest["task_list"])
    for task in tasks.values():
        for key in ("executable_parallel", "executable_non_parallel"):
            if key in task:
                assert (PACKAGE / task[key]).is_file()
        assert task["category"]
        assert task["modality"]
        assert len(set(task["tags"])) == len(task["tags"])
        assert task["docs_info"]
    flatfield = tasks["Correct Flat-Field"]
    assert flatfield["type"] == "parallel"
    assert flatfield["input_types"] == {"flatfield_corrected": False}
    assert flatfield["output_types"] == {"flatfield_corrected": True}


SCHEMAS = {
    f"{task['name']}, {key.removeprefix('args_schema_')}": task[key]
    for task in json.loads(MANIFEST.read_text())["task_list"]
    for key in ("args_schema_parallel", "args_schema_non_parallel")
    if key in task
}


@pytest.mark.parametrize("name", SCHEMAS)
def test_the_web_form_draws_and_explains_every_argument(name):
    jsonschema.Draft202012Validator.check_schema(SCHEMAS[name])
    assert "Missing description" not in json.dumps(SCHEMAS[name])
    assert not_drawn(SCHEMAS[name]) == []
    # What the page shows at first is a value that the schema takes.
    for entry in SCHEMAS[name]["properties"].values():
        if "default" in entry:
            whole = {**entry, "$defs": SCHEMAS[name].get("$defs", {})}
            jsonschema.Draft202012Validator(whole).validate(entry["default"])


_TEXT = {"title": "A", "description": "b", "default": "c"}


@pytest.mark.parametrize(
    ("entry", "fault"),
    [
        ({"type": "string", "title": "A", "default": "c"}, "no description"),
        ({"type": "string", "description": "b", "default": "c"}, "no title"),
        ({"type": "string", "title": "A", "description": "b"}, "neither a default nor required"),
        ({**_TEXT, "type": "string", "default": ""}, "empty text"),
        ({"type": "boolean", "title": "A", "description": "b"}, "switch without a default"),
        ({**_TEXT, "anyOf": [{"type": "integer"}, {"type": "string"}]}, "several kinds"),
        ({**_TEXT, "anyOf": [{"enum": ["a"]}, {"type": "null"}]}, "may be unset"),
        ({**_TEXT, "enum": ["a", 1]}, "of several kinds"),
        ({**_TEXT, "enum": ["a", 0]}, "empty value"),
        ({**_TEXT, "oneOf": [{"title": "A"}, {"title": "B"}]}, "tells them apart"),
        (
            {**_TEXT, "oneOf": [{"title": "A"}] * 2, "discriminator": {"propertyName": "a"}},
            "titles of their own",
        ),
        ({**_TEXT, "type": "object"}, "unknown content"),
        ({**_TEXT, "type": "object", "additionalProperties": {"type": "boolean"}}, "switches by"),
        ({**_TEXT, "type": "array"}, "no kind"),
        ({**_TEXT, "type": "array", "prefixItems": [{"type": "boolean"}]}, "number of switches"),
        ({**_TEXT, "$ref": "#/$defs/Model"}, "inner: no description"),
        (_TEXT, "no kind"),
    ],
)
def test_what_the_web_form_cannot_draw_is_noticed(entry, fault):
    model = {"type": "object", "properties": {"inner": {"title": "I", "type": "string"}}}
    schema = {"properties": {"argument": entry}, "$defs": {"Model": model}}
    assert any(fault in line for line in not_drawn(schema)), not_drawn(schema)


def test_what_a_server_writes_passes_the_schema():
    task = next(
        task
        for task in json.loads(MANIFEST.read_text())["task_list"]
        if task["name"] == "Correct Flat-Field"
    )
    schema = task["args_schema_parallel"]
    jsonschema.validate(
        {"zarr_url": "/a.zarr", "fov_list": [1, 9], "z_levels": [4, 60], "camera_offset": 100.5},
        schema,
    )
    assert "storage_options" not in schema["properties"]
    assert schema["required"] == ["zarr_url"]
