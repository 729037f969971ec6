"""Fractal task "Correct Background"."""

from __future__ import annotations

if __name__ == "__main__":
    # Before NumPy starts its threads.
    from fractal_mesospim_shading.core.threads import use_one_arena

    use_one_arena()

from typing import Any

from fractal_mesospim_shading.jobs import background
from fractal_mesospim_shading.jobs.work import image_list_update
from fractal_mesospim_shading.options.background import BackgroundOptions
from fractal_mesospim_shading.tasks.door import run_as_program, task_arguments


@task_arguments(BackgroundOptions, {"zarr_url": "Address of the image to correct."})
def correct_background(zarr_url: str, options: BackgroundOptions) -> dict[str, Any]:
    """Take the local background of an image away, tile by tile.

    The background is estimated by one of eight methods, from tile medians with a spline to
    ImageJ's rolling ball, and subtracted from the image or divided out of it.
    """
    result = background.correct_background(zarr_url, options)
    return {"image_list_updates": [image_list_update(result)]}


if __name__ == "__main__":
    run_as_program(correct_background)
