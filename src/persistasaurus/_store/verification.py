"""Looks for damage in a store: rows against their checksums, chains of events, rows without a flow."""

from __future__ import annotations

import json
from collections.abc import Callable, Container, Iterable, Iterator
from typing import Any, NamedTuple

from persistasaurus._model import STATUS_BY_CODE
from persistasaurus._store.base import StepRow
from persistasaurus._store.checksum import flow_checksum, outcome_checksum, signal_checksum, step_checksum
from persistasaurus._store.digest import Digest
from persistasaurus._store.whole import FLOW, NAME, SIGNAL, STEP, Row, Snapshot, Table, Unreadable
from persistasaurus.errors import StoreError


class Finding(NamedTuple):
    """Something that is damaged: of a flow, or with no id of the store as a whole."""

    flow_id: str | None
    problem: str


class Verification:
    """One pass over a store as it is at one moment."""

    def __init__(self, snapshot: Snapshot) -> None:
        self._snapshot = snapshot
        self._digest: Digest | None = Digest()
        self._steps: Iterator[Row | Unreadable] = iter(())
        self._ahead: Row | Unreadable | None = None
        self._orphans: list[int] = []
        self._name_ids: set[int] = set()
        self.checked = 0

    @property
    def digest(self) -> str | None:
        """The digest over all rows once the pass is over, None where some of them cannot be read."""
        return None if self._digest is None else str(self._digest)

    def findings(self, advance: Callable[[], object]) -> Iterator[Finding]:
        """Yield what is damaged; `advance` is called after each flow."""
        yield from (Finding(*stray) for stray in self._snapshot.strays())
        try:
            yield from self._names()
            self._steps = self._taken(STEP)
            for flow in self._taken(FLOW):
                yield from self._flow(flow)
                self.checked += 1
                advance()
            yield from self._rest_of_steps()
            yield from self._signals()
        except StoreError as error:
            self._digest = None
            yield Finding(None, f"The rest cannot be read: {error}")

    def _names(self) -> Iterator[Finding]:
        for row in self._taken(NAME):
            self._name_ids.add(NAME.key_of(row)[0])
            if isinstance(row, Unreadable):
                yield Finding(None, f"Name {row.key[0]} cannot be read: {row.problem}.")

    def _flow(self, row: Row | Unreadable) -> Iterator[Finding]:
        key = FLOW.key_of(row)[0]
        if isinstance(row, Unreadable):
            list(self._steps_of(key))
            yield Finding(f"(flow_key {key})", f"Its own row cannot be read: {row.problem}.")
            return
        flow = dict(zip(FLOW.columns, row, strict=True))
        yield from (Finding(flow["flow_id"], problem) for problem in _of_flow(flow, self._name_ids))
        yield from (
            Finding(flow["flow_id"], problem)
            for problem in _of_steps(self._steps_of(key), flow["cancel_event"])
        )

    def _steps_of(self, flow_key: int) -> Iterator[Row | Unreadable]:
        """Yield the steps of the next flow, and note those before it, which have none."""
        while (row := self._next_step()) is not None:
            owner = STEP.key_of(row)[0]
            if owner > flow_key:
                return
            if owner < flow_key:
                self._note_orphan(owner)
            else:
                yield row
            self._ahead = None

    def _next_step(self) -> Row | Unreadable | None:
        if self._ahead is None:
            self._ahead = next(self._steps, None)
        return self._ahead

    def _note_orphan(self, flow_key: int) -> None:
        if not self._orphans or self._orphans[-1] != flow_key:
            self._orphans.append(flow_key)

    def _rest_of_steps(self) -> Iterator[Finding]:
        while (row := self._next_step()) is not None:
            self._note_orphan(STEP.key_of(row)[0])
            self._ahead = None
        if self._orphans:
            keys = json.dumps(self._orphans[:10])
            yield Finding(
                None, f"{len(self._orphans)} flows have steps but no row of their own (flow_key in {keys})."
            )

    def _signals(self) -> Iterator[Finding]:
        for row in self._taken(SIGNAL):
            if isinstance(row, Unreadable):
                yield Finding(None, f"Signal {row.key[0]} cannot be read: {row.problem}.")
                continue
            number, flow_id, name, payload, sent_at_ms, _, checksum = row
            if signal_checksum(flow_id, name, payload, sent_at_ms) != checksum:
                yield Finding(flow_id, f"Its pending signal {number} ({name!r}) does not match its checksum.")

    def _taken(self, table: Table) -> Iterator[Row | Unreadable]:
        """Yield a table's rows, as the digest takes them in."""
        for row in self._snapshot.rows(table):
            if isinstance(row, Unreadable):
                self._digest = None
            elif self._digest is not None:
                self._digest.add(table, row)
            yield row


def _of_flow(flow: dict[str, Any], name_ids: Container[int]) -> Iterator[str]:
    flow_id, status = flow["flow_id"], flow["status"]
    said = flow_checksum(flow_id, flow["name_id"], flow["created_at_ms"], flow["seed"], flow["input"])
    if flow["name_id"] not in name_ids:
        yield "Its row names a flow that the table of names does not have."
    elif said != flow["checksum"]:
        yield "Its own row does not match its checksum."
    if not isinstance(status, int) or not 0 <= status < len(STATUS_BY_CODE):
        yield f"Its status {status!r} is none that there is."
    elif STATUS_BY_CODE[status].ended and flow["outcome_checksum"] != outcome_checksum(
        flow_id, status, flow["result"], flow["error"]
    ):
        yield "Its outcome does not match its checksum."


def _of_steps(rows: Iterable[Row | Unreadable], cancel_event: object) -> Iterator[str]:
    """Yield what is wrong with a flow's steps, given in the order of their numbers."""
    completed: list[StepRow] = []
    unread = False
    for row in rows:
        if isinstance(row, Unreadable):
            unread = True
            yield f"Step {row.key[1]} cannot be read: {row.problem}."
            continue
        step = StepRow(*row)
        if isinstance(step.event, int):
            completed.append(step)
        elif step_checksum(step, 0) != step.checksum:
            yield f"Step {step.step} does not match its checksum."
    yield from _of_chain(completed, cancel_event, unread=unread)


def _of_chain(completed: list[StepRow], cancel_event: object, *, unread: bool) -> Iterator[str]:
    completed.sort(key=lambda step: step.event or 0)
    expected, chain, known = 1, 0, True
    for step in completed:
        if expected == cancel_event:
            expected += 1
        number = step.event or 0
        if number != expected:
            known = False
            if not unread:
                yield f"Event {expected} is missing."
        # Behind a gap nothing can be said of the first one: it goes on from a checksum that is gone.
        if known and step_checksum(step, chain) != step.checksum:
            yield f"Step {step.step} does not match its checksum."
        expected, chain, known = number + 1, step.checksum, True
