"""The flat-field correction in float32: an image that is corrected as it is read, and its kernel.

What comes after a flat-field correction reads the image as it would read a finished result of that
correction, and nothing of it is ever written. The kernel writes the same pixels.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import prod
from typing import Any, ClassVar, Self

import numpy as np
from numpy.typing import NDArray

from fractal_mesospim_shading.core.blocks import cut
from fractal_mesospim_shading.core.correct import PixelCounts
from fractal_mesospim_shading.core.threads import Kept, empty_array
from fractal_mesospim_shading.engine.plan import Processed, channel_stacks
from fractal_mesospim_shading.engine.zero_look import Zeros
from fractal_mesospim_shading.flatfield.kernel import FlatfieldKernel
from fractal_mesospim_shading.flatfield.offset_look import ZYX
from fractal_mesospim_shading.images.arrays.documents import Box, StoredArray
from fractal_mesospim_shading.images.source import Level, MultitileImage, PixelSource, SourceView

DTYPE = np.dtype(np.float32)
"""Of the pixels."""

_met: Kept[set[int]] = Kept(256)
"""By run, the channels in which pixels without data were met in this process."""

_searched: Kept[bool] = Kept(1024)
"""By run and channel, whether there are any."""


class CorrectedImage(SourceView):
    """A `PixelSource` for one block, which is read with as much around it as its reader needs.

    Attributes:
        counts: by channel, what the correction did to the pixels of the block, each once.
        noise: of its raw pixels, by label of the model; see `OffsetLook`.
    """

    def __init__(self, source: PixelSource, kernel: FlatfieldKernel, block: Box) -> None:
        """Nothing is read yet.

        Args:
            source: with the raw pixels.
            kernel: that corrects them.
            block: whose pixels are counted; what is read around it is not.
        """
        super().__init__(source)
        self._kernel, self._block = kernel, block
        self._next: dict[tuple[int, int], int] = {}
        self.counts: dict[int, PixelCounts] = {}
        self.noise: dict[str, list[str]] = {}

    @property
    def levels(self) -> tuple[Level, ...]:
        """Full resolution alone: no coarser level was corrected."""
        return self._source.levels[:1]

    @property
    def dtype(self) -> np.dtype[Any]:
        """float32, whatever the source has."""
        return DTYPE

    def read(self, level: int, box: Box) -> NDArray[Any]:
        """Read a box and correct it; level 0 is all there is."""
        return self._corrected(self._source.read(level, box), box)

    def read_block(self, box: Box) -> NDArray[Any]:
        """Read a block and correct it."""
        return self._corrected(self._source.read_block(box), box)

    def _corrected(self, raw: NDArray[Any], box: Box) -> NDArray[Any]:
        self._kernel.blank(raw, box)
        corrected = empty_array(raw.shape, DTYPE)
        stacks = (channel_stacks(data, self.axes, box) for data in (raw, corrected))
        for (lead, z, planes), (_, _, out) in zip(*stacks, strict=True):
            channel, where = lead["c"], (z, box[-2], box[-1])
            zeros = self._kernel.zeros(self._source, lead, where, planes)
            self._count(lead, where, planes, zeros)
            np.copyto(out, planes)
            found = self._kernel.correct(channel, (box[-2], box[-1]), out, zeros)
            if found.no_data:
                self._channels_met().add(channel)
        return corrected

    def holds_no_data(self, channel: int) -> bool:
        """Whether a channel holds pixels without data anywhere, as a finished result would tell.

        Where none was met yet, the channel is read until there is one, once in each process.
        """
        if channel in self._channels_met():
            return True
        return _searched.get(
            (self._kernel.look.run, channel), lambda: self._any_without_data(channel)
        )

    def _channels_met(self) -> set[int]:
        return _met.get(self._kernel.look.run, set)

    def _any_without_data(self, channel: int) -> bool:
        shape = self._source.levels[0].shape
        whole = dict(zip(self.axes, (slice(0, size) for size in shape), strict=True))
        if "c" in whole:
            whole["c"] = slice(channel, channel + 1)
        searching = CorrectedImage(self._source, self._kernel, ())
        for box in cut(self.axes.box(whole), self.read_grain()):
            if channel in self._channels_met():
                return True
            searching.read(0, box)
        return channel in self._channels_met()

    def _count(self, lead: dict[str, int], where: ZYX, planes: NDArray[Any], zeros: Zeros) -> None:
        """Count what of some raw planes (n, y, x) belongs to the block, and was not counted yet."""
        keep = self._uncounted(lead, where)
        if keep is None:
            return
        own, channel = planes[keep], lead["c"]
        counted = PixelCounts(own.size, **zeros.counted(keep))
        if self._kernel.every_zero_is_no_data(channel):
            counted += PixelCounts(no_data=int(np.count_nonzero(own == 0)))
        elif zeros.without_data is not None:
            counted += PixelCounts(no_data=int(np.count_nonzero(zeros.without_data[keep])))
        if np.issubdtype(own.dtype, np.integer):
            top = np.iinfo(own.dtype).max
            counted += PixelCounts(saturated=int(np.count_nonzero(own == top)))
        self.counts[channel] = self.counts.get(channel, PixelCounts()) + counted
        z, y, x = (
            slice(part.start + inside.start, part.start + inside.stop)
            for part, inside in zip(where, keep, strict=True)
        )
        absent = None if zeros.without_data is None else zeros.without_data[keep]
        for label, text in self._kernel.noise(lead, (z, y, x), own, Zeros(absent)):
            self.noise.setdefault(label, []).append(text)

    def _uncounted(self, lead: dict[str, int], where: ZYX) -> ZYX | None:
        """The part of some planes that is to be counted: planes of the block come in order."""
        if not self._block or any(
            not along.start <= lead[axis] < along.stop
            for axis in "tc"
            for along in [self.axes.span(axis, self._block)]
        ):
            return None
        (z, *yx), own = where, self.axes.span("z", self._block)
        edges = list(zip(yx, self._block[-2:], strict=True))
        if any(own.start < part.start or own.stop > part.stop for part, own in edges):
            return None
        place = (lead["t"], lead["c"])
        start, stop = self._next.get(place, own.start), min(z.stop, own.stop)
        if not z.start <= start < stop:
            return None
        self._next[place] = stop
        y, x = (slice(own.start - part.start, own.stop - part.start) for part, own in edges)
        return slice(start - z.start, stop - z.start), y, x


@dataclass(frozen=True)
class Float32Kernel:
    """Flat-field correction whose result is float32, whatever the source has.

    Attributes:
        shared_bytes: what all blocks of a process share: flat-field and dark-field of each model.
        flatfield: what is done; None until the models are known.
    """

    shared_bytes: int
    flatfield: FlatfieldKernel | None = None

    besides: ClassVar[Sequence[StoredArray]] = ()
    companions: ClassVar[Sequence[str]] = ()

    @classmethod
    def of(cls, image: MultitileImage) -> Self:
        """That of an image whose models are not known yet."""
        profiles = 2 * DTYPE.itemsize * len(image.model_groups)
        return cls(profiles * prod(image.layout.tile_shape))

    @property
    def known(self) -> FlatfieldKernel:
        """What is done, once it is known."""
        if self.flatfield is None:
            raise RuntimeError("The kernel has no models yet; estimate or load them first.")
        return self.flatfield

    @property
    def zero_is_no_data(self) -> Mapping[int, bool]:
        """By channel, for the contrast windows."""
        return self.known.zero_is_no_data

    def working_bytes(self, block: Sequence[int], source: MultitileImage) -> int:
        """What a block needs beside the pixels that it writes: the raw ones, and what the
        correction takes.

        Args:
            block: its shape.
            source: that is read.
        """
        known = self.flatfield
        both = 8 * prod(block[-2:]) if known is None else known.working_bytes(block, source)
        return prod(block) * source.dtype.itemsize + both

    def process(self, source: MultitileImage, box: Box) -> Processed:
        """Read and correct a box."""
        image = CorrectedImage(source, self.known, box)
        data = image.read_block(box)
        return Processed((data,), image.counts, image.noise)
