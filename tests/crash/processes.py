"""Starts, kills and watches the processes under test; what they report survives them here."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any, Self

HERE = Path(__file__).resolve().parent
PATIENCE_S = 60


class Process:
    """One forked process."""

    def __init__(self, zygote: Zygote, pid: int, serial: int) -> None:
        self._zygote = zygote
        self.pid = pid
        self.serial = serial
        self.status: int | None = None

    def poll(self) -> int | None:
        """Return the exit status, None while it runs."""
        if self.status is None:
            self.status = self._zygote.ask({"wait": self.pid})
        return self.status

    def wait(self, timeout: float = PATIENCE_S) -> int:
        """Return the exit status once it has ended."""
        until = time.monotonic() + timeout
        while self.poll() is None:
            if time.monotonic() > until:
                self.send(signal.SIGUSR1)  # it prints where its threads are
                time.sleep(0.5)
                self.kill()
                raise AssertionError(f"process {self.serial} has not ended within {timeout} s")
            time.sleep(0.002)
        assert self.status is not None
        return self.status

    def send(self, number: int) -> None:
        """Send it a signal of the operating system."""
        if self.poll() is None:
            os.kill(self.pid, number)

    def stop(self) -> None:
        """Stop it, and wait until the last of its threads stands still."""
        self.send(signal.SIGSTOP)
        while any(_state(task) != "T" for task in Path(f"/proc/{self.pid}/task").iterdir()):
            time.sleep(0.001)

    def kill(self) -> int:
        """Kill it as the kernel does when memory is out, and wait until it is gone."""
        self.send(signal.SIGKILL)
        return self.wait()


def _state(task: Path) -> str:
    return (task / "stat").read_text("utf-8").rpartition(")")[2].split()[0]


class Zygote:
    """Forks processes that share one pipe of reports."""

    def __init__(self) -> None:
        self._reading, writing = os.pipe()
        environment = os.environ | {"CRASH_REPORTS": str(writing)}
        self._zygote = subprocess.Popen(
            [sys.executable, str(HERE / "zygote.py")],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            pass_fds=[writing],
            env=environment,
            text=True,
        )
        os.close(writing)
        self._lock = threading.Lock()
        self._serial = 0
        self.reports: list[dict[str, Any]] = []
        self._news = threading.Condition()
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        assert self._zygote.stdin is not None
        assert self._zygote.stdout is not None
        self._zygote.stdin.close()
        self._zygote.wait(10)
        self._zygote.stdout.close()
        self._reader.join(10)

    def ask(self, command: dict[str, Any]) -> Any:
        """Send a command and return its answer."""
        assert self._zygote.stdin is not None
        assert self._zygote.stdout is not None
        with self._lock:
            self._zygote.stdin.write(json.dumps(command) + "\n")
            self._zygote.stdin.flush()
            return json.loads(self._zygote.stdout.readline())

    def start(self, entry: str, **arguments: Any) -> Process:
        """Fork a process that calls an entry of the program."""
        self._serial += 1
        pid = self.ask({"serial": self._serial, "entry": entry, "arguments": arguments})
        return Process(self, pid, self._serial)

    def fresh(self) -> None:
        """Forget what was reported so far: another test begins."""
        with self._news:
            self.reports = []

    def wait_for(self, timeout: float = PATIENCE_S, **fields: Any) -> dict[str, Any]:
        """Return the first report with these fields, once it has come."""

        def found() -> dict[str, Any] | None:
            return next((r for r in self.reports if fields.items() <= r.items()), None)

        with self._news:
            assert self._news.wait_for(found, timeout), f"nobody reported {fields}"
            report = found()
        assert report is not None
        return report

    def those(self, **fields: Any) -> list[dict[str, Any]]:
        """Return the reports with these fields, in their order."""
        with self._news:
            return [report for report in self.reports if fields.items() <= report.items()]

    def settle(self) -> list[dict[str, Any]]:
        """Return all reports, those included that a process killed just now has left in the pipe."""
        self.start("mark").wait()
        self.wait_for(what="mark", serial=self._serial)
        with self._news:
            return list(self.reports)

    def _read(self) -> None:
        with os.fdopen(self._reading, encoding="utf-8") as pipe:
            for line in pipe:
                with self._news:
                    self.reports.append(json.loads(line))
                    self._news.notify_all()
