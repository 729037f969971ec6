from __future__ import annotations

import os

import pytest

from fractal_mesospim_shading.errors import ImageFormatError, ImageNotFoundError, ParameterError
from fractal_mesospim_shading.images.output import output_url
from fractal_mesospim_shading.images.storage.names import (
    checked_path,
    from_template,
    refuse_bad_name,
    refuse_long_name,
    what_is_wrong,
)
from fractal_mesospim_shading.images.storage.places import normalise_url

OPTION = "output_image_name"


@pytest.mark.parametrize(
    ("template", "expected"),
    [
        ("{image_name}_corr", "a{b}%s_corr"),
        ("x{image_name}{image_name}", "xa{b}%sa{b}%s"),
        ("plain %s", "plain %s"),
    ],
)
def test_the_placeholder_is_replaced_and_nothing_else(template, expected):
    assert from_template(template, "a{b}%s", OPTION) == expected


@pytest.mark.parametrize(
    "template",
    [
        "{image_name.__class__}",
        "{image_name:>999999999}",
        "{image_name!r}",
        "{image_name[0]}",
        "{ image_name }",
        "{0}",
        "{}",
        "{{image_name}}",
        "{",
        "}",
    ],
)
def test_no_other_braces(template):
    with pytest.raises(ParameterError, match="the only placeholder is {image_name}"):
        from_template(template, "a", OPTION)


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("", "without folders"),
        ("  ", "without folders"),
        ("..", "without folders"),
        ("a/b", "without folders"),
        ("a\\b", "without folders"),
        ("a\nb", r"'a\\nb'; expected a plain name without line breaks"),
        ("a\x00b", "control characters"),
        ("a\x1b[31m", "control characters"),
        ("a\u202eb", "control characters"),
        ("a\udc80", "control characters"),
        ("a\u2028b", "control characters"),
        ("a.", "a dot or a blank at its end"),
        ("a ", "a dot or a blank at its end"),
        ("zarr.json", "keep for themselves"),
        (".zattrs", "keep for themselves"),
        ("__data", "keep for themselves"),
        (".brain.zarr.job", "keep for themselves"),
        ("Con", "keep for themselves"),
        ("lpt1.txt", "keep for themselves"),
    ],
)
def test_names_that_no_result_may_have(name, words):
    with pytest.raises(ParameterError, match=words):
        refuse_bad_name(name, OPTION)


@pytest.mark.parametrize(
    "name", ["a", "brain 12:30", "Köln µm 日本", "cost$ $^x", "{a}", ".hidden", "_a", "console"]
)
def test_names_that_are_names(name):
    refuse_bad_name(name, OPTION)


def test_a_name_of_the_greatest_length_is_written_and_a_longer_one_refused(tmp_path):
    most = min(255, os.pathconf(tmp_path, "PC_NAME_MAX")) - len("_background..01234567.replaced")
    url = str(tmp_path / "not" / "there" / ("ä" * (most // 2)))
    refuse_long_name(url, OPTION, "output_folder")
    with pytest.raises(ParameterError, match=f"a name of {most // 2 * 2 + 2} bytes.*takes {most}"):
        refuse_long_name(url + "ä", OPTION, "output_folder")
    with pytest.raises(ParameterError, match="Give a shorter zarr_dir="):
        refuse_long_name("/" + "/".join(["abcd"] * 900), "image_name", "zarr_dir")


def test_the_same_place_by_another_name_is_the_source(tmp_path):
    (tmp_path / "brain.zarr").mkdir()
    # As on a file system that ignores capitals.
    (tmp_path / "Brain.zarr").symlink_to(tmp_path / "brain.zarr")
    with pytest.raises(ParameterError, match="onto its own source"):
        output_url(str(tmp_path / "brain.zarr"), "Brain", None)


@pytest.mark.parametrize("address", ["a\x00b", "a\ud800b"])
def test_addresses_that_no_path_can_have(address):
    with pytest.raises(ImageNotFoundError, match="no path can have"):
        normalise_url(address)


# Names from inside a source.
HARMLESS = ["0", "s0", "a b", "ä", "..a", "a..", "...", "-", ":b", ".hidden", "x" * 255]


@pytest.mark.parametrize("name", HARMLESS)
def test_harmless_names(name: str) -> None:
    assert what_is_wrong(name) is None
    assert checked_path(f"scale0/{name}", "'a.zarr'") == f"scale0/{name}"


@pytest.mark.parametrize(
    "name", ["", ".", "..", "/", "a/b", "\\", "..\\x", "C:", "c:x", "a\0b", "/etc/passwd"]
)
def test_names_that_lead_elsewhere(name: str) -> None:
    assert what_is_wrong(name)


@pytest.mark.parametrize(
    "path", ["../0", "0/../../1", "/0", "a//b", "", ".", "a/.", "C:/x", "a\\b", "0/"]
)
def test_paths_that_lead_elsewhere(path: str) -> None:
    with pytest.raises(ImageFormatError, match="The metadata of 'a.zarr' holds the name"):
        checked_path(path, "The metadata of 'a.zarr'")
