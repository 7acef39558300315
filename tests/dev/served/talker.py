"""Prints what would do harm if a terminal or a page believed it, and then a line whenever it is told to."""

from __future__ import annotations

import sys
import time

print("plain \x1b[31mred\x1b[0m <script>alert(1)</script>", flush=True)
print("warned <b>once</b>", file=sys.stderr, flush=True)
time.sleep(1000)
