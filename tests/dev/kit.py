"""Looking at processes from outside."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from pathlib import Path

from persistasaurus.dev import AppHost

SERVED = Path(__file__).resolve().parent / "served"
PATIENCE_S = 30


def apphost(name: str = "tested") -> AppHost:
    """Return an AppHost of what lies in the folder `served`."""
    return AppHost(name, folder=SERVED)


def is_running(pid: int) -> bool:
    """Whether a process runs; one that has ended and was not waited for does not."""
    try:
        os.kill(pid, 0)
        return Path(f"/proc/{pid}/stat").read_text("utf-8").rpartition(")")[2].split()[0] != "Z"
    except (ProcessLookupError, FileNotFoundError):
        return False


def eventually(holds: Callable[[], object], what: str) -> None:
    """Return once `holds()` does."""
    until = time.monotonic() + PATIENCE_S
    while not holds():
        assert time.monotonic() < until, what
        time.sleep(0.01)
