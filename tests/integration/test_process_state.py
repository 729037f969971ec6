"""A call leaves the process as it was, and calls in two threads do not disturb each other."""

from __future__ import annotations

import copy
import ctypes
import logging
import os
import signal
import subprocess
import sys
import threading
import warnings
from pathlib import Path

# What libraries set when they are imported is not what a call changes.
import anndata.io  # noqa: F401
import cv2
import dask.array
import distributed  # noqa: F401
import matplotlib.style
import numpy as np
import ome_zarr.reader  # noqa: F401
import pytest
import scipy.interpolate
import scipy.ndimage
import scipy.special
import scipy.stats  # noqa: F401
import threadpoolctl  # noqa: F401
import zarr

from fractal_mesospim_shading import correct_background, correct_flatfield, errors, import_mesospim
from fractal_mesospim_shading.core.threads import Shared, warnings_ignored
from fractal_mesospim_shading.engine.process import logs_quieted, process_prepared, run_guarded
from fractal_mesospim_shading.views.inspection import describe
from fractal_mesospim_shading.views.preview import write_preview
from tests.support.acquisition import grid_stacks, write_acquisition
from tests.support.acquisition_table import SyntheticSettings

LOGGERS = ("", "ome_zarr", "matplotlib", "distributed", "distributed.client", "distributed.core")
METHOD = {"method": "median", "radius": 5}


def _is_mapped() -> bool | None:
    """Whether glibc takes a large block from the system by itself, as it does by default."""
    library = ctypes.CDLL(None)
    if not hasattr(library, "mallinfo2"):
        return None

    class Counts(ctypes.Structure):
        _fields_ = [
            (name, ctypes.c_size_t)
            for name in (
                "arena ordblks smblks hblks hblkhd usmblks fsmblks uordblks fordblks keepcost"
            ).split()
        ]

    library.mallinfo2.restype = Counts
    library.malloc.restype = ctypes.c_void_p
    before = library.mallinfo2().hblks
    block = ctypes.c_void_p(library.malloc(ctypes.c_size_t(2**28)))
    mapped = library.mallinfo2().hblks > before
    library.free(block)
    return bool(mapped)


def _state():
    return {
        "zarr": copy.deepcopy(zarr.config.config),
        "dask": copy.deepcopy(dask.config.config),
        "matplotlib": dict(matplotlib.rcParams),
        "environment": {k: v for k, v in os.environ.items() if k != "PYTEST_CURRENT_TEST"},
        "folder": os.getcwd(),
        "levels": {name: logging.getLogger(name).level for name in LOGGERS},
        "filters": list(warnings.filters),
        "opencv": cv2.getNumThreads(),
        "numpy": np.geterr(),
        "signals": [signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)],
        "streams": (sys.stdin, sys.stdout, sys.stderr),
        "threads hook": threading.excepthook,
        "mapped": _is_mapped(),
    }


@pytest.fixture
def unchanged(monkeypatch):
    """Compare the state of the process before and after a test; some of it is unusual."""
    before = cv2.getNumThreads()
    cv2.setNumThreads(2)
    monkeypatch.setenv("RAYON_NUM_THREADS", "3")
    monkeypatch.delenv("OPENCV_FOR_THREADS_NUM", raising=False)
    logging.getLogger("ome_zarr").setLevel(logging.INFO)
    with zarr.config.set({"async.concurrency": 7}):
        state = _state()
        yield
        assert _state() == state
    logging.getLogger("ome_zarr").setLevel(logging.NOTSET)
    cv2.setNumThreads(before)


@pytest.mark.usefixtures("unchanged")
def test_a_correction_leaves_the_process_as_it_was(make_mosaic, make_models):
    source = make_mosaic()
    result = correct_flatfield(source, models_folder=str(make_models()), camera_offset=100)
    assert result.report is not None
    describe(result.image_url)


@pytest.mark.usefixtures("unchanged")
def test_so_does_an_error(make_mosaic, make_models, many_blocks):
    source = make_mosaic()
    for chunk in Path(source, "0").rglob("c/1/0/0/0"):
        chunk.write_bytes(b"no chunk")
    for chunk in Path(source, "0").rglob("1/0/0/0"):
        chunk.write_bytes(b"no chunk")
    with pytest.raises(errors.SourceReadError):
        correct_flatfield(source, models_folder=str(make_models()), camera_offset=100)
    with pytest.raises(errors.ShadingError):
        correct_background(source, method=METHOD)


@pytest.mark.slow
@pytest.mark.usefixtures("unchanged")
def test_so_do_the_other_jobs(make_mosaic, tmp_path):
    source = make_mosaic()
    correct_background(source, method=METHOD)
    write_preview(str(source), str(tmp_path / "preview.png"), methods=["median"])
    settings = SyntheticSettings(tile_shape=(20, 28), chunks=(4, 16, 16))
    run = write_acquisition(tmp_path, "run.ome.zarr", grid_stacks(1, 2, settings), settings)
    import_mesospim(str(run), str(tmp_path / "imported"), sign_x=-1, sign_y=-1)


@pytest.mark.slow
@pytest.mark.usefixtures("unchanged")
def test_so_does_a_cluster_of_our_own(make_mosaic, make_models):
    levels = [logging.getLogger(name).level for name in LOGGERS]
    arguments = {"models_folder": str(make_models()), "camera_offset": 100}
    correct_flatfield(make_mosaic(), execution="processes", n_workers=1, **arguments)
    assert [logging.getLogger(name).level for name in LOGGERS] == levels


@pytest.mark.slow
@pytest.mark.usefixtures("unchanged")
def test_two_jobs_at_once_give_the_bytes_of_two_in_a_row(
    make_mosaic, make_models, many_blocks, tree
):
    first, second = make_mosaic("first.zarr"), make_mosaic("second.zarr", channels=None)
    models = str(make_models())

    def flatfield(name):
        arguments = {"models_folder": models, "camera_offset": 100, "n_workers": 2}
        return correct_flatfield(first, output_image_name=name, **arguments)

    def background(name):
        return correct_background(second, output_image_name=name, method=METHOD, n_workers=1)

    in_a_row = [job(f"row{n}").image_url for n, job in enumerate((flatfield, background))]
    for attempt in range(3):
        at_once: dict[int, str] = {}
        barrier = threading.Barrier(2)

        def run(number, job, found, barrier=barrier, attempt=attempt):
            barrier.wait()
            found[number] = job(f"once{attempt}{number}").image_url

        threads = [
            threading.Thread(target=run, args=(number, job, at_once))
            for number, job in enumerate((flatfield, background))
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        for number, url in enumerate(in_a_row):
            assert _pixels(tree, at_once[number]) == _pixels(tree, url)


def _pixels(tree, url):
    """Every file but those that hold the name of the result."""
    names = (".zattrs", "zarr.json")
    return {k: v for k, v in tree(Path(url)).items() if not k.endswith(names)}


def test_what_two_threads_change_is_put_back_by_the_last():
    changes = []

    class Change:
        def __enter__(self):
            changes.append("made")

        def __exit__(self, *error):
            changes.append("taken back")

    shared = Shared(Change)
    inside, leave = threading.Event(), threading.Event()

    def other():
        with shared:
            inside.set()
            leave.wait()

    thread = threading.Thread(target=other)
    with shared:
        thread.start()
        inside.wait()
    assert changes == ["made"]
    leave.set()
    thread.join()
    assert changes == ["made", "taken back"]
    with pytest.raises(ValueError, match="now"), shared:
        raise ValueError("now")
    assert changes == ["made", "taken back"] * 2


def test_warnings_and_logs_are_quiet_and_then_are_not(recwarn):
    with warnings_ignored, warnings_ignored:
        warnings.warn("not shown", UserWarning, stacklevel=1)
    warnings.warn("shown", UserWarning, stacklevel=1)
    assert [str(warning.message) for warning in recwarn] == ["shown"]
    with logs_quieted(logging.CRITICAL, "ome_zarr"):
        assert not logging.getLogger("ome_zarr").isEnabledFor(logging.ERROR)
    assert logging.getLogger("ome_zarr").isEnabledFor(logging.ERROR)


def test_libraries_keep_to_their_threads_meanwhile(unchanged, monkeypatch):
    monkeypatch.delenv("RAYON_NUM_THREADS")
    with process_prepared(5):
        assert os.environ["RAYON_NUM_THREADS"] == "5"
        assert zarr.config.get("threading.max_workers") == 5
        assert cv2.getNumThreads() == 1
        with process_prepared(2):
            assert zarr.config.get("threading.max_workers") == 2
    assert "RAYON_NUM_THREADS" not in os.environ
    monkeypatch.setenv("RAYON_NUM_THREADS", "3")


@pytest.mark.slow
def test_a_number_of_threads_that_the_environment_names_stays(make_mosaic):
    """Also where OpenCV is first imported within the call."""
    code = (
        "import sys\n"
        "from fractal_mesospim_shading import correct_background\n"
        "assert 'cv2' not in sys.modules\n"
        f"correct_background({str(make_mosaic())!r}, method={METHOD!r})\n"
        "import cv2\n"
        "print(cv2.getNumThreads())\n"
    )
    environment = {**os.environ, "OPENCV_FOR_THREADS_NUM": "1"}
    run = subprocess.run(
        [sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True
    )
    assert run.stdout.strip() == "1"


def test_a_handler_that_python_did_not_set_is_no_error(monkeypatch):
    monkeypatch.setattr(signal, "signal", lambda number, handler: set_handlers.append(handler))
    set_handlers: list[object] = []
    with run_guarded():
        pass
    assert set_handlers[1:] == [signal.SIG_DFL]
