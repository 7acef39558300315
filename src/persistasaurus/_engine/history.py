"""What the log says about a flow, and what that means for the next call: pure decisions.

A flow is a deterministic program. Its operations have step numbers in the order in which the flow asks
for them, its completions have event numbers in the order in which they were committed. Live and on
replay the completions are shown to the flow one at a time in that order.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from typing import NamedTuple

from persistasaurus._model import CANCELLED, FAILED, PENDING, Kind
from persistasaurus._store.base import FlowRow, History, StepRow
from persistasaurus._store.checksum import flow_checksum, outcome_checksum, step_checksum
from persistasaurus.errors import DamagedRecordError, NonDeterminismError

CANCEL = 0
"""The step number of a cancel in the order of events; no operation has it."""

AFTER_REOPENED = -1
"""Stored in `asked` of a step that was asked for after a failure that has since been reopened.

It is no event any more. Where the flow asks for it again, it is given the outcome that the row keeps; where
the flow now takes another way, such rows are passed by instead of parking it.
"""
PASSED_BY = -2
"""Stored in `asked` of a step that a retried flow did not ask for again; its number stays used up."""


class Event(NamedTuple):
    """A completion: which step, and when it was recorded."""

    step: int
    at_ms: int


class Replay(NamedTuple):
    """A verified history, ready to be driven."""

    rows: dict[int, StepRow]
    events: list[Event]
    chain: int


def verify(history: History, name_id: int) -> Replay:
    """Check every row of a flow against its checksum and return what to replay.

    Raises:
        DamagedRecordError: a row does not match its checksum, or one is missing.
    """
    flow = history.flow
    if flow_checksum(flow.flow_id, name_id, flow.created_at_ms, flow.seed, flow.input) != flow.checksum:
        raise damaged(flow.flow_id, "its own row")
    rows: dict[int, StepRow] = {}
    completed: list[StepRow] = []
    for row in history.steps:
        rows[row[1]] = row
        if row[11] is not None:
            completed.append(row)
        elif step_checksum(row, 0) != row[16]:
            raise damaged(flow.flow_id, f"step {row.step}")
    completed.sort(key=_event_number)
    events, chain = _chained(flow, completed)
    return Replay(rows, events, chain)


def _event_number(row: StepRow) -> int:
    return row[11] or 0


def _chained(flow: FlowRow, completed: Sequence[StepRow]) -> tuple[list[Event], int]:
    events: list[Event] = []
    chain = 0
    for row in completed:
        if len(events) + 1 == flow.cancel_event:
            events.append(Event(CANCEL, flow.cancel_event_at_ms or 0))
        if row[11] != len(events) + 1:
            raise damaged(flow.flow_id, f"event {len(events) + 1}, which is missing")
        if step_checksum(row, chain) != row[16]:
            raise damaged(flow.flow_id, f"step {row.step}")
        chain = row[16]
        events.append(Event(row[1], row[7] + (row[8] or 0)))
    if len(events) + 1 == flow.cancel_event:
        events.append(Event(CANCEL, flow.cancel_event_at_ms or 0))
    return events, chain


def verify_outcome(flow: FlowRow) -> None:
    """Raise `DamagedRecordError` where the stored outcome of an ended flow does not match its checksum."""
    expected = outcome_checksum(flow.flow_id, flow.status, flow.result, flow.error)
    if flow.outcome_checksum != expected:
        raise damaged(flow.flow_id, "its outcome")


def damaged(flow_id: str, what: str) -> DamagedRecordError:
    """Return the error for a stored row that cannot be believed."""
    return DamagedRecordError(
        f"The record of flow {flow_id!r} is damaged: {what} does not match its checksum. The file was "
        "edited or "
        "its storage has lost data. The flow is not driven; restore the row from a backup and retry the flow."
    )


def differs(row: StepRow, kind: int, name_id: int) -> bool:
    """Whether a recorded step is another operation than the one that the code asks for."""
    return row[2] != kind or row[3] != name_id


def mismatch(flow_id: str, step: int, recorded: str, asked: str) -> NonDeterminismError:
    """Return the error for code that asks for something else than the log holds."""
    return NonDeterminismError(
        f"Flow {flow_id!r} step {step} was recorded as {recorded} but the code now calls {asked}. The "
        "flow's code "
        "changed while it ran, or it is not deterministic. Restore the order of the steps and retry the "
        "flow, "
        "or start new flows under a new name."
    )


def not_asked(flow_id: str, step: int, recorded: str) -> NonDeterminismError:
    """Return the error for a recorded step that the code does not ask for any more."""
    return NonDeterminismError(
        f"Flow {flow_id!r} step {step} was recorded as {recorded} but the code does not call it any more at "
        "this "
        "point. The flow's code changed while it ran, or it is not deterministic. Restore the order of the "
        "steps "
        "and retry the flow, or start new flows under a new name."
    )


def describe(kind: int, name: tuple[str, str]) -> str:
    """Return how messages call an operation."""
    text = repr(f"{name[0]}.{name[1]}" if name[0] else name[1])
    match Kind(kind):
        case Kind.STEP:
            return text
        case Kind.SLEEP | Kind.TIMER:
            return f"a {name[1]}"
        case Kind.SIGNAL:
            return f"a wait for signal {text}"
        case Kind.WAIT_FOR:
            return f"wait_for({name[1]})"
        case Kind.CHILD:
            return f"child flow {text}"


class Reopened(NamedTuple):
    """What to rewrite so that a failed flow goes on at its failed steps."""

    steps: list[StepRow]
    children: list[int]
    """The steps among them that are child flows, to be retried too."""


def failed_steps(error: str | None) -> list[int]:
    """Return the steps whose exceptions are in the chain of a flow's recorded failure."""
    if error is None:
        return []
    try:
        return [step for step in json.loads(error).get("steps", []) if isinstance(step, int)]
    except (ValueError, AttributeError, TypeError):
        return []  # nobody of ours has written that


def reopen(replay: Replay, failed: Iterable[int], now_ms: int) -> Reopened:
    """Take the failed steps' completions out of the history and close the gaps.

    Nothing else is forgotten: what was asked for after the first of those failures is marked, so that it
    is used where the flow still asks for it and passed by where the flow now takes another way. A cancel
    counts as the failure of a flow that ended by it.
    """
    opened = {n for n in failed if n in replay.rows and _has_failed(replay.rows[n])}
    firsts = [replay.rows[n].event or 0 for n in opened]
    firsts += [number for number, event in enumerate(replay.events, 1) if event.step == CANCEL]
    if not firsts:
        return Reopened([], [])
    first = min(firsts)
    number = first - 1
    chain = _chain_before(replay, first)
    rewritten: dict[int, StepRow] = {}
    for event in replay.events[first - 1 :]:
        if event.step in opened or event.step == CANCEL:
            continue
        row = replay.rows[event.step]
        if row.asked >= first or row.asked == AFTER_REOPENED:
            marked = row._replace(event=None, asked=AFTER_REOPENED)
            rewritten[row.step] = marked._replace(checksum=step_checksum(marked, 0))
            continue
        number += 1
        row = row._replace(event=number)
        row = row._replace(checksum=step_checksum(row, chain))
        chain = row.checksum
        rewritten[row.step] = row
    for row in replay.rows.values():
        if row.step in opened or (row.event is None and row.status == CANCELLED and row.asked != PASSED_BY):
            # What the flow had dropped it waits for again, or it drops it again.
            asked = AFTER_REOPENED if row.asked >= first else row.asked
            rewritten[row.step] = _pending_again(row._replace(asked=asked), now_ms)
        elif row.event is None and row.asked >= first:
            marked = row._replace(asked=AFTER_REOPENED)
            rewritten[row.step] = marked._replace(checksum=step_checksum(marked, 0))
    children = [n for n in opened if replay.rows[n].kind == Kind.CHILD]
    return Reopened(list(rewritten.values()), children)


def _has_failed(row: StepRow) -> bool:
    return row.status == FAILED or (row.kind == Kind.CHILD and row.status == CANCELLED)


def _chain_before(replay: Replay, event: int) -> int:
    before = [replay.rows[e.step].checksum for e in replay.events[: event - 1] if e.step != CANCEL]
    return before[-1] if before else 0


def _pending_again(row: StepRow, now_ms: int) -> StepRow:
    """The row as if the step had not ended; a delay or a limit that it had gets its whole time again."""
    # What began to run, or was resumed, has its delay behind it: what is due of a resumed one is the step.
    is_over = row.due_at_ms is None if row.kind == Kind.WAIT_FOR and row.parameters else row.attempts > 0
    due = None if row.delay_ms is None or is_over else now_ms + row.delay_ms
    again = row._replace(
        status=PENDING,
        ended_after_ms=None,
        due_at_ms=due,
        event=None,
        attempts_before=row.attempts,
        return_value=None,
        error=None,
    )
    return again._replace(checksum=step_checksum(again, 0))
