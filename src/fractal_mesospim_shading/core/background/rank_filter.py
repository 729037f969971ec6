"""The middle numbers of a neighbourhood that slides over planes.

A histogram slides along the rows of a plane: of the numbers themselves where they are few, else of
groups of ranks, with a bit for each rank.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from fractal_mesospim_shading.core.kernel_cache import kernel

_WORD_BITS = 6
"""A word holds 64 ranks as bits."""

_GROUP_BITS = 9
"""Ranks are counted in groups of 512."""


def middle_numbers(
    numbers: NDArray[np.int32],
    ignored: NDArray[np.bool_] | None,
    count: int,
    widths: NDArray[np.int64],
    radius_z_px: int,
    *,
    ranks: bool,
) -> tuple[NDArray[np.int32], NDArray[np.int32]]:
    """The two middle ones of all numbers in the neighbourhood of every pixel.

    Args:
        numbers: (z, y, x), each from 0 to `count` - 1.
        ignored: pixels that do not count, same shape.
        count: of different numbers.
        widths: how far the neighbourhood reaches in each of its rows.
        radius_z_px: planes to each side that belong to the neighbourhood.
        ranks: whether no number occurs twice. Then a bit is kept of each, and a count of each
            512, which stay in the processor's cache where a count of each does not.

    Returns:
        Lower and upper middle number, equal where the number of pixels is odd, and
        -1 where no pixel counts.
    """
    shift = _GROUP_BITS if ranks else 0
    # Pixels beyond the edge and ignored ones share one last group that is never reached.
    outside = ((count >> shift) + 1) << shift
    if ignored is not None:
        numbers = np.where(ignored, np.int32(outside), numbers)
    margin_y, margin_x = widths.size // 2, int(widths.max())
    margins = ((0, 0), (margin_y, margin_y), (margin_x, margin_x + 1))
    numbers = np.ascontiguousarray(numbers, dtype=np.int32)
    padded = np.pad(numbers, margins, constant_values=outside)
    lower = np.empty(numbers.shape, np.int32)
    upper = np.empty(numbers.shape, np.int32)
    for z in range(numbers.shape[0]):
        window = padded.view(np.uint32)[max(z - radius_z_px, 0) : z + radius_z_px + 1]
        _slide(window, widths, outside, shift, lower[z], upper[z])
    return lower, upper


@kernel
def _slide(window, widths, outside, shift, lower, upper):  # type: ignore[no-untyped-def]
    depth, padded_height, padded_width = window.shape
    pixels = window.reshape(-1)
    groups = np.zeros((outside >> shift) + 1, np.int32)
    words = np.zeros((outside >> _WORD_BITS) + 1 if shift else 1, np.uint64)
    margin = widths.max()
    # Unsigned indices, or numba looks at each whether it counts from the end: twice the time.
    leaving = np.empty(depth * widths.size, np.uint64)
    entering = np.empty(depth * widths.size, np.uint64)
    total = depth * (2 * widths.sum() + widths.size)
    for y in range(lower.shape[0]):
        for p in range(depth):
            for dy in range(widths.size):
                start = (p * padded_height + y + dy) * padded_width + margin
                leaving[p * widths.size + dy] = start - widths[dy]
                entering[p * widths.size + dy] = start + widths[dy] + 1
        _count_window(pixels, leaving, entering, 1, groups, words, shift)
        group, below = np.int64(0), np.int64(0)
        for x in range(lower.shape[1]):
            n = total - groups[outside >> shift]
            if n:
                group, below = _move_to(groups, group, below, (n - 1) // 2)
                if shift:
                    lower[y, x], upper[y, x] = _middle_bits(words, group, shift, below, n)
                else:
                    lower[y, x], upper[y, x] = _middle_counts(groups, group, below, n)
            else:
                lower[y, x] = upper[y, x] = -1
            if x + 1 < lower.shape[1]:
                below += _advance(pixels, leaving, entering, x, groups, group, words, shift)
        for j in range(leaving.size):
            leaving[j] += np.uint64(lower.shape[1] - 1)
            entering[j] += np.uint64(lower.shape[1] - 1)
        _count_window(pixels, leaving, entering, -1, groups, words, shift)


@kernel
def _count_window(pixels, first, end, step, groups, words, shift):  # type: ignore[no-untyped-def]
    for j in range(first.size):
        for i in range(first[j], end[j]):
            groups[np.uint64(pixels[i]) >> np.uint64(shift)] += step
            if shift:
                _flip(words, np.uint64(pixels[i]))


@kernel
def _advance(pixels, leaving, entering, x, groups, group, words, shift):  # type: ignore[no-untyped-def]
    """One step to the right; by how much the count below `group` changes."""
    change = np.int64(0)
    at, bits, limit = np.uint64(x), np.uint64(shift), np.uint64(group)
    for j in range(leaving.size):
        gone, come = np.uint64(pixels[leaving[j] + at]), np.uint64(pixels[entering[j] + at])
        out, new = gone >> bits, come >> bits
        groups[out] -= np.int32(1)
        groups[new] += np.int32(1)
        change += np.int64(new < limit) - np.int64(out < limit)
        if shift:
            _flip(words, gone)
            _flip(words, come)
    return change


@kernel
def _flip(words, number):  # type: ignore[no-untyped-def]
    """Enter a number in the bits, or take it out again."""
    words[number >> np.uint64(_WORD_BITS)] ^= np.uint64(1) << (number & np.uint64(63))


@kernel
def _move_to(groups, group, below, rank):  # type: ignore[no-untyped-def]
    """The group that holds the number of this rank, and how many lie below it."""
    while below > rank:
        group -= 1
        below -= groups[group]
    while below + groups[group] <= rank:
        below += groups[group]
        group += 1
    return group, below


@kernel
def _middle_counts(counts, low, below, n):  # type: ignore[no-untyped-def]
    high = low
    if below + counts[low] <= n // 2:
        high += 1
        while counts[high] == 0:
            high += 1
    return low, high


@kernel
def _middle_bits(words, group, shift, below, n):  # type: ignore[no-untyped-def]
    word = group << (shift - _WORD_BITS)
    rest = words[word]
    count = _ones(rest)
    while below + count <= (n - 1) // 2:
        below += count
        word += 1
        rest = words[word]
        count = _ones(rest)
    for _ in range((n - 1) // 2 - below):
        rest = _without_lowest(rest)
    low = (word << _WORD_BITS) + _lowest(rest)
    if n & 1:
        return low, low
    rest = _without_lowest(rest)
    while rest == 0:
        word += 1
        rest = words[word]
    return low, (word << _WORD_BITS) + _lowest(rest)


@kernel
def _without_lowest(word):  # type: ignore[no-untyped-def]
    return word & (word - np.uint64(1))


@kernel
def _lowest(word):  # type: ignore[no-untyped-def]
    """Which bit is the lowest that is set."""
    return _ones((word & (~word + np.uint64(1))) - np.uint64(1))


@kernel
def _ones(word):  # type: ignore[no-untyped-def]
    """How many bits of 64 are set; compilers know this form and make one instruction of it."""
    pairs, fours = np.uint64(0x5555555555555555), np.uint64(0x3333333333333333)
    word = word - ((word >> np.uint64(1)) & pairs)
    word = (word & fours) + ((word >> np.uint64(2)) & fours)
    word = (word + (word >> np.uint64(4))) & np.uint64(0x0F0F0F0F0F0F0F0F)
    return np.int64((word * np.uint64(0x0101010101010101)) >> np.uint64(56))
