"""The tasks on a live Fractal server with its local runner.

This needs an environment with fractal-server, named by MESOSPIM_SHADING_FRACTAL_SERVER (the
folder of the environment), and a PostgreSQL server on which databases may be made, named
by PGHOST, PGPORT and PGUSER. The server gets a wheel of this package and installs it
with everything that it needs, so this takes some minutes.
"""

from __future__ import annotations

import json
import os
import re
import secrets
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import zarr

from fractal_mesospim_shading.synthetic.demo import write_mosaic
from fractal_mesospim_shading.synthetic.world import LightSheetWorld
from tests.support.acquisition import grid_stacks, write_acquisition
from tests.support.acquisition_table import SyntheticSettings

ENVIRONMENT = "MESOSPIM_SHADING_FRACTAL_SERVER"
ROOT = Path(__file__).parents[2]
PACKAGE = "fractal-mesospim-shading"
WORLD = LightSheetWorld(tile_shape=(96, 96), planes=12, sample_radius=0.4)

pytestmark = [
    pytest.mark.server,
    pytest.mark.skipif(
        ENVIRONMENT not in os.environ,
        reason=f"{ENVIRONMENT} names no environment with fractal-server",
    ),
    pytest.mark.timeout(1800),
    # The server is started once, so all of this goes to one process.
    pytest.mark.xdist_group("fractal-server"),
]


@dataclass(frozen=True)
class Server:
    """A live server, spoken to as its administrator."""

    url: str
    token: str
    project_dir: Path

    def call(self, method: str, path: str, expected: int = 200, **content: Any) -> Any:
        """The JSON that a call returns."""
        import requests

        answer = requests.request(
            method,
            f"{self.url}/api/v2/{path}",
            headers={"Authorization": f"Bearer {self.token}"},
            timeout=60,
            **content,
        )
        assert answer.status_code == expected, f"{path}: {answer.status_code} {answer.text}"
        return answer.json() if answer.content else None

    def run(self, task: str, folder: str, images: list[Path], **arguments: Any) -> dict[str, Any]:
        """Run one task in a project of its own; returns all that can be seen of it."""
        project = self.call("POST", "project/", 201, json={"name": secrets.token_hex(4)})["id"]
        dataset = self.call(
            "POST",
            f"project/{project}/dataset/",
            201,
            json={
                "name": "data",
                "project_dir": str(self.project_dir),
                "zarr_subfolder": folder,
            },
        )
        place = f"project/{project}/dataset/{dataset['id']}/images/"
        for image in images:
            self.call("POST", place, 201, json={"zarr_url": str(image)})
        workflow = self.call("POST", f"project/{project}/workflow/", 201, json={"name": "flow"})
        [found] = [t for t in self.call("GET", "task/") if t["name"] == task]
        kind = "args_non_parallel" if task.startswith("Import") else "args_parallel"
        [step] = self.call(
            "POST",
            f"project/{project}/workflow/{workflow['id']}/wftask/",
            201,
            json=[{"task_id": found["id"], kind: arguments}],
        )
        job = self.call(
            "POST",
            f"project/{project}/job/submit/?workflow_id={workflow['id']}&dataset_id={dataset['id']}",
            202,
            json={},
        )
        while job["status"] == "submitted":
            time.sleep(1)
            job = self.call("GET", f"project/{project}/job/{job['id']}/")
        listed = self.call("POST", place + "query/?page_size=100", json={})["items"]
        runs = self.call(
            "GET",
            f"project/{project}/status/run/?dataset_id={dataset['id']}&workflowtask_id={step['id']}",
        )
        logs = {path.name: path.read_text() for path in Path(job["working_dir"]).glob("*/*log.txt")}
        return {
            "status": job["status"],
            "log": job["log"],
            "images": {image["zarr_url"]: image for image in listed},
            "warnings": sum(run["num_units_with_warnings"] for run in runs),
            "logs": logs,
        }


def run_command(*words: Any, **settings: Any) -> str:
    done = subprocess.run(
        [str(word) for word in words], capture_output=True, text=True, check=False, **settings
    )
    assert done.returncode == 0, f"{words}: {done.stdout[-2000:]}{done.stderr[-2000:]}"
    return done.stdout


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A server with the tasks of this package."""
    folder = tmp_path_factory.mktemp("fractal")
    project_dir = folder / "data"
    project_dir.mkdir()
    database = f"shading_{secrets.token_hex(4)}"
    run_command("createdb", database)
    environment = {
        **os.environ,
        "POSTGRES_HOST": os.environ.get("PGHOST", "127.0.0.1"),
        "POSTGRES_PORT": os.environ.get("PGPORT", "5432"),
        "POSTGRES_USER": os.environ.get("PGUSER", "postgres"),
        "POSTGRES_DB": database,
        "JWT_SECRET_KEY": secrets.token_hex(16),
        "JWT_EXPIRE_SECONDS": "7200",
    }
    control = Path(os.environ[ENVIRONMENT], "bin", "fractalctl")
    version = f"{sys.version_info[0]}.{sys.version_info[1]}"
    resource = {
        "name": "here",
        "type": "local",
        "jobs_local_dir": str(folder / "jobs"),
        "tasks_local_dir": str(folder / "tasks"),
        "tasks_python_config": {
            "default_version": version,
            "versions": {version: os.path.realpath(sys.executable)},
        },
        "jobs_poll_interval": 0,
        "jobs_runner_config": {},
        "tasks_pixi_config": {},
    }
    (folder / "resource.json").write_text(json.dumps(resource))
    (folder / "profile.json").write_text(json.dumps({"resource_type": "local", "name": "here"}))
    login = {"username": "admin@example.org", "password": secrets.token_hex(8)}
    settings = {"cwd": folder, "env": environment}
    run_command(control, "set-db", **settings)
    run_command(
        *(control, "init-db-data", "--resource", "resource.json", "--profile", "profile.json"),
        *("--admin-email", login["username"], "--admin-pwd", login["password"]),
        *("--admin-project-dir", project_dir),
        **settings,
    )
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    with open(folder / "server.log", "w") as log:
        process = subprocess.Popen(
            [control, "start", "--host", "127.0.0.1", "--port", str(port)],
            **settings,
            stdout=log,
            stderr=subprocess.STDOUT,
        )
    try:
        url = f"http://127.0.0.1:{port}"
        alive = Server(url, _login(url, login), project_dir)
        _collect(alive, folder)
        yield alive
    finally:
        process.terminate()
        process.wait(60)
        subprocess.run(["dropdb", "--force", database], check=False)


def _login(url: str, login: dict[str, str]) -> str:
    import requests

    for _ in range(60):
        try:
            answer = requests.post(f"{url}/auth/token/login/", data=login, timeout=10)
            return str(answer.json()["access_token"])
        except requests.ConnectionError:
            time.sleep(1)
    pytest.fail("the server did not start")


def _collect(server: Server, folder: Path) -> None:
    """Give the server a wheel of the package, and wait until it has installed it."""
    pip = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps"]
    run_command(*pip, "--wheel-dir", folder / "dist", ROOT)
    [wheel] = (folder / "dist").glob("*.whl")
    with open(wheel, "rb") as file:
        activity = server.call("POST", "task/collect/pip/", 202, files={"file": (wheel.name, file)})
    while activity["status"] in ("pending", "ongoing"):
        time.sleep(2)
        activity = server.call("GET", f"task-group/activity/{activity['id']}/")
    assert activity["status"] == "OK", activity["log"]


@pytest.fixture
def image(server: Server, request: pytest.FixtureRequest) -> Path:
    """A mosaic within a folder of its own below the project's."""
    folder = re.sub(r"\W", "_", request.node.name)
    path = server.project_dir / folder / "brain.zarr" / "raw_image"
    path.parent.mkdir(parents=True)
    zarr.open_group(path.parent, mode="w", zarr_format=2)
    write_mosaic(path, WORLD, ["488 nm"], chunks=(4, 96, 96))
    return path


def test_all_tasks_are_collected(server: Server) -> None:
    names = {task["name"] for task in server.call("GET", "task/")}
    assert {"Correct Flat-Field", "Correct Background", "Import mesoSPIM OME-Zarr"} <= names


@pytest.mark.parametrize(
    "arguments",
    [
        pytest.param({"fov_list": [1, 3, 7, 9]}, id="empty tiles"),
        pytest.param({}, id="BaSiCPy"),
    ],
)
def test_a_corrected_image_is_listed_without_a_mark(
    server: Server, image: Path, arguments: dict[str, Any]
) -> None:
    seen = server.run("Correct Flat-Field", image.parts[-3], [image], **arguments)
    assert seen["status"] == "done", seen["log"]
    result = image.with_name("raw_image_flatfield_corr")
    assert set(seen["images"]) == {str(image), str(result)}
    listed = seen["images"][str(result)]
    assert listed["types"] == {"flatfield_corrected": True}
    assert listed["origin"] == str(image)
    assert seen["warnings"] == 0, seen["logs"]
    attributes: Any = zarr.open_group(result, mode="r").attrs.asdict()
    assert attributes["mesospim_shading"]["complete"] is True
    if arguments:
        corner = np.asarray(zarr.open_array(result / "0", mode="r")[0, :, :96, :96]).mean(axis=0)
        assert np.std(corner.reshape(8, 12, 8, 12).mean(axis=(1, 3))) < 0.05 * corner.mean()


def test_a_background_is_taken_away(server: Server, image: Path) -> None:
    seen = server.run(
        "Correct Background",
        image.parts[-3],
        [image],
        method={"method": "median", "radius": 12},
        save_background=True,
    )
    assert seen["status"] == "done", seen["log"]
    assert seen["warnings"] == 0, seen["logs"]
    result = image.with_name("raw_image_background_corr")
    assert seen["images"][str(result)]["types"] == {"background_corrected": True}
    assert zarr.open_array(result / "0", mode="r").dtype == np.float32


def test_both_corrections_of_one_pass_are_listed(server: Server, image: Path) -> None:
    """The types of an update go beside those that the manifest declares for the task.

    The server keeps what a task returns, and lays the declared types over it: what the
    manifest does not name stays. A task that wants images without a background corrected then
    finds none.
    """
    options = {"fov_list": [1, 3, 7, 9], "camera_offset": 100}
    both = {"method": {"method": "median", "radius": 12}}
    seen = server.run("Correct Flat-Field", image.parts[-3], [image], background=both, **options)
    assert seen["status"] == "done", seen["log"]
    assert seen["warnings"] == 0, seen["logs"]
    result = image.with_name("raw_image_flatfield_corr_background_corr")
    listed = seen["images"][str(result)]
    assert listed["types"] == {"flatfield_corrected": True, "background_corrected": True}
    assert listed["origin"] == str(image)
    attributes: Any = zarr.open_group(result, mode="r").attrs.asdict()
    mark = attributes["mesospim_shading"]
    assert mark["complete"] is True
    assert [m["task"] for m in (*mark["history"], mark)] == [
        "correct_flatfield",
        "correct_background",
    ]
    again = server.run("Correct Flat-Field", image.parts[-3], [image], **options)
    assert again["status"] == "done", again["log"]
    alone = again["images"][str(image.with_name("raw_image_flatfield_corr"))]
    assert alone["types"] == {"flatfield_corrected": True}


def test_a_run_that_fails_leaves_the_list_alone(server: Server, image: Path) -> None:
    seen = server.run("Correct Flat-Field", image.parts[-3], [image], z_levels=[4, 60])
    assert seen["status"] == "failed"
    assert "z_levels" in seen["log"] or "60" in seen["log"]
    assert set(seen["images"]) == {str(image)}
    assert sorted(path.name for path in image.parent.iterdir() if path.is_dir()) == ["raw_image"]


def test_an_import_lists_the_mosaic(
    server: Server, request: pytest.FixtureRequest, tmp_path: Path
) -> None:
    settings = SyntheticSettings()
    stacks = grid_stacks(2, 2, settings)
    container = write_acquisition(tmp_path, "brain.ome.zarr", stacks, settings)
    seen = server.run(
        "Import mesoSPIM OME-Zarr", request.node.name, [], containers=[str(container)]
    )
    assert seen["status"] == "done", seen["log"]
    assert seen["warnings"] == 0, seen["logs"]
    [listed] = seen["images"].values()
    assert listed["types"]["flatfield_corrected"] is False
    assert zarr.open_group(listed["zarr_url"], mode="r")["0"].ndim == 4


def test_an_import_with_both_corrections_lists_both(
    server: Server, request: pytest.FixtureRequest, tmp_path: Path
) -> None:
    settings = SyntheticSettings()
    container = write_acquisition(tmp_path, "brain.ome.zarr", grid_stacks(2, 2, settings), settings)
    seen = server.run(
        "Import mesoSPIM OME-Zarr",
        request.node.name,
        [],
        containers=[str(container)],
        correct_flatfield=True,
        camera_offset=100,
        fov_list=[1, 4],
        background={"method": {"method": "tile_median", "tile_size": 16}},
    )
    assert seen["status"] == "done", seen["log"]
    [listed] = seen["images"].values()
    assert Path(listed["zarr_url"]).name == "raw_image_flatfield_corr_background_corr"
    types = {"is_3D": True, "flatfield_corrected": True, "background_corrected": True}
    assert listed["types"] == types
