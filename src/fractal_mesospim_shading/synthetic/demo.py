"""A mosaic of known truth on disk, and how close an estimate and a correction come to it."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from fractal_mesospim_shading.core.layout import Tile, TileLayout
from fractal_mesospim_shading.core.profile import ShadingProfile
from fractal_mesospim_shading.core.seams import seam_step
from fractal_mesospim_shading.errors import ParameterError
from fractal_mesospim_shading.images.mosaic import MosaicImage
from fractal_mesospim_shading.images.storage.places import StorageOptions
from fractal_mesospim_shading.synthetic.images import ImageStyle, new_image
from fractal_mesospim_shading.synthetic.world import LightSheetWorld, grid_layout

if TYPE_CHECKING:
    from fractal_mesospim_shading.jobs.work import JobResult

DEMO_NAME = "demo.zarr"
_STAGE_OVERLAP = 0.1
_THREADS = 4


def write_mosaic(
    url: str | os.PathLike[str],
    world: LightSheetWorld,
    channels: Sequence[str] = ("488 nm", "561 nm"),
    *,
    missing: Sequence[int] = (),
    original_um: Mapping[int, Sequence[float]] | None = None,
    overwrite: bool = False,
    storage_options: StorageOptions = None,
    **style: Any,
) -> str:
    """Write a synthetic world as Fractal keeps a mosaic; memory holds a few planes.

    Args:
        url: of the new image.
        world: what the microscope looks at, and how.
        channels: labels; exactly one where the axes have no `c`.
        missing: numbers of tiles that were not acquired: no row in the table, pixels 0.
        original_um: (x, y[, z]) on the stage by tile number; None takes what is true where tiles
            of the world overlap, else a grid that says that they overlap by a tenth.
        overwrite: replace what is there.
        storage_options: for a remote address.
        style: fields of `ImageStyle`. A t axis has length 1; without a z axis the world
            must have one plane.

    Returns:
        The address.

    Raises:
        OutputExistsError: there is already something.
        ParameterError: the axes do not fit the world.

    Example:
        The image of the other examples, under another name:

        >>> from fractal_mesospim_shading.synthetic.demo import write_mosaic
        >>> from fractal_mesospim_shading.synthetic.world import LightSheetWorld
        >>> world = LightSheetWorld(tile_shape=(96, 96), planes=12, sample_radius=0.4)
        >>> write_mosaic("made.zarr/raw_image", world, ["488 nm"], chunks=(4, 96, 96))
        'made.zarr/raw_image'
        >>> [number for number in world.tile_numbers if world.is_empty(number, 6)]
        [1, 3, 7, 9]
    """
    form = ImageStyle(**style)
    plane_shape = (world.grid[0] * world.tile_shape[0], world.grid[1] * world.tile_shape[1])
    lengths = {"t": 1, "c": len(channels), "z": world.planes, "y": plane_shape[0]}
    lengths["x"] = plane_shape[1]
    for axis in "cz":
        if axis not in form.axes and lengths[axis] != 1:
            raise ParameterError(
                f"The axes are '{form.axes}', but there are {lengths[axis]} along {axis}."
            )
    layout = grid_layout(plane_shape, world.tile_shape, missing)
    place = form.axes.find("c")

    def planes(lead: tuple[int, ...], start: int, stop: int) -> NDArray[Any]:
        channel = lead[place] if place >= 0 else 0
        return _mosaic_planes(world, layout, range(start, stop), channel)

    size_um = dict(zip("zyx", form.pixel_size_um, strict=True))
    return new_image(
        url,
        [lengths[axis] for axis in form.axes],
        np.dtype(form.dtype or "uint16"),
        planes,
        form,
        layout=layout,
        original_um=_stage_positions(world, layout, size_um)
        if original_um is None
        else original_um,
        channels=channels,
        overwrite=overwrite,
        storage_options=storage_options,
    )


def _mosaic_planes(
    world: LightSheetWorld, layout: TileLayout, planes: range, channel: int
) -> NDArray[np.uint16]:
    slab = np.zeros((len(planes), *layout.plane_shape), dtype=np.uint16)

    def fill(tile: Tile) -> None:
        pixels = world.tile_planes(tile.number, planes, channel)
        box = np.s_[:, tile.y : tile.y + pixels.shape[1], tile.x : tile.x + pixels.shape[2]]
        slab[box] = pixels

    # Every plane has a random generator of its own, so the order does not matter.
    with ThreadPoolExecutor(_THREADS) as pool:
        list(pool.map(fill, layout.tiles))
    return slab


def _stage_positions(
    world: LightSheetWorld, layout: TileLayout, size_um: Mapping[str, float]
) -> dict[int, tuple[float, float]]:
    said: tuple[float, float] = world.step
    if not world.overlap:
        height, width = layout.tile_shape
        said = height * (1 - _STAGE_OVERLAP), width * (1 - _STAGE_OVERLAP)
    step_y, step_x = said[0] * size_um["y"], said[1] * size_um["x"]
    return {t.number: (1000 + t.column * step_x, 2000 + t.row * step_y) for t in layout.tiles}


@dataclass(frozen=True)
class DemoTruth:
    """What is true of a demo image.

    Attributes:
        world: that was imaged.
        channels: labels, in the order of the image.
        empty_tiles: numbers of the tiles that hold medium and nothing else.
    """

    world: LightSheetWorld
    channels: tuple[str, ...]
    empty_tiles: tuple[int, ...]

    def flatfield(self, label: str) -> NDArray[np.float32]:
        """The true flat-field of a channel, (y, x), mean 1.

        Raises:
            ParameterError: no such channel.
        """
        if label not in self.channels:
            raise ParameterError(
                f"The demo has no channel '{label}'; it has {', '.join(self.channels)}."
            )
        return self.world.flatfield(self.channels.index(label))


@dataclass(frozen=True)
class DemoScore:
    """How well one channel of the demo came out.

    Attributes:
        label: of the channel.
        flatfield_error: root mean square of estimate over truth minus 1.
        seam_before, seam_after: step across the tile seams, relative to the brightness.
    """

    label: str
    flatfield_error: float
    seam_before: float
    seam_after: float

    def text(self) -> str:
        """One line for a person."""
        return (
            f"{self.label}: flat-field error {self.flatfield_error:.2%}, "
            f"step across tile seams {self.seam_before:.1%} before, {self.seam_after:.1%} after"
        )


def make_demo_image(
    folder: str | os.PathLike[str], *, seed: int = 0, overwrite: bool = False
) -> tuple[str, DemoTruth]:
    """Write the demo image: 3 x 3 tiles of 192 x 256 pixels, 40 planes, two channels.

    Args:
        folder: is made if needed; the image is `demo.zarr` in it.
        seed: of everything random; the same seed gives the same image.
        overwrite: replace an image of that name.

    Returns:
        The address of the image (about 50 MB on disk), and what is true of it.

    Raises:
        OutputExistsError: there is such an image already.

    Example:
        >>> from fractal_mesospim_shading.synthetic.demo import make_demo_image
        >>> url, truth = make_demo_image("demo_output")
        >>> url, truth.empty_tiles
        ('demo_output/demo.zarr', (1, 3, 7, 9))
        >>> truth.flatfield("488 nm").shape
        (192, 256)
    """
    world = LightSheetWorld(
        tile_shape=(192, 256),
        overlap=0.1,
        planes=40,
        offset=100.0,
        sample_radius=0.39,
        seed=seed,
    )
    channels = ("488 nm", "561 nm")
    Path(folder).mkdir(parents=True, exist_ok=True)
    url = write_mosaic(
        Path(folder) / DEMO_NAME, world, channels, overwrite=overwrite, chunks=(8, 96, 128)
    )
    empty = [
        number
        for number in world.tile_numbers
        if all(world.is_empty(number, z) for z in range(world.planes))
    ]
    return url, DemoTruth(world, channels, tuple(empty))


def evaluate_demo(
    truth: DemoTruth,
    profiles: Mapping[str, ShadingProfile],
    source_url: str | os.PathLike[str],
    corrected_url: str | os.PathLike[str],
    *,
    output_offset: float = 0.0,
) -> tuple[DemoScore, ...]:
    """Compare estimated profiles and the corrected image with the truth.

    Args:
        truth: of the demo image.
        profiles: estimate for each channel label; another shape is resampled.
        source_url, corrected_url: of the demo image and its corrected twin.
        output_offset: counts that the correction added.

    Returns:
        One score for each channel, in the order of the image.

    Raises:
        ParameterError: a channel has no profile.
    """
    lacking = [label for label in truth.channels if label not in profiles]
    if lacking:
        raise ParameterError(
            f"There is no profile for {', '.join(lacking)}; expected one for every channel."
        )
    source, corrected = MosaicImage.open(source_url), MosaicImage.open(corrected_url)
    scores = []
    for index, label in enumerate(truth.channels):
        estimate = profiles[label].resampled(truth.world.tile_shape).flatfield
        error = estimate / truth.flatfield(label).astype(np.float64) - 1
        score = DemoScore(
            label,
            float(np.sqrt(np.mean(error**2))),
            seam_step(_mean_plane(source, index), source.layout, truth.world.offset),
            seam_step(_mean_plane(corrected, index), source.layout, output_offset),
        )
        scores.append(score)
    return tuple(scores)


def _mean_plane(image: MosaicImage, channel: int) -> NDArray[Any]:
    """Mean of all planes of a channel: with the noise of one plane no seam could be seen."""
    _, depth, height, width = image.levels[0].shape
    box = (slice(channel, channel + 1), slice(0, depth), slice(0, height), slice(0, width))
    return np.asarray(image.read(0, box)[0].mean(axis=0))


@dataclass(frozen=True)
class DemoRun:
    """What came out of the demonstration.

    Attributes:
        url: of the mosaic.
        truth: of it.
        result: of its correction.
        scores: one for each channel.
    """

    url: str
    truth: DemoTruth
    result: JobResult
    scores: tuple[DemoScore, ...]

    def facts(self) -> dict[str, Any]:
        """The same as JSON."""
        scores = [asdict(score) for score in self.scores]
        empty = list(self.truth.empty_tiles)
        return {**self.result.facts(), "empty_tiles": empty, "scores": scores}

    def text(self) -> str:
        """The same to read."""
        rows, columns = self.truth.world.grid
        lines = [
            f"A mosaic of {rows} x {columns} tiles with a known flat-field",
            f"  {self.url}",
            f"was corrected from its empty tiles {', '.join(map(str, self.truth.empty_tiles))}:",
            f"  {self.result.image_url}",
            *(f"  {score.text()}" for score in self.scores),
        ]
        report = self.result.report
        if report is not None:
            lines.append(f"Open {report}")
        return "\n".join(lines)


def run_demo(folder: str | os.PathLike[str]) -> DemoRun:
    """Make the demo image, correct it from its empty tiles, and compare with the truth.

    Args:
        folder: to work in; an earlier demo in it is replaced.
    """
    from fractal_mesospim_shading.jobs.flatfield import plan_flatfield
    from fractal_mesospim_shading.jobs.story import correct
    from fractal_mesospim_shading.options.flatfield import FlatfieldOptions

    url, truth = make_demo_image(folder, overwrite=True)
    options = FlatfieldOptions(fov_list=list(truth.empty_tiles), overwrite=True, restart=True)
    true = {label: truth.flatfield(label) for label in truth.channels}
    result = correct(lambda: replace(plan_flatfield(url, options), truth=true))
    profiles = {label: model.profile for label, model in result.models.items()}
    return DemoRun(url, truth, result, evaluate_demo(truth, profiles, url, result.image_url))
