"""`python -m persistasaurus.dev apphost.py`, where the command line's extra is not installed."""

import sys

from persistasaurus.dev._run import USAGE, main

if len(sys.argv) != 2:  # noqa: PLR2004 - the program and its target
    sys.exit(USAGE)
sys.exit(main(sys.argv[1]))
