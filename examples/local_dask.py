"""Correct an image on a Dask cluster that you start yourself, here on this computer.

The same lines serve any other Dask cluster: only the address of its scheduler counts.
All workers have to see the image under the same address.

    python local_dask.py IMAGE
"""

from __future__ import annotations

import sys

from distributed import LocalCluster

from fractal_mesospim_shading import correct_flatfield


def main(image: str) -> None:
    """Start two workers, correct, and stop them."""
    with LocalCluster(n_workers=2, threads_per_worker=1, dashboard_address=None) as cluster:
        result = correct_flatfield(
            image,
            z_levels=[2, 9],
            execution="dask",
            scheduler_address=cluster.scheduler_address,
            overwrite=True,
        )
    print("Corrected image:", result.image_url)


# The workers are processes that import this file: without this guard each of them would
# start a cluster of its own.
if __name__ == "__main__":
    main(sys.argv[1])
