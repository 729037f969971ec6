"""Whether an unfinished job that lies where a result goes is the one that is asked for."""

from __future__ import annotations

from fractal_mesospim_shading.engine.records import Request, differences, plain
from fractal_mesospim_shading.errors import JobMismatchError


def other_job(url: str, found: Request, request: Request) -> JobMismatchError:
    """The error about a job that has finished blocks and is not the one that is asked for.

    Args:
        url: of its folder.
        found: what it is.
        request: what is asked for.
    """
    return JobMismatchError(
        f"An unfinished job lies at {url}, and it is not this one:\n  "
        + "\n  ".join(differences(found, plain(request)))
        + "\n- Run it again with its own parameters to continue it; `restart` drops it."
    )
