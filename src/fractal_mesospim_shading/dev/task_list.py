"""The tasks of the package, for `fractal-manifest create`."""

from __future__ import annotations

from fractal_task_tools.task_models import ConverterCompoundTask, ParallelTask

AUTHORS = "The fractal-mesospim-shading developers"
DOCS_LINK = None

TASK_LIST = [
    ParallelTask(
        name="Correct Flat-Field",
        executable="tasks/correct_flatfield.py",
        input_types={"flatfield_corrected": False},
        output_types={"flatfield_corrected": True},
        meta={"cpus_per_task": 8, "mem": 16000},
        category="Image Processing",
        modality="lightsheet",
        tags=["mesoSPIM", "flat-field", "shading", "illumination", "BaSiC"],
        docs_info="file:task_info/correct_flatfield.md",
    ),
    ParallelTask(
        name="Correct Background",
        executable="tasks/correct_background.py",
        input_types={"background_corrected": False},
        output_types={"background_corrected": True},
        meta={"cpus_per_task": 8, "mem": 16000},
        category="Image Processing",
        modality="lightsheet",
        tags=["mesoSPIM", "background", "rolling ball", "top-hat", "median"],
        docs_info="file:task_info/correct_background.md",
    ),
    ConverterCompoundTask(
        name="Import mesoSPIM OME-Zarr",
        executable_init="tasks/import_mesospim_init.py",
        executable="tasks/import_mesospim.py",
        meta_init={"cpus_per_task": 1, "mem": 4000},
        meta={"cpus_per_task": 8, "mem": 16000},
        category="Conversion",
        modality="lightsheet",
        tags=["mesoSPIM", "OME-Zarr", "mosaic", "tiles", "flat-field"],
        docs_info="file:task_info/import_mesospim.md",
    ),
]
