"""A flow whose code no longer fits its log is parked with the reason; every other flow goes on."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from persistasaurus import (
    DamagedRecordError,
    FlowParked,
    FlowStatus,
    NonDeterminismError,
    Persistasaurus,
    PersistasaurusError,
    Signal,
    flow,
    sleep,
    step,
    wait,
)
from tests.flows.kit import log_of, ran, sql, start, until_status, until_waiting

go = Signal("mismatch-go", str)


@step
def charge(order: str) -> str:
    ran.append(f"charge {order}")
    return "charged"


@step
def pack(order: str) -> str:
    ran.append(f"pack {order}")
    return "packed"


@step
def ship(order: str) -> str:
    ran.append(f"ship {order}")
    return "shipped"


def first_version() -> list[str]:
    return [charge("o"), pack("o"), go.wait(), ship("o")]


def define(body: Callable[[], list[str]]) -> Any:
    """Define the flow `changing` again, as a deploy of changed code does."""

    @flow(name="changing")
    def changing() -> list[str]:
        return body()

    return changing


@pytest.fixture
def waiting(database: Path) -> Path:
    """A database in which flow "f" of the first version waits after its second step."""
    with Persistasaurus(database) as app:
        until_waiting(start(app, define(first_version), "f"))
    ran.clear()
    return database


CHANGES: dict[str, tuple[Callable[[], list[str]], list[str]]] = {
    "another step": (lambda: [ship("o"), pack("o"), go.wait()], ["step 1", "'charge'", "'ship'"]),
    "reordered": (lambda: [pack("o"), charge("o"), go.wait()], ["step 1", "'charge'", "'pack'"]),
    "a step more": (lambda: [charge("o"), ship("o"), pack("o"), go.wait()], ["step 2", "'pack'", "'ship'"]),
    "a step less": (lambda: [charge("o"), go.wait(), ship("o")], ["step 2", "'pack'", "mismatch-go"]),
    "ends early": (lambda: [charge("o")], ["step 2", "'pack'", "not call"]),
    "ends before the wait": (lambda: [charge("o"), pack("o")], ["step 3", "mismatch-go", "not call"]),
    "a sleep": (lambda: [charge("o"), str(sleep(1)), go.wait()], ["step 2", "'pack'", "sleep"]),
    "raises early": (lambda: [charge("o"), str(1 // 0)], ["step 2", "'pack'", "not call"]),
}


@pytest.mark.parametrize("change", CHANGES)
def test_changed_code_parks_the_flow_and_says_what_was_recorded_and_asked(waiting: Path, change: str) -> None:
    # given
    body, words = CHANGES[change]
    define(body)
    # when
    with Persistasaurus(waiting) as app:
        handle = app.handle("f")
        handle.send(go, "x")
        with pytest.raises(NonDeterminismError) as raised:
            handle.result(10)
        # then
        assert handle.status() == FlowStatus.PARKED
        assert handle.record().reason == str(raised.value)
    assert all(word in str(raised.value) for word in ["'f'", *words])
    assert ran == []


def test_a_parked_flow_raises_its_reason_at_once_in_every_later_app(waiting: Path) -> None:
    # given
    define(CHANGES["another step"][0])
    with Persistasaurus(waiting) as app:
        app.handle("f").send(go, "x")
        until_status(app.handle("f"), FlowStatus.PARKED)
    # when, then
    with Persistasaurus(waiting) as app, pytest.raises(NonDeterminismError, match="'charge'"):
        app.handle("f").result(timeout=0.5)


def test_other_flows_go_on_while_one_is_parked(waiting: Path) -> None:
    # given
    with Persistasaurus(waiting) as app:
        until_waiting(start(app, innocent, "other"))
    define(CHANGES["reordered"][0])
    # when
    with Persistasaurus(waiting) as app:
        app.handle("f").send(go, "x")
        app.handle("other").send(go, "x")
        # then
        assert app.handle("other").result(10) == ["charged", "x", "shipped"]
        until_status(app.handle("f"), FlowStatus.PARKED)


@flow
def innocent() -> list[str]:
    return [charge("i"), go.wait(), ship("i")]


@pytest.mark.parametrize("change", CHANGES)
def test_a_parked_flow_goes_on_once_the_code_is_repaired_and_it_is_retried(
    waiting: Path, change: str
) -> None:
    # given
    define(CHANGES[change][0])
    with Persistasaurus(waiting) as app:
        handle = app.handle("f")
        handle.send(go, "x")
        until_status(handle, FlowStatus.PARKED)
        parked = log_of(handle)
        # when the old code is put back, in the same process
        define(first_version)
        handle.retry()
        # then
        assert handle.result(10) == ["charged", "packed", "x", "shipped"]
        assert log_of(handle)[:2] == parked[:2]
    assert ran == ["ship o"]


def test_a_parked_flow_that_is_retried_with_the_code_still_wrong_is_parked_again(waiting: Path) -> None:
    # given
    define(CHANGES["reordered"][0])
    with Persistasaurus(waiting) as app:
        handle = app.handle("f")
        handle.send(go, "x")
        until_status(handle, FlowStatus.PARKED)
        # when
        handle.retry()
        # then
        with pytest.raises(NonDeterminismError):
            handle.result(10)


def test_code_that_goes_on_differently_after_the_recorded_part_is_fine(waiting: Path) -> None:
    # given
    define(lambda: [charge("o"), pack("o"), go.wait(), pack("again"), ship("o")])
    # when
    with Persistasaurus(waiting) as app:
        app.handle("f").send(go, "x")
        # then
        assert app.handle("f").result(10) == ["charged", "packed", "x", "packed", "shipped"]
    assert ran == ["pack again", "ship o"]


def test_a_second_definition_in_the_module_by_exec_replaces_the_first(waiting: Path) -> None:
    # given a deploy that is simulated by executing changed source in this module's name
    source = "@flow(name='changing')\ndef changing() -> list[str]:\n    return [ship('o')]\n"
    exec(source, {**vars(sys.modules[__name__])})
    # when
    with Persistasaurus(waiting) as app:
        app.handle("f").send(go, "x")
        # then
        with pytest.raises(NonDeterminismError, match="ship"):
            app.handle("f").result(10)


def test_an_async_flow_that_changed_is_parked_too(database: Path) -> None:
    # given
    @flow(name="changing async")
    async def old() -> list[str]:
        return [await charge.submit("o"), await go]

    with Persistasaurus(database) as app:
        until_waiting(start(app, old, "f"))

    @flow(name="changing async")
    async def new() -> list[str]:
        return [await pack.submit("o"), await go]

    # when
    with Persistasaurus(database) as app:
        app.handle("f").send(go, "x")
        # then
        with pytest.raises(NonDeterminismError, match=r"step 1 was recorded as 'charge' but .* 'pack'"):
            app.handle("f").result(10)


def test_a_flow_that_catches_everything_cannot_catch_its_mismatch(waiting: Path) -> None:
    # given
    def greedy() -> list[str]:
        try:
            ship("o")
        except BaseException:
            return ["swallowed"]
        return []

    define(greedy)
    # when
    with Persistasaurus(waiting) as app:
        app.handle("f").send(go, "x")
        # then
        with pytest.raises(NonDeterminismError):
            app.handle("f").result(10)


# Damage.


def damage(database: Path, statement: str) -> None:
    assert sql(database, f"{statement} RETURNING 1") == [(1,)]


DAMAGES = {
    "a value": """UPDATE step SET return_value = '"stolen"' WHERE step = 1""",
    "an event's number": "UPDATE step SET event = 7 WHERE step = 2",
    "a status": "UPDATE step SET status = 3 WHERE step = 1",
    "a missing row": "DELETE FROM step WHERE step = 1",
    "the input": """UPDATE flow SET input = '{"a":1}' WHERE flow_id = 'f'""",
    "the seed": "UPDATE flow SET seed = 5 WHERE flow_id = 'f'",
}


@pytest.mark.parametrize("what", DAMAGES)
def test_a_damaged_row_parks_only_its_flow(waiting: Path, what: str) -> None:
    # given
    with Persistasaurus(waiting) as app:
        until_waiting(start(app, innocent, "other"))
    define(first_version)
    damage(
        waiting,
        DAMAGES[what] + ("" if "flow_id" in DAMAGES[what] else f" AND flow_key = {key(waiting, 'f')}"),
    )
    # when
    with Persistasaurus(waiting) as app:
        app.handle("f").send(go, "x")
        app.handle("other").send(go, "x")
        # then
        with pytest.raises(DamagedRecordError, match="'f'"):
            app.handle("f").result(10)
        assert app.handle("other").result(10) == ["charged", "x", "shipped"]


def key(database: Path, flow_id: str) -> int:
    return int(sql(database, "SELECT flow_key FROM flow WHERE flow_id = ?", flow_id)[0][0])


def test_an_edited_result_is_noticed(database: Path) -> None:
    # given
    with Persistasaurus(database) as app:
        handle = start(app, innocent, "f")
        handle.send(go, "x")
        handle.result(10)
    damage(database, """UPDATE flow SET result = '["free"]' WHERE flow_id = 'f'""")
    # when, then
    with Persistasaurus(database) as app:
        with pytest.raises(DamagedRecordError):
            app.handle("f").result(10)
        with pytest.raises(DamagedRecordError):
            app.run(innocent.options(flow_id="f"))


def test_a_damaged_row_that_is_restored_can_be_retried(waiting: Path) -> None:
    # given
    define(first_version)
    where = f"WHERE step = 1 AND flow_key = {key(waiting, 'f')}"
    damage(waiting, f"""UPDATE step SET return_value = '"stolen"' {where}""")
    with Persistasaurus(waiting) as app:
        handle = app.handle("f")
        handle.send(go, "x")
        until_status(handle, FlowStatus.PARKED)
        # when
        damage(waiting, f"""UPDATE step SET return_value = '"charged"' {where}""")
        handle.retry()
        # then
        assert handle.result(10) == ["charged", "packed", "x", "shipped"]


# A flow that nothing will bring on.


def test_a_flow_that_waits_for_an_event_that_nobody_sets_is_parked(database: Path) -> None:
    with Persistasaurus(database) as app:
        with pytest.raises(FlowParked, match="nothing will ever do"):
            start(app, waits_in_vain, "f").result(10)
        assert "Event" in (app.handle("f").record().reason or "")


@flow
async def waits_in_vain() -> None:
    import asyncio

    await charge.submit("o")
    await asyncio.Event().wait()


def test_a_flow_whose_recorded_value_no_longer_fits_the_type_is_parked(database: Path) -> None:
    # given a step whose result type is another one since
    def define_sized(kind: Any) -> Any:
        def measure() -> Any:
            return "large" if kind is str else 3

        measure.__annotations__["return"] = kind
        measured = step(name="measure")(measure)

        @flow(name="sized")
        def sized() -> str:
            size = measured()
            go.wait()
            return str(size)

        return sized

    with Persistasaurus(database) as app:
        until_waiting(start(app, define_sized(str), "f"))
    define_sized(int)
    # when
    with Persistasaurus(database) as app:
        app.handle("f").send(go, "x")
        # then
        with pytest.raises(PersistasaurusError, match="measure"):
            app.handle("f").result(10)
        assert app.handle("f").status() == FlowStatus.PARKED


def test_a_wait_for_futures_of_changed_code_is_parked_as_well(waiting: Path) -> None:
    # given
    define(lambda: [str(wait([charge.submit("o"), ship.submit("o")]))])
    # when
    with Persistasaurus(waiting) as app:
        app.handle("f").send(go, "x")
        # then
        with pytest.raises(NonDeterminismError, match="'ship'"):
            app.handle("f").result(10)
