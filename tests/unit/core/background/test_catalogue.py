"""A new method is one file and one line of the catalogue."""

from typing import Any, ClassVar, Literal, get_args

import numpy as np
import pytest
from pydantic import Field, TypeAdapter, ValidationError

from fractal_mesospim_shading.core.background import METHODS, BackgroundMethod, make_method
from fractal_mesospim_shading.core.background.arrays import correct_array
from fractal_mesospim_shading.core.background.catalogue import Method, method_in_short
from fractal_mesospim_shading.errors import BackgroundError


class DarkestModel(BackgroundMethod):
    """The darkest pixel everywhere: all that a method has to say."""

    arguments: ClassVar = ("radius_px",)

    method: Literal["darkest"] = "darkest"
    radius: float = Field(default=3.0, gt=0)

    @property
    def largest_radius_px(self) -> float:
        return self.radius

    @property
    def halo_px(self) -> int | None:
        return None

    def estimate(self, values: Any, ignored: Any) -> Any:
        counted = values if ignored is None else values[~ignored]
        return np.full(values.shape, counted.min(), np.float32)


def test_all_else_has_a_default():
    image = np.arange(30, dtype=np.uint16).reshape(5, 6)
    method = DarkestModel(radius=6.0, radius_unit="micrometers").in_pixels((2.0, 2.0))
    assert method == DarkestModel.of(radius_px=3) and method.name == "darkest"
    np.testing.assert_array_equal(correct_array(image, method).image, image)
    masked = correct_array(image, method, mask=image < 4).image
    np.testing.assert_array_equal(masked, image - np.float32(4))
    assert method.title == "darkest, radius 3 px"
    with pytest.raises(BackgroundError, match="radius_px of the method darkest is '3'; expected a"):
        DarkestModel.of(radius_px="3")
    with pytest.raises(BackgroundError, match="has no parameter light_background; it has radius_"):
        DarkestModel.of(light_background=True)


def test_each_method_has_a_file_of_its_own():
    assert set(METHODS.values()) == set(get_args(get_args(Method)[0]))
    assert len({method.__module__ for method in METHODS.values()}) == len(METHODS)


@pytest.mark.parametrize("name", METHODS)
def test_what_users_may_not_write_is_no_field(name):
    read = TypeAdapter(Method).validate_python
    for argument in ("light_background", "_light_background", "noise_map", "radius_px"):
        with pytest.raises(ValidationError, match="Extra inputs are not permitted"):
            read({"method": name, argument: 1})


@pytest.mark.parametrize("name", METHODS)
def test_in_short(name):
    assert method_in_short(f" {name} ") == {"method": name}
    short = method_in_short(f"{name}:9")
    unit = {"radius_unit": "pixels"} if METHODS[name].short_in_radii else {}
    assert short == {"method": name, METHODS[name].short: "9", **unit}
    assert TypeAdapter(Method).validate_python(short).name == name
    assert method_in_short('{"method": "median"}') == '{"method": "median"}'
    assert method_in_short({"method": name}) == {"method": name}


@pytest.mark.parametrize("name", METHODS)
def test_methods_are_compared_kept_and_sent(name):
    import pickle

    method = make_method(name)
    assert pickle.loads(pickle.dumps(method)) == method
    assert hash(method) == hash(make_method(name))
    with pytest.raises(ValidationError, match="frozen"):
        method.radius_unit = "micrometers"
