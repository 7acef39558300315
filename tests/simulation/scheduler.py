"""Threads, locks and time for the engine that one seed decides: no thread of the system runs any of it.

Each of the engine's threads is a greenlet here. It runs until it blocks, or until the seed lets another one
go on: at a lock, a queue, a call of the store, a look at the clock or an effect of a step. Time stands still
while anything can run and then jumps to whatever is due next, so that a minute takes no time at all.
"""

from __future__ import annotations

import heapq
import random
import sys
from asyncio import events, tasks
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future
from types import SimpleNamespace
from typing import Any

from greenlet import GreenletExit, getcurrent, greenlet

_ONE_TASK_A_THREAD = sys.version_info >= (3, 14)


MOST_SWITCHES = 30_000
"""A hundred times what most seeds take: some thread asks again and again without end."""


LEAST_S = 0.000_01


class Hang(Exception):
    """Nothing can run and nothing is due."""


class Process:
    """Some threads that are paused, and that die, together."""

    def __init__(self, sim: Scheduler, name: str) -> None:
        self.sim = sim
        self.name = name
        self.dead = False
        self.paused_until = 0.0
        self.threads: list[SimThread] = []

    def pause(self, seconds: float) -> None:
        """Stop every thread for a while, wherever it is."""
        self.paused_until = max(self.paused_until, self.sim.now + seconds)

    def kill(self) -> None:
        """End every thread where it is; called in one of them, this does not return."""
        self.dead = True
        here = getcurrent()
        for thread in self.threads:
            if thread.greenlet is not here:
                self.sim.reap(thread)
        self.sim.wake_all(self)
        if any(thread.greenlet is here for thread in self.threads):
            raise GreenletExit


class SimThread:
    """One of the engine's threads; made like `threading.Thread`."""

    def __init__(
        self,
        target: Callable[..., Any],
        *,
        name: str = "",
        daemon: bool = True,
        args: tuple[Any, ...] = (),
        process: Process | None = None,
    ) -> None:
        sim = _sim()
        self.name = name
        self.daemon = daemon
        self.process = process if process is not None else sim.here.process
        self.ticket = 0
        """Rises with every wait: a time limit of an earlier one is void."""
        self.waiting = False
        self.rung = False
        self.loop: Any = None
        self.task: Any = None
        self.over = False
        self.joiners: deque[SimThread] = deque()
        self.greenlet = greenlet(lambda: self._run(target, args), parent=sim.hub)
        sim.count += 1
        self.ident = sim.count
        self.process.threads.append(self)

    def start(self) -> None:
        _sim().runnable.append(self)

    def is_alive(self) -> bool:
        return not self.over

    def join(self, timeout: float | None = None) -> None:
        sim = _sim()
        until = None if timeout is None else sim.now + timeout
        while not self.over and (until is None or sim.now < until):
            self.joiners.append(sim.here)
            sim.wait(None if until is None else until - sim.now)

    def _run(self, target: Callable[..., Any], args: tuple[Any, ...]) -> None:
        try:
            target(*args)
        except GreenletExit:
            pass
        except BaseException as error:
            if not self.process.dead:
                _sim().failures.append(error)
        finally:
            self.over = True
            for joiner in self.joiners:
                _sim().wake(joiner)


class Scheduler:
    """Decides which thread goes on, and what the time is."""

    def __init__(self, rng: random.Random) -> None:
        self.rng = rng
        self.now = 1_000.0
        self.hub = getcurrent()
        self.here: Any = None
        self.runnable: list[SimThread] = []
        self.timers: list[tuple[float, int, SimThread, int]] = []
        self.count = 0
        self.failures: list[BaseException] = []
        self.switches = 0
        self.machine: Any = None
        self.preempts = rng.choice([0.0, 0.02, 0.1, 0.3])
        """How often a thread that could go on lets another one run."""
        self.tick = rng.choice([0.0, 0.000_01, 0.000_5])
        """How long each turn of a thread takes."""

    def run(self, until: Callable[[], bool], *, at_most: float) -> None:
        """Let the threads run until something is so.

        Raises:
            Hang: nothing runs any more, or not within `at_most` seconds.
        """
        end = self.now + at_most
        while not until():
            if self.now > end or self.switches > MOST_SWITCHES:
                raise Hang(f"not within {at_most} s, {self.switches} switches")
            self._next()
            if self.failures:
                raise self.failures[0]

    def _next(self) -> None:
        runnable = self.runnable
        while self.timers and (not runnable or self.timers[0][0] <= self.now):
            when, _, thread, ticket = heapq.heappop(self.timers)
            if when > self.now:
                if thread.over or ticket != thread.ticket:
                    continue
                self.now = when
            if not thread.over and ticket == thread.ticket:
                self.wake(thread)
        if not runnable:
            raise Hang("nothing can run and nothing is due")
        at = int(self.rng.random() * len(runnable))
        thread = runnable[at]
        runnable[at] = runnable[-1]
        runnable.pop()
        if thread.over or thread.process.dead:
            return
        if thread.process.paused_until > self.now:
            self._alarm(thread, thread.process.paused_until)
            thread.waiting = True
            return
        self.now += self.tick
        self._resume(thread)

    def _resume(self, thread: SimThread) -> None:
        self.switches += 1
        self.here = thread
        events._set_running_loop(thread.loop)
        if _ONE_TASK_A_THREAD and thread.loop is not None:
            tasks._swap_current_task(thread.loop, thread.task)
        thread.greenlet.switch()
        thread.loop = events._get_running_loop()
        if _ONE_TASK_A_THREAD and thread.loop is not None:
            thread.task = tasks._swap_current_task(thread.loop, None)
        self.here = None

    def reap(self, thread: SimThread) -> None:
        """End a thread of a dead process: whatever it asks for while it is unwound fails."""
        if thread.over:
            return
        before, running = self.here, events._get_running_loop()
        self.here = thread
        events._set_running_loop(thread.loop)
        thread.greenlet.parent = getcurrent()
        try:
            thread.greenlet.throw(GreenletExit)
        finally:
            thread.over = True
            events._set_running_loop(running)
            self.here = before

    def _alarm(self, thread: SimThread, when: float) -> None:
        self.count += 1
        heapq.heappush(self.timers, (when, self.count, thread, thread.ticket))

    def wait(self, timeout: float | None = None) -> None:
        """Block the running thread until it is woken, or the time is over."""
        here: SimThread = self.here
        if here.process.dead:
            raise GreenletExit
        here.ticket += 1
        here.waiting = True
        if timeout is not None:
            self._alarm(here, self.now + max(0.0, timeout))
        self.hub.switch()
        if here.process.dead:
            raise GreenletExit

    def wake(self, thread: SimThread) -> None:
        """Let a blocked thread go on."""
        if thread.waiting:
            thread.waiting = False
            thread.ticket += 1
            self.runnable.append(thread)

    def wake_all(self, process: Process) -> None:
        """Let go on who waits for a process that has died."""
        for thread in process.threads:
            for joiner in thread.joiners:
                self.wake(joiner)

    def point(self) -> None:
        """Perhaps let another thread run here."""
        here = self.here
        if here is None:
            return
        if here.process.dead:
            raise GreenletExit
        if self.preempts and self.rng.random() < self.preempts:
            self.preempt()

    def preempt(self) -> None:
        """Let another thread run here, if one can."""
        here = self.here
        self.runnable.append(here)
        self.hub.switch()
        if here.process.dead:
            raise GreenletExit


current: Scheduler | None = None
_NOBODY = Scheduler(random.Random(0))
"""For what is freed between two runs: nobody waits for anything any more."""


def _sim() -> Scheduler:
    return _NOBODY if current is None else current


class Lock:
    """Made like `threading.Lock`."""

    __slots__ = ("_held", "_waiters")

    def __init__(self) -> None:
        self._held = False
        self._waiters: deque[SimThread] = deque()

    def acquire(self, blocking: bool = True, timeout: float = -1) -> bool:
        sim = _sim()
        if sim.here is None:
            return True  # what is left of a run is being freed
        sim.point()
        if not self._held:
            self._held = True
            return True
        if not blocking:
            return False
        # Also a wait of no time lets the others run: nobody spins while time stands still.
        until = None if timeout < 0 else sim.now + max(timeout, LEAST_S)
        while self._held:
            if until is not None and sim.now >= until:
                return False
            self._waiters.append(sim.here)
            sim.wait(None if until is None else until - sim.now)
        self._held = True
        return True

    def release(self) -> None:
        if not self._held:
            if _sim().here is None:
                return
            raise RuntimeError("release unlocked lock")
        self._held = False
        if self._waiters:
            sim = _sim()
            while self._waiters:
                sim.wake(self._waiters.popleft())

    def locked(self) -> bool:
        return self._held

    def __enter__(self) -> bool:
        return self.acquire()

    def __exit__(self, *_: object) -> None:
        self.release()


class Event:
    """Made like `threading.Event`."""

    def __init__(self) -> None:
        self._set = False
        self._waiters: deque[SimThread] = deque()

    def set(self) -> None:
        self._set = True
        while self._waiters:
            _sim().wake(self._waiters.popleft())

    def is_set(self) -> bool:
        return self._set

    def wait(self, timeout: float | None = None) -> bool:
        sim = _sim()
        until = None if timeout is None else sim.now + timeout
        while not self._set and (until is None or sim.now < until):
            self._waiters.append(sim.here)
            sim.wait(None if until is None else until - sim.now)
        return self._set


class SimpleQueue:
    """Made like `queue.SimpleQueue`."""

    def __init__(self) -> None:
        self._items: deque[Any] = deque()
        self._waiters: deque[SimThread] = deque()

    @classmethod
    def __class_getitem__(cls, _: object) -> type[SimpleQueue]:
        return cls

    def put(self, item: Any) -> None:
        self._items.append(item)
        while self._waiters:
            _sim().wake(self._waiters.popleft())

    def get(self) -> Any:
        sim = _sim()
        sim.point()
        while not self._items:
            self._waiters.append(sim.here)
            sim.wait()
        return self._items.popleft()


class Local:
    """Made like `threading.local`."""

    def __init__(self) -> None:
        object.__setattr__(self, "_values", {})

    def __getattr__(self, name: str) -> Any:
        try:
            return self._values[_ident(), name]
        except KeyError:
            raise AttributeError(name) from None

    def __setattr__(self, name: str, value: Any) -> None:
        self._values[_ident(), name] = value


class SimFuture(Future[Any]):
    """A future whose `result` blocks a simulated thread."""

    def result(self, timeout: float | None = None) -> Any:
        sim = _sim()
        here = sim.here
        if here is not None and not self.done():
            self.add_done_callback(lambda _: sim.wake(here))
            until = None if timeout is None else sim.now + timeout
            while not self.done():
                if until is not None and sim.now >= until:
                    raise TimeoutError
                sim.wait(None if until is None else until - sim.now)
        return super().result(0)


def _ident() -> int:
    here = _sim().here
    return here.ident if here is not None else 0


threading = SimpleNamespace(
    Lock=Lock,
    Event=Event,
    Thread=SimThread,
    local=Local,
    get_ident=_ident,
    current_thread=lambda: _sim().here,
    TIMEOUT_MAX=1e9,
)
queue = SimpleNamespace(SimpleQueue=SimpleQueue)


def _monotonic() -> float:
    sim = _sim()
    sim.now += sim.tick
    return sim.now


def _sleep(seconds: float) -> None:
    sim = _sim()
    until = sim.now + seconds
    while sim.now < until:
        sim.wait(until - sim.now)


time = SimpleNamespace(monotonic=_monotonic, sleep=_sleep)
