"""`persistasaurus db prune`, as a user runs it."""

from __future__ import annotations

import signal
import subprocess
from collections.abc import Iterator

import apsw
import pytest

from tests import postgres
from tests.cli.kit import COMMAND, PATIENCE_S, Shell, until
from tests.store.moving import T0, fill

OLD_MS = T0 - 400 * 86_400_000


@pytest.fixture(params=["sqlite", "postgres"])
def filled(request: pytest.FixtureRequest, shell: Shell) -> Iterator[Shell]:
    """Fifty flows that ended long ago, and fifty that sleep."""
    if request.param == "sqlite":
        yield old(shell, "flows.db", 100)
        return
    with postgres.new_schema() as url:
        yield old(shell, url, 100)


def old(shell: Shell, url: str, count: int) -> Shell:
    shell.environment["PERSISTASAURUS_URL"] = url
    if url.startswith("postgresql:"):
        fill(url, count)
        postgres.in_schema(url, f"UPDATE flow SET updated_at_ms = {OLD_MS}")
        return shell
    fill(str(shell.folder / url), count)
    connection = apsw.Connection(str(shell.folder / url))
    connection.execute(f"UPDATE flow SET updated_at_ms = {OLD_MS}")
    connection.close()
    return shell


def test_what_ended_long_ago_is_removed(filled: Shell) -> None:
    """Counted before, not touched by a dry run, and the rest is sound afterwards."""
    url = filled.environment["PERSISTASAURUS_URL"]
    assert filled("db", "prune", "--keep", "5200w", "--json").json["removed"] == 0
    dry = filled("db", "prune", "--keep", "30d", "--dry-run")
    assert dry.code == 0
    assert dry.out.endswith(": 50 flows would be removed\n")

    done = filled("db", "prune", "--keep", "30d", "--batch", "7", "--json")

    assert done.code == 0
    assert {key: done.json[key] for key in ("removable", "removed", "interrupted")} == {
        "removable": 50,
        "removed": 50,
        "interrupted": False,
    }
    verified = filled("db", "verify", "--json")
    assert (verified.code, verified.json["verified"], verified.json["problems"]) == (0, 50, 0)
    again = filled("db", "prune", url, "--keep", "30d")
    assert (again.code, again.out.splitlines()[0].endswith(": 0 flows removed")) == (0, True)


def test_a_file_keeps_its_size_and_the_command_says_so(shell: Shell) -> None:
    """And VACUUM by another program gives the room back, with all that is left."""
    old(shell, "flows.db", 2_000)
    before = (shell.folder / "flows.db").stat().st_size

    done = shell("db", "prune", "--keep", "30d")

    assert "The file keeps its size" in done.out
    assert (shell.folder / "flows.db").stat().st_size == before
    connection = apsw.Connection(str(shell.folder / "flows.db"))
    connection.execute("VACUUM")
    connection.close()
    assert (shell.folder / "flows.db").stat().st_size < before * 2 / 3
    assert shell("db", "verify", "--json").json["verified"] == 1_000


@pytest.mark.parametrize("keep", ["0d", "30", "d", "-3d", "30 days", "1e3d", "9999999999999w", ""])
def test_a_time_that_is_none_is_refused(shell: Shell, keep: str) -> None:
    """Nothing is removed by a slip."""
    old(shell, "flows.db", 4)

    done = shell("db", "prune", f"--keep={keep}")

    assert (done.code, "Write 90s, 15m, 2h, 30d or 4w." in done.err) == (2, True)
    assert shell("db", "prune", "--keep", "30d", "--dry-run", "--json").json["removable"] == 2


def test_the_time_to_keep_and_the_database_have_to_be_given(shell: Shell) -> None:
    """There is no default for what is lost for ever, and a slip in an address makes nothing."""
    assert "Missing option '--keep'" in shell("db", "prune").err
    assert shell("db", "prune", "nothing.db", "--keep", "30d").code == 3
    assert not (shell.folder / "nothing.db").exists()
    assert shell("db", "prune", "--keep", "30d", "--batch", "0").code == 2
    with postgres.new_schema() as url:
        done = shell("db", "prune", url, "--keep", "30d")
        assert (done.code, "There is no database" in done.err) == (3, True)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupted_command_says_how_many_went_and_goes_on_the_next_time(
    shell: Shell, number: signal.Signals
) -> None:
    """It ends behind the transaction that it is in, with 130."""
    old(shell, "flows.db", 4_000)
    with subprocess.Popen(
        [*COMMAND, "db", "prune", "--keep", "30d", "--batch", "1"],
        cwd=shell.folder,
        env=shell.environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        until(lambda: left(shell) < 4_000, "some are gone")
        process.send_signal(number)
        out, err = process.communicate(timeout=PATIENCE_S)

    removed = 4_000 - left(shell)
    assert (process.returncode, err) == (130, "")
    assert (
        out.splitlines()[0]
        == f"flows.db: {removed} flows removed, interrupted: run the command again to go on"
    )
    assert 0 < removed < 2_000
    assert shell("db", "verify").code == 0
    assert shell("db", "prune", "--keep", "30d", "--json").json["removed"] == 2_000 - removed


def test_progress_is_for_terminals_alone(shell: Shell) -> None:
    """A pipe gets the result and nothing else."""
    old(shell, "flows.db", 100)
    assert "━" in shell.on_terminal("db", "prune", "--keep", "30d", "--batch", "1")


def test_workers_go_on_beside_it(shell: Shell) -> None:
    """A flow that is driven meanwhile ends, and stays."""
    old(shell, "flows.db", 200)
    with shell.worker():
        shell("start", "shop:total", "-a", "numbers=[1,2]", "--id", "t-1")
        assert shell("db", "prune", "--keep", "30d", "--batch", "3", "--json").json["removed"] == 100
        assert shell.until("t-1", "COMPLETE")["result"] == "sum: 6"
    assert shell("show", "many-1").code == 3


def left(shell: Shell) -> int:
    connection = apsw.Connection(str(shell.folder / "flows.db"))
    try:
        connection.set_busy_timeout(5_000)
        return int(connection.execute("SELECT count(*) FROM flow").fetchall()[0][0])
    finally:
        connection.close()
