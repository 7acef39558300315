"""One process that forks the others, for all crash tests of a test process; and the table of a long run."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.crash.places import STORES, Place
from tests.crash.processes import Zygote
from tests.crash.soak import printed


@pytest.fixture(scope="session")
def forks() -> Iterator[Zygote]:
    with Zygote() as zygote:
        yield zygote


@pytest.fixture(scope="session")
def _strace() -> None:
    """A machine without it is told so; on CI it is a failure, so that these tests never go missing unseen."""
    if shutil.which("strace"):
        return
    told = "strace was not found: calls of the operating system that fail are not tested. Install it."
    if os.environ.get("CI") == "true":
        pytest.fail(told)
    pytest.skip(told)


@pytest.fixture
def zygote(forks: Zygote) -> Zygote:
    forks.fresh()
    return forks


@pytest.fixture(params=STORES)
def place(request: pytest.FixtureRequest, tmp_path: Path) -> Place:
    """Where databases of one kind can be made, and then of the other."""
    return Place(tmp_path, request.param)


@pytest.fixture
def files(tmp_path: Path) -> Place:
    """Where databases are files, for faults that only a file can have."""
    return Place(tmp_path)


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    for outcome in ("passed", "failed"):
        for report in terminalreporter.getreports(outcome):
            rows = dict(report.user_properties).get("soak")
            if rows:
                terminalreporter.write_line(printed(rows))
