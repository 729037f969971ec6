"""BaSiCPy loads a model of ours as one of its own, and applies it.

Called with the folder of a channel, a .npy file of planes (n, y, x), and a .npy file for what it
makes of them. Prints JSON: how many planes its baseline is of.
"""

from __future__ import annotations

import json
import logging
import sys

import numpy as np
from basicpy import BaSiC


def main(folder: str, planes: str, corrected: str) -> None:
    logging.disable(logging.CRITICAL)
    model = BaSiC.load_model(folder)
    np.save(corrected, np.asarray(model.transform(np.load(planes))))
    print(json.dumps(len(model.baseline)))


if __name__ == "__main__":
    main(*sys.argv[1:])
