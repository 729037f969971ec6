"""The child process of `basic`: reads planes, fits, writes the result.

A program for any Python with BaSiCPy and NumPy: it imports nothing of this package.
"""

from __future__ import annotations

import json
import os
import sys
from typing import Any


def main(source: str, target: str, places: str) -> None:
    """Fit the planes of one file and write the result to another.

    An error ends the process with the cause on one line, which the parent shows.

    Args:
        source: .npz file of planes and parameters.
        target: .npz file of the fit.
        places: folders in which modules are looked for as well, as a JSON list.
    """
    sys.excepthook = _report
    sys.path.extend(json.loads(places))
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
    # Libraries with threads of their own look at the CPUs when they are imported.
    import numpy as np

    with np.load(source, allow_pickle=False) as given:
        planes, parameters = given["planes"], json.loads(str(given["parameters"]))
    # The planes have the working size already.
    parameters["working_size"] = None
    model = _fit(planes, parameters)
    np.savez(
        target,
        flatfield=np.asarray(model.flatfield, dtype=np.float32),
        darkfield=np.asarray(model.darkfield, dtype=np.float32),
        baseline=np.asarray(model.baseline, dtype=np.float32),
    )


def _report(kind: type[BaseException], error: BaseException, trace: object) -> None:
    text = " ".join(str(error).split())
    sys.stderr.write(f"{kind.__name__}: {text}\n")


def _fit(planes: Any, parameters: dict[str, Any]) -> Any:
    from basicpy import BaSiC

    model = BaSiC(**parameters)
    model.fit(planes, skip_shape_warning=True)
    return model


if __name__ == "__main__":
    main(*sys.argv[1:])
