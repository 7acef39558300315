"""Values and exceptions as they went wrong elsewhere."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from persistasaurus import FlowStatus, Persistasaurus, SerializationError, Signal, flow, step
from tests.flows.kit import start, until_status, until_waiting

onward = Signal("peers_onward", str)


class Awkward(Exception):
    """Cannot be made of its arguments, as `pickle` does it."""

    def __init__(self, code: int, *, detail: str) -> None:
        super().__init__(f"{code}: {detail}")
        self.code = code
        self.detail = detail


@step
def awkward() -> None:
    raise Awkward(7, detail="nothing")


@flow
def peers_catches() -> list[Any]:
    try:
        awkward()
    except Awkward as error:
        seen: list[Any] = [str(error), error.code, error.detail]
    onward.wait()
    return seen


@step
def unrecordable(kind: str) -> Any:
    return {"object": object(), "set": {1}, "nan": float("nan"), "tuple key": {(1, 2): 3}}[kind]


@flow
def peers_unrecordable(kind: str) -> str:
    try:
        unrecordable(kind)
    except SerializationError as error:
        return str(error)
    return "silence"


@pytest.mark.peer("exceptions that do not unpickle")
def test_an_exception_of_any_constructor_is_caught_again_after_a_restart(database: Path) -> None:
    """Failures were pickled: one that cannot be made of its arguments broke the flow at its replay."""
    with Persistasaurus(database) as app:
        until_waiting(start(app, peers_catches, "f"))
    with Persistasaurus(database) as app:
        app.handle("f").send(onward, "")

        assert app.handle("f").result(10) == ["7: nothing", 7, "nothing"]


@pytest.mark.peer("silent serialisation failure")
@pytest.mark.parametrize("kind", ["object", "set", "nan", "tuple key"])
def test_a_result_that_cannot_be_recorded_fails_its_step_out_loud(database: Path, kind: str) -> None:
    """The result was logged as unserialisable and recorded as null, which the flow got on replay."""
    with Persistasaurus(database) as app:
        told = app.run(peers_unrecordable.options(flow_id="f"), kind)
        row = app.handle("f").steps()[0]

    assert "The result of step 'unrecordable' cannot be recorded: result" in told
    assert row.status == FlowStatus.FAILED
    assert row.return_value is None


@pytest.mark.peer("a timed-out wait not recorded")
@pytest.mark.parametrize("times", [1, 3])
def test_every_wait_that_timed_out_is_in_the_log(database: Path, times: int) -> None:
    """A wait that ended without a signal left no row: on replay every step behind it had another number."""
    with Persistasaurus(database) as app:
        handle = start(app, peers_times_out, "f", times)
        until_status(handle, FlowStatus.COMPLETE)

        assert [row.status for row in handle.steps()] == [FlowStatus.FAILED] * times


@flow
def peers_times_out(times: int) -> int:
    for _ in range(times):
        try:
            onward.wait(timeout=0.001)
        except TimeoutError:
            continue
    return times
