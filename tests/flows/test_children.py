"""A flow called in a flow is a child: an instance of its own, started once for one step number."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest

from persistasaurus import (
    FlowConflict,
    FlowStatus,
    Persistasaurus,
    Signal,
    WrongContextError,
    as_completed,
    flow,
    step,
)
from tests.flows.kit import eventually, log_of, ran, start, until_status, until_waiting

go = Signal("children-go", str)


@step
def note(label: str) -> str:
    ran.append(label)
    return label


@flow
def leaf(label: str) -> str:
    return note(label)


@flow
async def async_leaf(label: str) -> str:
    return await note.submit(label)


@flow
def waiting_leaf(label: str) -> str:
    return note(label) + go.wait() + note(f"{label}!")


@flow
async def async_waiting_leaf(label: str) -> str:
    return await note.submit(label) + await go + await note.submit(f"{label}!")


@pytest.mark.parametrize("parent", ["mother", "async_mother"])
def test_a_child_whose_id_belongs_to_another_flow_fails(database: Path | str, parent: str) -> None:
    """Nobody would tell the parent how that one has ended."""
    with Persistasaurus(database) as app:
        app.run(leaf.options(flow_id="p/2"), "its own")

        with pytest.raises(FlowConflict, match=r"'p/2' of this child belongs to a flow that was started by"):
            app.run(globals()[parent].options(flow_id="p"))


@flow
def mother() -> list[str]:
    return [note("m"), leaf("a"), leaf("b")]


@flow
async def async_mother() -> list[str]:
    return [await note.submit("m"), await async_leaf("a"), await async_leaf("b")]


@pytest.mark.parametrize("family", [mother, async_mother])
def test_a_child_is_a_flow_of_its_own_named_after_its_step(database: Path, family: Any) -> None:
    with Persistasaurus(database) as app:
        handle = start(app, family, "f")
        assert handle.result(10) == ["m", "a", "b"]
        child = app.handle("f/2").record()
        assert child.input == {"label": "a"}
        assert (child.status, child.result) == (FlowStatus.COMPLETE, "a")
        rows = handle.steps()
        assert [row.step for row in rows] == [1, 2, 3]
        assert rows[1].parameters == {"label": "a"}
        assert rows[1].return_value == "a"
        assert [record.flow_id for record in app.flows()] == ["f/3", "f/2", "f"]


@flow
def mixed_mother() -> str:
    return async_leaf.submit("async").result() + leaf("sync")


@flow
async def async_mixed_mother() -> str:
    return await leaf.submit("sync") + await async_leaf("async")


@pytest.mark.parametrize("family", [mixed_mother, async_mixed_mother])
def test_a_child_of_the_other_colour_is_submitted(database: Path, family: Any) -> None:
    with Persistasaurus(database) as app:
        assert sorted(app.run(family)) == sorted("asyncsync")


@flow
def wrong_mother() -> Any:
    return async_leaf("x")


@flow
async def async_wrong_mother() -> Any:
    return leaf("x")


@pytest.mark.parametrize("family", [wrong_mother, async_wrong_mother])
def test_a_child_of_the_other_colour_called_directly_says_the_cure(database: Path, family: Any) -> None:
    with Persistasaurus(database) as app, pytest.raises(WrongContextError, match="submit"):
        app.run(family)


@flow
def patient_mother() -> str:
    return note("m") + waiting_leaf("c") + note("n")


@flow
async def async_patient_mother() -> str:
    return await note.submit("m") + await async_waiting_leaf("c") + await note.submit("n")


@pytest.mark.parametrize("family", [patient_mother, async_patient_mother])
def test_parent_and_child_go_on_after_a_restart_and_nothing_is_started_twice(
    database: Path, family: Any
) -> None:
    # given a parent whose child waits
    with Persistasaurus(database) as app:
        start(app, family, "f")
        eventually(lambda: "c" in ran)
        until_waiting(app.handle("f/2"))
        assert app.handle("f").status() == FlowStatus.PENDING
    # when
    with Persistasaurus(database) as app:
        app.handle("f/2").send(go, "-")
        # then
        assert app.handle("f").result(10) == "mc-c!n"
        assert len(list(app.flows())) == 2
    assert ran == ["m", "c", "c!", "n"]


def test_a_child_that_ended_while_its_parent_was_away_is_seen_by_it(database: Path) -> None:
    # given a parent that no worker can drive, as it is left out of memory
    with Persistasaurus(database, residents=0) as app:
        handle = start(app, async_patient_mother, "f")
        until_waiting(app.handle("f/2"))
        eventually(lambda: app._engine is not None and not app._engine.runs)
        # when
        app.handle("f/2").send(go, "-")
        # then
        assert handle.result(10) == "mc-c!n"


@flow
async def many_children(count: int) -> int:
    found = await asyncio.gather(*(async_leaf(str(n)) for n in range(count)))
    return len(found)


@flow
def many_sync_children(count: int) -> int:
    return sum(1 for future in as_completed([leaf.submit(str(n)) for n in range(count)]) if future.result())


@pytest.mark.parametrize("family", [many_children, many_sync_children])
def test_a_hundred_children_run_beside_each_other(database: Path, family: Any) -> None:
    with Persistasaurus(database) as app:
        assert app.run(family, 100) == 100
    assert len(ran) == len(set(ran)) == 100


@flow
async def unawaited() -> str:
    future = async_waiting_leaf.submit("left behind")
    await note.submit("mother")
    return str(future.done())


def test_a_child_that_nobody_waits_for_is_cancelled_when_its_parent_completes(database: Path) -> None:
    with Persistasaurus(database) as app:
        assert start(app, unawaited, "f").result(10) == "False"
        until_status(app.handle("f/1"), FlowStatus.CANCELLED)


def test_a_child_called_outside_of_a_flow_is_a_plain_call() -> None:
    assert leaf("plain") == "plain"
    assert asyncio.run(async_leaf("plain")) == "plain"


@flow
def generations(depth: int) -> int:
    return 0 if depth == 0 else 1 + generations(depth - 1)


def test_children_have_children(database: Path) -> None:
    with Persistasaurus(database, flow_threads=2) as app:
        assert start(app, generations, "f", 8).result(20) == 8
        assert app.handle("f" + "/1" * 8).status() == FlowStatus.COMPLETE


def test_a_long_flow_id_still_has_children(database: Path) -> None:
    with Persistasaurus(database) as app:
        flow_id = "x" * 512
        handle = start(app, mother, flow_id)
        assert handle.result(10) == ["m", "a", "b"]
        assert len(list(app.flows())) == 3


class Family:
    @flow
    def parent(self) -> str:
        return self.child("c") + self.helper()

    @flow
    def child(self, label: str) -> str:
        return self.write(label)

    def helper(self) -> str:
        return self.write("h")

    @step
    def write(self, label: str) -> str:
        ran.append(label)
        return label


def test_a_method_is_a_child_flow_too(database: Path) -> None:
    with Persistasaurus(database) as app:
        handle = start(app, Family.parent, "f")
        assert handle.result(10) == "ch"
        assert log_of(handle) == [(1, "child", "COMPLETE"), (2, "write", "COMPLETE")]
        assert handle.steps()[0].class_name == "Family"


class LeftEarly(Exception):
    pass


@flow
def leaving_mother() -> None:
    leaf.submit("left")
    raise LeftEarly


@flow
async def async_leaving_mother() -> None:
    async_leaf.submit("left")
    raise LeftEarly


@pytest.mark.parametrize("family", [leaving_mother, async_leaving_mother])
def test_a_child_goes_on_whose_parent_fails_while_it_is_started(database: Path, family: Any) -> None:
    """It is durable and this worker's by then, and nobody else would drive it."""
    with Persistasaurus(database) as app:
        handle = start(app, family, "f")
        with pytest.raises(LeftEarly):
            handle.result(10)

        assert app.handle("f/1").result(10) == "left"
