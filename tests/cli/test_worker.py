"""`persistasaurus worker` drives until it is told to stop, and stops in good order."""

from __future__ import annotations

import json
import signal
import subprocess
from pathlib import Path

import pytest

from tests import postgres
from tests.cli.kit import COMMAND, PATIENCE_S, Shell, until

pytestmark = pytest.mark.real_time


def slow_flow(shell: Shell, seconds: float) -> Path:
    """Start a flow whose step takes that long, and return the file that it makes when it begins."""
    begun = shell.folder / "begun"
    shell("start", "shop:slowly", "-a", f"started={begun}", "-a", f"seconds={seconds}", "--id", "s")
    return begun


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_stopped_worker_lets_running_steps_end(shell: Shell, number: signal.Signals) -> None:
    """Their outcome is recorded, and the exit code is that of success."""
    begun = slow_flow(shell, 1)

    with shell.worker_anew("shop") as worker:
        until(begun.exists, "the step has begun")
        worker.send_signal(number)
        assert worker.wait(PATIENCE_S) == 0

    (step,) = shell("steps", "s", "--json").lines
    assert (step["status"], step["attempts"], step["return_value"]) == ("COMPLETE", 1, "slept")


def test_drain_bounds_how_long_a_stop_waits(shell: Shell) -> None:
    """What was cut off goes on at the next start."""
    begun = slow_flow(shell, 30)

    with shell.worker_anew("shop", "--drain", "0.1") as worker:
        until(begun.exists, "the step has begun")
        worker.send_signal(signal.SIGINT)
        worker.send_signal(signal.SIGINT)
        worker.wait(10)

    assert shell("show", "s", "--json").json["status"] == "PENDING"


def test_a_second_interrupt_ends_a_worker_at_once(shell: Shell) -> None:
    """With 130; the step runs again at the next start."""
    begun = slow_flow(shell, 30)

    with shell.worker_anew("shop") as worker:
        until(begun.exists, "the step has begun")
        worker.send_signal(signal.SIGINT)
        assert worker.stderr is not None
        while "stopping" not in worker.stderr.readline():
            pass
        worker.send_signal(signal.SIGINT)
        assert worker.wait(5) == 130


def test_a_drain_of_nothing_in_pyproject_is_heard(shell: Shell) -> None:
    """Zero is a number of seconds like any other; the default would have waited for the step."""
    (shell.folder / "pyproject.toml").write_text("[tool.persistasaurus]\ndrain = 0", "utf-8")
    begun = slow_flow(shell, 1)

    with shell.worker_anew("shop") as worker:
        until(begun.exists, "the step has begun")
        worker.send_signal(signal.SIGTERM)
        worker.wait(PATIENCE_S)

    assert shell("show", "s", "--json").json["status"] == "PENDING"


def test_an_interrupted_wait_leaves_the_flow_alone(shell: Shell) -> None:
    """With 130 and without a traceback."""
    with shell.worker("shop"):
        shell("start", "shop:patient", "--id", "p-1")
        waiting = subprocess.Popen(
            [*COMMAND, "start", "shop:patient", "--id", "p-1", "--wait"],
            cwd=shell.folder,
            env=shell.environment,
            stderr=subprocess.PIPE,
            text=True,
        )
        assert waiting.stderr is not None
        assert waiting.stderr.readline() == "flow p-1\n"
        waiting.send_signal(signal.SIGINT)
        _, rest = waiting.communicate(timeout=PATIENCE_S)

        assert (waiting.returncode, rest.strip()) == (130, "")
        assert shell("show", "p-1", "--json").json["status"] == "PENDING"


def test_a_ready_worker_says_what_it_drives(shell: Shell) -> None:
    """On one line of stdout, with --json for programs; the log on stderr names the flow."""
    shell("start", "shop:total", "-a", "numbers=[1]", "--id", "t-1")
    with subprocess.Popen(
        [*COMMAND, "worker", "shop:setup", "--json"],
        cwd=shell.folder,
        env=shell.environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as worker:
        assert worker.stdout is not None
        ready = json.loads(worker.stdout.readline())
        shell.until("t-1", "COMPLETE")
        worker.send_signal(signal.SIGTERM)
        _, log = worker.communicate(timeout=PATIENCE_S)

    assert (ready["ready"], ready["pid"], ready["database"]) == (True, worker.pid, "flows.db")
    assert "Greeter.greet" in ready["flows"]
    assert "flow complete flow_id=t-1 flow=cli_total" in log


@pytest.mark.parametrize("how", [[], ["--json"]], ids=["text", "json"])
def test_a_ready_worker_does_not_say_its_databases_password(shell: Shell, how: list[str]) -> None:
    """What it prints is kept by whatever runs it."""
    with (
        postgres.new_schema() as url,
        subprocess.Popen(
            [*COMMAND, "worker", "shop", "--db", url.replace("postgres@", "postgres:s3cret@"), *how],
            cwd=shell.folder,
            env=shell.environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
        ) as worker,
    ):
        assert worker.stdout is not None
        ready = worker.stdout.readline()
        worker.send_signal(signal.SIGTERM)
        worker.communicate(timeout=PATIENCE_S)

    assert "postgres:***@" in ready
    assert "s3cret" not in ready


def test_a_worker_names_the_classes_that_it_cannot_make(shell: Shell) -> None:
    """It drives the rest."""
    with shell.worker_anew("shop") as worker:
        assert worker.stderr is not None
        line = worker.stderr.readline()

    assert "Greeter: needs constructor arguments" in line
    assert "worker MODULE:FUNCTION" in line


def test_a_worker_may_enter_an_app_of_the_module(shell: Shell) -> None:
    """With its own database and settings."""
    (shell.folder / "own.py").write_text(
        "from persistasaurus import Persistasaurus\nimport shop\n"
        "app = Persistasaurus('own.db')\nshop.setup(app)\n",
        "utf-8",
    )
    shell("start", "shop:total", "-a", "numbers=[1]", "--id", "t-1", "--db", "own.db")

    with shell.worker("own:app"):
        assert shell("tail", "t-1", "--db", "own.db").code == 0


def test_a_worker_whose_database_is_taken_away_ends_with_an_error(shell: Shell) -> None:
    """Whoever watches it can start it again; nothing goes on into a file that nobody finds."""
    with shell.worker_anew("shop") as worker:
        (shell.folder / "flows.db").rename(shell.folder / "moved.db")
        assert worker.wait(PATIENCE_S) == 1
        assert worker.stderr is not None
        assert "was moved, deleted or replaced" in worker.stderr.read()
