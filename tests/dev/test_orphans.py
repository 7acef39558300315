"""Whatever becomes of the AppHost, its processes do not outlive it."""

from __future__ import annotations

import json
import re
import signal
import subprocess
import sys
import urllib.request

import pytest

from tests.dev.kit import SERVED, eventually, is_running

PROGRAM = f"""
from persistasaurus.dev import AppHost
app = AppHost("orphans", folder={str(SERVED)!r})
db = app.sqlite({{database!r}})
app.asgi("api", "service:app").uses(db).env(SPAWN=1, FASTAPI_OTEL_AUTO_CONFIGURE="false")
app.worker("worker", "durable").uses(db)
app.process("gentle", "sh", "-c", "(trap '' TERM; exec sleep 1000) & echo child $!; exec sleep 1000")
app.process("shell", "sh", "-c", "trap '' TERM; sleep 1000 & echo child $!; wait; sleep 1000")
"""


@pytest.fixture
def running(tmp_path):
    """An AppHost in a process of its own, with the ids of all that it has started."""
    file = tmp_path / "apphost.py"
    file.write_text(PROGRAM.format(database=str(tmp_path / "flows.db")))
    command = [sys.executable, "-m", "persistasaurus.dev", str(file)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as host:
        printed = ""
        while "Dashboard: " not in printed or printed.count("child ") < 3:
            line = host.stdout.readline()
            assert line, printed
            printed += line
        try:
            yield host, _pids(printed)
        finally:
            host.kill()


def _pids(printed: str) -> list[int]:
    base, token = re.search(r"Dashboard: (\S+)/\?t=(\S+)", printed).groups()
    asked = urllib.request.Request(f"{base}/api/resources", headers={"Authorization": f"Bearer {token}"})
    with urllib.request.urlopen(asked) as answer:
        pids = [status["pid"] for status in json.load(answer) if status["pid"]]
    children = re.findall(r"child (\d+)", printed)
    return [*pids, *map(int, children)]


def test_a_killed_apphost_leaves_no_process(running):
    """Its end of their standard input closes, and they end themselves."""
    host, pids = running
    assert len(pids) == 7
    assert all(is_running(pid) for pid in pids)

    host.send_signal(signal.SIGKILL)
    host.wait()

    eventually(lambda: not any(is_running(pid) for pid in pids), f"one of {pids} runs on")


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_apphost_that_is_told_to_stop_has_ended_everything_when_it_ends(running, number):
    """Its status is 0."""
    host, pids = running

    host.send_signal(number)

    assert host.wait(20) == 0
    assert not any(is_running(pid) for pid in pids)
