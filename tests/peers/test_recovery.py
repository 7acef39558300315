"""Recovery as it went wrong elsewhere."""

from __future__ import annotations

import threading
from collections import Counter
from contextlib import ExitStack
from pathlib import Path

import pytest

from persistasaurus import FlowParked, FlowStatus, Persistasaurus, Signal, flow, step
from tests.flows.kit import eventually, ran, sql, start, until_status, until_waiting

go = Signal("peers_go", str)


@step
def noted(name: str) -> str:
    ran.append(name)
    return name


@flow
def peers_two_parts(name: str) -> str:
    return noted(f"{name} before") + go.wait() + noted(f"{name} after")


@flow
def peers_short(name: str) -> str:
    return noted(name)


@pytest.mark.peer("stale recovery list")
def test_a_flow_that_another_worker_has_finished_meanwhile_is_not_run_again(database: Path) -> None:
    """A worker listed what was pending, and ran from its list what another one had finished by then."""
    with Persistasaurus(database, worker=False) as client:
        for number in range(60):
            start(client, peers_short, f"f-{number}", f"f-{number}")
    with ExitStack() as stack:
        apps = [stack.enter_context(Persistasaurus(database, capacity=5)) for _ in range(3)]
        for number in range(60):
            assert apps[0].handle(f"f-{number}").result(20) == f"f-{number}"

    assert set(Counter(ran).values()) == {1}
    assert len(ran) == 60


@pytest.mark.peer("an interrupted purge leaves rows")
def test_rows_that_a_half_done_deletion_left_belong_to_no_new_flow(database: Path) -> None:
    """A deletion was cut short; the id was used again and the new flow got the old one's recorded results."""
    with Persistasaurus(database) as app:
        assert start(app, peers_short, "f", "old").result(10) == "old"
    sql(database, "DELETE FROM flow")

    with Persistasaurus(database) as app:
        assert start(app, peers_short, "f", "new").result(10) == "new"
    assert ran == ["old", "new"]


@pytest.mark.peer("a database restart during recovery strands flows")
def test_a_database_that_fails_during_recovery_strands_nothing(
    database: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """The database went away while a worker recovered; what it had listed was never looked at again."""
    with Persistasaurus(database) as app:
        for number in range(8):
            until_waiting(start(app, peers_two_parts, f"f-{number}", f"f-{number}"))
    with Persistasaurus(database, worker=False) as client:
        for number in range(8):
            client.handle(f"f-{number}").send(go, "!")
    sql(database, "CREATE TRIGGER away BEFORE UPDATE ON flow BEGIN SELECT RAISE(ABORT, 'away'); END")

    with Persistasaurus(database) as app:
        eventually(lambda: "the store cannot be used" in caplog.text)
        sql(database, "DROP TRIGGER away")
        for number in range(8):
            name = f"f-{number}"
            assert app.handle(name).result(20) == f"{name} before!{name} after"
    assert set(Counter(ran).values()) == {1}


@pytest.mark.peer("one dead flow aborts the recovery of the rest")
@pytest.mark.parametrize(
    "damage",
    [
        "UPDATE step SET return_value = '\"x' WHERE flow_key = 2",
        "UPDATE flow SET input = '{' WHERE flow_key = 2",
        "UPDATE flow SET crashes = 99 WHERE flow_key = 2",
    ],
    ids=["a step", "the input", "crashes"],
)
def test_a_flow_that_cannot_be_recovered_keeps_no_other_from_it(database: Path, damage: str) -> None:
    """Recovery went through its list to the first flow that raised; those behind it stayed as they were."""
    with Persistasaurus(database) as app:
        for number in range(4):
            until_waiting(start(app, peers_two_parts, f"f-{number}", f"f-{number}"))
    sql(database, damage)

    with Persistasaurus(database) as app:
        for number in (0, 2, 3, 1):
            app.handle(f"f-{number}").send(go, "!")
        for number in (0, 2, 3):
            assert app.handle(f"f-{number}").result(10).endswith("after")
        until_status(app.handle("f-1"), FlowStatus.PARKED)


@pytest.mark.peer("unknown flow names discarded")
def test_a_flow_whose_name_nobody_knows_waits_for_one_who_does(database: Path) -> None:
    """A worker without the flow's module took it from the queue, could not drive it, and it was gone."""
    with Persistasaurus(database) as app:
        until_waiting(start(app, peers_two_parts, "f", "f"))
    sql(database, "UPDATE name SET method_name = 'peers_gone' WHERE method_name = 'peers_two_parts'")
    with Persistasaurus(database) as app:
        app.handle("f").send(go, "!")
        record = eventually(lambda: (r := app.handle("f").record()).reason and r)
        assert record.status == FlowStatus.WAITING_FOR_SIGNAL
        assert "No living worker knows the flow 'peers_gone'" in record.reason
    sql(database, "DELETE FROM name WHERE method_name = 'peers_two_parts'")
    sql(database, "UPDATE name SET method_name = 'peers_two_parts' WHERE method_name = 'peers_gone'")

    with Persistasaurus(database) as app:
        assert app.handle("f").result(10) == "f before!f after"


@pytest.mark.peer("recovery deadlocks when pending > threads")
def test_more_flows_are_recovered_than_there_are_threads(database: Path) -> None:
    """Each recovered flow held a thread while it waited, and the one that it waited for got none."""
    with Persistasaurus(database) as app:
        handles = [start(app, peers_two_parts, f"f-{number}", f"f-{number}") for number in range(40)]
        for handle in handles:
            until_waiting(handle)

    with Persistasaurus(database, flow_threads=2, step_threads=1) as app:
        for number in reversed(range(40)):
            app.handle(f"f-{number}").send(go, "!")
        results = [app.handle(f"f-{number}").result(20) for number in range(40)]
    assert len(set(results)) == 40
    assert set(Counter(ran).values()) == {1}


@pytest.mark.peer("thread lists grow for ever")
def test_threads_do_not_add_up_with_flows_nor_with_apps(database: Path) -> None:
    """Each flow's thread was kept in a list; after a day of flows the process had no memory left."""
    before = threading.active_count()
    most = 0
    for _ in range(3):
        with Persistasaurus(database, flow_threads=3) as app:
            for handle in [app.start(peers_short, str(number)) for number in range(100)]:
                handle.result(20)
                most = max(most, threading.active_count())
    eventually(lambda: threading.active_count() <= before)

    assert most - before <= 3 + 4  # its own threads: writer, worker, loop, and one that is just ending


@pytest.mark.peer("crashes not counted as attempts")
def test_a_flow_that_crashes_its_process_each_time_is_parked(database: Path) -> None:
    """Attempts were counted when they ended: one that took the process with it was tried for ever."""
    with Persistasaurus(database) as app:
        until_waiting(start(app, peers_two_parts, "f", "f"))
    sql(database, "UPDATE flow SET crashes = 5, due_at_ms = 0")

    with Persistasaurus(database) as app, pytest.raises(FlowParked, match="5 times in a row"):
        app.handle("f").result(10)
    assert ran == ["f before"]
