"""Forks the processes that the crash tests kill; all is imported once, so that a start takes milliseconds.

It is started as a script, before any thread exists. It reads a command a line from its input: the serial
number, entry and arguments of a process to fork, answered by its pid; or the pid of one to wait for,
answered by its exit status, or null while it runs.
"""

from __future__ import annotations

import ctypes
import gc
import json
import os
import signal
import sys
import traceback

import program

from persistasaurus._codec import object_codec
from persistasaurus._store import postgres, sqlite

PRELOADED = (object_codec("any", {"ms": int}, optional=set(), what="it"), postgres, sqlite)
"""What a process would import, and find on its disk, when it first needs it."""
PR_SET_PDEATHSIG = 1


def main() -> None:
    gc.freeze()  # else each child's collections copy what all could share
    for line in sys.stdin:
        command = json.loads(line)
        answer = _wait(command["wait"]) if "wait" in command else _spawn(command)
        sys.stdout.write(json.dumps(answer) + "\n")
        sys.stdout.flush()


def _spawn(command: dict[str, object]) -> int:
    pid = os.fork()
    if pid:
        return pid
    # Whatever happens to the tests, no child outlives them.
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    status = 1
    try:
        program.run(**command)
        status = 0
    except SystemExit as left:
        status = left.code if isinstance(left.code, int) else 1
    except BaseException:
        traceback.print_exc()
        sys.stderr.flush()
    finally:
        os._exit(status)


def _wait(pid: int) -> int | None:
    ended, status = os.waitpid(pid, os.WNOHANG)
    return os.waitstatus_to_exitcode(status) if ended else None


if __name__ == "__main__":
    main()
