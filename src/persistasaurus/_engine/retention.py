"""One thread that removes the flows which ended longer ago than the app keeps them."""

from __future__ import annotations

import logging
import threading
import time
from typing import TYPE_CHECKING

from persistasaurus.errors import StoreError

if TYPE_CHECKING:
    from persistasaurus._clock import Clock
    from persistasaurus._store.pruning import Pruning

log = logging.getLogger("persistasaurus.worker")

FLOWS_AT_ONCE = 100
REST = 10
"""So many times as long as a transaction took nothing is removed: the store is for the flows that run."""
GATHER_S = 1.0
"""How long what becomes due one by one is let gather, so that not each flow costs a commit."""
LOOK_S = 60.0
"""How often to look at least: what holds a flow back may have ended since, and a calendar may be set."""


class Retention:
    """Prunes by the app's clock, in small transactions; several on one store share the work.

    Without a time to keep flows for it does nothing, and has no thread.
    """

    def __init__(self, store: Pruning, clock: Clock, keep_ms: int | None) -> None:
        self._store = store
        self._clock = clock
        self._keep_ms = keep_ms
        self._bell = threading.Event()
        self._stop = False
        self._thread: threading.Thread | None = None
        self._more = False
        self.turns = 0
        self.removed = 0
        """How many flows were ever removed."""
        self.next_due_ms: int | None = None
        """When the next flow is to go, as of the last look."""

    def start(self) -> None:
        """Start the thread, where there is anything to do."""
        if self._keep_ms is not None:
            self._thread = threading.Thread(
                target=self._work, args=(self._keep_ms,), name="persistasaurus-retention", daemon=True
            )
            self._thread.start()

    def stop(self) -> None:
        """End the thread behind the transaction that it is in."""
        self._stop = True
        self.ring()
        if self._thread is not None:
            self._thread.join(10)

    def ring(self) -> None:
        """Look now whether anything is to go."""
        self._bell.set()

    def is_on(self) -> bool:
        """Whether it looks at all."""
        return self._thread is not None and not self._stop

    def _work(self, keep_ms: int) -> None:
        told = 0
        while not self._stop:
            rest_s = self._turn(keep_ms)
            if not self._more and told != self.removed:
                log.info("%d flows that ended long ago were removed", self.removed - told)
                told = self.removed
            self.turns += 1
            self._bell.wait(rest_s)
            self._bell.clear()

    def _turn(self, keep_ms: int) -> float:
        """Remove what one transaction takes, and return how many seconds to rest."""
        started = time.monotonic()
        try:
            pruned = self._store.prune(self._clock.now_ms() - keep_ms, limit=FLOWS_AT_ONCE)
        except StoreError as error:
            log.warning("old flows cannot be removed, trying again later: %s", error)
            return self._give_up_for_now()
        except Exception:
            log.exception("unexpected error while old flows were removed, trying again later")
            return self._give_up_for_now()
        self.removed += pruned.flows
        self.next_due_ms = None if pruned.next_end_ms is None else pruned.next_end_ms + keep_ms
        self._more = pruned.flows > 0
        if self._more:
            return REST * (time.monotonic() - started)
        if self.next_due_ms is None:
            return LOOK_S
        return min(LOOK_S, max(GATHER_S, (self.next_due_ms - self._clock.now_ms()) / 1000))

    def _give_up_for_now(self) -> float:
        self._more, self.next_due_ms = False, None
        return LOOK_S
