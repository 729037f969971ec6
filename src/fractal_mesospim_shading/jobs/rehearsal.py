"""What the end of a job would refuse is found before its first pixel.

The end is rehearsed with metadata alone, in memory, by the very functions that end a job:
what they refuse here they would have refused after all pixels.
"""

from __future__ import annotations

import uuid
from dataclasses import replace

from fractal_mesospim_shading.core.pyramid import Histogram
from fractal_mesospim_shading.errors import ImageFormatError, Problems
from fractal_mesospim_shading.images.storage import places
from fractal_mesospim_shading.jobs.finishing import complete
from fractal_mesospim_shading.jobs.preparation import marked
from fractal_mesospim_shading.jobs.work import Part, Work


def rehearse(work: Work) -> None:
    """Write the metadata of a result in memory, complete them, and look at them with ome-zarr.

    Args:
        work: that has passed all other checks.

    Raises:
        ShadingError: one error with all that the end of the job would refuse.
    """
    problems = Problems()
    for part in work.parts:
        with problems.collected():
            _rehearse_part(work, part)
    problems.raise_all()


def _rehearse_part(work: Work, part: Part) -> None:
    stage = f"memory://{uuid.uuid4().hex}"
    histograms = {channel.label: Histogram() for channel in part.plan.source.channels}
    try:
        for number, written in enumerate(part.plan.targets):
            target = replace(written, url=places.join_url(stage, str(number)), storage_options=None)
            target.create(marked(part.attributes_of(number), {}, complete=False))
            if number == 0:
                work.add_tables(target)
            complete(target, part.attributes_of(number), part.plan.source.channels, histograms, {})
    except ImageFormatError as error:
        where = f"stack '{part.name}' of " if part.name else ""
        raise ImageFormatError(
            f"The result could not be read by others: {error} Its metadata are those of the {where}"
            f"source, {work.source_url}; correct them there."
        ) from error
    finally:
        places.remove(stage)
