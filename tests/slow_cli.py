"""The command line with slow blocks, for tests that stop a run in the middle.

    python slow_cli.py SECONDS MODULE COMMAND ...

Small write units are not grouped where MODULE, which holds their least size, is named;
- leaves them alone.
"""

import signal
import sys
import time
from importlib import import_module

from fractal_mesospim_shading import cli
from fractal_mesospim_shading.images import target

# A shell that starts the tests in the background has them ignore Ctrl-C, and this is inherited.
signal.signal(signal.SIGINT, signal.default_int_handler)

seconds, module, *command = sys.argv[1:]
if module != "-":
    import_module(f"fractal_mesospim_shading.{module}").BLOCK_BYTES = 1
write = target.TargetImage.write


def slowly(*arguments):
    written = write(*arguments)
    time.sleep(float(seconds))
    return written


target.TargetImage.write = slowly  # type: ignore[method-assign]
sys.exit(cli.main(command))
