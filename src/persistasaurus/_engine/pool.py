"""A bounded pool of daemon threads.

`concurrent.futures.ThreadPoolExecutor` is not used because the interpreter waits for its threads at
exit: a step that hangs would keep a process alive that has long left the app, past its drain time.
"""

from __future__ import annotations

import logging
import queue
import threading
from collections.abc import Callable

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
        self._free = 0

    @property
    def backlog(self) -> int:
        """How many functions wait for a thread."""
        return self._queue.qsize()

    def submit(self, work: Work) -> None:
        """Have a thread call `work`, which handles its own errors."""
        with self._lock:
            if self._free:
                self._free -= 1
            elif self._threads < self._size:
                self._threads += 1
                name = f"persistasaurus-{self._name}-{self._threads}"
                threading.Thread(target=self._serve, name=name, daemon=True).start()
        self._queue.put(work)

    def close(self) -> None:
        """End the threads once what is queued is done; those that hang are left to the process."""
        for _ in range(self._threads):
            self._queue.put(None)

    def _serve(self) -> None:
        while True:
            work = self._queue.get()
            if work is None:
                return
            try:
                work()
            except BaseException:  # a thread of the pool must outlive whatever it ran
                log.exception("unexpected error in %s", threading.current_thread().name)
            del work
            with self._lock:
                self._free = min(self._free + 1, self._threads)
