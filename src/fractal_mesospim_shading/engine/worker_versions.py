"""Workers that have this very package: what each says of its own, compared with this one."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import TYPE_CHECKING, Any, NamedTuple

from fractal_mesospim_shading.errors import WorkerVersionError
from fractal_mesospim_shading.messages import PACKAGE

if TYPE_CHECKING:
    from distributed import Client

_SHOWN = 5


class PackageState(NamedTuple):
    """Which package a process has.

    Attributes:
        version: of the package.
        sources: digest of its source files; empty where it has none.
        folder: where it lies.
    """

    version: str
    sources: str
    folder: str


def own_state() -> PackageState:
    """The package of this process."""
    return PackageState(*_question(PACKAGE)())


def refuse_other_versions(client: Client, workers: Iterable[str]) -> None:
    """Ask workers which package they have, and refuse those that have another one.

    Editable installs of one version may differ in their sources; so these are compared.

    Args:
        client: of the cluster.
        workers: addresses of those to ask.

    Raises:
        WorkerVersionError: names each worker and what it has.
    """
    asked = sorted(workers)
    if asked:
        found = client.run(_question(PACKAGE), workers=asked, on_error="return")
        refuse_differing(own_state(), found)


def refuse_differing(own: PackageState, found: Mapping[str, Any]) -> None:
    """Compare this package with what workers answered.

    Args:
        own: of this process.
        found: by address: the fields of a `PackageState`, or the error of a worker that
            could not answer.

    Raises:
        WorkerVersionError: some have another package, or none.
    """
    lines = [
        f"{address}: {difference}"
        for address, answer in sorted(found.items())
        if (difference := _difference(own, answer)) is not None
    ]
    if not lines:
        return
    more = [f"and {len(lines) - _SHOWN} more"] if len(lines) > _SHOWN else []
    raise WorkerVersionError(
        f"Dask workers have another fractal-mesospim-shading than this process "
        f"({own.version}, from {own.folder}):\n  "
        + "\n  ".join([*lines[:_SHOWN], *more])
        + "\n- Install the same package for all of them, restart the workers, and run it again."
    )


def _difference(own: PackageState, answer: Any) -> str | None:
    if isinstance(answer, OSError):
        # It has just gone; whoever waits for its blocks will notice.
        return None
    if isinstance(answer, BaseException):
        return f"it could not tell its version ({type(answer).__name__}: {answer})"
    other = PackageState(*answer)
    if not other.version:
        return f"the package is not installed there (Python in {other.folder})"
    if other.version != own.version:
        return f"version {other.version}, from {other.folder}"
    if own.sources and other.sources and own.sources != other.sources:
        return f"version {other.version} as well, but other source files, in {other.folder}"
    return None


def _question(package: str) -> Callable[[], tuple[str, str, str]]:
    """The question, as a function that travels by value: workers of another version lack it."""

    def state() -> tuple[str, str, str]:
        import hashlib
        import importlib.metadata
        import importlib.util
        import pathlib
        import sys

        spec = importlib.util.find_spec(package)
        if spec is None or spec.origin is None:
            return "", "", sys.prefix
        try:
            version = importlib.metadata.version(package.replace("_", "-"))
        except importlib.metadata.PackageNotFoundError:
            version = "unknown"
        folder = pathlib.Path(spec.origin).parent
        digest = hashlib.sha256()
        sources = sorted(folder.rglob("*.py"), key=lambda path: path.relative_to(folder).as_posix())
        for path in sources:
            digest.update(path.relative_to(folder).as_posix().encode() + b"\0")
            digest.update(path.read_bytes().replace(b"\r\n", b"\n") + b"\0")
        return version, digest.hexdigest() if sources else "", str(folder)

    return state
