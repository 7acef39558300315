"""`persistasaurus db backup` and `db promote`, as a user runs them."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests import postgres
from tests.cli.kit import Shell
from tests.store.moving import fill


@pytest.fixture
def filled(shell: Shell) -> Shell:
    """A complete flow, and one that waits."""
    with shell.worker():
        shell("start", "shop:total", "-a", "numbers=[1,2]", "--id", "t-1", "--wait")
        shell("start", "shop:approved", "--id", "a-1")
        shell.until("a-1", "WAITING_FOR_SIGNAL")
    return shell


@pytest.fixture
def small(shell: Shell) -> Shell:
    """A few flows that no module here knows."""
    fill(str(shell.folder / "flows.db"), 3)
    return shell


def test_a_backup_is_a_database_of_the_same_digest(filled: Shell) -> None:
    """The database comes first where it is named; else the settings say which it is."""
    digest = filled("db", "verify", "--json").json["digest"]

    done = filled("db", "backup", "copy.db", "--json")
    assert (done.code, done.json["flows"], done.json["problems"], done.json["digest"]) == (0, 2, 0, digest)
    assert done.json["backup"] == str(filled.folder / "copy.db")
    assert filled("show", "t-1", "--db", "copy.db", "--json").json["result"] == "sum: 6"

    refused = filled("db", "backup", "flows.db", "copy.db")
    assert (refused.code, "--force to replace it" in refused.err) == (1, True)
    forced = filled("db", "backup", "flows.db", "copy.db", "--force")
    assert (forced.code, forced.err) == (0, "")
    assert forced.out.endswith(f"digest {digest}\n")
    assert filled("db", "verify", "copy.db", "--json").json["digest"] == digest


def test_a_backup_needs_a_database_and_a_file(small: Shell) -> None:
    """A slip in a path makes nothing."""
    assert small("db", "backup").code == 2
    assert small("db", "backup", "nothing.db", "copy.db").code == 3
    assert not (small.folder / "nothing.db").exists()
    assert not (small.folder / "copy.db").exists()


def test_progress_is_for_terminals_alone(small: Shell) -> None:
    """Of a backup and of a promotion."""
    assert "━" in small.on_terminal("db", "backup", "copy.db")
    assert "━" in small.on_terminal("db", "promote", "flows.db", "moved.db")
    assert "━" not in small("db", "promote", "moved.db", "again.db").err


def test_flows_go_on_in_postgresql_and_come_back(filled: Shell, tmp_path: Path) -> None:
    """The waiting flow is finished there by another worker, and read from a file again."""
    with postgres.new_schema() as url:
        done = filled("db", "promote", "flows.db", url, "--json")
        assert (done.code, done.json["flows"]) == (0, 2)
        gone = filled("ls")
        assert (gone.code, "were promoted to 'postgresql://" in gone.err) == (1, True)
        assert filled("worker", "shop:setup").code == 1

        filled.environment["PERSISTASAURUS_URL"] = url
        assert filled("db", "verify").code == 0
        with filled.worker():
            filled("signal", "a-1", "cli approval", "-i", "5")
            assert filled.until("a-1", "COMPLETE")["result"] == 5
            refused = filled("db", "promote", url, "back.db")
            assert (refused.code, "Stop them first" in refused.err) == (1, True)

        assert "2 flows" in filled("db", "promote", url, "back.db").out
    assert filled("show", "a-1", "--db", "back.db", "--json").json["result"] == 5


def test_a_schema_is_made_for_a_target_alone(small: Shell) -> None:
    """A slip in the address of what is read makes nothing."""
    with postgres.new_schema() as url:
        for arguments in (["verify", url], ["backup", url, "copy.db"], ["promote", url, "moved.db"]):
            done = small("db", *arguments)
            assert (done.code, "There is no database" in done.err) == (3, True)
        assert (
            postgres.by_sql(
                postgres.server_url(),
                f"SELECT 1 FROM pg_namespace WHERE nspname = '{url.rpartition('=')[2]}'",
            )
            == []
        )


def test_a_promotion_that_was_not_begun_cannot_be_given_up(small: Shell) -> None:
    """And a database is not promoted to itself."""
    assert "nothing to give up" in small("db", "promote", "flows.db", "moved.db", "--abandon").err
    assert small("db", "promote", "flows.db", "flows.db").code == 2
