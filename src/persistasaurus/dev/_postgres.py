"""Runs a PostgreSQL server for development until it is told to stop or the AppHost is gone.

`python -m persistasaurus.dev._postgres FOLDER SOCKETS`
"""

from __future__ import annotations

import ctypes
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path

from persistasaurus.dev._environment import POSTGRES_READY
from persistasaurus.dev._postgres_home import PORT, Home
from persistasaurus.dev._stdin import when_stdin_ends
from persistasaurus.errors import UsageError

FAST_S = 0.5
"""From a shutdown in good order to one that leaves the rest to the recovery at the next start."""
_LOOK_AGAIN_S = 0.01
_STATUS_LINE = 7
_USAGE = 2

REACH = {"listen_addresses": "", "port": str(PORT), "unix_socket_permissions": "0700"}
"""The settings that decide who gets in."""
SMALL = {"shared_buffers": "64MB", "jit": "off", "log_checkpoints": "off"}
"""Those that are written at first, for whoever develops to change. What keeps a commit is not among them."""


def main(folder: str, sockets: str) -> int:
    """Run the server and return its exit status, 128 + n for signal n."""
    home = Home(folder=Path(folder), sockets=Path(sockets))
    program = _Program(home)
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, program.stop)
    when_stdin_ends(program.stop)
    try:
        home.prepare()
        programs = home.programs()
        owner = "" if home.user is None else f", run as {home.user.pw_name}"
        sys.stdout.write(f"data in {home.data}{owner}\n")
        status = _serve(home, programs, program)
    except UsageError as error:
        sys.stderr.write(f"{error}\n")
        return _USAGE
    with suppress(OSError):  # what a killed server has left there is taken over by the next one
        home.sockets.rmdir()
    return status if status >= 0 else 128 - status


def _serve(home: Home, programs: Path, program: _Program) -> int:
    if not (home.data / "PG_VERSION").exists():
        status = _initialise(home, programs, program)
        if status != 0:
            return status
    reach = [f"--{name}={value}" for name, value in REACH.items()]
    process = program.start([programs / "postgres", "-D", home.data, "-k", home.sockets, *reach])
    while process.poll() is None and not _is_ready(home, process.pid):
        time.sleep(_LOOK_AGAIN_S)
    if process.poll() is None:
        sys.stdout.write(f"{POSTGRES_READY}\n")
        sys.stdout.flush()
    return process.wait()


def _initialise(home: Home, programs: Path, program: _Program) -> int:
    """Make the data, whole or not at all."""
    new = home.data.with_name("data.new")
    shutil.rmtree(new, ignore_errors=True)
    new.mkdir(mode=0o700)
    home.give(new)
    # trust: who reaches the socket may use it, and nobody else reaches it.
    how = ["-U", "postgres", "-E", "UTF8", "--locale=C", "-A", "trust"]
    how += [f"--set={name}={value}" for name, value in SMALL.items()]
    status = program.start([programs / "initdb", "-D", new, *how], quiet=True).wait()
    if status == 0:
        new.rename(home.data)
    return status


def _is_ready(home: Home, pid: int) -> bool:
    """Whether the server says in its pid file, where pg_ctl looks too, that it takes connections."""
    with suppress(OSError, ValueError, IndexError):
        lines = (home.data / "postmaster.pid").read_text().splitlines()
        return int(lines[0]) == pid and lines[_STATUS_LINE].startswith("ready")
    return False


class _Program:
    """The one program of the server's that runs at a time, and the request to stop."""

    def __init__(self, home: Home) -> None:
        self._home = home
        self._process: subprocess.Popen[bytes] | None = None
        self._is_stopping = False

    def start(self, command: Sequence[str | Path], *, quiet: bool = False) -> subprocess.Popen[bytes]:
        """Start a program in this process's group, with what it prints beside our own."""
        process = subprocess.Popen(  # noqa: S603 - the wheel's programs
            command,
            cwd=self._home.folder,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL if quiet else None,
            preexec_fn=_end_with_this_process,  # noqa: PLW1509 - one system call
            **self._home.as_user(),
        )
        self._process = process
        if self._is_stopping:
            self.stop()
        return process

    def stop(self, *_: object) -> None:
        """End it in good order, and after a moment at once."""
        self._is_stopping = True
        if self._process is not None:
            self._process.send_signal(signal.SIGINT)
            timer = threading.Timer(FAST_S, self._process.send_signal, [signal.SIGQUIT])
            timer.daemon = True
            timer.start()


def _prepare_to_end() -> Callable[[], None]:
    """Return what asks Linux to end a child once its parent was killed; elsewhere the group's end must do."""
    if not sys.platform.startswith("linux"):
        return lambda: None
    prctl, pr_set_pdeathsig = ctypes.CDLL(None).prctl, 1
    return lambda: prctl(pr_set_pdeathsig, signal.SIGQUIT)


_end_with_this_process = _prepare_to_end()

if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
