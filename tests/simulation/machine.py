"""One machine in one seed: a store in memory, the processes that share it, and what goes wrong with them."""

from __future__ import annotations

import asyncio
import gc
import logging
import random
import sys
import warnings
from asyncio import events
from collections.abc import Callable, Generator
from contextlib import contextmanager
from types import SimpleNamespace
from typing import Any, cast

from persistasaurus import Persistasaurus, _handle
from persistasaurus._clock import Clock
from persistasaurus._engine import (
    async_run,
    commit,
    delays,
    engine,
    host,
    memory,
    pool,
    progress,
    results,
    run,
    runners,
    scope,
    thread,
    worker,
)
from persistasaurus._engine.host import Host
from persistasaurus._engine.recovery import host_name
from persistasaurus._engine.registry import Registry, Target
from persistasaurus._store.base import WorkerRow
from persistasaurus._store.sqlite import SqliteStore
from persistasaurus.errors import StoreError
from tests.simulation import programs, scheduler
from tests.simulation.scheduler import Process, Scheduler, SimFuture, SimThread

_THREADED = (async_run, commit, delays, engine, host, pool, results, run, scope, thread, worker)
_TIMED = (async_run, commit, engine, results, runners, thread, worker)
_STORE = SqliteStore(":memory:")
"""The tables are made once and emptied for each seed: making them takes longer than most seeds."""
POINTS = ("commit", "register_worker", "renew_lease", "take_over", "release_worker", "claim", "load_short")
OTHERS = ("load", "mailbox", "find", "reopen", "intern", "intern_all", "workers", "names", "signals")
COLLECTED_AT = 16
"""After so many seeds what they leave is freed, while there are simulated threads to free it in."""
_over: list[Scheduler] = []
START_MS = 1_800_000_000_000


class Fault:
    """What goes wrong at a call of the store, counted over all processes."""

    def __init__(self, kind: str, amount: float) -> None:
        self.kind = kind
        self.amount = amount


class Machine:
    """The clock, the store and the processes."""

    def __init__(self, sim: Scheduler, faults: dict[int, Fault]) -> None:
        self.sim = sim
        self.faults = faults
        self.calls = 0
        self.stepped_ms = 0
        self.latest_ms = 0
        """The latest time that the wall clock ever showed: whoever was woken saw it, or an earlier one."""
        self.faulted: list[str] = []
        self.processes: list[Worker] = []
        self.workers: dict[int, Worker] = {}
        self.operator = Process(sim, "operator")
        sim.machine = self  # what is left in it is freed when its scheduler is
        self.lease = sim.rng.choice([0.4, 1.0])
        # Without a point: the store looks at its clock while it holds its lock.
        _STORE.clock = cast("Clock", SimpleNamespace(now_ms=self.now_ms, steady=lambda: sim.now))

    # The clock of every process.

    def now_ms(self) -> int:
        """Return the wall clock's time, which a fault may have set."""
        ms = START_MS + self.stepped_ms + int(self.sim.now * 1000)
        self.latest_ms = max(self.latest_ms, ms)
        return ms

    def steady(self) -> float:
        """Return the steady clock's time; a pause may come before it is read, none after."""
        self.sim.point()
        return self.sim.now

    def drives(self, app: object) -> None:
        """Nobody waits for this clock."""

    # Processes.

    def start(self) -> Worker:
        """Start a process, which enters an app."""
        process = Worker(self, f"process {len(self.processes)}")
        self.processes.append(process)
        process.spawn(process.enter)
        return process

    def end(self) -> None:
        """End what still runs."""
        for process in self.processes:
            process.die()
        self.operator.kill()

    def strike(self, process: Worker, call: int, name: str, when: str) -> None:
        """Let go wrong what is planned for this call."""
        fault = self.faults.get(call)
        if fault is None or not fault.kind.endswith(when):
            return
        if fault.kind.startswith("error") and name not in POINTS:
            return
        del self.faults[call]
        self.faulted.append(f"{fault.kind} {name}, call {call}, of {process.name} at {self.sim.now:.3f}")
        if fault.kind.startswith("kill"):
            process.die()
        elif fault.kind.startswith("pause"):
            process.pause(fault.amount)
            self.sim.preempt()
        elif fault.kind.startswith("error"):
            raise StoreError("The disk is full.")
        else:
            self.stepped_ms += int(fault.amount * 1000)


class Worker(Process):
    """A process with an app in it."""

    def __init__(self, machine: Machine, name: str) -> None:
        super().__init__(machine.sim, name)
        self.machine = machine
        self.seen_dead = machine.sim.rng.random() < 0.5
        """Whether others see at once that it has died, or only that its lease is over."""
        self.app = SimApp(self)
        self.entered = False
        self.left = False

    def enter(self) -> None:
        """Enter the app, with an event loop in a thread of its own."""
        loop = SimLoop(self.sim)
        served = SimThread(loop.serve, name="loop", process=self)
        served.start()
        own = Host(loop, served.ident, loop.end)
        own.is_own = self.sim.rng.random() < 0.7
        try:
            self.app._enter(own)
        except StoreError:
            self.left = True  # the disk was full
            return
        self.entered = True

    def leave(self) -> None:
        """Leave the app in good order."""
        self.entered = False
        self.app._leave()
        self.left = True

    def spawn(self, act: Callable[[], Any]) -> SimThread:
        """Have a thread of this process do something."""
        made = SimThread(act, process=self)
        made.start()
        return made

    def die(self) -> None:
        """End the process where it is."""
        self.entered = False
        self.kill()


class SimRegistry(Registry):
    """Knows the simulation's flows only: what else was imported would make another run of a seed."""

    def known(self) -> dict[tuple[str, str], Target]:
        return {
            name: target
            for name, target in super().known().items()
            if target.definition.function.__module__ == programs.__name__
        }


class SimApp(Persistasaurus):
    """An app of one process; its store is the machine's."""

    def __init__(self, process: Worker) -> None:
        machine = process.machine
        rng = machine.sim.rng
        super().__init__(
            ":memory:",
            clock=machine,
            lease=machine.lease,
            drain=0.2,
            crash_limit=1_000,
            flow_threads=rng.choice([1, 2, 8]),
            step_threads=rng.choice([1, 4]),
            residents=rng.choice([0, 1, 100]),
        )
        self._registry = SimRegistry()
        self._new_store = lambda: SimStore(process)


class SimStore:
    """The machine's store as one process sees it: at each call it may die, be paused, or others go first."""

    one_machine = True
    poll_s = 0.0
    longest_batch = 448

    def __init__(self, process: Worker) -> None:
        self._process = process
        self._machine = process.machine
        self.clock = process.machine
        for name in POINTS + OTHERS:
            setattr(self, name, self._watched(name))
        self._register, self._workers = self.register_worker, self.workers
        self.register_worker, self.workers = self._note_worker, self._told_workers

    def _watched(self, name: str) -> Callable[..., Any]:
        machine, process, call = self._machine, self._process, getattr(_STORE, name)

        def watched(*args: Any, **kwargs: Any) -> Any:
            machine.sim.point()
            machine.calls = number = machine.calls + 1
            if number in machine.faults:
                machine.strike(process, number, name, "before")
            try:
                return call(*args, **kwargs)
            finally:
                if number in machine.faults:
                    machine.strike(process, number, name, "after")
                machine.sim.point()

        return watched

    def _note_worker(self, row: WorkerRow, *, lease_ms: int) -> int:
        worker_id: int = self._register(row, lease_ms=lease_ms)
        self._machine.workers[worker_id] = self._process
        return worker_id

    def _told_workers(self) -> list[WorkerRow]:
        """Return the workers as if the kernel was asked about each: the real one knows but this process."""
        return [row._replace(host=self._host(row)) for row in self._workers()]

    def _host(self, row: WorkerRow) -> str:
        process = self._machine.workers.get(row.worker_id)
        gone = process is not None and process.dead and process.seen_dead
        return "another boot:" if gone else f"{host_name().partition(':')[0]}:elsewhere"

    def open(self, on_change: object = None) -> None:
        """Find the store open."""

    def close(self) -> None:
        """Leave the store to the others."""

    def changes(self) -> int:
        """Return how often anybody has committed."""
        return _STORE.changes()

    def check(self) -> None:
        """Find the database where it was."""

    def size(self) -> int:
        """Return nothing: it is in memory."""
        return 0


class SimLoop(asyncio.BaseEventLoop):
    """An event loop that waits in simulated time."""

    def __init__(self, sim: Scheduler) -> None:
        super().__init__()
        self._sim = sim
        self._bell = scheduler.Lock()
        self._bell.acquire()
        self._selector = SimpleNamespace(select=self._select)
        self._ended = False

    def serve(self) -> None:
        """Run until it is ended."""
        events._set_running_loop(self)
        try:
            while not self._ended:
                self._run_once()
        finally:
            events._set_running_loop(None)
            self._closed = True

    def __del__(self) -> None:
        """Say nothing of a loop whose process died."""

    def end(self) -> None:
        """End it, from another thread."""
        self._ended = True
        self._write_to_self()

    def time(self) -> float:
        return self._sim.now

    def _select(self, timeout: float | None) -> tuple[()]:
        if timeout == 0:
            self._sim.point()
        else:
            self._bell.acquire(timeout=-1 if timeout is None else timeout)
        return ()

    def _process_events(self, event_list: Any) -> None:
        pass

    def _write_to_self(self) -> None:
        if self._bell.locked():
            self._bell.release()


@contextmanager
def simulated(seed: int) -> Generator[Scheduler]:
    """Give the engine simulated threads and time, and an empty store."""
    saved = [(module, name, getattr(module, name)) for module, name in _patched()]
    rng = random.Random(seed)
    hooks = sys.get_asyncgen_hooks()
    _empty()
    logging.disable()
    collecting = gc.isenabled()
    gc.disable()
    sim = scheduler.current = Scheduler(rng)
    replacements = {
        "POLL_S": 0.1,  # a look that finds nothing is most of what there is to simulate
        "threading": scheduler.threading,
        "time": scheduler.time,
        "queue": scheduler.queue,
        "random": random.Random(seed),
        "Future": SimFuture,
    }
    try:
        for module, name, _ in saved:
            setattr(module, name, replacements[name])
        yield sim
    finally:
        sim.here = None
        _over.append(sim)
        if len(_over) == COLLECTED_AT:
            _free()
        for module, name, value in saved:
            setattr(module, name, value)
        scheduler.current = None
        sys.set_asyncgen_hooks(*hooks)
        logging.disable(logging.NOTSET)
        if collecting:
            gc.enable()


def free() -> None:
    """Free what all seeds have left."""
    with simulated(0):
        _free()


def _free() -> None:
    _over.clear()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)  # coroutines that a dead process never came to
        gc.collect()


def _patched() -> list[tuple[Any, str]]:
    found = [(module, "threading") for module in _THREADED]
    found += [(module, "time") for module in _TIMED]
    return [
        *found,
        (pool, "queue"),
        (memory, "random"),
        (progress, "Future"),
        (_handle, "Future"),
        (worker, "POLL_S"),
    ]


def _empty() -> None:
    """Make the store as it is before every seed; a name's first use would be one commit more."""
    _STORE.open()
    for name in programs.NAMES:
        _STORE.intern("", name)
    _STORE._file.write(
        lambda db: db.execute(
            "DELETE FROM step; DELETE FROM flow; DELETE FROM signal; DELETE FROM worker;"
            "DELETE FROM sqlite_sequence"
        )
    )
