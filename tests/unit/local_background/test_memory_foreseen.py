"""What the background of a block is foreseen to take, against what it takes."""

from __future__ import annotations

import gc
import json
import tracemalloc
from dataclasses import replace
from math import prod
from typing import Any

import numpy as np
import pytest

from fractal_mesospim_shading.core.background import METHODS
from fractal_mesospim_shading.core.blocks import Node
from fractal_mesospim_shading.core.threads import Kept
from fractal_mesospim_shading.jobs.background import plan_background
from fractal_mesospim_shading.local_background import deep
from fractal_mesospim_shading.local_background import kernel as kernels
from fractal_mesospim_shading.options.background import BackgroundOptions
from fractal_mesospim_shading.synthetic.images import write_image

SIDE, DEPTH = 768, 8
SMALL = 2_000_000
"""Bytes that do not depend on the image: tables, objects of libraries."""


@pytest.fixture(scope="module")
def image(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """A fused image of integers and one of floats, with a margin that holds no data."""
    folder = tmp_path_factory.mktemp("fused")
    pixels = np.random.Generator(np.random.PCG64(4)).normal(300, 18, (1, DEPTH, SIDE, SIDE))
    pixels[:, :, :280] = 0
    urls = {}
    for kind in ("uint16", "float32"):
        urls[kind] = str(folder / f"{kind}.zarr")
        form = {"channels": ["a"], "axes": "czyx", "chunks": (1, 8, 256, 256)}
        write_image(urls[kind], pixels.astype(kind), **form)
    return urls


OTHERS = (
    {"method": "median", "radius": 5, "exact": True},
    {"method": "median", "radius": 9, "radius_z_planes": 2},
    {"method": "gaussian", "radius": 9, "radius_z_planes": 2},
    {"method": "opening", "radius": 9, "shape": "square"},
    {"method": "rolling_ball", "radius": 9},
)

DEEP = (
    ({"method": "median", "radius": 9, "radius_z_planes": 2}, "uint16"),
    ({"method": "median", "radius": 5, "radius_z_planes": 1, "exact": True}, "float32"),
    ({"method": "gaussian", "radius": 9, "radius_z_planes": 2}, "float32"),
    ({"method": "gaussian", "radius": 9, "radius_z_planes": 2}, "uint16"),
    ({"method": "opening", "radius": 9, "radius_z_planes": 1}, "uint16"),
)

CASES = [
    *((name, "uint16", {}) for name in METHODS),
    *((name, "float32", {}) for name in METHODS),
    *((name, "uint16", {"mask": "threshold:340:2"}) for name in METHODS),
    *((json.dumps(method), kind, {}) for method in OTHERS for kind in ("uint16", "float32")),
    *((json.dumps(method), kind, {"mask": "threshold:340:2"}) for method, kind in DEEP),
    *((json.dumps(method), kind, {"add_noise_bias": True}) for method, kind in DEEP),
    ("gaussian", "uint16", {"add_noise_bias": True}),
    ("gaussian", "float32", {"add_noise_bias": True}),
    ("opening", "uint16", {"output_type": "source"}),
    ("tile_median", "uint16", {"save_background": True, "save_noise": True}),
]


@pytest.mark.slow
@pytest.mark.parametrize("whole", [True, False])
@pytest.mark.parametrize(("method", "kind", "options"), CASES)
def test_it_takes_no_more_and_not_much_less(
    image: dict[str, str],
    tmp_path: Any,
    monkeypatch: pytest.MonkeyPatch,
    method: str,
    kind: str,
    options: dict[str, Any],
    whole: bool,
) -> None:
    given = BackgroundOptions(method=method, output_folder=str(tmp_path), **options)
    plan = plan_background(image[kind], given).parts[0].plan
    kernel, source = plan.kernel, plan.source
    assert isinstance(kernel, kernels.BackgroundKernel)
    *_, smallest = kernel.regions.alignments(source)
    largest = (1, DEPTH, SIDE, SIDE)
    in_parts = replace(plan, align=smallest, least_pixels=prod(smallest)).grid
    kernel.process(source, in_parts.box(Node(0, (0, 0, 1, 1))))  # loads, compiles
    plan = replace(plan, align=largest if whole else smallest, least_pixels=prod(smallest))
    box = plan.grid.box(Node(0, (0, 0, 0, 0) if whole else (0, 0, 1, 1)))
    shape = [s.stop - s.start for s in box]
    assert shape == ([1, 8, SIDE, SIDE] if whole else [1, 8, 256, 256])
    monkeypatch.setattr(kernels, "_surfaces", Kept(512))
    monkeypatch.setattr(kernels, "_filed", Kept(2**30))
    for kept in ("_planes", "_estimates", "_filled"):
        monkeypatch.setattr(deep, kept, Kept(2**30))
    gc.collect()
    tracemalloc.start()
    try:
        kernel.process(source, box)
        used = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    result = prod(shape) * sum(target.levels[0].dtype.itemsize for target in plan.targets)
    foreseen = result + kernel.working_bytes(shape, source)
    assert used <= foreseen + SMALL
    assert foreseen <= 1.5 * (used + SMALL)
