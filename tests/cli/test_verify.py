"""`persistasaurus db verify` finds what somebody else wrote into the file."""

from __future__ import annotations

import shutil
from pathlib import Path

import apsw
import pytest

from tests.cli.kit import Shell


@pytest.fixture(scope="module")
def sound(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A file with two complete flows, and one with a pending signal."""
    shell = Shell(tmp_path_factory.mktemp("sound"))
    with shell.worker():
        for number in (1, 2):
            shell("start", "shop:total", "-a", "numbers=[1,2]", "--id", f"t-{number}", "--wait")
    shell("start", "shop:approved", "--id", "a-1")
    shell("signal", "a-1", "cli approval", "-i", "5")
    return shell.folder / "flows.db"


@pytest.fixture
def filled(shell: Shell, sound: Path) -> Shell:
    """A copy of it, to be damaged."""
    assert not sound.with_name("flows.db-wal").exists()
    shutil.copy(sound, shell.folder)
    return shell


def edit(shell: Shell, sql: str) -> None:
    """Change the file by SQL, as a hand that means well would."""
    connection = apsw.Connection(str(shell.folder / "flows.db"))
    connection.execute(sql)
    assert connection.changes() == 1
    connection.close()


def test_a_sound_database_is_verified(filled: Shell) -> None:
    """With 0 and the number of flows."""
    done = filled("db", "verify")

    assert (done.code, done.err) == (0, "")
    checked, digest = done.out.splitlines()
    assert checked == "3 flows checked, 0 damaged, 0 problems in all"
    assert filled("db", "verify", "flows.db", "--json").json == {
        "verified": 3,
        "damaged": 0,
        "problems": 0,
        "digest": digest.removeprefix("digest "),
    }


ONE_STEP = "flow_key = (SELECT flow_key FROM flow WHERE flow_id = 't-1') AND step = 1"


@pytest.mark.parametrize(
    "flow_id, sql",
    [
        ("t-1", f"UPDATE step SET return_value = '3' WHERE {ONE_STEP}"),
        ("t-1", f"DELETE FROM step WHERE {ONE_STEP}"),
        ("t-1", "UPDATE flow SET input = '{\"numbers\":[1,3]}' WHERE flow_id = 't-1'"),
        ("t-1", "UPDATE flow SET result = '\"sum: 7\"' WHERE flow_id = 't-1'"),
        ("t-1", "UPDATE flow SET name_id = 9999 WHERE flow_id = 't-1'"),
        ("t-1", f"UPDATE step SET return_value = CAST(x'ff' AS TEXT) WHERE {ONE_STEP}"),
        ("a-1", "UPDATE signal SET payload = '6' WHERE flow_id = 'a-1'"),
    ],
)
def test_an_edited_row_is_found_and_its_flow_named(filled: Shell, flow_id: str, sql: str) -> None:
    """And no other is."""
    edit(filled, sql)

    done = filled("db", "verify", "--json")

    *findings, summary = done.lines
    assert done.code == 1
    assert [finding["flow_id"] for finding in findings] == [flow_id]
    assert (summary["verified"], summary["damaged"], summary["problems"]) == (3, 1, 1)
    assert f"flow {flow_id}: " in filled("db", "verify").out


def test_a_flow_whose_row_is_gone_is_found_by_its_steps(filled: Shell) -> None:
    """It has no id any more, so it is a problem of the file."""
    edit(filled, "DELETE FROM flow WHERE flow_id = 't-1'")

    *findings, summary = filled("db", "verify", "--json").lines

    assert [finding["flow_id"] for finding in findings] == [None]
    assert "steps but no row of their own" in findings[0]["problem"]
    assert (summary["verified"], summary["damaged"], summary["problems"]) == (2, 0, 1)


def test_each_damaged_row_is_named(filled: Shell) -> None:
    """Not only the first one of a flow."""
    edit(filled, f"UPDATE step SET return_value = '3' WHERE {ONE_STEP}")
    edit(filled, "UPDATE flow SET result = '\"sum: 7\"' WHERE flow_id = 't-1'")
    edit(filled, f"UPDATE step SET attempts = 7 WHERE {ONE_STEP.replace('step = 1', 'step = 2')}")

    problems = [finding["problem"] for finding in filled("db", "verify", "--json").lines[:-1]]

    assert problems == [
        "Its outcome does not match its checksum.",
        "Step 1 does not match its checksum.",
        "Step 2 does not match its checksum.",
    ]


@pytest.mark.parametrize(
    "sql, problem",
    [
        ("UPDATE flow SET owner = 99 WHERE flow_id = 'a-1'", "owned by a worker that is not there"),
        ("UPDATE flow SET parent_key = 99 WHERE flow_id = 'a-1'", "a child of a flow that is not there"),
        ("UPDATE flow SET status = 17 WHERE flow_id = 'a-1'", "status 17"),
    ],
)
def test_a_flow_that_nobody_would_drive_is_found(filled: Shell, sql: str, problem: str) -> None:
    """What a row refers to has to be there."""
    edit(filled, sql)

    (finding, _) = filled("db", "verify", "--json").lines

    assert (finding["flow_id"], problem in finding["problem"]) == ("a-1", True)


def test_a_damaged_index_is_found(filled: Shell) -> None:
    """By SQLite's own check."""
    connection = apsw.Connection(str(filled.folder / "flows.db"))
    connection.config(apsw.SQLITE_DBCONFIG_DEFENSIVE, 0)
    connection.pragma("writable_schema", 1)
    connection.execute(
        "UPDATE sqlite_schema SET sql = replace(sql, '(flow_id)', '(name)') WHERE name = 'signal_flow'"
    )
    connection.close()

    done = filled("db", "verify")

    assert (done.code, "missing from index signal_flow" in done.out) == (1, True)


def test_a_damaged_flow_hides_no_other_from_a_list(filled: Shell) -> None:
    """It is listed as damaged, without the values that cannot be believed, and the code says so."""
    edit(filled, "UPDATE flow SET result = '\"sum: 7\"' WHERE flow_id = 't-1'")

    done = filled("ls", "--json")

    assert done.code == 1
    flows = {flow["flow_id"]: flow for flow in done.lines}
    assert list(flows) == ["a-1", "t-2", "t-1"]
    assert flows["t-1"]["result"] is None
    assert "does not match its checksum" in flows["t-1"]["damaged"]
    assert flows["t-2"]["damaged"] is None
    assert "damaged" in filled("ls").out
    shown = filled("show", "t-1")
    assert (shown.code, "does not match its checksum" in shown.err) == (1, True)


def test_a_progress_bar_is_for_terminals_alone(filled: Shell) -> None:
    """And not for --json."""
    assert "━" in filled.on_terminal("db", "verify")
    assert "━" not in filled.on_terminal("db", "verify", "--json")
    assert "━" not in filled("db", "verify").err
