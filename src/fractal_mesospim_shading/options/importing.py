"""What can be asked of the import of native acquisitions."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from fractal_mesospim_shading.messages import know_options
from fractal_mesospim_shading.options.base import ExecutionOptions
from fractal_mesospim_shading.options.flatfield import EstimationOptions
from fractal_mesospim_shading.options.values import Decisive, Neutral, NumberList


class ImportStyleOptions(BaseModel):
    """What is imported, and what the image looks like on disk."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    correct_flatfield: Decisive[bool] = Field(
        default=False,
        description="Correct the flat-field on the way, from the models, tiles or planes given "
        "below, in the same single pass.",
    )
    image_name: Neutral[str] = Field(
        default="raw_image",
        min_length=1,
        description="Name of the imported image within `<acquisition>.zarr`. Angle, side and time "
        "point are appended where there are several; `_flatfield_corr` where it is corrected.",
    )
    ngff_version: Decisive[Literal["source", "0.4", "0.5"]] = Field(
        default="source",
        description="OME-Zarr version of the imported image: 0.4 (zarr v2), 0.5 (zarr v3), or the "
        "acquisition's.",
    )
    levels: Decisive[int] = Field(
        default=5, ge=1, le=12, description="Levels of the pyramid, each half as large in y and x."
    )
    chunks: Decisive[NumberList | None] = Field(
        default=None,
        description="Chunk of the imported image in pixels (z, y, x). Unset: the acquisition's, "
        "made to divide the tile.",
    )
    output_shards: Decisive[NumberList | None] = Field(
        default=None,
        description="Shard of the imported image in pixels (z, y, x), multiples of the chunk; only "
        "for OME-Zarr 0.5. Unset: sharded where the acquisition is.",
    )
    sign_x: Decisive[int | None] = Field(
        default=None,
        description="1 where image x grows with stage x, -1 where it falls. Unset: from the "
        "BigStitcher file, else measured in the overlaps, else -1.",
    )
    sign_y: Decisive[int | None] = Field(default=None, description="The same for y.")
    exclude_groups: Decisive[list[str] | None] = Field(
        default=None,
        description="Names of stacks in the container to leave out, as those of an earlier run.",
    )
    overwrite: Neutral[bool] = Field(
        default=False,
        description="Replace a finished image of the same name, once the new one is complete.",
    )
    restart: Neutral[bool] = Field(
        default=False, description="Drop an unfinished run of this import instead of continuing it."
    )


class ImportOptions(ImportStyleOptions, EstimationOptions, ExecutionOptions):
    """The arguments of the import of native acquisitions besides the containers."""


class ImportTaskOptions(ImportStyleOptions, EstimationOptions):
    """The arguments of the first half of the import task, which passes them on."""

    containers: Neutral[list[str]] = Field(
        description="Addresses of the acquisitions: folders that mesoSPIM-control wrote, such as "
        "`/data/brain_Mag5x_Ch488.ome.zarr`."
    )

    def import_options(self) -> ImportOptions:
        """The options of the import itself."""
        return ImportOptions(**self.model_dump(exclude={"containers"}, exclude_unset=True))


class ImportUnitOptions(ExecutionOptions):
    """The arguments of the second half of the import task: where it runs."""

    def combined(self, chosen: dict[str, Any]) -> ImportOptions:
        """The options of the first half with where to run."""
        return ImportOptions(**{**chosen, **self.model_dump(exclude_unset=True)})


know_options(*ImportOptions.model_fields, *ImportTaskOptions.model_fields)
