"""What `ome_zarr info` says of images, and whether ome-zarr-models takes them for valid.

Called with addresses of images; prints JSON by address.
"""

from __future__ import annotations

import json
import sys
from contextlib import redirect_stdout
from io import StringIO
from typing import Any

import zarr
from ome_zarr.cli import main
from ome_zarr_models import open_ome_zarr


def look(url: str) -> dict[str, Any]:
    said = StringIO()
    with redirect_stdout(said):
        main(["info", url])
    group = zarr.open_group(url, mode="r")
    found = open_ome_zarr(group)
    kinds = {"": f"{type(found).__module__}.{type(found).__name__}"}
    if "labels" in group:
        for name in ("labels", *(f"labels/{label}" for label in group["labels"].group_keys())):
            model = open_ome_zarr(group[name])
            kinds[name] = f"{type(model).__module__}.{type(model).__name__}"
    return {"info": said.getvalue().splitlines(), "models": kinds}


if __name__ == "__main__":
    print(json.dumps({url: look(url) for url in sys.argv[1:]}))
