"""Cameras, and what is done to their pixels before they are stored.

A camera makes one plane of counts from the light that falls on it. `photons` is the textbook:
counted photons and Gaussian read noise. Noise of the others differs from it in ways that real
data do: pixels of scientific CMOS cameras differ in read noise and sensitivity, and some flicker;
frames are averaged, filtered, compressed, freed of peaks.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
from numpy.typing import NDArray

FloatImage = NDArray[np.float32]


@dataclass(frozen=True)
class Exposure:
    """One plane on its way to the camera.

    Attributes:
        light: (y, x) expected counts above the dark frame.
        dark: (y, x) the dark frame, counts.
        gain: counts per electron.
        read_noise: electrons; of a sensor whose pixels differ, about the median.
        random: of this plane.
        sensor: seed of what is the same in all planes.
    """

    light: FloatImage
    dark: FloatImage
    gain: float
    read_noise: float
    random: np.random.Generator
    sensor: Sequence[int]

    @property
    def noise(self) -> FloatImage:
        """Standard deviation of the pixels of `photons`, counts."""
        variance = self.gain * self.light + np.float32((self.gain * self.read_noise) ** 2)
        return np.asarray(np.sqrt(variance), np.float32)


Camera = Callable[[Exposure], FloatImage]


def photons(exposure: Exposure) -> FloatImage:
    """Photons, and read noise that is Gaussian and the same in all pixels."""
    gain, random = exposure.gain, exposure.random
    counts = random.poisson(exposure.light / gain).astype(np.float32) * np.float32(gain)
    noise = random.standard_normal(exposure.light.shape, dtype=np.float32)
    counts += exposure.dark + noise * np.float32(gain * exposure.read_noise)
    return counts


def scientific_cmos(exposure: Exposure) -> FloatImage:
    """Pixels of different read noise (a long tail) and gain (0.5 %); some flicker, few are hot.

    0.3 % of the pixels jump between two levels; 1 in 10 000 has a dark current of its own.
    """
    shape, gain = exposure.light.shape, np.float32(exposure.gain)
    sensor = np.random.default_rng(np.random.SeedSequence(list(exposure.sensor)))
    read = np.exp(0.3 * sensor.standard_normal(shape, dtype=np.float32))
    read += (sensor.random(shape) < 0.02) * sensor.standard_exponential(shape) * 3
    sensitivity = 1 + 0.005 * sensor.standard_normal(shape, dtype=np.float32)
    level = (sensor.random(shape) < 0.003) * sensor.standard_exponential(shape) * 6
    current = (sensor.random(shape) < 1e-4) * sensor.standard_exponential(shape) * 200
    random = exposure.random
    electrons = random.poisson(exposure.light / gain * sensitivity + current).astype(np.float32)
    noise = random.standard_normal(shape, dtype=np.float32)
    electrons += noise * np.float32(exposure.read_noise) * read.astype(np.float32)
    electrons += (random.random(shape, dtype=np.float32) < 0.5) * level.astype(np.float32)
    return np.asarray(exposure.dark + gain * electrons, np.float32)


def gaussian(exposure: Exposure) -> FloatImage:
    """The variance of photons without their skewness."""
    noise = exposure.random.standard_normal(exposure.light.shape, dtype=np.float32)
    return np.asarray(exposure.dark + exposure.light + exposure.noise * noise, np.float32)


def stepped(exposure: Exposure, step: float = 1.0) -> FloatImage:
    """Lossy compression: steps of so many standard deviations of each pixel's own noise.

    The steps are equal where the square root has made the noise equal.
    """
    gain = exposure.gain
    lowest = np.float32(gain * exposure.read_noise**2 + 0.375 * gain)
    above = np.maximum(photons(exposure) - exposure.dark + lowest, 0)
    level = np.rint(2 * np.sqrt(above / gain) / step) * step
    return np.asarray(gain * (level / 2) ** 2 - lowest + exposure.dark, np.float32)


def filtered(
    exposure: Exposure, y: Sequence[float] = (1,), x: Sequence[float] = (1,)
) -> FloatImage:
    """Neighbours that share noise: a filter of these weights along y and x, of sum 1.

    (1, 2, 1) along both smooths; (3, 1) and (1, 1) shift by 0.25 and 0.5 pixels.
    """
    from scipy.ndimage import convolve1d

    image = photons(exposure) - exposure.dark
    for axis, weights in enumerate((y, x)):
        image = convolve1d(image, np.asarray(weights) / np.sum(weights), axis=axis, mode="nearest")
    return np.asarray(image + exposure.dark, np.float32)


def despeckled(exposure: Exposure, most: float = 2.5) -> FloatImage:
    """Nothing brighter than so many standard deviations above what is expected."""
    limit = exposure.light + exposure.dark + np.float32(most) * exposure.noise
    return np.minimum(photons(exposure), limit)


def averaged(exposure: Exposure, frames: int = 4) -> FloatImage:
    """The mean of several exposures."""
    total = np.zeros(exposure.light.shape, np.float32)
    for _ in range(frames):
        total += photons(exposure)
    return np.asarray(total / frames, np.float32)


CAMERAS: Mapping[str, Camera] = {
    "photons": photons,
    "scientific CMOS": scientific_cmos,
    "stepped": stepped,
    "shared": partial(filtered, y=(1, 2, 1), x=(1, 2, 1)),
    "despeckled": despeckled,
    "gaussian": gaussian,
    "shifted by 0.25": partial(filtered, x=(3, 1)),
    "shifted by 0.5": partial(filtered, x=(1, 1)),
    "averaged": averaged,
}
"""Cameras by name."""
