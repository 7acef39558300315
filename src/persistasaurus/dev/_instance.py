"""Keeps one process running: starts it, watches it, starts it again, and gives up visibly."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from datetime import UTC, datetime
from time import monotonic

from persistasaurus.dev._apphost import Process
from persistasaurus.dev._child import Child
from persistasaurus.dev._environment import Plan
from persistasaurus.dev._health import complaint_of
from persistasaurus.dev._state import HISTORY, Change, Changes, Console, ConsoleLine, State, Status

QUICK_S = 10.0
"""A process that lived for less than this after it was ready has died quickly."""
QUICK_DEATHS = 5
FIRST_BACKOFF_S = 0.1
START_TIMEOUT_S = 60.0
LOOK_S = 1.0
COMPLAINTS = 3
"""So many complaints in a row make a service unhealthy."""


class Instance:
    """One process of a resource, over all its lives."""

    def __init__(
        self, plan: Plan, console: Console, changes: Changes, heard: Callable[[ConsoleLine], object]
    ) -> None:
        self.plan = plan
        self.restarts = 0
        self.settled = asyncio.Event()
        """Set while it is ready, finished or failing: nothing more will come of waiting."""
        self._console = console
        self._changes = changes
        self._heard = heard
        self._history: deque[Change] = deque(maxlen=HISTORY)
        self._child: Child | None = None
        self._keeper: asyncio.Task[None] | None = None
        self._stopping = asyncio.Event()
        self._become(State.WAITING, f"for {', '.join(need.name for need in plan.resource.needs)}")

    @property
    def state(self) -> State:
        """Where it stands."""
        return self._history[-1].state

    @property
    def good(self) -> bool:
        """Whether those that need it may start."""
        return self.state in (State.READY, State.UNHEALTHY, State.FINISHED)

    def status(self) -> Status:
        """Return what is known of it."""
        last = self._history[-1]
        return Status(
            name=self.plan.name,
            resource=self.plan.resource.name,
            kind=self.plan.resource.kind,
            state=last.state,
            detail=last.detail,
            since=last.at,
            pid=None if self._child is None else self._child.pid,
            restarts=self.restarts,
            command=self.plan.command,
            links=self.plan.links,
            environment=tuple(sorted(self.plan.environment.items())),
            history=tuple(self._history),
        )

    def start(self) -> None:
        """Start it, if it does not run."""
        if self._keeper is None or self._keeper.done():
            self._stopping.clear()
            # At once: who asks for its state next must not see the old one.
            self._become(State.STARTING, "")
            self._keeper = asyncio.create_task(self._keep(), name=f"keeper of {self.plan.name}")

    async def stop(self, detail: str = "on request") -> None:
        """End it, and return once nothing of it is left."""
        self._stopping.set()
        if self._child is not None:
            await self._child.stop()
        if self._keeper is not None:
            await asyncio.wait([self._keeper])
        self._become(State.STOPPED, detail)

    async def _keep(self) -> None:
        deaths = 0
        while True:
            lived_s, status = await self._live()
            if self._stopping.is_set():
                return
            if status == 0 and isinstance(self.plan.resource, Process):
                self._become(State.FINISHED, "ended with status 0")
                return
            deaths = 1 if lived_s >= QUICK_S else deaths + 1
            if deaths >= QUICK_DEATHS:
                self._become(
                    State.FAILING,
                    f"{_end(status)}, the {deaths}th time in a row. Read its console, repair it, start it.",
                )
                return
            backoff_s = FIRST_BACKOFF_S * 2 ** (deaths - 1)
            self._become(State.RESTARTING, f"{_end(status)}; again in {backoff_s:g} s")
            with suppress(TimeoutError):
                async with asyncio.timeout(backoff_s):
                    await self._stopping.wait()
                return
            self.restarts += 1
            self._become(State.STARTING, "")

    async def _live(self) -> tuple[float, int]:
        """Run the process until it ends; return for how long it was ready, and its status."""
        try:
            child = await Child.start(self.plan, self._hear)
        except OSError as error:
            self._hear("host", f"{self.plan.command[0]} could not be started: {error}")
            return 0.0, 127
        self._child = child
        if self._stopping.is_set():  # asked to stop while it was being started
            await child.stop()
        watcher = asyncio.create_task(self._watch(child))
        began = monotonic()
        try:
            status = await child.ended()
            return (monotonic() - began if self.settled.is_set() else 0.0), status
        finally:
            watcher.cancel()
            self._child = None

    async def _watch(self, child: Child) -> None:
        try:
            async with asyncio.timeout(START_TIMEOUT_S):
                await child.ready()
        except TimeoutError:
            self._hear("host", f"{self.plan.name} was not ready within {START_TIMEOUT_S:g} s and is stopped.")
            await child.stop()
            return
        self._become(State.READY, self.plan.ready_detail)
        complaints = 0
        while self.plan.port is not None:
            await asyncio.sleep(LOOK_S)
            complaint = await complaint_of(self.plan.port, self.plan.health)
            complaints = complaints + 1 if complaint else 0
            if complaints == COMPLAINTS:
                self._become(State.UNHEALTHY, complaint)
            elif not complaint and self.state is State.UNHEALTHY:
                self._become(State.READY, "answers again")

    def _hear(self, stream: str, text: str) -> None:
        self._heard(self._console.add(self.plan.name, stream, text))

    def _become(self, state: State, detail: str) -> None:
        self._history.append(Change(at=datetime.now(UTC), state=state, detail=detail))
        if state in (State.READY, State.UNHEALTHY, State.FINISHED, State.FAILING):
            self.settled.set()
        else:
            self.settled.clear()
        self._changes.tell()


def _end(status: int) -> str:
    return f"killed by signal {-status}" if status < 0 else f"ended with status {status}"
