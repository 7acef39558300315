"""A real server in a process of its own, that a test may kill and start again."""

from __future__ import annotations

import os
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from multiprocessing.context import ForkServerProcess
from pathlib import Path
from typing import Any

import httpx2
import uvicorn
from fastapi import FastAPI

from tests.forks import run_module

ROOT = Path(__file__).resolve().parents[2]
PATIENCE_S = 30


class Server:
    """uvicorn on loopback, always on the same port and the same database."""

    def __init__(self, folder: Path, app: str = "examples.signup.api:app", **environment: str) -> None:
        self._app = app
        self._log = folder / "server.log"
        self._environment = {
            **os.environ,
            "PERSISTASAURUS_URL": str(folder / "flows.db"),
            **environment,
        }
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port = probe.getsockname()[1]
        self.url = f"http://127.0.0.1:{self.port}"
        self.client = httpx2.Client(base_url=self.url, timeout=PATIENCE_S)
        self._process: ForkServerProcess | None = None

    def start(self) -> None:
        """Start the server and wait until it answers."""
        self._process = run_module(
            "uvicorn",
            [self._app, "--port", self.port, "--no-access-log"],
            folder=ROOT,
            environment=self._environment,
            streams=[Path(os.devnull), self._log, self._log],
        )
        until(self._answers, told=self.log)

    def _answers(self) -> bool:
        assert self._process is not None
        assert self._process.exitcode is None, self.log()
        try:
            return self.client.get("/health").status_code == 200
        except httpx2.TransportError:
            return False

    def kill(self) -> None:
        """End the process as a power cut would."""
        assert self._process is not None
        self._process.kill()
        self._process.join()
        self._process = None

    def stop(self) -> None:
        """End the process in good order, where there is one."""
        self.client.close()
        if self._process is not None:
            self._process.terminate()
            self._process.join(PATIENCE_S)
            assert self._process.exitcode is not None, self.log()

    def log(self) -> str:
        return self._log.read_text("utf-8")

    def get(self, path: str) -> Any:
        """Return the JSON of a GET that succeeds."""
        answer = self.client.get(path)
        assert answer.status_code == 200, answer.text
        return answer.json()


@contextmanager
def demo(folder: Path, database: Path | str, *, email_delay_s: float) -> Iterator[Server]:
    """Give the sign-up demo, running."""
    server = Server(folder, PERSISTASAURUS_URL=str(database), SIGNUP_EMAIL_DELAY=str(email_delay_s))
    server.start()
    try:
        yield server
    finally:
        server.stop()


def until(condition: Callable[[], Any], *, told: Callable[[], str] = str) -> Any:
    """Wait for what another process does, and return it."""
    end = time.monotonic() + PATIENCE_S
    while time.monotonic() < end:
        if found := condition():
            return found
        time.sleep(0.02)
    raise AssertionError(f"nothing came of it within {PATIENCE_S} s. {told()}")


class Quiet(uvicorn.Server):
    """A server in a thread, which leaves signals alone."""

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


@contextmanager
def served(app: FastAPI) -> Iterator[str]:
    """A real server on a free port of loopback."""
    server = Quiet(uvicorn.Config(app, port=0, log_level="critical", timeout_graceful_shutdown=1))
    thread = threading.Thread(target=server.run)
    thread.start()
    while not server.started:
        time.sleep(0.005)
    port = server.servers[0].sockets[0].getsockname()[1]
    try:
        yield f"http://127.0.0.1:{port}"
    finally:
        server.should_exit = True
        thread.join()
