"""One durable operation of a running flow: from the call that asks for it to its committed row."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from persistasaurus._model import PENDING, Kind
from persistasaurus._store.base import StepRow

RowParts = tuple[tuple[Any, ...], tuple[Any, ...]]
"""A row without its event number and checksum, which the commit gives it: (before them, between them)."""


class Operation:
    """A step, sleep, timer, wait or child flow that a flow has asked for and not yet seen the end of.

    It belongs to its flow's driver. `row` is what an earlier claim recorded of it, if anything.
    """

    # Defaults stand in the class: there are thirty of them, and most operations set ten.
    row: StepRow | None = None
    definition: Any = None
    bound: Any = None
    """The decoded arguments of a child flow."""
    instance: Any = None
    arguments: Any = None
    keywords: Any = None
    codec: Any = None
    parameters: str | None = None
    delay_ms: int | None = None
    due_at_ms: int | None = None
    started_at_ms = 0
    ended_after_ms: int | None = None
    status = PENDING
    """What its row says next: of its start while it waits for company, then of its end."""
    return_value: str | None = None
    failure: str | None = None
    """The error that its row says."""
    attempt = 0
    attempts_before = 0
    ended_attempt = 0
    """The last attempt of which the end is known, so that a late thread is not heard."""
    future: Any = None
    fire: Callable[[], None] | None = None
    task: Any = None
    inline = False
    waits = False
    """Whether it has begun to wait for a signal."""
    running = False
    """Whether an attempt runs right now."""
    commits = False
    """Whether its completion is on its way to the store."""
    held_by_write = False
    """Whether its next attempt waits for a write: that the last one failed, or that the flow runs."""
    abandoned = False
    """Whether the flow has cancelled it."""
    done = False
    """Whether the flow has been shown its completion."""
    value: Any = None
    error: BaseException | None = None

    def __init__(self, number: int, kind: Kind, name_id: int, row: StepRow | None, asked: int) -> None:
        self.number = number
        self.kind = kind
        self.name_id = name_id
        if row is not None:
            self.row = row
        self.asked = asked

    def restore(self) -> None:
        """Take over what an earlier claim recorded of it."""
        row = self.row
        if row is None:
            return
        self.started_at_ms = row.started_at_ms
        self.delay_ms = row.delay_ms
        self.due_at_ms = row.due_at_ms
        self.attempt = row.attempts
        self.attempts_before = row.attempts_before
        self.parameters = row.parameters

    def forget(self) -> None:
        """Take nothing over: what an earlier claim recorded under this number was something else."""
        self.row = None
        self.started_at_ms = self.attempt = self.attempts_before = 0
        self.delay_ms = self.due_at_ms = None

    def parts(
        self,
        key: int,
        status: int = PENDING,
        ended_after_ms: int | None = None,
        return_value: str | None = None,
        error: str | None = None,
    ) -> RowParts:
        """Return its row as it stands now, without the end of an attempt but for what is given."""
        return (
            (
                key,
                self.number,
                self.kind,
                self.name_id,
                status,
                self.attempt,
                self.asked,
                self.started_at_ms,
                ended_after_ms,
                self.delay_ms,
                self.due_at_ms,
            ),
            (self.attempts_before, self.parameters, return_value, error),
        )

    def ended_row(self, key: int, event: int) -> tuple[Any, ...]:
        """Return the row of its end, the flow's event of that number, without its checksum."""
        return (
            key,
            self.number,
            self.kind,
            self.name_id,
            self.status,
            self.attempt,
            self.asked,
            self.started_at_ms,
            self.ended_after_ms,
            self.delay_ms,
            self.due_at_ms,
            event,
            self.attempts_before,
            self.parameters,
            self.return_value,
            self.failure,
        )
