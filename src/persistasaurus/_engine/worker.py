"""One thread that keeps an app's lease, wakes what is due, claims flows and sees others' changes."""

from __future__ import annotations

import json
import logging
import os
import threading
import time
import uuid
from collections import deque
from collections.abc import Iterator, Sequence
from itertools import islice
from typing import TYPE_CHECKING

from persistasaurus._engine.delays import wake
from persistasaurus._engine.recovery import host_name, process_started, take_over_the_dead
from persistasaurus._engine.registry import Target, display_name
from persistasaurus._events import Happening
from persistasaurus._store.base import History, WorkerRow
from persistasaurus.errors import DamagedRecordError, LeaseLost, StoreError

if TYPE_CHECKING:
    from persistasaurus._engine.engine import Engine

log = logging.getLogger("persistasaurus.worker")

POLL_S = 0.025
"""How often to look whether a write is late, and for changes of the store where it asks for no less."""
HEARTBEAT_S = 0.15
"""How often to look whether other workers' processes still live, and at the database file."""
NAMES_S = 1.0
"""How often to look for flows that were defined or registered since."""
LONGEST_PAUSE_S = 0.5
"""Between two attempts to use a store that fails."""
QUIET_S = 1.0
"""How long nothing may have failed before that is told to be over."""
TOLD_AGAIN_S = 30.0
"""How often that is told while it lasts."""
CLAIM_LIMIT = 200
LOADED_AT_ONCE = 50
"""How many claimed flows are read together."""


class Worker:
    """The worker of one app; a client (`worker=False`) has one too, which only watches for results."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._bell = threading.Lock()
        self._bell.acquire()
        self._thread = threading.Thread(target=self._work, name="persistasaurus-worker", daemon=True)
        self._identity = threading.Lock()
        self._stop = False
        self._look = True
        self._lease_ms = int(engine.settings.lease_s * 1000)
        self.lease_until = 0.0
        """Until when by the steady clock the lease certainly lasts: from before its renewal was sent."""
        self._renew_at = 0.0
        self._ask_at = 0.0
        self._beat_at = 0.0
        self._names_at = 0.0
        self._names_of_change = -1
        self._seen_changes = -1
        self._troubles = 0
        """How many turns have failed by the store since that was last well."""
        self._tell_again_at = self._trouble_at = 0.0
        self.next_due_ms: int | None = None
        """The earliest due time in the store among flows for this worker, as of its last look."""
        self.turns = 0
        self.woken = 0
        """How many due or poked flows were ever found."""
        self._targets: dict[tuple[str, str], Target] = {}
        self._name_ids: Sequence[int] = ()
        self._names_text = "[]"
        self._poked: deque[tuple[int, int]] = deque()
        self._look_after_turns = 0
        self._claimed: deque[tuple[int, int]] = deque()
        """What this worker owns, by worker id and flow key, and has not brought into memory yet."""

    def start(self) -> None:
        """Register, recover what dead workers have left, and start the thread."""
        while self._engine.settings.worker:
            self._register()
            try:
                self._beat()
            except LeaseLost:
                continue  # the process stood still for longer than a lease, between the two
            break
        self._thread.start()

    def stop(self) -> None:
        """End the thread and let go of every flow in good order."""
        self._stop = True
        self.ring()
        self._thread.join(10)
        engine = self._engine
        if engine.worker_id is not None and engine.gone is None:
            try:
                # Where something is unwritten, attempts may have run of which nobody knows: as after a crash.
                crashed = engine.committer.has_lost
                engine.store.release_worker(engine.worker_id, now_ms=engine.now_ms(), crashed=crashed)
            except (StoreError, LeaseLost) as error:
                log.warning("the worker could not be released, its lease runs out: %s", error)
        engine.worker_id = engine.committer.worker_id = None

    def ring(self) -> None:
        """Wake the thread."""
        try:
            self._bell.release()
        except RuntimeError:
            return  # it rings already

    def ring_for_change(self) -> None:
        """Look now whether another process has changed the store."""
        self._ask_at = 0.0
        self.ring()

    def look(self) -> None:
        """Look for flows to claim now."""
        self._look = True
        self.ring()

    def poke(self, key: int) -> None:
        """Have the mail of a flow of this worker read now; it stays due in the store until it next writes."""
        self._poked.append((self._engine.worker_id or 0, key))
        self.look_later()
        self.ring()

    def look_later(self) -> None:
        """Look for flows to claim after another turn: one in memory has been poked, and may leave it."""
        self.woken += 1
        self._look_after_turns = 2

    def is_idle(self) -> bool:
        """Whether nobody has asked for another look at what is due."""
        asked = self._look or self._look_after_turns or self._poked or self._claimed
        return not asked or not self._engine.settings.worker

    def holds_lease(self) -> bool:
        """Whether the lease certainly lasts."""
        return self._engine.clock.steady() < self.lease_until

    def lost(self, worker_id: int) -> bool:
        """Give up this incarnation, if it is still that one; the thread registers a new one."""
        with self._identity:
            if self._engine.worker_id != worker_id:
                return False
            self.lease_until = 0.0
            self.next_due_ms = None  # without a lease it claims nothing, and would look without a pause
            self._engine.worker_id = self._engine.committer.worker_id = None
        self.look()
        return True

    def _register(self) -> None:
        engine = self._engine
        self._read_names()
        before = engine.clock.steady()
        worker_id = engine.store.register_worker(
            WorkerRow(
                worker_id=0,
                incarnation=uuid.uuid4().hex,
                host=host_name(),
                pid=os.getpid(),
                process_started=process_started(os.getpid()),
                names=self._names_text,
            ),
            lease_ms=self._lease_ms,
        )
        with self._identity:  # another thread may be about to give up the one before
            self.lease_until = before + engine.settings.lease_s
            self._renew_at = before + engine.settings.lease_s / 3
            engine.worker_id = engine.committer.worker_id = worker_id

    def _work(self) -> None:
        while not self._stop:
            try:
                self._turn()
            except LeaseLost:
                self._engine._lease_lost(self._engine.worker_id or 0)
            except StoreError as error:
                self._trouble(error)
            except Exception:
                log.exception("unexpected error in the worker, it goes on")
                time.sleep(0.5)
            else:
                self._in_touch()
            self.turns += 1
            self._bell.acquire(timeout=self._pause())

    def _trouble(self, error: StoreError) -> None:
        try:
            self._engine.store.check()
        except StoreError as gone:
            self._engine._store_gone(gone)
            self._stop = True
            return
        if self._troubles == 0 or self._engine.clock.steady() >= self._tell_again_at:
            self._tell_again_at = self._engine.clock.steady() + TOLD_AGAIN_S
            log.warning("the store cannot be used, trying again: %s", error)
        self._troubles += 1
        self._trouble_at = self._engine.clock.steady()
        # Whatever the turn was about to look for is still there.
        self._look = True
        time.sleep(min(LONGEST_PAUSE_S, 0.1 * self._troubles))

    def _in_touch(self) -> None:
        # Not every turn asks for what fails.
        if self._troubles and self._engine.clock.steady() > self._trouble_at + QUIET_S:
            log.warning("the store can be used again, after %d attempts in vain", self._troubles)
            self._troubles = 0

    def _pause(self) -> float:
        dues = [d for d in (self.next_due_ms, self._engine.timers.next_due_ms()) if d is not None]
        if not dues:
            return POLL_S
        return min(POLL_S, max(0.0, (min(dues) - self._engine.now_ms()) / 1000))

    def _turn(self) -> None:
        engine = self._engine
        engine.committer.remind()
        engine.flow_pool.tend()
        engine.step_pool.tend()
        for run, operation in engine.timers.pop_due(engine.now_ms()):
            self.woken += 1
            wake(engine, run, operation)
        if engine.settings.worker and engine.registry.last_change != self._names_of_change:
            self._beat_at = self._names_at = 0.0
        if engine.clock.steady() >= self._beat_at:
            self._beat()
        changed = self._has_changed()
        if changed:
            engine.results.note_change()
        if engine.results.to_ask:
            engine.results.ask(engine.store, driven_here=engine.runs)
        if self._look_after_turns:
            self._look_after_turns -= 1
            self._look = self._look or not self._look_after_turns
        due = self.next_due_ms is not None and self.next_due_ms <= engine.now_ms()
        if engine.settings.worker and (changed or due or self._look) and not engine.stopping:
            self._claim()
        self._take_in()

    def _has_changed(self) -> bool:
        """Ask the store whether anybody has committed, as often as it says, or at once when it rang."""
        steady = self._engine.clock.steady()
        if steady < self._ask_at:
            return False
        self._ask_at = steady + self._engine.store.poll_s
        changes = self._engine.store.changes()
        changed = changes != self._seen_changes
        self._seen_changes = changes
        return changed

    def _beat(self) -> None:
        engine = self._engine
        self._beat_at = engine.clock.steady() + HEARTBEAT_S
        engine.store.check()
        if not engine.settings.worker or engine.stopping:
            return
        if engine.worker_id is None:
            self._register()
            self._look = True
        self._renew()
        if engine.facts.observed:
            engine.facts.tell(Happening.STORE_MEASURED, count=engine.store.size())
        others = engine.store.workers()
        if len(others) > 1:
            me = engine.worker_id or 0
            if take_over_the_dead(engine.store, others, me=me, now_ms=engine.now_ms()):
                self._look = True

    def _renew(self) -> None:
        engine = self._engine
        steady = engine.clock.steady()
        names_changed = steady >= self._names_at and self._read_names()
        if steady < self._renew_at and not names_changed:
            return
        held = self.holds_lease()
        engine.store.renew_lease(engine.worker_id or 0, lease_ms=self._lease_ms, names=self._names_text)
        self.lease_until = steady + engine.settings.lease_s
        self._renew_at = steady + engine.settings.lease_s / 3
        if not held:
            log.warning("the lease was renewed late, steps were held back")
        engine.release_held()

    def _read_names(self) -> bool:
        """Find the flows that this process knows; true where they have changed."""
        engine = self._engine
        self._names_at = engine.clock.steady() + NAMES_S
        self._names_of_change = engine.registry.last_change
        targets = engine.registry.known()
        self._targets = targets
        text = json.dumps(sorted(display_name(name) for name in targets), ensure_ascii=False)
        if text == self._names_text:
            return False
        self._name_ids = engine.names.intern_all(targets)
        self._names_text = text
        self._look = True
        return True

    def _claim(self) -> None:
        engine = self._engine
        worker_id = engine.worker_id
        if worker_id is None or not self.holds_lease():
            self._look = True
            return
        self._look = False
        room = min(CLAIM_LIMIT, engine.settings.capacity - len(engine.runs))
        try:
            claim = engine.store.claim(worker_id, self._name_ids, now_ms=engine.now_ms(), limit=max(0, room))
        except StoreError:
            self._look = True  # once more, also where nothing changes until then
            raise
        self.next_due_ms = claim.next_due_at_ms
        self.woken += len(claim.poked) + len(claim.flow_keys)
        self._poked.extend((worker_id, key) for key in claim.poked)
        self._claimed.extend((worker_id, key) for key in claim.flow_keys)
        if claim.flow_keys:
            self.look()

    def _take_in(self) -> None:
        """Tell the poked flows and drive the claimed ones; what fails stays for the next turn."""
        engine = self._engine
        for key in self._each(self._poked):
            engine.memory.poked(key)
        loaded: dict[int, History] = {}
        for key in self._each(self._claimed):
            if key not in loaded:
                together = {key, *(other for _, other in islice(self._claimed, LOADED_AT_ONCE - 1))}
                histories = engine.store.load_short(list(together))
                loaded = {history.flow.flow_key: history for history in histories}
            try:
                history = loaded.pop(key, None) or engine.store.load(key)
            except DamagedRecordError as error:
                engine.memory.park_unread(key, next(iter(self._targets.values())), error)
                continue
            if history is not None:
                engine.memory.adopt(history, self._targets)

    def _each(self, taken: deque[tuple[int, int]]) -> Iterator[int]:
        while taken:
            # To the end first: one that cannot be read keeps no other waiting.
            taken.rotate(-1)
            worker_id, key = taken[-1]
            if worker_id == self._engine.worker_id:
                yield key
            taken.pop()
