"""Lasers and filters: how their names are compared, and which channels they make."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass


@dataclass(frozen=True)
class NativeChannel:
    """One laser with one filter.

    Attributes:
        label: `<laser>`, or `<laser> <filter>` where this laser has several filters.
        laser: as the metadata file calls it, such as `488 nm`.
        filter: empty where nothing says it.
        wavelength_nm: of the laser, None where its name has no number.
    """

    label: str
    laser: str
    filter: str
    wavelength_nm: float | None


def laser_name(text: str) -> str:
    """One spelling for a laser: `488`, `488nm` and `488 nm` are the same."""
    match = re.fullmatch(r"(\d+(?:\.\d+)?)\s*(?:nm)?", text.strip(), re.IGNORECASE)
    return f"{match[1]} nm" if match else text.strip()


def filter_key(text: str) -> str:
    """What is left of a filter's name in the name of a group, to compare by."""
    return re.sub(r"[^0-9a-z]+", "_", text.lower()).strip("_")


def list_channels(
    pairs: Iterable[tuple[str, str, bool]],
) -> tuple[tuple[NativeChannel, ...], dict[tuple[str, str], int]]:
    """Find the channels of a set of stacks.

    Args:
        pairs: laser, filter (empty where unknown) and whether the filter is spelled in full.

    Returns:
        The channels by rising wavelength; and the index of the channel for each pair of
        laser and `filter_key`. An unknown filter belongs to the only one of its laser.
    """
    spelled: dict[tuple[str, str], tuple[bool, str]] = {}
    for laser, name, full in pairs:
        pair = (laser, filter_key(name))
        if pair not in spelled or (full and not spelled[pair][0]):
            spelled[pair] = (full, name)
    lasers = {laser for laser, _ in spelled}
    filters = {laser: sorted(k for owner, k in spelled if owner == laser) for laser in lasers}
    alias: dict[tuple[str, str], tuple[str, str]] = {}
    for laser, keys in filters.items():
        known = [key for key in keys if key]
        for key in keys:
            alias[laser, key] = (laser, known[0] if not key and len(known) == 1 else key)
    distinct = sorted(set(alias.values()), key=lambda pair: (_order(pair[0]), pair[1]))
    channels = []
    for laser, key in distinct:
        several = sum(owner == laser for owner, _ in distinct) > 1
        name = spelled[laser, key][1]
        label = f"{laser} {name}".strip() if several else laser
        channels.append(NativeChannel(label, laser, name, _wavelength(laser)))
    index = {given: distinct.index(target) for given, target in alias.items()}
    return tuple(channels), index


def _wavelength(laser: str) -> float | None:
    number = re.search(r"\d+(?:\.\d+)?", laser)
    return float(number[0]) if number else None


def _order(laser: str) -> tuple[float, str]:
    wavelength = _wavelength(laser)
    return (wavelength if wavelength is not None else float("inf"), laser)
