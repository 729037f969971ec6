"""What an image or a container holds besides the pyramids that are corrected.

Tables, labels, a second pyramid, other groups, notes: all of it belongs to the image and
goes into the result as it is. Here it is found, and what can be tried without reading a
pixel is tried; `carry` copies it.
"""

from __future__ import annotations

import re
from collections.abc import Generator, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any, Literal

from fractal_mesospim_shading.errors import ImageFormatError, SourceReadError
from fractal_mesospim_shading.images.carrying.converting import Node, node_of, why_not_convertible
from fractal_mesospim_shading.images.ngff import axis_names, other_pyramids
from fractal_mesospim_shading.images.storage.folders import Entry, Folder, files_below, open_folder
from fractal_mesospim_shading.images.storage.places import StorageOptions, is_local
from fractal_mesospim_shading.images.storage.stores import ZARR_DOCUMENTS
from fractal_mesospim_shading.messages import listed

CONSOLIDATED = ".zmetadata"
"""Consolidated metadata of zarr v2: true of the source alone, and left out."""

DOCUMENTS = frozenset(name for names in ZARR_DOCUMENTS.values() for name in names)

_SHOWN = 8
_USUAL = ("tables", "labels")
_ALL_SIZED = 4096
_SIZED_EACH = 64

Attributes = Mapping[str, Any]


@dataclass(frozen=True)
class MemberPlan:
    """What goes from a source into its result besides the corrected pyramid, and what does not.

    Attributes:
        url: of the source.
        zarr_format: of the result.
        levels: paths of the arrays that are corrected.
        own: attributes of the groups whose metadata the job itself writes, by path; `""` is the
            image.
        apart: paths that the job leaves out, and names itself.
        members: paths of what is carried over.
        left: what cannot be: path and reason.
        uncorrected: paths of arrays of further pyramids, carried over as they are.
        expected_bytes: of what is carried over, on disk.
        listable: whether the address could be listed at all.
        follow_links: whether links may lead out of the source.
        storage_options: of a remote source.
    """

    url: str
    zarr_format: int
    levels: frozenset[str]
    own: Mapping[str, Attributes] = field(repr=False)
    apart: frozenset[str] = frozenset()
    members: tuple[str, ...] = ()
    left: tuple[tuple[str, str], ...] = ()
    uncorrected: tuple[str, ...] = ()
    expected_bytes: int = 0
    listable: bool = True
    follow_links: bool = False
    storage_options: StorageOptions = field(default=None, repr=False)

    @property
    def notes(self) -> tuple[str, ...]:
        """Lines for the log."""
        lines = []
        unknown = [path for path in self.members if path not in _USUAL]
        if unknown:
            lines.append(f"Carried over as they are, not corrected: {listed(unknown)}.")
        if self.uncorrected:
            lines.append(
                "The source lists a further pyramid, which is carried over uncorrected: "
                f"{listed(self.uncorrected)}."
            )
        return tuple(lines)

    @property
    def loss(self) -> str | None:
        """One line that names what is not carried over; None where all is."""
        named = [f"{path} ({reason})" for path, reason in self.left]
        return f"Not carried over into the result: {listed(named)}." if named else None

    @property
    def groups_between(self) -> tuple[str, ...]:
        """Groups on the way to the corrected arrays whose metadata the job does not write."""
        levels = (level.split("/") for level in self.levels)
        above = {"/".join(parts[:i]) for parts in levels for i in range(1, len(parts))}
        return tuple(sorted(above - set(self.own)))

    @cached_property
    def passed(self) -> frozenset[str]:
        """Groups that the job writes, or passes on the way to the corrected arrays."""
        return frozenset((*self.own, *self.groups_between))

    def open(self) -> Folder:
        """The folder of the source."""
        return open_folder(self.url, self.storage_options, follow_links=self.follow_links)

    def axes_of(self, path: str, groups: Mapping[str, Node]) -> tuple[str, ...] | None:
        """Names of the axes of an array, by the group that lists it in its pyramid.

        Args:
            path: of the array.
            groups: that were met, by path, besides those of `own`.
        """
        parts = path.split("/")
        for i in range(len(parts) - 1, -1, -1):
            above, rest = "/".join(parts[:i]), "/".join(parts[i:])
            met = groups.get(above)
            attributes = (met.attributes if met else None) or self.own.get(above) or {}
            axes = axis_names(attributes).get(rest)
            if axes is not None:
                return axes
        return None


@dataclass(frozen=True)
class Step:
    """One thing to do for a member.

    Attributes:
        kind: `array`: a whole array, with all below it; `group`: a group's metadata; `file`: a
            plain file; `special`, `refused`: as in `folders.Entry`.
        path: within the image.
        folder: of the array or group; of what else there is, the one that holds it.
        node: what that folder is; None for one without metadata of its own.
        entry: of the file.
    """

    kind: Literal["array", "group", "file", "folder", "special", "refused"]
    path: str
    folder: Folder
    node: Node | None = None
    entry: Entry | None = None

    def is_converted(self, zarr_format: int) -> bool:
        """Whether a group or array, or the group of a file, is written in another version."""
        return self.node is not None and self.node.zarr_format != zarr_format

    def is_superseded(self, zarr_format: int) -> bool:
        """Whether a file is metadata of zarr that the result has in another form, or lacks."""
        if self.kind != "file" or self.entry is None:
            return False
        name = self.entry.name
        return name == CONSOLIDATED or (name in DOCUMENTS and self.is_converted(zarr_format))


@dataclass(frozen=True)
class Member:
    """Something outermost in an image that is not part of the corrected pyramid.

    Attributes:
        path: within the image.
        folder: that holds it.
        entry: it in that folder.
    """

    path: str
    folder: Folder
    entry: Entry

    @property
    def kind(self) -> Literal["array", "group", "folder", "file"]:
        """What it is, by its metadata; a `folder` holds none of its own."""
        if self.entry.kind != "folder":
            return "file"
        node = node_of(self.folder.below(self.entry.name))
        return node.kind if node else "folder"

    def steps(self) -> Iterator[Step]:
        """All that has to be done for it."""
        if self.entry.kind == "folder":
            yield from _folder_steps(self.folder.below(self.entry.name), self.path)
        else:
            yield Step(self.entry.kind, self.path, self.folder, entry=self.entry)


def plan_members(plan: MemberPlan) -> MemberPlan:
    """Find what has to be carried over, and try what can be tried without reading pixels.

    Folders are listed and metadata read; of the arrays that are corrected nothing but the
    uppermost folder is looked at.

    Returns:
        The same plan with what is carried over, and what cannot be.

    Raises:
        ImageFormatError: names or links that lead out of the source, links to nothing.
        SourceReadError: a folder cannot be listed.
    """
    return _Survey(plan).result()


def list_members(plan: MemberPlan) -> Iterator[Member]:
    """The outermost files, folders, groups and arrays beside the pyramid, refused ones as well."""
    yield from _outermost(plan, plan.open(), "")


def _outermost(plan: MemberPlan, folder: Folder, prefix: str) -> Iterator[Member]:
    for entry in sorted(folder.entries(), key=lambda entry: entry.name):
        path = f"{prefix}{entry.name}"
        if path in plan.apart:
            continue
        if path in plan.levels:
            if entry.kind == "folder":
                array = folder.below(entry.name)
                yield from beside_chunks(array, node_of(array), path, flat=False)
        elif path in plan.passed and (entry.kind == "folder" or entry.linked):
            for member in _outermost(plan, folder.below(entry.name), f"{path}/"):
                yield replace(member, entry=entry) if entry.kind == "refused" else member
        elif entry.kind == "folder" or entry.name not in DOCUMENTS:
            yield Member(path, folder, entry)


def beside_chunks(array: Folder, node: Node | None, path: str, *, flat: bool) -> Iterator[Member]:
    """What lies in the folder of an array and is none of its chunks.

    Args:
        array: its folder.
        node: its metadata.
        path: of that folder within the image.
        flat: whether to look into arrays that keep all their chunks in one folder: there may be
            millions.
    """
    nested, chunk = node.chunk_names if node is not None else (False, "")
    if not nested and not flat:
        return
    for entry in sorted(array.entries(), key=lambda entry: entry.name):
        if entry.name not in DOCUMENTS and not re.fullmatch(chunk, entry.name):
            yield Member(f"{path}/{entry.name}", array, entry)


def _folder_steps(folder: Folder, path: str) -> Generator[Step, None, bool]:
    """All that has to be done for a folder; returns whether it is, or holds, a group or array."""
    node = node_of(folder)
    if node is not None:
        yield Step(node.kind, path, folder, node)
        if node.kind == "array":
            return True
    holds_nodes = False
    for entry in folder.entries():
        below = f"{path}/{entry.name}"
        if entry.kind == "folder":
            held = yield from _folder_steps(folder.below(entry.name), below)
            holds_nodes = holds_nodes or held
        else:
            yield Step(entry.kind, below, folder, node, entry)
    if node is None and holds_nodes:
        yield Step("group", path, folder)
    return node is not None or holds_nodes


class _Survey:
    """Gathers what a plan says, from the steps of all members."""

    def __init__(self, plan: MemberPlan) -> None:
        self._plan = plan
        self._left: dict[str, str] = {}
        self._refused: list[str] = []
        self._groups: dict[str, Node] = {}
        self._files = self._sized = self._bytes = 0

    def result(self) -> MemberPlan:
        """Look at everything; the plan with what was seen."""
        self._look_at_root()
        listable = True
        try:
            members = list(list_members(self._plan))
        except SourceReadError:
            if is_local(self._plan.url):
                raise
            members, listable = [], False
            self._left["tables, labels and others"] = "nothing at this address can be listed"
        for member in members:
            for step in member.steps():
                self._look_at(step)
        if self._refused:
            lines = [*dict.fromkeys(self._refused[:_SHOWN])]
            more = len(self._refused) - _SHOWN
            lines += [f"{more} more names and links are of that kind."] if more > 0 else []
            raise ImageFormatError("\n  ".join(lines))
        carried = tuple(member.path for member in members if member.path not in self._left)
        share = self._files / max(self._sized, 1)
        return replace(
            self._plan,
            members=carried,
            left=tuple(self._left.items()),
            uncorrected=tuple(_further_pyramids(self._plan, carried)),
            expected_bytes=int(self._bytes * share),
            listable=listable,
        )

    def _look_at_root(self) -> None:
        """Metadata of the other zarr version beside those that are read."""
        root = self._plan.open()
        node = node_of(root)
        for name in ZARR_DOCUMENTS[2 if node is None or node.zarr_format == 3 else 3]:
            if name != CONSOLIDATED and root.holds(name):
                self._left[name] = "metadata of another zarr version than the image is read by"

    def _look_at(self, step: Step) -> None:
        if step.kind == "group" and step.node is not None:
            self._groups[step.path] = step.node
        elif step.kind == "array":
            self._look_at_array(step)
        elif step.entry is not None and not step.is_superseded(self._plan.zarr_format):
            self._look_at_file(step.folder, step.path, step.entry, check_rights=True)

    def _look_at_array(self, step: Step) -> None:
        for folder, path, entry in files_below(step.folder, f"{step.path}/"):
            self._look_at_file(folder, path, entry, check_rights=entry.name in DOCUMENTS)
        plan = self._plan
        if step.node is not None and step.is_converted(plan.zarr_format):
            axes = plan.axes_of(step.path, self._groups)
            reason = why_not_convertible(
                plan.url, step.path, step.node, plan.zarr_format, axes, plan.storage_options
            )
            if reason is not None:
                self._left[step.path] = reason

    def _look_at_file(self, folder: Folder, path: str, entry: Entry, *, check_rights: bool) -> None:
        if entry.kind == "refused":
            self._refused.append(entry.problem)
        elif entry.kind == "special":
            self._left[path] = "it is no file that can be copied"
        elif check_rights and not folder.readable(entry.name):
            self._left[path] = "it may not be read"
        else:
            self._files += 1
            if self._files <= _ALL_SIZED or self._files % _SIZED_EACH == 0:
                self._sized += 1
                self._bytes += max(folder.state(entry).size, 0)


def _further_pyramids(plan: MemberPlan, carried: Sequence[str]) -> Iterator[str]:
    """Paths of arrays that a corrected group lists besides those that are corrected."""
    below = tuple(f"{path}/" for path in carried)
    for group, attributes in plan.own.items():
        listed_paths = {path for paths in other_pyramids(attributes) for path in paths}
        for path in sorted(f"{group}/{path}".strip("/") for path in listed_paths):
            if path not in plan.levels and f"{path}/".startswith(below):
                yield path
