"""The gains of the tiles of an image: what they are, in numbers and in plain words."""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from fractal_mesospim_shading.core.overlaps.gains import LARGEST_GAIN, TileGain
from fractal_mesospim_shading.images.arrays.documents import Document
from fractal_mesospim_shading.messages import counted, listed

if TYPE_CHECKING:
    from fractal_mesospim_shading.core.overlaps.observing import Rejected

logger = logging.getLogger(__name__)

# Gains that are named one by one, those that differ most from 1.
_MOST_NAMED = 3


@dataclass(frozen=True)
class ChannelGains:
    """The gains of the tiles of a channel.

    Attributes:
        label: of the channel.
        names: of the tiles, by number.
        tiles: gain of each tile, by number.
        rejected: pairs of tiles that could not be registered.
        as_placed: number of these that were compared as the positions say.
        offset_told: whether the uncertainties hold what the camera offset may be off.
        side: gain of the side that lit all of them, on top; None where sides are not compared.
    """

    label: str
    names: Mapping[int, str]
    tiles: Mapping[int, TileGain]
    rejected: tuple[Rejected, ...] = ()
    as_placed: int = 0
    offset_told: bool = True
    side: TileGain | None = None

    def factor(self, number: int) -> float:
        """What the light of a tile is multiplied with."""
        return self.tiles[number].gain * (self.side.gain if self.side is not None else 1.0)

    @property
    def all_one(self) -> bool:
        """Whether no tile is changed."""
        return all(tile.gain == 1 for tile in self.tiles.values())

    @property
    def unlinked(self) -> tuple[int, ...]:
        """Tiles that no overlap tells anything of."""
        return tuple(number for number, tile in self.tiles.items() if not tile.pairs)

    @property
    def linked(self) -> dict[int, TileGain]:
        """The other tiles."""
        return {number: tile for number, tile in self.tiles.items() if tile.pairs}

    def of_tile(self, number: int) -> ChannelGains:
        """Those of one tile alone."""
        return replace(self, tiles={number: self.tiles[number]}, rejected=(), as_placed=0)

    def columns(self) -> Document:
        """A list for each column of a table."""
        return {
            "tile": list(self.tiles),
            "name": [self.names[number] for number in self.tiles],
            "gain": [tile.gain for tile in self.tiles.values()],
            "uncertainty": [_rounded(tile.uncertainty) for tile in self.tiles.values()],
            "overlaps": [tile.pairs for tile in self.tiles.values()],
            "linked_part": [tile.component for tile in self.tiles.values()],
        }

    def facts(self) -> Document:
        """For provenance: the columns of the tiles, and the gain of the side."""
        if self.side is None:
            return self.columns()
        side = {"gain": self.side.gain, "uncertainty": _rounded(self.side.uncertainty)}
        return {**self.columns(), "side": side}

    def rows(self) -> tuple[tuple[str, str], ...]:
        """For the report: what they are, and each of them."""
        words = (
            f"{self.text}; {'; '.join(self.most_different)}" if self.most_different else self.text
        )
        each = ", ".join(f"{number}: {tile.gain:.3f}" for number, tile in self.tiles.items())
        return ("Tile gains", words), ("Gain of each tile", each)

    @property
    def text(self) -> str:
        """Their range, and how sure they are, in words."""
        linked = self.linked.values()
        if not linked:
            return _why_unlinked(self)
        error = 100 * float(np.median([tile.uncertainty for tile in linked]))
        overlaps = counted(sum(tile.pairs for tile in linked) // 2, "overlap")
        known = f"{error:.2g} %{'' if self.offset_told else ' if the camera offset is right'}"
        if self.all_one:
            return f"all 1: tiles of equal brightness in {overlaps} (within {known})"
        gains = [tile.gain for tile in linked]
        return f"{min(gains):.3f} to {max(gains):.3f} from {overlaps}, each known to {known}"

    @property
    def most_different(self) -> list[str]:
        """Words for the tiles that differ most from the others."""
        changed = [number for number, tile in self.linked.items() if tile.gain != 1]
        words = []
        for number in sorted(changed, key=lambda n: (-abs(np.log(self.tiles[n].gain)), n)):
            brightness = 1 / self.tiles[number].gain
            how = "dimmer" if brightness < 1 else "brighter"
            words.append(f"tile {number} was {100 * abs(brightness - 1):.2g} % {how}")
        return words[:_MOST_NAMED]

    def to_bytes(self) -> bytes:
        """For the folder of a job, so that a continued run goes on with the same gains."""
        content = {
            "label": self.label,
            "tiles": [
                {"number": number, "name": self.names[number], **asdict(tile)}
                for number, tile in self.tiles.items()
            ],
            "rejected": [[pair.first, pair.second, pair.reason] for pair in self.rejected],
            "as_placed": self.as_placed,
            "offset_told": self.offset_told,
        }
        return json.dumps(content).encode()

    @classmethod
    def from_bytes(cls, data: bytes) -> ChannelGains:
        """The inverse of `to_bytes`, to the last bit."""
        from fractal_mesospim_shading.core.overlaps.observing import Rejected

        content = json.loads(data)
        names, tiles = {}, {}
        for entry in content["tiles"]:
            number = entry.pop("number")
            names[number] = entry.pop("name")
            tiles[number] = TileGain(**entry)
        rejected = tuple(Rejected(*pair) for pair in content["rejected"])
        told = content["as_placed"], content["offset_told"]
        return cls(content["label"], names, tiles, rejected, *told)


ImageGains = Mapping[int, ChannelGains]
"""The gains of an image, by index of the channel; nothing for channels that keep theirs."""


def gain_of(gains: ImageGains, channel: int, tile: int) -> float:
    """What the light of a tile is multiplied with."""
    own = gains.get(channel)
    return own.factor(tile) if own is not None and tile in own.tiles else 1.0


def _rounded(uncertainty: float) -> float | None:
    """As it is written down; None where nothing is known."""
    return round(uncertainty, 6) if np.isfinite(uncertainty) else None


def tell_gains(found: ChannelGains, prefix: str = "") -> None:
    """Say what the gains of a channel are, in plain words.

    Args:
        found: the gains.
        prefix: goes before the label where a job has several mosaics.
    """
    label, linked = prefix + found.label, found.linked
    if not linked:
        logger.warning("Channel %s: tile gains: %s.", label, found.text)
        return
    words = "; ".join(found.most_different)
    logger.info("Channel %s: tile gains: %s%s.", label, found.text, f": {words}" if words else "")
    if found.unlinked:
        logger.info("Channel %s: %s.", label, _why_unlinked(found))
    _tell_parts(label, found)
    if found.as_placed and 2 * found.as_placed >= sum(tile.pairs for tile in linked.values()):
        logger.warning(
            "Channel %s: in none of the overlaps do two tiles show the same tissue (%s); they were "
            "compared as the positions say. Look at these: do they belong to other tiles?",
            label,
            listed([f"{pair.first} and {pair.second}: {pair.reason}" for pair in found.rejected]),
        )
    limited = [number for number, tile in linked.items() if tile.limited]
    if limited:
        logger.warning(
            "Channel %s: the tiles %s differ from the others by more than a factor of %g; their "
            "gains are cut off there. Look at them: was the light off, or do the positions belong "
            "to other tiles?",
            label,
            listed([str(number) for number in limited]),
            LARGEST_GAIN,
        )


def _why_unlinked(found: ChannelGains) -> str:
    """Words for the tiles that keep their brightness, and why."""
    tiles = listed([str(number) for number in found.unlinked])
    text = f"no overlap tells the brightness of the tiles {tiles}, which keep it"
    own = set(found.unlinked)
    reasons = [
        f"{pair.first} and {pair.second}: {pair.reason}"
        for pair in found.rejected
        if {pair.first, pair.second} & own
    ]
    return f"{text} ({listed(reasons)})" if reasons else text


def _tell_parts(label: str, found: ChannelGains) -> None:
    """Say which tiles are linked where not all are."""
    parts: dict[int, list[str]] = {}
    for number, tile in found.linked.items():
        parts.setdefault(tile.component, []).append(str(number))
    if len(parts) > 1:
        logger.info(
            "Channel %s: overlaps link the tiles in %d parts, each with gains around 1; how "
            "bright these are to each other, nothing tells: %s.",
            label,
            len(parts),
            "; ".join(listed(numbers) for numbers in parts.values()),
        )
