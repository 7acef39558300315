"""One process that forks the others, for all crash tests of a test process; and the table of a long run."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.crash.processes import Zygote
from tests.crash.soak import printed


@pytest.fixture(scope="session")
def forks() -> Iterator[Zygote]:
    with Zygote() as zygote:
        yield zygote


@pytest.fixture
def zygote(forks: Zygote) -> Zygote:
    forks.fresh()
    return forks


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    for outcome in ("passed", "failed"):
        for report in terminalreporter.getreports(outcome):
            rows = dict(report.user_properties).get("soak")
            if rows:
                terminalreporter.write_line(printed(rows))
