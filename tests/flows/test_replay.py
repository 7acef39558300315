"""A recorded step is not run again, and what a flow saw live is what it sees on replay."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from persistasaurus import FlowStatus, Persistasaurus, Signal, StepFailed, current, flow, step
from tests.flows import shapes
from tests.flows.kit import log_of, ran, start, until_waiting

go = Signal("replay-go", str)
caught: list[BaseException] = []


@step
def effect(label: str) -> str:
    ran.append(label)
    return label


@step
async def async_effect(label: str) -> str:
    ran.append(label)
    return label


@flow
def two_halves() -> list[str]:
    return [effect("before"), go.wait(), effect("after")]


@flow
async def two_async_halves() -> list[str]:
    return [await async_effect("before"), await go, await async_effect("after")]


@pytest.mark.parametrize("halves", [two_halves, two_async_halves])
def test_a_recorded_step_is_not_run_again_by_the_next_app(database: Path, halves: Any) -> None:
    # given a flow that waits between two steps when its app is left
    with Persistasaurus(database) as app:
        until_waiting(start(app, halves, "f"))
    # when the next app drives it on
    with Persistasaurus(database) as app:
        app.handle("f").send(go, "now")
        result = app.handle("f").result(10)
    # then each step has run once
    assert result == ["before", "now", "after"]
    assert ran == ["before", "after"]


def test_a_restart_changes_no_recorded_row(database: Path) -> None:
    # given
    with Persistasaurus(database) as app:
        before = until_waiting(start(app, two_halves, "f")).steps()
    # when
    with Persistasaurus(database) as app:
        app.handle("f").send(go, "now")
        app.handle("f").result(10)
        after = app.handle("f").steps()
    # then
    assert after[0] == before[0]
    assert [row.step for row in after] == [1, 2, 3]


@pytest.mark.peer("a rescuer overwrites a completed flow")
def test_a_flow_that_ended_is_not_driven_again(database: Path) -> None:
    # given
    with Persistasaurus(database) as app:
        handle = start(app, two_halves, "f")
        handle.send(go, "now")
        handle.result(10)
    ran.clear()
    # when
    with Persistasaurus(database) as app:
        result = app.run(two_halves.options(flow_id="f"))
    # then
    assert result == ["before", "now", "after"]
    assert ran == []


def test_a_flow_survives_ten_restarts(database: Path) -> None:
    # given
    with Persistasaurus(database) as app:
        start(app, many_waits, "f")
    # when each life sends one word
    for n in range(10):
        with Persistasaurus(database) as app:
            until_waiting(app.handle("f")).send(go, str(n))
            until_row(app.handle("f"), 2 * n + 2)
    # then
    with Persistasaurus(database) as app:
        assert app.handle("f").result(10) == [str(n) for n in range(10)]
    assert ran == [str(n) for n in range(10)]


@flow
def many_waits() -> list[str]:
    words = []
    for _ in range(10):
        word = go.wait()
        words.append(effect(word))
    return words


def until_row(handle: Any, step_number: int) -> None:
    from tests.flows.kit import eventually

    eventually(lambda: any(r.step == step_number and r.status == FlowStatus.COMPLETE for r in handle.steps()))


# Concurrency: the notes that a shape takes are the same in every life.


@pytest.mark.peer("gather differs on replay")
@pytest.mark.parametrize("shape", [*shapes.ASYNC, *shapes.SYNC])
def test_a_concurrent_shape_sees_the_same_on_replay(database: Path, shape: str) -> None:
    # given what its body saw live
    shapes.seen.clear()
    with Persistasaurus(database) as app:
        flow_ = shapes.async_shape if shape in shapes.ASYNC else shapes.sync_shape
        handle = until_waiting(start(app, flow_, "f", shape))
        live = log_of(handle)
    first = shapes.seen[shape][0]
    # when it is replayed
    with Persistasaurus(database) as app:
        app.handle("f").send(shapes.finish, "done")
        result = app.handle("f").result(10)
        replayed = log_of(app.handle("f"))
    # then
    assert result == [*first, "done"]
    assert all(notes == first for notes in shapes.seen[shape])
    assert len(shapes.seen[shape]) >= 2
    assert replayed[: len(live) - 1] == live[:-1]


def test_every_shape_replays_the_same_in_processes_with_other_hash_seeds(database: Path) -> None:
    # given
    first = life(database, "begin", hash_seed=1)
    # when
    second = life(database, "end", hash_seed=4242)
    # then
    for shape, notes in first["seen"].items():
        assert second["seen"][shape][0] == notes[0], shape
        assert second["results"][shape] == [*notes[0], "done"], shape
    assert set(first["seen"]) == {*shapes.ASYNC, *shapes.SYNC}


def test_step_numbers_do_not_depend_on_the_hash_seed(tmp_path: Path) -> None:
    # given the same flows in two databases, by two processes (later steps go by when earlier ones ended)
    logs = []
    for seed in (3, 77):
        life(tmp_path / f"{seed}.db", "begin", hash_seed=seed)
        with Persistasaurus(tmp_path / f"{seed}.db", worker=False) as app:
            steps = app.handle("gathered").steps() + app.handle("locks").steps()[:3]
            logs.append([(row.step, row.method_name, row.parameters) for row in steps])
    # then
    assert logs[0] == logs[1]


def life(database: Path, what: str, *, hash_seed: int) -> dict[str, Any]:
    done = subprocess.run(
        [sys.executable, shapes.__file__, str(database), what],
        env={**os.environ, "PYTHONHASHSEED": str(hash_seed)},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    answer: dict[str, Any] = json.loads(done.stdout)
    return answer


# Failures: class, message, arguments and cause are the same.


class CardDeclined(Exception):
    def __init__(self, card: str, *, code: int) -> None:
        super().__init__(f"card {card} declined")
        self.card = card
        self.code = code


@step
def decline() -> None:
    try:
        raise KeyError("limit")
    except KeyError as error:
        raise CardDeclined("4711", code=51) from error


@step
async def decline_async() -> None:
    decline._plain((), {})


@flow
def catches_decline() -> str:
    try:
        decline()
    except CardDeclined as error:
        caught.append(error)
    return go.wait()


@flow
async def catches_async() -> str:
    try:
        await decline_async()
    except CardDeclined as error:
        caught.append(error)
    return await go


@pytest.mark.parametrize("catching", [catches_decline, catches_async])
def test_an_exception_is_the_same_live_and_on_replay(database: Path, catching: Any) -> None:
    # given
    caught.clear()
    with Persistasaurus(database) as app:
        until_waiting(start(app, catching, "f"))
    # when
    with Persistasaurus(database) as app:
        app.handle("f").send(go, "x")
        app.handle("f").result(10)
    # then
    live, replayed = caught[0], caught[-1]
    assert len(caught) >= 2
    for error in (live, replayed):
        assert type(error) is CardDeclined
        assert str(error) == "card 4711 declined"
        assert (error.card, error.code) == ("4711", 51)
        assert type(error.__cause__) is KeyError
        assert error.__cause__.args == ("limit",)
    assert live.args == replayed.args


def test_an_exception_of_a_class_that_is_gone_is_a_step_failure(
    database: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # given a step that failed with a class that the restarted process does not have
    caught.clear()
    with Persistasaurus(database) as app:
        until_waiting(start(app, catches_any, "f"))
    monkeypatch.delattr(sys.modules[__name__], "CardDeclined")
    monkeypatch.setattr("persistasaurus._rebuild._seen", {})
    # when
    with Persistasaurus(database) as app:
        app.handle("f").send(go, "x")
        app.handle("f").result(10)
    # then
    replayed = caught[-1]
    assert isinstance(replayed, StepFailed)
    assert replayed.type_name.endswith("CardDeclined")
    assert replayed.message == "card 4711 declined"
    assert "decline" in replayed.traceback_text


@flow
def catches_any() -> str:
    try:
        decline()
    except Exception as error:
        caught.append(error)
    return go.wait()


# Who am I.


@flow
def names_itself() -> list[Any]:
    outside = current()
    go.wait()
    inside = describe_itself()
    return [outside.flow_id, outside.step, *inside]


@step
def describe_itself() -> list[Any]:
    here = current()
    return [here.flow_id, here.step, here.attempt, here.idempotency_key]


def test_a_step_knows_its_flow_and_its_key(database: Path) -> None:
    with Persistasaurus(database) as app:
        handle = start(app, names_itself, "f")
        handle.send(go, "x")
        assert handle.result(10) == ["f", 0, "f", 2, 1, "f/2"]
