"""Bad input of the background correction: one clear error, nothing written, nothing lost."""

from __future__ import annotations

import numpy as np
import pytest
import zarr

from fractal_mesospim_shading import correct_background, errors
from fractal_mesospim_shading.images.mosaic import MosaicImage
from fractal_mesospim_shading.jobs import background_parts
from fractal_mesospim_shading.synthetic.images import write_image


@pytest.fixture
def refused(make_mosaic, tmp_path, tree, monkeypatch):
    """`refused(kind, words, **arguments)`: fails so, nothing is read, the disk is the same."""
    source = make_mosaic()
    labels = zarr.open_group(str(source / "labels"), mode="w", zarr_format=2)
    labels.attrs["labels"] = ["cells", "other"]
    write_image(source / "labels" / "cells", np.ones((4, 96, 80), "uint16"), axes="zyx")
    write_image(source / "labels" / "other", np.ones((2, 96, 80), "uint16"), axes="zyx")

    def check(kind, words, **arguments):
        before = tree(tmp_path)

        def read(*_):
            pytest.fail("a pixel was read")

        with monkeypatch.context() as patch:
            patch.setattr(MosaicImage, "read", read)
            with pytest.raises(kind, match=words) as caught:
                correct_background(source, **arguments)
        assert isinstance(caught.value, errors.ShadingError)
        assert tree(tmp_path) == before
        return str(caught.value)

    return check


def _method(method, **parameters):
    return {"method": {"method": method, **parameters}}


@pytest.mark.slow
@pytest.mark.parametrize(
    ("method", "least", "most"),
    [("median", 1, 40), ("opening", 1, 40), ("rolling_ball", 1, 10000), ("gaussian", 1, 10000),
     ("sliding_paraboloid", 0.2, 1000000000)],
)  # fmt: skip
def test_radius_too_small_or_too_large_for_the_tile(method, least, most, refused):
    message = (
        "radius of the method .* is {} px, the tile measures 48 x 40 px; "
        f"expected .* {least} to {most} px"
    )
    for radius in (least / 2, most + 1 if most < 1e9 else 1e10):
        shown = f"{radius:g}".replace("+", "[+]")
        refused(errors.BackgroundError, message.format(shown), **_method(method, radius=radius))
        # Pixels of 1.3 um.
        micrometers = _method(method, radius=1.3 * radius, radius_unit="micrometers")
        refused(errors.BackgroundError, message.format(shown), **micrometers)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("parameters", "words"),
    [
        (_method("gaussian", radius_yx=(0.5, 5)), "radius of the local mean is .0.5, 5"),
        (_method("gaussian", radius_z_planes=0.5), "z radius is 0.5 planes"),
        (_method("difference_of_filters", small_radius=9, big_radius=5), "(?i)small"),
        (_method("difference_of_filters", small_radius=2, big_radius=50), "radius .* is 50 px"),
        (_method("tile_median", filter_size=4), "(?i)odd"),
        *(
            (
                {"light_background": True, "output_type": kind, **_method(name)},
                f"light_background.* is set, but the method {name} follows neither",
            )
            for name in ("median", "tile_median", "gaussian", "constant", "difference_of_filters")
            for kind in ("source", "float32")
        ),
    ],
)
def test_parameters_that_contradict_each_other(parameters, words, refused):
    refused(errors.BackgroundError, words, **parameters)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("parameters", "words"),
    [
        (_method("gausian"), "gausian|tag"),
        (_method("gaussian", size=3), "size"),
        (_method("gaussian", radius="wide"), "radius"),
        (_method("gaussian", radius=0), "radius"),
        (
            _method("gaussian", radius_per_channel=[3]),
            "has 1 numbers, but the image has 2 channels",
        ),
        (_method("gaussian", radius_per_channel=[]), "has 0 numbers"),
        (_method("constant", value_per_channel=[1, 2, 3]), "has 3 numbers"),
        ({"weight": 1.5}, "weight"),
        ({"mode": "multiply"}, "mode"),
        (
            {"mask": {"kind": "label", "label_name": "nuclei"}},
            "no label image 'nuclei'.*cells, other",
        ),
        ({"mask": {"kind": "label"}}, "label_name"),
        ({"mask": {"kind": "threshold"}}, "threshold"),
        ({"mask": {"kind": "threshold", "threshold": "nan"}}, "threshold"),
        ({"save_noise": True, **_method("gaussian")}, "save_noise needs the method tile_median"),
        ({"level": 7}, "level"),
        ({"output_image_name": "{image_name}"}, "its own source"),
    ],
)
def test_arguments(parameters, words, refused):
    refused(errors.ParameterError, words, **parameters)


def test_a_label_image_of_another_shape(refused):
    message = refused(
        errors.ImageFormatError,
        "label image 'other' has the shape",
        mask={"kind": "label", "label_name": "other"},
    )
    assert "(2, 96, 80) (z,y,x)" in message and "(2, 4, 96, 80) (c,z,y,x)" in message


def test_a_radius_along_z_without_a_z_axis(make_mosaic):
    source = make_mosaic(shape=(96, 80), axes="yx", name="flat.zarr", chunks=(16, 32))
    with pytest.raises(errors.BackgroundError, match="no z axis"):
        correct_background(source, **_method("gaussian", radius_z_planes=2))


def test_all_problems_are_told_at_once(refused):
    message = refused(
        errors.ShadingError,
        "^3 problems",
        **_method("median", radius=50),
        mask={"kind": "label", "label_name": "nuclei"},
        save_noise=True,
    )
    for words in ("50 px", "nuclei", "save_noise"):
        assert words in message


@pytest.mark.slow
@pytest.mark.parametrize("earlier", [False, True])
@pytest.mark.parametrize("workers", [1, 2])
def test_dividing_by_a_background_that_reaches_0(
    earlier, workers, make_mosaic, tree, tmp_path, monkeypatch
):
    """Found while blocks are written: nothing is left, and an earlier result is as it was."""
    monkeypatch.setattr(background_parts, "BLOCK_BYTES", 1)
    rng = np.random.default_rng(0)
    array = rng.normal(50, 1, (1, 4, 96, 80)).astype("float32")
    array[0, 2, 48:, :40] -= 50
    source = make_mosaic(array=array, channels=("488 nm",))
    arguments = {**_method("gaussian", radius=8), "overwrite": True, "save_background": True}
    if earlier:
        correct_background(source, **arguments)
    before = tree(tmp_path)
    with pytest.raises(errors.BackgroundError) as caught:
        correct_background(source, mode="divide", n_workers=workers, **arguments)
    assert str(caught.value).startswith(
        "In channel '488 nm', tile 2, plane z=2: The background is 0"
    )
    assert tree(tmp_path) == before
    # Another attempt need not be told to drop the first.
    correct_background(source, **arguments)


def test_a_damaged_chunk_keeps_what_was_finished(make_mosaic, monkeypatch, tmp_path):
    monkeypatch.setattr(background_parts, "BLOCK_BYTES", 1)
    source = make_mosaic()
    # Blocks are worked on in the order of the image: of the last one, the others are finished.
    last = max(
        path for path in (source / "0").rglob("*") if path.name.isdecimal() and path.is_file()
    )
    last.write_bytes(b"\xff" * 99)
    with pytest.raises(errors.SourceReadError, match=str(last.relative_to(source))):
        correct_background(source, **_method("gaussian"))
    assert (tmp_path / ".brain_background_corr.zarr.job").exists()
    assert not (tmp_path / "brain_background_corr.zarr").exists()
