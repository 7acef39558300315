"""Shows that a refused call has left no trace, and that other flows go on."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from persistasaurus import Persistasaurus, flow, step
from tests.flows.kit import sql

_EVERYTHING = {
    "flow": "SELECT flow_id, status, input, result, error, cancel_event FROM flow ORDER BY flow_key",
    "step": "SELECT * FROM step ORDER BY flow_key, step",
    "signal": "SELECT * FROM signal ORDER BY signal_id",
}


@step
def step_that_goes_on(number: int) -> int:
    return number + 1


@flow
def flow_that_goes_on(number: int) -> int:
    return step_that_goes_on(number)


def recorded(database: Path | str) -> dict[str, list[Any]]:
    """Return every flow, step and signal that the database holds."""
    return {table: sql(database, query) for table, query in _EVERYTHING.items()}


@contextmanager
def unharmed(app: Persistasaurus, database: Path) -> Iterator[None]:
    """Check that what is done inside records nothing, and that another flow runs as ever after it."""
    before = recorded(database)
    yield
    assert recorded(database) == before
    assert app.run(flow_that_goes_on, 1) == 2


def child_process(code: str, *arguments: object) -> str:
    """Run code in a Python process of its own, warnings as errors, and return what it has printed."""
    path = os.pathsep.join([str(Path.cwd()), *sys.path])
    command = [sys.executable, "-W", "error", "-c", code, *map(str, arguments)]
    done = subprocess.run(
        command,
        env={**os.environ, "PYTHONPATH": path},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()
