"""Write `sources.md`: what runs on which kind of source.

Run it as `python docs/generate_sources.py`. It runs every door on a tiny image of every kind, by
the functions with which a test holds the page against what runs.
"""

from __future__ import annotations

import logging
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).parents[1]
PAGE = Path(__file__).with_name("sources.md")


def main() -> None:
    """Run everything, and write what was found."""
    sys.path.insert(0, str(ROOT))
    from tests.support import sources

    logging.getLogger("fractal_mesospim_shading").setLevel(logging.CRITICAL)
    with tempfile.TemporaryDirectory() as folder:
        rows = {}
        for number, kind in enumerate(sources.KINDS):
            rows[kind] = sources.row(kind, Path(folder, str(number)))
    PAGE.write_text(sources.page(rows), encoding="utf-8")


if __name__ == "__main__":
    main()
