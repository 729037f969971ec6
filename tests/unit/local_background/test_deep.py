"""Parts of deep stacks are those of the whole stack in memory, wherever the objects lie."""

from __future__ import annotations

from itertools import product

import numpy as np
import pytest

from fractal_mesospim_shading.core.background import make_method
from fractal_mesospim_shading.core.background.apply import Application
from fractal_mesospim_shading.local_background.deep import DeepStack
from fractal_mesospim_shading.local_background.planes import Nothing, PlaneCorrection

SHAPE, CHUNK = (11, 60, 70), 4
METHODS = {
    "exact median": make_method("median", radius_px=3, radius_z_px=1, exact=True),
    "median of blocks": make_method("median", radius_px=13, radius_z_px=2),
    "gaussian": make_method("gaussian", radius_px=4.0, radius_z_px=2.0),
    "opening": make_method("opening", radius_px=2, radius_z_px=1),
}


def scene():
    """Pixels, objects as large as no neighbourhood, and a margin and a plane without data."""
    rng = np.random.default_rng(8)
    pixels = rng.normal(400, 20, SHAPE).astype(np.float32)
    objects = np.zeros(SHAPE, np.bool_)
    objects[2:9, 10:50, 5:60] = objects[5:9] = True
    absent = np.zeros(SHAPE, np.bool_)
    absent[:, :, :9] = absent[0] = True
    return pixels, objects, absent


def stack_of(method, correction, pixels, objects, absent, reads):
    def read(slab):
        reads.append(slab.start)
        return zip(pixels[slab], objects[slab], absent[slab], strict=True)

    form = (SHAPE[0], CHUNK, SHAPE[1:], pixels.dtype)
    return DeepStack(method, correction, *form, object(), read)


def parts_of(stack, step=(4, 33, 35), margin=40):
    found = np.full(SHAPE, np.nan, np.float32)
    nothing = []
    for z, y, x in product(*(range(0, size, by) for size, by in zip(SHAPE, step, strict=True))):
        keep = [
            slice(start, min(start + by, size))
            for start, by, size in zip((z, y, x), step, SHAPE, strict=True)
        ]
        grid = stack.method.alignment_px
        around = [
            slice(
                max(0, (one.start - margin) // grid * grid),
                min(size, -(-(one.stop + margin) // grid) * grid),
            )
            for one, size in zip(keep[1:], SHAPE[1:], strict=True)
        ]
        parts = stack.parts(keep[0], tuple(around), tuple(keep[1:]))
        found[tuple(keep)] = [
            part.part(keep[1:], None, noise=False).result.background for part in parts
        ]
        nothing += [part.nothing for part in parts]
    return found, nothing


@pytest.mark.parametrize("step", [(4, 33, 35), (11, 4, 70), (11, 60, 6)])
@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("name", METHODS)
def test_the_same_bits_as_the_whole_stack(name, bias, step):
    """Also where a part ends beside an object: a pixel lies between its block and the next."""
    method, (pixels, objects, absent), reads = METHODS[name], scene(), []
    correction = PlaneCorrection(Application(), np.dtype(np.float32), None, 1, bias)
    stack = stack_of(method, correction, pixels, objects, absent, reads)
    margin = method.halo_px
    found, nothing = parts_of(stack, step, margin)
    everywhere = slice(None), slice(None), slice(None)
    wanted = correction.estimate(method, pixels, objects, absent, everywhere).result.background
    np.testing.assert_array_equal(found[~absent], wanted[~absent])
    assert set(nothing) == {None, Nothing(False)}
    assert sorted(reads) == [0, 4, 8]


def test_a_stack_all_under_the_mask_says_why():
    pixels, objects, absent = scene()
    objects[...] = True
    objects[3, 30, 40] = False
    correction = PlaneCorrection(Application(), np.dtype(np.float32), dilation_px=50)
    method, reads = METHODS["gaussian"], []
    stack = stack_of(method, correction, pixels, objects, absent, reads)
    found, nothing = parts_of(stack, margin=method.halo_px)
    assert not found.any()
    assert set(nothing) == {Nothing(True, 0), Nothing(False)}
    assert sorted(reads) == [0, 4, 8]
