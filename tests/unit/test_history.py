"""What a log says, decided purely: believed as it was written, found where it was changed, and reopened."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from persistasaurus._engine.history import (
    AFTER_REOPENED,
    CANCEL,
    PASSED_BY,
    Event,
    Replay,
    differs,
    failed_steps,
    reopen,
    verify,
)
from persistasaurus._model import CANCELLED, COMPLETE, FAILED, PENDING, WAITING, Kind
from persistasaurus._store.base import FlowRow, History, Mailbox, StepRow
from persistasaurus._store.checksum import flow_checksum, step_checksum
from persistasaurus.errors import DamagedRecordError

KEY = 7
NAME = 3
NOBODY = Mailbox(0, None, (), ())
texts = st.none() | st.text(max_size=5)


@dataclasses.dataclass
class Log:
    """A flow's log as a worker would have written it."""

    steps: list[StepRow]
    cancel_event: int | None = None
    created_at_ms: int = 1_000

    def history(self, steps: list[StepRow] | None = None, **flow: Any) -> History:
        row = FlowRow(
            flow_key=KEY,
            flow_id="flow",
            class_name="",
            method_name="ship",
            status=PENDING,
            created_at_ms=self.created_at_ms,
            updated_at_ms=self.created_at_ms,
            seed=5,
            input="{}",
            result=None,
            error=None,
            reason=None,
            owner=1,
            idle=0,
            due_at_ms=None,
            pokes=0,
            crashes=0,
            lost_claims=0,
            parent_key=None,
            parent_step=None,
            cancel_requested_at_ms=None,
            cancel_event=self.cancel_event,
            cancel_event_at_ms=2_000 if self.cancel_event else None,
            checksum=flow_checksum("flow", NAME, self.created_at_ms, 5, "{}"),
            outcome_checksum=None,
        )
        return History(row._replace(**flow), self.steps if steps is None else steps, NOBODY)


@st.composite
def logs(draw: Any, *, cancels: bool = True) -> Log:
    """Ask for steps and end them in any order, as a flow that runs several at once does."""
    asked: list[int] = []
    ended: list[int | None] = []
    cancel = None
    for does in draw(st.lists(st.sampled_from(["ask", "ask", "end", "end", "cancel"]), max_size=14)):
        waiting = [n for n in range(1, len(asked) + 1) if n not in ended]
        if does == "ask":
            asked.append(len(ended))
        elif does == "end" and waiting:
            ended.append(draw(st.sampled_from(waiting)))
        elif does == "cancel" and cancels and cancel is None:
            ended.append(None)
            cancel = len(ended)
    rows: list[StepRow] = []
    chain = 0
    for number, step in enumerate(ended, 1):
        if step is not None:
            row = _row(draw, step, asked[step - 1], number)
            chain = step_checksum(row, chain)
            rows.append(row._replace(checksum=chain))
    for step in set(range(1, len(asked) + 1)) - set(ended):
        row = _row(draw, step, asked[step - 1], None)
        rows.append(row._replace(checksum=step_checksum(row, 0)))
    return Log(sorted(rows, key=lambda row: row.step), cancel)


def _row(draw: Any, step: int, asked: int, event: int | None) -> StepRow:
    return StepRow(
        flow_key=KEY,
        step=step,
        kind=draw(st.sampled_from(Kind)),
        name_id=draw(st.integers(1, 3)),
        status=draw(st.sampled_from([PENDING, WAITING] if event is None else [COMPLETE, FAILED, CANCELLED])),
        attempts=draw(st.integers(0, 3)),
        asked=asked,
        started_at_ms=draw(st.integers(1_000, 2_000)),
        ended_after_ms=None if event is None else draw(st.integers(0, 500)),
        delay_ms=draw(st.none() | st.integers(0, 500)),
        due_at_ms=draw(st.none() | st.integers(0, 5_000)),
        event=event,
        attempts_before=0,
        parameters=draw(texts),
        return_value=draw(texts),
        error=draw(texts),
        checksum=0,
    )


def _completed(log: Log) -> list[StepRow]:
    return sorted((row for row in log.steps if row.event is not None), key=lambda row: row.event or 0)


@settings(max_examples=80)
@given(logs())
def test_a_log_is_shown_in_the_order_of_its_events(log: Log) -> None:
    """Every completion once, the cancel at its place, and the chain ends where the writer goes on."""
    replay = verify(log.history(), NAME)

    shown = [(event.step, event.at_ms) for event in replay.events if event.step != CANCEL]
    assert shown == [(row.step, row.started_at_ms + (row.ended_after_ms or 0)) for row in _completed(log)]
    assert [n for n, event in enumerate(replay.events, 1) if event.step == CANCEL] == (
        [log.cancel_event] if log.cancel_event else []
    )
    assert replay.chain == (_completed(log)[-1].checksum if _completed(log) else 0)
    assert replay.rows == {row.step: row for row in log.steps}


@settings(max_examples=100)
@given(logs(), st.data())
def test_a_change_of_any_column_of_any_row_is_found(log: Log, data: st.DataObject) -> None:
    """Also of one that makes no other column wrong."""
    assume(log.steps)
    at = data.draw(st.integers(0, len(log.steps) - 1))
    row = log.steps[at]
    name = data.draw(st.sampled_from([name for name in StepRow._fields if name != "step"]))
    old = getattr(row, name)
    other = texts if name in ("parameters", "return_value", "error") else st.integers(0, 9_999)
    new = data.draw(other.filter(lambda value: value != old))
    changed = [*log.steps[:at], row._replace(**{name: new}), *log.steps[at + 1 :]]

    with pytest.raises(DamagedRecordError):
        verify(log.history(changed), NAME)


@settings(max_examples=80)
@given(logs(), st.data())
def test_a_missing_or_exchanged_completion_is_found(log: Log, data: st.DataObject) -> None:
    """But for the last: without it the log is a clean prefix."""
    completed = _completed(log)
    assume(len(completed) > 1)
    one = data.draw(st.sampled_from(completed[:-1]))
    other = data.draw(st.sampled_from([row for row in completed if row.step != one.step]))
    exchanged = [
        row._replace(event=other.event)
        if row is one
        else row._replace(event=one.event)
        if row is other
        else row
        for row in log.steps
    ]

    for steps in ([row for row in log.steps if row is not one], exchanged):
        with pytest.raises(DamagedRecordError):
            verify(log.history(steps), NAME)


@given(logs())
def test_a_changed_flow_is_found(log: Log) -> None:
    """Its name, its input, its start."""
    for changed in ({"input": "[]"}, {"seed": 6}, {"created_at_ms": 0}, {"flow_id": "other"}):
        with pytest.raises(DamagedRecordError):
            verify(log.history(**changed), NAME)
    with pytest.raises(DamagedRecordError):
        verify(log.history(), NAME + 1)


@settings(max_examples=100)
@given(logs(), st.data())
def test_a_reopened_log_is_whole_and_has_forgotten_nothing(log: Log, data: st.DataObject) -> None:
    """Failed steps are pending again; all others keep their outcomes, and what stays an event its order."""
    replay = verify(log.history(), NAME)
    failed = data.draw(st.sets(st.integers(0, len(log.steps) + 1)))

    changed = {row.step: row for row in reopen(replay, failed, 9_000).steps}

    after = Log(sorted((replay.rows | changed).values(), key=lambda row: row.step))
    reopened = {n for n in failed if n in replay.rows and _has_failed(replay.rows[n])}
    if not reopened and log.cancel_event is None:
        assert not changed
        return
    again = verify(after.history(), NAME)
    for before in log.steps:
        is_dropped = before.event is None and before.status == CANCELLED and before.asked != PASSED_BY
        _assert_kept(before, again.rows[before.step], is_reopened=before.step in reopened or is_dropped)
    kept = [event.step for event in again.events]
    assert kept == [event.step for event in replay.events if event.step in set(kept)]
    assert not reopen(again, failed, 9_999).steps


def _has_failed(row: StepRow) -> bool:
    """Of a child the flow fails also where that was cancelled."""
    return row.status == FAILED or (row.status == CANCELLED and row.kind == Kind.CHILD)


def _assert_kept(before: StepRow, after: StepRow, *, is_reopened: bool) -> None:
    if is_reopened:
        assert (after.status, after.event, after.attempts_before) == (PENDING, None, before.attempts)
        assert (after.return_value, after.error) == (None, None)
        return
    same = ("kind", "name_id", "status", "attempts", "parameters", "return_value", "error")
    assert all(getattr(before, name) == getattr(after, name) for name in same)
    assert (after.event is None) == (before.event is None or after.asked == AFTER_REOPENED)


@given(logs(cancels=False), st.data())
def test_nothing_that_came_before_the_failure_is_rewritten(log: Log, data: st.DataObject) -> None:
    """Its checksums stand, and with them every backup that has them."""
    failures = [row for row in _completed(log) if row.status == FAILED]
    assume(failures)
    failed = data.draw(st.sampled_from(failures))
    replay = verify(log.history(), NAME)

    changed = {row.step for row in reopen(replay, [failed.step], 9_000).steps}

    before = [row for row in _completed(log) if (row.event or 0) < (failed.event or 0)]
    assert not changed & {row.step for row in before}


@given(logs(), st.integers(1, 3), st.sampled_from(Kind))
def test_a_step_is_another_where_its_kind_or_its_name_is(log: Log, name_id: int, kind: Kind) -> None:
    """Arguments are not compared: what is recorded counts."""
    for row in log.steps:
        assert differs(row, kind, name_id) == ((row.kind, row.name_id) != (kind, name_id))


@given(
    st.none()
    | st.text()
    | st.sampled_from(["[]", '{"steps":3}', '{"steps":[1,"2",null,4]}', '{"steps":null}'])
)
def test_any_recorded_failure_can_be_asked_for_its_steps(error: str | None) -> None:
    """Also one that another version, or nobody, has written."""
    assert all(isinstance(step, int) for step in failed_steps(error))


def test_an_empty_log_is_whole() -> None:
    """A flow that was started and has asked for nothing yet."""
    assert verify(Log([]).history(), NAME) == Replay({}, [], 0)
    assert verify(Log([], 1).history(), NAME).events == [Event(CANCEL, 2_000)]
