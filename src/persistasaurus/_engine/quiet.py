"""Whether anything of an app runs or is due: what a clock that a test moves waits for.

Work is handed from thread to thread, so no single look can tell that there is none. Two looks in a row
that both find nothing, with a whole turn of the worker and of the host's loop between them and the same
counts of what was ever done, can.
"""

from __future__ import annotations

import threading
import time
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from persistasaurus._engine.engine import Engine

TURN_S = 0.0005
"""How often to look whether the worker has had its turn."""


class Quiet:
    """Looks at one app from outside of all its threads."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    @property
    def ended(self) -> bool:
        """Whether the app is being left, or its database is gone: nothing more will run."""
        return self._engine.stopping

    def kick(self) -> None:
        """Have the app look for due work now; from any thread."""
        self._engine.kick()
        self._engine.retention.ring()

    def is_here(self) -> bool:
        """Whether the calling thread is the one that the app's event loop runs in."""
        return self._engine.is_host_thread()

    def look_through(self) -> None:
        """Have the worker look once at what is due, and the host's loop call all that it was given."""
        worker, retention = self._engine.worker, self._engine.retention
        # The turn that runs now may have looked already: only the one after it has certainly seen all.
        for _ in range(2):
            turns = worker.turns
            worker.ring_for_change()
            worker.look()
            while worker.turns == turns and not self.ended:
                time.sleep(TURN_S)
            turns = retention.turns
            retention.ring()
            while retention.turns == turns and retention.is_on():
                time.sleep(TURN_S)
        called = threading.Event()
        self._engine.on_host(called.set)
        while not called.wait(0.05) and not self.ended:
            pass

    def counts(self) -> tuple[int, int]:
        """Return how much was ever written, and woken, claimed or removed; both only rise."""
        engine = self._engine
        return engine.committer.written, engine.worker.woken + engine.retention.removed

    def at_rest(self) -> bool:
        """Whether nothing runs, is being written or is due."""
        engine = self._engine
        runs = list(engine.runs.values())
        if (
            engine.has_held()
            or engine.has_untold()
            or not engine.committer.is_idle()
            or not all(run.at_rest() for run in runs)
        ):
            return False
        due = self.next_due_ms()
        return engine.worker.is_idle() and (due is None or due > engine.now_ms())

    def next_due_ms(self) -> int | None:
        """Return when the first flow goes on by itself, or is removed; exact where the app is at rest."""
        engine = self._engine
        dues = [engine.worker.next_due_ms, engine.timers.next_due_ms(), engine.retention.next_due_ms]
        return min((due for due in dues if due is not None), default=None)

    def unfinished(self) -> list[str]:
        """Return the ids of flows that run, for the message of a wait that was in vain."""
        return [run.flow_id for run in list(self._engine.runs.values()) if not run.at_rest()]
