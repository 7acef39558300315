"""A store's connections: few, made when they are needed, replaced when they break, used from any thread."""

from __future__ import annotations

import itertools
import os
import time
import weakref
from collections.abc import Callable, Generator
from contextlib import contextmanager, suppress
from typing import Any, TypeVar

import psycopg
from psycopg.adapt import AdaptersMap
from psycopg.pq import TransactionStatus
from psycopg.types.numeric import Int8Dumper

from persistasaurus._store._pg_address import Address
from persistasaurus._store._pg_errors import (
    MISSING,
    TRANSIENT,
    ConnectionLost,
    broken,
    ends_connection,
    explained,
    unreachable,
)
from persistasaurus._store._pg_rows import Session
from persistasaurus._store._pg_slots import Slots
from persistasaurus.errors import StoreError

T = TypeVar("T")

CONNECTIONS = 5
CLOSE_PATIENCE_S = 5.0
FULL_PATIENCE_S = 5.0
"""How long a call waits for another's connection where the server has no room for one more."""
FULL_S = 1.0
"""How long nobody asks such a server again."""
TRIES = 10
"""Of a transaction that others have undone."""


class Pool:
    """The connections of one store. Any thread may call any method; none returns with one in its hands.

    No connection keeps anything between two transactions, so that a pooler may stand between.
    """

    def __init__(self, address: Address) -> None:
        self.address = address
        self.pooled = False
        """Whether something between us and the server changes servers behind our back."""
        self._slots = Slots(CONNECTIONS)
        self._full_until = 0.0
        """Until when no other connection is tried, for the server had no room for one."""
        self.forked = False
        self.misses_tables = False
        """Whether a statement did not find its table, so that the schema may be gone."""
        self.unusable = "is not open. Enter the app first, or call open()"

    def open(self) -> None:
        """Make the pool usable; it connects when it is first used."""
        if self.forked:
            self.check_usable()
        self._slots = Slots(CONNECTIONS)
        self.unusable = ""
        _open_pools.add(self)

    def close(self) -> None:
        """Close every connection, once whoever uses one is done with it.

        One that does not come back for long is left to whoever has it: an interrupt at the wrong moment
        loses one for good.
        """
        if self.forked or self.unusable:
            return
        self.unusable = "is closed. Open it again, or use another app"
        _open_pools.discard(self)
        self._slots.wait_until_free(CLOSE_PATIENCE_S, count=CONNECTIONS)
        # Whoever waits for one sees that the store is closed.
        for connection in self._slots.reset():
            connection.close()

    def check_usable(self) -> None:
        """Raise StoreError where the store is not open, or belongs to the parent process."""
        if self.unusable:
            raise StoreError(f"The database {self.address.shown} {self.unusable}.")

    def read(self, act: Callable[[Session], T]) -> T:
        """Run an `act` that only reads; on a connection that turns out to be broken once more."""
        try:
            return self.write(act)
        except ConnectionLost as lost:
            if not lost.sent:
                raise
        return self.write(act)

    def write(self, act: Callable[[Session], T]) -> T:
        """Run `act`, which is one transaction; one that others have undone again.

        Raises:
            ConnectionLost: there is no connection, or it broke; `sent` tells whether it may have happened.
            StoreError: the server refused it, and nothing was applied.
        """
        for tried in itertools.count(1):
            with self._session() as session:
                try:
                    return act(session)
                except TRANSIENT:
                    if tried == TRIES or session.connection.closed:
                        raise
        raise AssertionError

    def forget(self, act: Callable[[Session], object]) -> None:
        """Run an `act` that nobody minds to fail, where a connection is free before long."""
        if self._slots.wait_until_free(CLOSE_PATIENCE_S, count=1):
            with suppress(StoreError):
                self.write(act)

    def connect(self) -> psycopg.Connection[Any]:
        """Return a new connection, which is the caller's own.

        Raises:
            ConnectionLost: the server cannot be reached, or refuses.
        """
        try:
            return psycopg.Connection.connect(
                self.address.conninfo,
                autocommit=True,
                # A pooler gives each transaction another server, which has not seen the preparing.
                prepare_threshold=None if self.pooled else 3,
                context=_adapters,
                cursor_factory=psycopg.RawCursor,
            )
        except (psycopg.Error, OSError) as error:
            raise unreachable(error, self.address.shown) from error

    def leave_to_parent(self) -> list[psycopg.Connection[Any]]:
        """Refuse to work in a forked child; returns the connections, which only the parent may close."""
        self.forked = True
        self.unusable = (
            "was opened before fork() and belongs to the parent process. Open another app in the child"
        )
        return self._slots.seen()

    @contextmanager
    def _session(self) -> Generator[Session, None, None]:
        self.check_usable()
        slots = self._slots
        connection = self._take(slots)
        try:
            self.check_usable()
            try:
                yield Session(connection, self.address.schema)
            except psycopg.Error as error:
                if connection.closed or ends_connection(error):
                    connection.close()
                    # Where one connection broke, most often all did.
                    for idle in slots.empty():
                        idle.close()
                    raise broken(error, self.address.shown) from error
                self.misses_tables |= isinstance(error, MISSING)
                raise explained(error, self.address.shown) from error
            finally:
                if _is_unclean(connection):
                    connection.close()
        finally:
            if (slots is not self._slots or self.unusable) and not self.forked:
                connection.close()  # the pool was closed meanwhile, and may have given up waiting for it
            slots.give(None if connection.closed else connection, was_open=True)

    def _take(self, slots: Slots) -> psycopg.Connection[Any]:
        """Return a connection that nobody uses, or a new one; where the server has no room, wait for one."""
        until = time.monotonic() + FULL_PATIENCE_S
        while True:
            if time.monotonic() < self._full_until:
                connection = slots.take_open(until - time.monotonic())
                if connection is not None:
                    return connection
            connection = slots.take()
            if connection is not None:
                return connection
            try:
                self.check_usable()
                connection = self.connect()
            except BaseException as error:
                slots.give(None, was_open=False)
                is_full = isinstance(error, ConnectionLost) and error.is_full
                if not is_full or not slots.has_open() or time.monotonic() > until:
                    raise
                self._full_until = time.monotonic() + FULL_S
            else:
                slots.note_opened()
                return connection


def _is_unclean(connection: psycopg.Connection[Any]) -> bool:
    """Roll back what an error left open; true where even that fails."""
    if connection.closed or _is_idle(connection):
        return False
    with suppress(psycopg.Error):
        connection.rollback()
    return not _is_idle(connection)


def _is_idle(connection: psycopg.Connection[Any]) -> bool:
    return connection.info.transaction_status == TransactionStatus.IDLE


# Whole numbers as one type, whatever their size: each set of types is prepared anew.
_adapters = AdaptersMap(psycopg.adapters)
_adapters.register_dumper(int, Int8Dumper)

_open_pools: weakref.WeakSet[Pool] = weakref.WeakSet()
_left_to_parent: list[psycopg.Connection[Any]] = []


def _after_fork_in_child() -> None:
    for pool in list(_open_pools):
        # Never closed here: that would end the parent's session.
        _left_to_parent.extend(pool.leave_to_parent())


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork_in_child)
