"""One durable operation of a running flow: from the call that asks for it to its committed row."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from persistasaurus._codec import ValueCodec
from persistasaurus._model import PENDING, Kind
from persistasaurus._store.base import StepRow

RowParts = tuple[tuple[Any, ...], tuple[Any, ...]]
"""A row without its event number and checksum, which the commit gives it: (before them, between them)."""


class Operation:
    """A step, sleep, timer, wait or child flow that a flow has asked for and not yet seen the end of.

    It belongs to its flow's driver. `row` is what an earlier claim recorded of it, if anything.
    """

    __slots__ = (
        "abandoned",
        "arguments",
        "asked",
        "attempt",
        "attempts_before",
        "bound",
        "codec",
        "commits",
        "definition",
        "delay_ms",
        "done",
        "due_at_ms",
        "ended_after_ms",
        "error",
        "fire",
        "future",
        "inline",
        "instance",
        "kind",
        "name_id",
        "number",
        "parameters",
        "row",
        "running",
        "started_at_ms",
        "task",
        "value",
    )

    def __init__(self, number: int, kind: Kind, name_id: int, row: StepRow | None, asked: int) -> None:
        self.number = number
        self.kind = kind
        self.name_id = name_id
        self.row = row
        self.asked = asked
        self.definition: Any = None
        self.instance: Any = None
        self.bound: dict[str, Any] = {}
        self.arguments: Any = None
        self.codec: ValueCodec | None = None
        self.parameters: str | None = None
        self.delay_ms: int | None = None
        self.due_at_ms: int | None = None
        self.started_at_ms = 0
        self.ended_after_ms = 0
        self.attempt = 0
        self.attempts_before = 0
        self.future: Any = None
        self.fire: Callable[[], None] | None = None
        self.task: Any = None
        self.inline = False
        self.running = False
        """Whether an attempt runs right now."""
        self.commits = False
        """Whether its completion is on its way to the store."""
        self.abandoned = False
        """Whether the flow has cancelled it."""
        self.done = False
        """Whether the flow has been shown its completion."""
        self.value: Any = None
        self.error: BaseException | None = None

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

    def parts(
        self,
        key: int,
        status: int = PENDING,
        ended_after_ms: int | None = None,
        return_value: str | None = None,
        error: str | None = None,
    ) -> RowParts:
        """Return its row as it stands now."""
        return (
            (
                key,
                self.number,
                int(self.kind),
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
