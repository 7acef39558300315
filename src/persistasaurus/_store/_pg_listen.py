"""Tells other processes of commits and hears of theirs: a hint over polling, which is the truth.

NOTIFY is sent by a connection of its own, after the commit that it tells of: inside of one it would hold a
lock of the whole database while that is written to the disk.
"""

from __future__ import annotations

import hashlib
import os
import selectors
import threading
import uuid
from collections.abc import Callable
from contextlib import ExitStack, closing, suppress
from typing import Any

import psycopg

from persistasaurus._store._pg_errors import ConnectionLost
from persistasaurus._store._pg_pool import Pool

GATHER_S = 0.005
"""Between two notifications; what is told meanwhile is one."""
AGAIN_S = 1.0
"""Until the next attempt where there is no connection."""


class Listener:
    """A thread that listens; `hears` is true only while a notification is known to arrive."""

    def __init__(self, pool: Pool, on_change: Callable[[], None]) -> None:
        self._pool = pool
        self._on_change = on_change
        self._channel = "persistasaurus_" + hashlib.sha256(pool.address.schema.encode()).hexdigest()[:32]
        self._me = uuid.uuid4().hex
        self._untold = False
        self._closing = threading.Event()
        self._bell, self._ringer = os.pipe()
        os.set_blocking(self._bell, False)
        os.set_blocking(self._ringer, False)
        self._thread = threading.Thread(target=self._work, name="persistasaurus-listener", daemon=True)
        self.hears = False
        self._thread.start()

    def tell(self) -> None:
        """Have others look for what was committed; from any thread."""
        if not self._untold:
            self._untold = True
            self._ring()

    def close(self) -> None:
        """End the thread and its connection."""
        self._closing.set()
        self._ring()
        self._thread.join(10)
        if not self._thread.is_alive():
            os.close(self._bell)
            os.close(self._ringer)

    def _ring(self) -> None:
        # A full pipe rings already.
        with suppress(BlockingIOError):
            os.write(self._ringer, b".")

    def _work(self) -> None:
        while not self._closing.is_set():
            with (
                suppress(ConnectionLost, psycopg.Error, OSError),
                closing(self._pool.connect()) as connection,
            ):
                self._serve(connection)
            self.hears = False
            self._closing.wait(AGAIN_S)

    def _serve(self, connection: psycopg.Connection[Any]) -> None:
        connection.execute(f'LISTEN "{self._channel}"'.encode())
        # To ourselves: where it does not come back, polling goes on as often as without.
        self._notify(connection)
        with ExitStack() as stack:
            selector = stack.enter_context(selectors.DefaultSelector())
            selector.register(connection.fileno(), selectors.EVENT_READ)
            selector.register(self._bell, selectors.EVENT_READ)
            while not self._closing.is_set():
                for notice in connection.notifies(timeout=0):
                    self._heard(notice.payload)
                if self._untold:
                    self._untold = False
                    self._notify(connection)
                    self._closing.wait(GATHER_S)
                    continue
                selector.select()
                with suppress(BlockingIOError):
                    os.read(self._bell, 4096)

    def _heard(self, payload: str) -> None:
        if payload != self._me:
            self._on_change()
        elif not self.hears:
            self.hears = True
            # What was told before is not heard any more.
            self._on_change()

    def _notify(self, connection: psycopg.Connection[Any]) -> None:
        # Nothing is lost with it, so it does not wait for the disk.
        connection.execute(
            b"SELECT set_config('synchronous_commit', 'off', true), pg_notify($1, $2)",
            (self._channel, self._me),
        )
