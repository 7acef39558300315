"""Notices the end of the AppHost: it holds the other end of standard input, and the kernel closes that."""

from __future__ import annotations

import atexit
import os
import signal
import threading
from collections.abc import Callable

GRACE_S = 1.0


def when_stdin_ends(stop: Callable[[], object]) -> None:
    """Call `stop` from a thread once standard input has ended; what has not stopped after that is killed.

    With it goes the whole process group, where this process leads one, and so what it started itself.
    """
    ended = threading.Event()

    def leave() -> None:
        if ended.is_set():
            end_group()

    # Also where this process stops in time: what it has started itself must not stay behind.
    atexit.register(leave)
    threading.Thread(target=_watch, args=(stop, ended), name="stdin", daemon=True).start()


def _watch(stop: Callable[[], object], ended: threading.Event) -> None:
    while os.read(0, 4096):
        pass
    ended.set()
    stop()
    threading.Event().wait(GRACE_S)
    end_group()


def end_group() -> None:
    """Kill this process and what it started, where it leads a group of its own; else only itself."""
    if os.getpgid(0) == os.getpid():
        os.killpg(0, signal.SIGKILL)
    os._exit(1)
