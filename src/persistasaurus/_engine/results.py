"""Those who wait for a flow to end, in this process."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable, Container, Iterable
from concurrent.futures import Future
from typing import NamedTuple

from persistasaurus._model import COMPLETE, PARKED, STATUS_BY_CODE
from persistasaurus._store.base import FlowRow, Store
from persistasaurus.errors import FlowNotFound

SIGNALS_S = 0.05
"""How late a signal may be heard by a thread that waits for a flow."""
ASKED_AT_ONCE = 200
"""Bounds how long the worker looks for others' results before it claims flows again."""


class Outcome(NamedTuple):
    """How a flow ended, or that it is parked."""

    status: int
    result: str | None
    error: str | None
    reason: str | None


def outcome_of(row: FlowRow) -> Outcome | None:
    """Return a flow's outcome, None while it may go on by itself."""
    if STATUS_BY_CODE[row.status].ended or row.status == PARKED:
        return Outcome(row.status, row.result, row.error, row.reason)
    return None


def not_found(flow_id: str) -> FlowNotFound:
    """Return the error for an id that no flow has, or none has any more."""
    return FlowNotFound(
        f"No flow has the id {flow_id!r} in this store. Check the id and the database; a flow that ended "
        "long ago may have been removed."
    )


Waiter = Future[Outcome] | asyncio.Future[Outcome]
"""A thread's, or a coroutine's on the app's own loop, which spares it the way through another thread's."""


class Results:
    """Futures of outcomes by flow id. Flows of this process tell; for others the store is asked.

    `on_host` calls a function on the app's own loop, where the futures of asyncio belong.
    """

    def __init__(self, on_host: Callable[..., None]) -> None:
        self._on_host = on_host
        self._waiting: dict[str, list[Waiter]] = {}
        self._keys: dict[str, int] = {}
        self._lock = threading.Lock()
        self._closed: BaseException | None = None
        self.to_ask: list[str] = []
        """Flow ids that nobody has looked at since the store last changed."""

    def wait(self, flow_id: str, future: Waiter, *, key: int | None) -> None:
        """Have a future get the outcome of a flow, whose key is told where it is known."""
        with self._lock:
            if self._closed is not None:
                if not future.done():
                    future.set_exception(self._closed)
            else:
                self._waiting.setdefault(flow_id, []).append(future)
                if key is not None:
                    self._keys[flow_id] = key

    def learn(self, flow_id: str, key: int) -> None:
        """Take note of a flow's key, which was not known when somebody began to wait for it."""
        with self._lock:
            if flow_id in self._waiting:
                self._keys[flow_id] = key

    def forget(self, flow_id: str, future: Waiter) -> None:
        """Stop waiting."""
        with self._lock:
            waiting = self._waiting.get(flow_id, [])
            if future in waiting:
                waiting.remove(future)
            if not waiting:
                self._waiting.pop(flow_id, None)
                self._keys.pop(flow_id, None)

    def tell(self, flow_id: str, outcome: Outcome) -> bool:
        """Give an outcome that is final to all who wait for it.

        Any but COMPLETE may be reopened, by another process even before this one tells of it: those who
        began to wait after that are not to hear of it. False where somebody waits whom `ask` has to tell.
        """
        if flow_id not in self._waiting:
            return True
        with self._lock:
            if outcome.status != COMPLETE:
                self.to_ask.append(flow_id)
                return False
            futures = self._waiting.pop(flow_id, [])
            self._keys.pop(flow_id, None)
        self._give(futures, outcome)
        return True

    def _give(self, futures: Iterable[Waiter], outcome: Outcome) -> None:
        for future in futures:
            if isinstance(future, asyncio.Future):
                self._on_host(_answer, future, outcome)
            elif not future.done() and future.set_running_or_notify_cancel():
                future.set_result(outcome)

    def note_change(self) -> None:
        """Have everybody's flow looked at again: the store has changed."""
        with self._lock:
            self.to_ask = list(self._waiting)

    def ask(self, store: Store, *, driven_here: Container[int]) -> None:
        """Look in the store for outcomes that nobody tells of, some at each call.

        `driven_here` holds the keys of those that need no look: they tell.
        """
        for flow_id in self.to_ask[:ASKED_AT_ONCE]:
            with self._lock:
                # Only these: who begins to wait from now on looks for himself, and may see it reopened.
                futures = list(self._waiting.get(flow_id, ()))
                asked = bool(futures) and self._keys.get(flow_id, 0) not in driven_here
            row = store.find(flow_id) if asked else None
            with self._lock:
                self.to_ask.remove(flow_id)  # not before: where the store fails, it is asked once more
            gone = asked and row is None
            outcome = outcome_of(row) if row is not None else None
            if gone or outcome is not None:
                for future in futures:
                    self.forget(flow_id, future)
            if gone:
                self._refuse(futures, not_found(flow_id))
            if outcome is not None:
                self._give(futures, outcome)

    def close(self, reason: BaseException) -> None:
        """Tell everybody that no outcome will come in this app."""
        with self._lock:
            self._closed = reason
            futures = [future for waiting in self._waiting.values() for future in waiting]
            self._waiting.clear()
        self._refuse(futures, reason)

    def _refuse(self, futures: Iterable[Waiter], reason: BaseException) -> None:
        for future in futures:
            if isinstance(future, asyncio.Future):
                self._on_host(_refuse, future, reason)
            elif not future.done() and future.set_running_or_notify_cancel():
                future.set_exception(reason)


def wait_for(future: Future[Outcome], limit_s: float | None) -> Outcome:
    """Wait for an outcome in a thread, in short turns.

    A signal that comes just before a thread blocks is heard only once it wakes: of one long wait Ctrl-C
    and SIGTERM would wait for the end.

    Raises:
        TimeoutError: the limit is over.
    """
    until = None if limit_s is None else time.monotonic() + limit_s
    while True:
        turn = SIGNALS_S if until is None else min(SIGNALS_S, until - time.monotonic())
        try:
            return future.result(max(0.0, turn))
        except TimeoutError:
            if until is not None and time.monotonic() >= until:
                raise


def _answer(future: asyncio.Future[Outcome], outcome: Outcome) -> None:
    if not future.done():
        future.set_result(outcome)


def _refuse(future: asyncio.Future[Outcome], reason: BaseException) -> None:
    if not future.done():
        future.set_exception(reason)
