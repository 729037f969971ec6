"""The manifest of the package is that of its code."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import jsonschema

import fractal_mesospim_shading

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


def test_every_argument_is_described():
    for task in json.loads(MANIFEST.read_text())["task_list"]:
        for key in ("args_schema_parallel", "args_schema_non_parallel"):
            schema = task.get(key)
            if schema is None:
                continue
            jsonschema.Draft202012Validator.check_schema(schema)
            for name, entry in schema["properties"].items():
                assert "Missing description" not in json.dumps(entry), name
                assert entry.get("description"), name


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
