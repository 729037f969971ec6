"""`python -m fractal_mesospim_shading.cli` is the command line."""

import sys

from fractal_mesospim_shading.cli import program

if __name__ == "__main__":
    sys.exit(program())
