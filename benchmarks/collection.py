"""How long a Fractal server takes to collect the package, and how large its environment is.

    python benchmarks/collection.py --folder /somewhere/with/3/GB

The server is started from nothing, as in the tests (`CONTRIBUTING.md` says of which version), with
the Python that runs this program. The wheel is uploaded, and the server installs it with all that
it needs into a new environment. The time is what the server has noted from the beginning to the
end of the collection; it depends on where pip finds its packages. As JSON in the last line.
"""

from __future__ import annotations

import argparse
import json
import platform
import sys
import tempfile
from datetime import datetime
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

from tests.support.fractal.server import live_server


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--folder", help="for temporary files; default: the system's")
    given = parser.parse_args()
    with (
        tempfile.TemporaryDirectory(dir=given.folder) as folder,
        live_server(Path(folder), shared=False) as server,
    ):
        [activity] = server.call("GET", "task-group/activity/")
        group = server.call("GET", f"task-group/{activity['taskgroupv2_id']}/")
        began, ended = (
            datetime.fromisoformat(activity[f"timestamp_{when}"]) for when in ("started", "ended")
        )
        files = [path for path in Path(group["venv_path"]).rglob("*") if path.is_file()]
        summary = {
            "server": ".".join(map(str, server.version)),
            "python": platform.python_version(),
            "seconds": (ended - began).total_seconds(),
            "megabytes": sum(path.stat().st_size for path in files) / 1e6,
            "files": len(files),
        }
    print(
        "fractal-server {server}, Python {python}: collected in {seconds:.0f} s, "
        "{megabytes:.0f} MB in {files} files".format_map(summary)
    )
    print(json.dumps(summary))


if __name__ == "__main__":
    main()
