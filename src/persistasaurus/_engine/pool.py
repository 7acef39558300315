"""A bounded pool of daemon threads.

`concurrent.futures.ThreadPoolExecutor` is not used because the interpreter waits for its threads at
exit: a step that hangs would keep a process alive that has long left the app, past its drain time.
"""

from __future__ import annotations

import logging
import queue
import threading
from collections.abc import Callable, Generator
from contextlib import contextmanager

log = logging.getLogger("persistasaurus.pool")

Work = Callable[[], None]


class Pool:
    """Runs functions in at most `size` threads, started as they are needed."""

    def __init__(self, name: str, size: int) -> None:
        self._name = name
        self._size = size
        self._queue: queue.SimpleQueue[Work | None] = queue.SimpleQueue()
        self._lock = threading.Lock()
        self._threads = 0
        self._idle = 0
        """Threads to which nothing is promised."""
        self._waiting = 0
        """Functions to which no thread is promised."""
        self._refused = False
        self._mine = threading.local()

    @property
    def backlog(self) -> int:
        """How many functions wait for a thread."""
        return self._waiting

    def submit(self, work: Work) -> None:
        """Have a thread call `work`, which handles its own errors."""
        with self._lock:
            self._queue.put(work)
            if self._idle:
                self._idle -= 1
            elif self._threads >= self._size or not self._grow():
                self._waiting += 1

    def tend(self) -> None:
        """Start the threads that the system refused to start before; called some forty times a second."""
        if self._waiting:
            with self._lock:
                self._grow_for_waiting()

    @contextmanager
    def lent(self) -> Generator[None]:
        """Let another thread work while the caller, where it is one of the pool's, waits for something.

        What it waits for may need a thread of this pool: a step that runs another flow, for instance.
        """
        if not getattr(self._mine, "here", False):
            yield
            return
        with self._lock:
            self._size += 1
            self._grow_for_waiting()
        try:
            yield
        finally:
            with self._lock:
                self._size -= 1

    def close(self) -> None:
        """End the threads once what is queued is done; those that hang are left to the process."""
        with self._lock:
            for _ in range(self._threads):
                self._queue.put(None)

    def _grow_for_waiting(self) -> None:
        while self._waiting and self._threads < self._size and self._grow():
            self._waiting -= 1

    def _grow(self) -> bool:
        name = f"persistasaurus-{self._name}-{self._threads + 1}"
        try:
            threading.Thread(target=self._serve, name=name, daemon=True).start()
        except RuntimeError as error:
            # What waits is begun by a thread that is done with its work, or by the next that can be started.
            if not self._refused:
                log.warning("no thread for a %s now, trying again: %s", self._name, error)
            self._refused = True
            return False
        self._refused = False
        self._threads += 1
        return True

    def _serve(self) -> None:
        self._mine.here = True
        while (work := self._queue.get()) is not None:
            try:
                work()
            except BaseException:  # a thread of the pool must outlive whatever it ran
                log.exception("unexpected error in %s", threading.current_thread().name)
            del work
            if not self._goes_on():
                return

    def _goes_on(self) -> bool:
        with self._lock:
            if self._threads > self._size:
                # It was lent. Whoever waits is served by the others.
                self._threads -= 1
                return False
            if self._waiting:
                self._waiting -= 1
            else:
                self._idle += 1
            return True
