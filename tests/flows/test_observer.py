"""An observer is told what has happened, once, and never again on replay."""

from __future__ import annotations

from pathlib import Path

from persistasaurus import FlowStatus, Persistasaurus, Signal, flow, step
from persistasaurus._events import Event
from tests.flows.kit import eventually

watched = Signal("observer-go", int)


@step
def watched_step() -> int:
    return 1


@flow
def watched_flow() -> int:
    return watched_step() + watched.wait()


def told(facts: list[Event], flow_id: str) -> list[tuple[str, int, str]]:
    return [(fact.happening.value, fact.step, fact.status) for fact in facts if fact.flow_id == flow_id]


def test_a_step_is_told_to_start_and_end_once_and_not_on_replay(database: Path):
    first: list[Event] = []
    second: list[Event] = []
    # given a flow whose step is recorded before its app is left
    with Persistasaurus(database, observer=first.append) as app:
        handle = app.start(watched_flow.options(flow_id="f"))
        eventually(lambda: handle.status() == FlowStatus.WAITING_FOR_SIGNAL)
    # when another app replays it to its end
    with Persistasaurus(database, observer=second.append) as app:
        app.handle("f").send(watched, 1)
        assert app.handle("f").result(30) == 2
    # then only the first has heard of the step
    assert ("step started", 1, "") in told(first, "f")
    assert told(first, "f").count(("step ended", 1, "COMPLETE")) == 1
    assert not [fact for fact in told(second, "f") if fact[1] == 1]
    assert told(second, "f")[-1] == ("flow ended", 0, "COMPLETE")


def test_an_observer_that_raises_changes_nothing(database: Path, caplog):
    def grumble(_: Event) -> None:
        raise RuntimeError("no")

    with Persistasaurus(database, observer=grumble) as app:
        app.handle("f").send(watched, 1)
        assert app.run(watched_flow.options(flow_id="f")) == 2
    assert "an observer raised" in caplog.text
