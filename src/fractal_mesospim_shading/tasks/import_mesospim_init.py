"""First half of the Fractal task "Import mesoSPIM OME-Zarr": what is there, and is all well?"""

from __future__ import annotations

from typing import Any

from fractal_mesospim_shading.jobs import importing
from fractal_mesospim_shading.options.flatfield import ImportTaskOptions
from fractal_mesospim_shading.tasks.door import run_as_program, task_arguments


@task_arguments(ImportTaskOptions, {"zarr_dir": "Folder of the imported images."})
def import_mesospim_init(zarr_dir: str, options: ImportTaskOptions) -> dict[str, Any]:
    """Import native mesoSPIM acquisitions as mosaics with tables of tiles.

    Reads the containers that mesoSPIM-control writes, with one group for each tile and
    channel, and writes one image for each angle, in one pass, with or without flat-field
    correction. The acquisition is not changed.
    """
    chosen = options.import_options()
    units = importing.plan_imports(options.containers, zarr_dir, chosen)
    return {
        "parallelization_list": [
            {
                "zarr_url": unit.zarr_url,
                "init_args": {
                    "container": unit.container,
                    "suffix": unit.suffix,
                    "options": chosen.model_dump(mode="json", exclude_unset=True),
                },
            }
            for unit in units
        ]
    }


if __name__ == "__main__":
    run_as_program(import_mesospim_init)
