"""Fractal task "Correct Flat-Field"."""

from __future__ import annotations

if __name__ == "__main__":
    # Before NumPy starts its threads.
    from fractal_mesospim_shading.core.threads import use_one_arena

    use_one_arena()

from typing import Any

from fractal_mesospim_shading.jobs import flatfield
from fractal_mesospim_shading.jobs.work import image_list_update
from fractal_mesospim_shading.options.flatfield import FlatfieldOptions
from fractal_mesospim_shading.tasks.door import run_as_program, task_arguments


@task_arguments(FlatfieldOptions, {"zarr_url": "Address of the image to correct."})
def correct_flatfield(zarr_url: str, options: FlatfieldOptions) -> dict[str, Any]:
    """Correct the flat-field (shading) of a mesoSPIM mosaic.

    The flat-field comes from measured models if a folder is given, else from empty tiles or
    planes if they are named, else from BaSiCPy.
    """
    result = flatfield.correct_flatfield(zarr_url, options)
    return {"image_list_updates": [image_list_update(result)]}


if __name__ == "__main__":
    run_as_program(correct_flatfield)
