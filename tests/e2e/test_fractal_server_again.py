"""What goes wrong on a live Fractal server, and the run after it."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import psutil
import pytest
import zarr

from fractal_mesospim_shading import correct_flatfield
from fractal_mesospim_shading.synthetic.world import LightSheetWorld
from tests.support.fractal.server import Server, Step, history

CORNERS = {"fov_list": [1, 3, 7, 9], "camera_offset": 100}
LARGE = LightSheetWorld(tile_shape=(256, 256), planes=64, sample_radius=0.4)

pytestmark = [
    pytest.mark.server,
    pytest.mark.timeout(1800),
    pytest.mark.xdist_group("fractal-server"),
]


def flat(**more: object) -> Step:
    return Step("Correct Flat-Field", {**CORNERS, **more})


def pixels(image: Path) -> np.ndarray:
    return np.asarray(zarr.open_array(image / "0", mode="r")[...])


def result_of(image: Path) -> Path:
    return image.with_name("raw_image_flatfield_corr")


def test_a_failing_image_beside_good_ones(server: Server, make_image: Callable[..., Path]) -> None:
    """Each has a unit of its own: the others are done and listed, this one is neither."""
    one, bad, other = (make_image(name) for name in ("one", "bad", "other"))
    chunk = bad / "0" / "0" / "1" / "1" / "1"
    whole = chunk.read_bytes()
    chunk.write_bytes(whole[: len(whole) // 2])
    images = server.dataset(one.parts[-3], [one, bad, other])
    seen = images.run(flat())
    assert seen.status == "failed"
    assert seen.units == [{"submitted": 0, "done": 2, "failed": 1}]
    assert set(seen.images) == {str(p) for p in (one, bad, other, result_of(one), result_of(other))}
    for image in (one, other):
        assert seen.images[str(result_of(image))]["types"] == {"flatfield_corrected": True}
        assert seen.images[str(result_of(image))]["origin"] == str(image)
    # The job shows the log of this unit, whose last line is the only error.
    [error] = (line for line in seen.log.splitlines() if "; ERROR; " in line)
    assert error == seen.log.strip().splitlines()[-1]
    assert f"The chunk '{chunk}' cannot be read" in error
    assert "Traceback (" not in seen.log
    assert not result_of(bad).exists()

    # Those that are finished refuse, and say how to have them anew; this one runs.
    chunk.write_bytes(whole)
    again = images.run(flat())
    assert again.status == "failed"
    assert again.units == [{"submitted": 0, "done": 1, "failed": 2}]
    assert "set overwrite to replace it" in again.log.strip().splitlines()[-1]
    assert again.images[str(result_of(bad))]["types"] == {"flatfield_corrected": True}
    assert history(result_of(bad)) == ["correct_flatfield"]
    before = pixels(result_of(one))
    last = images.run(flat(overwrite=True))
    assert last.status == "done", last.log
    assert last.warnings == [], last.logs
    assert last.units == [{"submitted": 0, "done": 3, "failed": 0}]
    assert set(last.images) == set(again.images)
    assert np.array_equal(pixels(result_of(one)), before)


def test_an_image_is_corrected_in_place(server: Server, image: Path) -> None:
    before = pixels(image)
    images = server.dataset(image.parts[-3], [image])
    seen = images.run(flat(overwrite_input=True))
    assert seen.status == "done", seen.log
    assert seen.warnings == [], seen.logs
    [entry] = seen.images.values()
    assert entry["zarr_url"] == str(image)
    assert entry["origin"] is None
    assert entry["types"] == {"flatfield_corrected": True}
    assert history(image) == ["correct_flatfield"]
    assert not np.array_equal(pixels(image), before)
    # The server offers no corrected image to this task a second time.
    again = images.run(flat(overwrite_input=True))
    assert again.status == "failed"
    assert again.units == [{"submitted": 0, "done": 0, "failed": 0}]


def kill_unit(server: Server, journal: Path) -> None:
    """Kill the process of the task that has written a block."""
    while not (journal.exists() and journal.read_bytes().count(b"\n")):
        time.sleep(0.005)
    for process in psutil.process_iter(["cmdline"]):
        words = process.info["cmdline"] or []
        if (
            "correct_flatfield.py" in " ".join(words)
            and str(server.project_dir.parent) in words[-1]
        ):
            process.kill()


def test_a_killed_unit_and_the_run_after_it(
    server: Server, make_image: Callable[..., Path], tmp_path: Path
) -> None:
    image = make_image(world=LARGE)
    journal = image.parent / f".{result_of(image).name}.job" / "journal" / "blocks.jsonl"
    images = server.dataset(image.parts[-3], [image])
    killer = threading.Thread(target=kill_unit, args=(server, journal), daemon=True)
    killer.start()
    seen = images.run(flat())
    killer.join(10)
    assert seen.status == "failed"
    assert "returncode=-9" in seen.log
    assert seen.units == [{"submitted": 0, "done": 0, "failed": 1}]
    assert set(seen.images) == {str(image)}
    assert journal.exists()
    again = images.run(flat())
    assert again.status == "done", again.log
    assert again.warnings == [], again.logs
    assert set(again.images) == {str(image), str(result_of(image))}
    [log] = (text for name, text in again.logs.items() if name.startswith("0_"))
    assert "ontinu" in log, log
    whole = correct_flatfield(str(image), output_folder=str(tmp_path), report=False, **CORNERS)
    assert np.array_equal(pixels(result_of(image)), pixels(Path(whole.image_url)))
