"""`python -m persistasaurus.dev apphost.py [ARGS]...`, where the command line's extra is not installed."""

import sys

from persistasaurus.dev._run import USAGE, main

_, *given = sys.argv
if not given:
    sys.exit(USAGE)
sys.exit(main(*given))
