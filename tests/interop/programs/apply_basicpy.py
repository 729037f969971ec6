"""BaSiCPy applies a profile that it did not fit, and saves it as a model of its own.

Called with a `profiles.npz`, a .npy file of planes (n, y, x), a new folder for the model, and a
.npy file for what it makes of the planes. Prints JSON: the names of the files of the model.
"""

from __future__ import annotations

import json
import logging
import sys
from pathlib import Path

import numpy as np
from basicpy import BaSiC

KEYS = ("flatfield", "darkfield", "baseline")


def main(profiles: str, planes: str, folder: str, corrected: str) -> None:
    logging.disable(logging.CRITICAL)
    with np.load(profiles) as content:
        # Without a baseline it takes itself for one that was not fitted.
        model = BaSiC(**{name: np.atleast_1d(content[name]) for name in KEYS})
    np.save(corrected, np.asarray(model.transform(np.load(planes))))
    model.save_model(folder)
    print(json.dumps(sorted(path.name for path in Path(folder).iterdir())))


if __name__ == "__main__":
    main(*sys.argv[1:])
