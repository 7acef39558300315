"""Runs another program and ends with it; when standard input ends, the AppHost is gone and so must both be.

Started as a file, by `python -I _process.py program argument...`, and therefore without imports from the
library: a program in any language gets a guard that is there in a few milliseconds.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading

GRACE_S = 1.0
NOT_FOUND = 127
BEGINNING = "\x02 the program is being started"
"""The first line of standard error, for the AppHost alone."""


def main(command: list[str]) -> int:
    """Run a command in this process group and return its exit status, 128 + n for signal n."""
    sys.stderr.write(f"{BEGINNING}\n")
    sys.stderr.flush()
    try:
        child = subprocess.Popen(command, stdin=subprocess.DEVNULL)  # noqa: S603 - it is what was asked for
    except OSError as error:
        sys.stderr.write(f"{command[0]} could not be started: {error.strerror}. Check its name and PATH.\n")
        return NOT_FOUND
    # The group is sent the signal, so the program has it too; this process stays until that has ended.
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    alone = threading.Event()
    threading.Thread(target=_watch, args=(alone,), daemon=True).start()
    status = child.wait()
    if alone.is_set():  # with what the program has left behind; nobody else is there to do it
        os.killpg(0, signal.SIGKILL)
    return status if status >= 0 else 128 - status


def _watch(alone: threading.Event) -> None:
    while os.read(0, 4096):
        pass
    alone.set()
    os.killpg(0, signal.SIGTERM)
    threading.Event().wait(GRACE_S)
    os.killpg(0, signal.SIGKILL)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
