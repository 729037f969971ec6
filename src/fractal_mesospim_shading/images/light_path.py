"""What is told of the light path that pixels came by; a flat-field is that of one light path."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from operator import eq
from typing import Any

_TEXTS = ("zoom", "camera", "side", "filter")
_FACTOR = re.compile(r"(\d+(?:\.\d+)?)x?")


@dataclass(frozen=True)
class LightPath:
    """What is told of a light path; what nothing tells is empty.

    Attributes:
        zoom, camera, side, filter: as they were typed, each value once and in order; several where
            tiles differ.
        pixel_size_um: (y, x), in micrometers.
    """

    zoom: tuple[str, ...] = ()
    camera: tuple[str, ...] = ()
    side: tuple[str, ...] = ()
    filter: tuple[str, ...] = ()
    pixel_size_um: tuple[float, float] | None = None

    @classmethod
    def of(
        cls,
        zoom: object,
        camera: object,
        side: object,
        filter_name: object,
        pixel_size_um: tuple[float, float],
    ) -> LightPath:
        """That of one stack; what is no text, or an empty one, is not told."""
        return cls(
            _texts([zoom]), _texts([camera]), _texts([side]), _texts([filter_name]), pixel_size_um
        )

    @classmethod
    def from_facts(cls, facts: object) -> LightPath:
        """The inverse of `facts`; what is nothing of the kind is not told."""
        if not isinstance(facts, Mapping):
            return cls()
        texts = {name: _texts(facts.get(name)) for name in _TEXTS}
        size = facts.get("pixel_size_um")
        usual = isinstance(size, list) and [type(value) for value in size] == [float, float]
        return cls(**texts, pixel_size_um=(size[0], size[1]) if size and usual else None)

    def facts(self) -> dict[str, Any]:
        """What is told, as JSON."""
        told: dict[str, Any] = {name: list(self.values(name)) for name in _TEXTS}
        if self.pixel_size_um is not None:
            told["pixel_size_um"] = [float(size) for size in self.pixel_size_um]
        return {name: values for name, values in told.items() if values}

    def values(self, name: str) -> tuple[str, ...]:
        """The values of `zoom`, `camera`, `side` or `filter`."""
        values: tuple[str, ...] = vars(self)[name]
        return values

    def differences(self, other: LightPath) -> tuple[str, str] | None:
        """What is another zoom, camera or side there, in words: of this path, and of the other.

        Returns:
            None where nothing that both tell differs.
        """
        own, others = [], []
        for name, (words, means) in _COMPARED.items():
            here, there = self.values(name), other.values(name)
            if here and there and not _same(here, there, means):
                own.append(f"{words} {' and '.join(here)}")
                others.append(f"{words} {' and '.join(there)}")
        return (", ".join(own), ", ".join(others)) if own else None


def together(paths: Iterable[LightPath]) -> LightPath:
    """What several tell, such as the tiles of a channel; a pixel size that differs is not told."""
    paths = tuple(paths)
    texts = {name: _texts([v for path in paths for v in path.values(name)]) for name in _TEXTS}
    sizes = {path.pixel_size_um for path in paths}
    return LightPath(**texts, pixel_size_um=sizes.pop() if len(sizes) == 1 else None)


def of_import(mark: object, channel: int, pixel_size_um: tuple[float, float]) -> LightPath:
    """What the mark of an imported image, or of a result made from one, tells of a channel.

    Args:
        mark: of this package; None where an image has none.
        channel: index along c.
        pixel_size_um: (y, x) of the image.
    """
    own = [stack for stack in _stacks(mark) if stack.get("channel") == channel]
    return together(
        LightPath.of(
            stack.get("zoom"),
            stack.get("camera"),
            stack.get("side") if stack.get("side_told", True) else None,
            stack.get("filter"),
            pixel_size_um,
        )
        for stack in own or [{}]
    )


def _stacks(mark: object) -> list[Mapping[str, Any]]:
    """The stacks that an image was imported from, by the mark of the import."""
    steps = [mark]
    if isinstance(mark, Mapping) and isinstance(mark.get("history"), list):
        steps += reversed(mark["history"])
    for step in steps:
        acquisition = step.get("acquisition") if isinstance(step, Mapping) else None
        stacks = acquisition.get("stacks") if isinstance(acquisition, Mapping) else None
        if isinstance(stacks, list):
            return [stack for stack in stacks if isinstance(stack, Mapping)]
    return []


def _texts(content: object) -> tuple[str, ...]:
    """The texts in a list, each once and in order, without those that say nothing."""
    values = content if isinstance(content, list) else []
    return tuple(sorted({value for value in values if isinstance(value, str) and value.strip()}))


def _same(here: Iterable[str], there: Iterable[str], means: Callable[[str, str], bool]) -> bool:
    """Whether each text of either side means one of the other."""
    return all(
        any(means(_key(text), _key(other)) for other in others)
        for texts, others in ((here, there), (there, here))
        for text in texts
    )


def _key(text: str) -> str:
    return " ".join(text.casefold().split())


def _same_zoom(one: str, other: str) -> bool:
    """Whether two zooms are one; in the name of a group it lacks its last letter, as in `5`."""
    factors = [_FACTOR.fullmatch(text) for text in (one, other)]
    if all(factors):
        return len({float(match[1]) for match in factors if match}) == 1
    short, long = sorted((one, other), key=len)
    return short in (long, long[:-1])


_COMPARED: Mapping[str, tuple[str, Callable[[str, str], bool]]] = {
    "zoom": ("zoom", _same_zoom),
    "camera": ("camera", eq),
    "side": ("illumination side", eq),
}
"""What has to be the same for a model to fit: what people call it, and when it is the same."""
