"""Runs the command as a user does: a process of its own, in a folder, on a real database.

Most are forked from a process that has imported the command already: a new Python takes five times as long.
"""

from __future__ import annotations

import json
import os
import pty
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Generator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from multiprocessing.context import ForkServerProcess
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from tests.forks import run_module

HERE = Path(__file__).resolve().parent
PATIENCE_S = 40
STREAMS = ("in", "out", "err")
COMMAND = [sys.executable, "-m", "persistasaurus"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Done:
    """What a finished command left."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        return json.loads(self.out)

    @property
    def lines(self) -> list[Any]:
        return [json.loads(line) for line in self.out.splitlines()]


class Shell:
    """A folder with the module `shop` in reach; each call is a process."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.environment = {
            name: value for name, value in os.environ.items() if not name.startswith("PERSISTASAURUS_")
        } | {"PYTHONPATH": str(HERE)}
        for name in ("NO_COLOR", "FORCE_COLOR"):
            self.environment.pop(name, None)

    def __call__(self, *arguments: object, stdin: str = "", **environment: str) -> Done:
        with TemporaryDirectory() as streams:
            files = [Path(streams, name) for name in STREAMS]
            files[0].write_text(stdin, "utf-8")
            process = self._forked(arguments, environment, files)
            process.join(PATIENCE_S)
            code = process.exitcode
            process.kill()
            out, err = (file.read_bytes().decode() if file.exists() else "" for file in files[1:])
        assert code is not None, f"{arguments} has not ended within {PATIENCE_S} s: {out} {err}"
        assert "Traceback" not in err, err
        return Done(code=code, out=out, err=err)

    def _forked(
        self, arguments: Sequence[object], environment: dict[str, str], files: list[Path]
    ) -> ForkServerProcess:
        return run_module(
            "persistasaurus",
            arguments,
            folder=self.folder,
            environment=self.environment | environment,
            streams=files,
        )

    def anew(self, *arguments: str, **environment: str) -> Done:
        """Run it in a Python of its own: where the environment counts before the first line of code."""
        done = subprocess.run(
            [*COMMAND, *arguments],
            cwd=self.folder,
            env=self.environment | environment,
            capture_output=True,
            text=True,
            timeout=PATIENCE_S,
            check=False,
        )
        assert "Traceback" not in done.stderr, done.stderr
        return Done(code=done.returncode, out=done.stdout, err=done.stderr)

    def on_terminal(self, *arguments: str, **environment: str) -> str:
        """Return what a command writes to a terminal."""
        ours, theirs = pty.openpty()
        with subprocess.Popen(
            [*COMMAND, *arguments],
            cwd=self.folder,
            env=self.environment | {"TERM": "xterm-256color", "COLUMNS": "200"} | environment,
            stdin=theirs,
            stdout=theirs,
            stderr=theirs,
        ) as process:
            os.close(theirs)
            written = b""
            while chunk := _read(ours):
                written += chunk
            process.wait(PATIENCE_S)
        os.close(ours)
        return written.decode()

    @contextmanager
    def worker(self, *arguments: str) -> Generator[None, None, None]:
        """Run a worker, ready when this yields, and stop it at the end."""
        with TemporaryDirectory() as streams:
            files = [Path(streams, name) for name in STREAMS]
            files[0].touch()
            process = self._forked(["worker", *(arguments or ("shop:setup",))], {}, files)

            def is_ready() -> bool:
                assert process.exitcode is None, files[2].read_text("utf-8")
                return files[1].exists() and b"ready" in files[1].read_bytes()

            try:
                until(is_ready, "the worker is ready")
                yield
            finally:
                process.terminate()
                process.join(PATIENCE_S)
                code = process.exitcode
                process.kill()
            assert code == 0, f"the worker ended with {code}: {files[2].read_text('utf-8')}"

    @contextmanager
    def worker_anew(self, *arguments: str) -> Generator[subprocess.Popen[str], None, None]:
        """Run a worker in a Python of its own, with its streams in reach."""
        process = subprocess.Popen(
            [*COMMAND, "worker", *arguments],
            cwd=self.folder,
            env=self.environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        try:
            assert process.stdout is not None
            assert "ready" in process.stdout.readline()
            yield process
        finally:
            if process.poll() is None:
                process.send_signal(signal.SIGTERM)
            process.communicate(timeout=PATIENCE_S)

    def until(self, flow_id: str, status: str) -> dict[str, Any]:
        """Return a flow once it stands so."""
        found: dict[str, Any] = {}

        def stands() -> bool:
            found.update(self("show", flow_id, "--json").json)
            return bool(found["status"] == status)

        until(stands, f"{flow_id} is {status}")
        return found


def until(condition: Callable[[], bool], what: str) -> None:
    """Wait until a condition holds."""
    end = time.monotonic() + PATIENCE_S
    while not condition():
        assert time.monotonic() < end, f"not within {PATIENCE_S} s: {what}"
        time.sleep(0.02)


def _read(descriptor: int) -> bytes:
    try:
        return os.read(descriptor, 65536)
    except OSError:  # Linux says so once the other side is closed
        return b""
