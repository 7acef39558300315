"""Nobody sees an outcome before it is durable, and what belongs together becomes durable together."""

from __future__ import annotations

from pathlib import Path

import pytest

from persistasaurus import FlowStatus, Persistasaurus, Signal, flow, step
from tests.flows.kit import eventually, ran, sql, start, until_waiting
from tests.flows.refusing import refused

go_ahead = Signal("acknowledged_go_ahead", str)


@step
def first_of_two() -> int:
    ran.append("first")
    return 1


@step
def second_of_two() -> int:
    ran.append("second")
    return 2


@flow
def two_acknowledged_steps() -> int:
    return first_of_two() + second_of_two()


@flow
async def two_acknowledged_steps_async() -> int:
    return await first_of_two.submit() + await second_of_two.submit()


@flow
def one_acknowledged_signal() -> str:
    return go_ahead.wait()


@pytest.mark.parametrize("two", [two_acknowledged_steps, two_acknowledged_steps_async], ids=["sync", "async"])
def test_a_flow_does_not_go_on_before_its_steps_outcome_is_durable(
    database: Path, two: object, caplog: pytest.LogCaptureFixture
) -> None:
    with Persistasaurus(database) as app:
        # given a database that refuses outcomes
        with refused(database, "INSERT", "step", when="new.status = 1"):
            # when a step has run
            handle = start(app, two, "f")
            eventually(lambda: "cannot write" in caplog.text or len(ran) > 1)
            # then the next one has not begun, until it is recorded
            assert ran == ["first"]
            assert sql(database, "SELECT count(*) FROM step WHERE status = 1") == [(0,)]
        assert handle.result(10) == 3
    assert ran == ["first", "second"]


def test_a_signal_is_pending_until_the_wait_that_took_it_is_recorded(
    database: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with Persistasaurus(database) as app:
        # given a flow that waits, on a database that refuses outcomes
        handle = until_waiting(start(app, one_acknowledged_signal, "f"))
        with refused(database, "INSERT", "step", when="new.status = 1"):
            # when its signal comes
            handle.send(go_ahead, "yes")
            eventually(lambda: "cannot write" in caplog.text or handle.status() == FlowStatus.COMPLETE)
            # then it is still there
            assert sql(database, "SELECT name FROM signal") == [(go_ahead.name,)]
            assert handle.status() != FlowStatus.COMPLETE
        # and taken with the record
        assert handle.result(10) == "yes"
    assert sql(database, "SELECT name FROM signal") == []
