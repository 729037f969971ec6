"""A live Fractal server: started with the tasks of this package, and spoken to by its API.

Made anew: the wheel of the package, PostgreSQL, the server, and the environment that the server
makes for the tasks. The wheel is uploaded and installed by the server as any other. Shared, unless
it is asked otherwise: the packages that it needs, which pip finds where the tests have them
(`environment.shared_wheel`), since to install them again takes minutes and 1.6 GB
(`benchmarks/collection.py`).
"""

from __future__ import annotations

import json
import os
import secrets
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import requests
import zarr

from tests.support.fractal import keeper
from tests.support.fractal.environment import (
    SHARED,
    package_wheel,
    server_python,
    shared_wheel,
)

_TAKES_LISTS = (2, 21, 0)
"""First version that takes the tasks of a workflow as a list, and no other way."""

_COUNTS_WARNINGS = (2, 23, 2)
"""First version that counts the units in whose log the word stands."""


def history(image: str | Path) -> list[str]:
    """The tasks that an image is marked with, in their order."""
    mark: Any = zarr.open_group(image, mode="r").attrs["mesospim_shading"]
    assert mark["complete"] is True
    return [m["task"] for m in (*mark.get("history", ()), mark)]


@dataclass(frozen=True)
class Step:
    """A task of a workflow, by its name, and its arguments."""

    task: str
    arguments: dict[str, Any]


@dataclass(frozen=True)
class Seen:
    """What a user sees of a job that has ended.

    Attributes:
        status: of the job, `done` or `failed`.
        log: of the job.
        units: of each step, how many are `submitted`, `done` and `failed`.
        images: the image list of the dataset, by address.
        logs: of the units, by their file in the folder of the job.
        warnings: names of the logs for which a unit is shown as one with warnings.
    """

    status: str
    log: str
    units: list[dict[str, int]]
    images: dict[str, dict[str, Any]]
    logs: dict[str, str]
    warnings: list[str]


@dataclass(frozen=True)
class Server:
    """A live server, spoken to as its administrator.

    Attributes:
        url: where it listens.
        token: of the administrator.
        version: of the server.
        project_dir: where its images lie.
    """

    url: str
    token: str
    version: tuple[int, ...]
    project_dir: Path

    def call(self, method: str, path: str, expected: int = 200, **content: Any) -> Any:
        """The JSON that a call returns."""
        answer = requests.request(
            method,
            f"{self.url}/api/v2/{path}",
            headers={"Authorization": f"Bearer {self.token}"},
            timeout=60,
            **content,
        )
        assert answer.status_code == expected, f"{path}: {answer.status_code} {answer.text}"
        return answer.json() if answer.content else None

    def run(self, folder: str, images: list[Path], *steps: Step) -> Seen:
        """Run a workflow on the images of a folder, in a project of its own."""
        return self.dataset(folder, images).run(*steps)

    def dataset(self, folder: str, images: list[Path]) -> Dataset:
        """The images of a folder, in a project of its own."""
        number = self.call("POST", "project/", 201, json={"name": secrets.token_hex(4)})["id"]
        place = {"project_dir": str(self.project_dir), "zarr_subfolder": folder}
        made = self.call("POST", f"project/{number}/dataset/", 201, json={"name": "data", **place})
        dataset = Dataset(self, f"project/{number}", made["id"])
        for image in images:
            self.call("POST", dataset.images, 201, json={"zarr_url": str(image)})
        return dataset

    # --- Where the versions of the server differ ---------------------------------------

    def add_step(self, path: str, task: int, arguments: dict[str, Any]) -> int:
        """Add a task to a workflow; returns its number there."""
        parallel = self.call("GET", f"task/{task}/")["type"] == "parallel"
        kind = "args_parallel" if parallel else "args_non_parallel"
        if self.version >= _TAKES_LISTS:
            [step] = self.call("POST", path, 201, json=[{"task_id": task, kind: arguments}])
        else:
            step = self.call("POST", f"{path}?task_id={task}", 201, json={kind: arguments})
        return int(step["id"])

    def warnings(self, runs: list[dict[str, Any]], logs: dict[str, str]) -> list[str]:
        """Logs with the word; where the server counts them itself, it has to agree."""
        found = [name for name, log in logs.items() if "warning" in log.lower()]
        if self.version >= _COUNTS_WARNINGS:
            assert sum(run["num_units_with_warnings"] for run in runs) == len(found), logs
        return found


@dataclass(frozen=True)
class Dataset:
    """Images on which workflows run, one after the other.

    Attributes:
        server: that lists them.
        project: path of their project.
        number: of the dataset.
    """

    server: Server
    project: str
    number: int

    @property
    def images(self) -> str:
        """The path of the image list."""
        return f"{self.project}/dataset/{self.number}/images/"

    def run(self, *steps: Step) -> Seen:
        """Run a workflow, and wait for its end."""
        call = self.server.call
        name = secrets.token_hex(4)
        workflow = call("POST", f"{self.project}/workflow/", 201, json={"name": name})["id"]
        tasks = {task["name"]: task["id"] for task in call("GET", "task/")}
        path = f"{self.project}/workflow/{workflow}/wftask/"
        added = [self.server.add_step(path, tasks[step.task], step.arguments) for step in steps]
        submit = f"{self.project}/job/submit/?workflow_id={workflow}&dataset_id={self.number}"
        job = call("POST", submit, 202, json={})
        while job["status"] == "submitted":
            time.sleep(0.5)
            job = call("GET", f"{self.project}/job/{job['id']}/")
        status = f"{self.project}/status/run/?dataset_id={self.number}&workflowtask_id="
        runs = [call("GET", f"{status}{step}") for step in added]
        working = Path(job["working_dir"])
        logs = {str(p.relative_to(working)): p.read_text() for p in working.glob("*/*log.txt")}
        return Seen(
            job["status"],
            job["log"],
            [self._units(of_step) for of_step in runs],
            {i["zarr_url"]: i for i in call("POST", f"{self.images}query/", json={})["items"]},
            logs,
            self.server.warnings([run for of_step in runs for run in of_step], logs),
        )

    @staticmethod
    def _units(runs: list[dict[str, Any]]) -> dict[str, int]:
        """How many units of a step have come how far."""
        names = ("submitted", "done", "failed")
        return {name: sum(run[f"num_{name}_units"] for run in runs) for name in names}


@contextmanager
def live_server(folder: Path, shared: bool = True) -> Iterator[Server]:
    """A server with the tasks of this package.

    Args:
        folder: where its files lie.
        shared: whether the tasks see the packages of the tests; otherwise they are installed anew.
    """
    python = server_python()
    project_dir = folder / "data"
    project_dir.mkdir()
    dist = folder / "dist"
    wheel = package_wheel(dist)
    shared_wheel(folder / "shared")
    login = {"username": "admin@example.org", "password": secrets.token_hex(8)}
    _write_configuration(folder)
    first = {
        "resource": "resource.json",
        "profile": "profile.json",
        "admin-email": login["username"],
        "admin-pwd": login["password"],
        "admin-project-dir": str(project_dir),
    }
    links = f"{folder / 'shared'} {os.environ.get('PIP_FIND_LINKS', '')}".strip()
    environment = {
        **os.environ,
        "JWT_SECRET_KEY": secrets.token_hex(16),
        "JWT_EXPIRE_SECONDS": "7200",
        "PIP_FIND_LINKS": links,
    }
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    with open(folder / "server.log", "w") as log:
        words = [python, keeper.__file__, folder, str(port), json.dumps(first)]
        process = subprocess.Popen(
            words,
            env=environment,
            stdin=subprocess.PIPE,
            stdout=log,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        try:
            url = f"http://127.0.0.1:{port}"
            version = _wait_until_alive(url, process, Path(log.name))
            answer = requests.post(f"{url}/auth/token/login/", data=login, timeout=60)
            server = Server(url, answer.json()["access_token"], version, project_dir)
            _collect(server, wheel, {SHARED: "0"} if shared else {})
            yield server
        finally:
            process.communicate(timeout=120)


def _write_configuration(folder: Path) -> None:
    """The files that say where the server runs the tasks: here."""
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


def _wait_until_alive(url: str, process: subprocess.Popen[bytes], log: Path) -> tuple[int, ...]:
    """The version of the server, as soon as it answers."""
    while process.poll() is None:
        try:
            answer = requests.get(f"{url}/api/alive/", timeout=10)
        except requests.ConnectionError:
            time.sleep(0.5)
        else:
            return tuple(int(part) for part in answer.json()["version"].split(".")[:3])
    raise AssertionError(f"the server did not start: {log.read_text()[-3000:]}")


def _collect(server: Server, wheel: Path, before: dict[str, str]) -> None:
    """Upload the wheel, and wait until the server has installed it, after some other packages."""
    with open(wheel, "rb") as file:
        activity = server.call(
            "POST",
            "task/collect/pip/",
            202,
            files={"file": (wheel.name, file)},
            data={"pinned_package_versions_pre": json.dumps(before)},
        )
    while activity["status"] in ("pending", "ongoing"):
        time.sleep(1)
        activity = server.call("GET", f"task-group/activity/{activity['id']}/")
    assert activity["status"] == "OK", activity["log"]
