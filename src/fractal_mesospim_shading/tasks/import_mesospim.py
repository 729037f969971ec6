"""Second half of the Fractal task "Import mesoSPIM OME-Zarr": one image."""

from __future__ import annotations

if __name__ == "__main__":
    # Before NumPy starts its threads.
    from fractal_mesospim_shading.core.threads import use_one_arena

    use_one_arena()

from typing import Any

from fractal_mesospim_shading.jobs import importing
from fractal_mesospim_shading.jobs.work import image_list_update
from fractal_mesospim_shading.options.flatfield import ImportUnitOptions
from fractal_mesospim_shading.tasks.door import run_as_program, task_arguments


@task_arguments(
    ImportUnitOptions,
    {
        "zarr_url": "Address of the imported image.",
        "init_args": "What the first half of the task found.",
    },
)
def import_mesospim(
    zarr_url: str, init_args: dict[str, Any], options: ImportUnitOptions
) -> dict[str, Any]:
    """Import one image of a native mesoSPIM acquisition."""
    unit = importing.ImportUnit(init_args["container"], init_args["suffix"], zarr_url)
    result = importing.import_image(unit, options.combined(init_args["options"]))
    return {"image_list_updates": [image_list_update(result, derived=False)]}


if __name__ == "__main__":
    run_as_program(import_mesospim)
