"""Correct an image with Dask workers that run as SLURM jobs.

Run it on a node that may submit jobs and stays up, best inside a small job of its own:

    pip install 'fractal-mesospim-shading[slurm]'
    python slurm_dask.py /shared/brain.zarr/raw_image

    python slurm_dask.py --script        # only shows the job script of one worker

This process estimates the flat-fields and hands out the blocks; the workers read,
correct and write. The image has to lie on a file system that all nodes share.

Where the defaults of your site (`~/.config/dask/jobqueue.yaml`) say everything already,
`correct_flatfield(image, execution="slurm", n_workers=4)` does the same in one line.
"""

from __future__ import annotations

import sys

from dask_jobqueue import SLURMCluster
from distributed import Client

from fractal_mesospim_shading import correct_flatfield

JOBS = 4


def make_cluster() -> SLURMCluster:
    """A cluster of SLURM jobs; edit queue, account and sizes."""
    return SLURMCluster(
        queue="standard",
        account="imaging",
        # One process a job, with a thread for each processor. Each thread has one block in
        # flight: give it 3 times the size of a chunk (or shard), and half a GB for the rest.
        cores=4,
        processes=1,
        memory="16GB",
        # A job that ends takes its blocks along, and the run stops. Nothing finished is
        # lost: the same command goes on. But do ask for enough; the default is 30 minutes.
        walltime="08:00:00",
        # Freed memory is used again, which the workers' C library has to be told at its start.
        job_script_prologue=["export GLIBC_TUNABLES=glibc.malloc.arena_max=1"],
        # A worker that dies shall be seen, and not be started again by its nanny.
        nanny=False,
        worker_extra_args=["--no-dashboard"],
        # Waiting in the queue can take longer than a minute.
        death_timeout=600,
        log_directory="slurm_logs",
        scheduler_options={"dashboard": False},
    )


def main(image: str) -> None:
    """Start the jobs, correct, and end them."""
    with make_cluster() as cluster, Client(cluster) as client:
        cluster.scale(jobs=JOBS)
        # However long the queue is. Jobs that start later join in.
        client.wait_for_workers(1)
        result = correct_flatfield(
            image,
            z_levels=[50, 600],
            execution="dask",
            scheduler_address=cluster.scheduler_address,
        )
    print("Corrected image:", result.image_url)


if __name__ == "__main__":
    if sys.argv[1:] == ["--script"]:
        with make_cluster() as shown:
            print(shown.job_script())
    else:
        main(sys.argv[1])
