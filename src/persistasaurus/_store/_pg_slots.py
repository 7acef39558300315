"""The places of a pool's connections: which are free, and in which of them one is open."""

from __future__ import annotations

import threading
import time
from collections import deque
from typing import Any

import psycopg

Connection = psycopg.Connection[Any]


class Slots:
    """A fixed number of places, each free or lent; a free one holds an open connection or nothing.

    Whoever takes one gives one back. Those with an open connection are lent first.
    """

    def __init__(self, count: int) -> None:
        self._count = count
        self._free: deque[Connection | None] = deque([None] * count)
        self._open = 0
        """How many open ones are lent."""
        self._changed = threading.Condition()

    def take(self) -> Connection | None:
        """Wait for a place; None is one in which a connection is still to be made."""
        with self._changed:
            self._changed.wait_for(lambda: self._free)
            return self._lend()

    def take_open(self, timeout_s: float) -> Connection | None:
        """Wait for an open connection as long as there is any; None says that none has come."""
        until = time.monotonic() + timeout_s
        with self._changed:
            while self._newest() is None:
                left = until - time.monotonic()
                if left <= 0 or not self._open:
                    return None
                self._changed.wait(left)
            return self._lend()

    def note_opened(self) -> None:
        """Say that a connection was made in a lent place that had none."""
        with self._changed:
            self._open += 1

    def give(self, connection: Connection | None, *, was_open: bool) -> None:
        """Give a place back, with a connection if it is still good."""
        with self._changed:
            self._open -= was_open
            if connection is None:
                self._free.appendleft(None)
            else:
                self._free.append(connection)
            # All: one may wait for an open connection, another for any place.
            self._changed.notify_all()

    def has_open(self) -> bool:
        """Whether there is an open connection, free or lent."""
        with self._changed:
            return bool(self._open or self._newest() is not None)

    def empty(self) -> list[Connection]:
        """Take the free open connections out, to be closed; their places stay."""
        with self._changed:
            opened = [each for each in self._free if each is not None]
            self._free = deque([None] * len(self._free))
            return opened

    def wait_until_free(self, timeout_s: float, *, count: int) -> bool:
        """Wait until so many places are free; false where they are not in time."""
        with self._changed:
            return self._changed.wait_for(lambda: len(self._free) >= count, timeout_s)

    def reset(self) -> list[Connection]:
        """Have every place free and empty, also one never given back; returns what is to be closed."""
        opened = self.empty()
        with self._changed:
            self._free = deque([None] * self._count)
            self._changed.notify_all()
        return opened

    def seen(self) -> list[Connection]:
        """Return the free open connections without a lock, which a thread that is gone may have held."""
        return [each for each in self._free if each is not None]

    def _newest(self) -> Connection | None:
        return self._free[-1] if self._free else None

    def _lend(self) -> Connection | None:
        connection = self._free.pop()
        self._open += connection is not None
        return connection
