"""What the AppHost knows of its processes: where each stands, how it came there, what it printed."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import StrEnum
from typing import Literal

from persistasaurus.dev._environment import Link

Action = Literal["start", "stop", "restart"]

LINES = 5_000
HISTORY = 200


class State(StrEnum):
    """Where a resource stands."""

    WAITING = "waiting"
    """For what it needs."""
    STARTING = "starting"
    READY = "ready"
    UNHEALTHY = "unhealthy"
    """It runs and was ready once, and now does not answer as it should."""
    RESTARTING = "restarting"
    """It died and is started again in a moment."""
    FAILING = "failing"
    """It died so often that it is left alone until someone starts it."""
    FINISHED = "finished"
    """A program that ended with status 0."""
    STOPPED = "stopped"


@dataclass(frozen=True, slots=True, kw_only=True)
class Change:
    """One line of a resource's history."""

    at: datetime
    state: State
    detail: str


@dataclass(frozen=True, slots=True, kw_only=True)
class ConsoleLine:
    """One line that a process printed."""

    number: int
    """Rises over all resources in the order in which the lines arrived."""
    at: datetime
    resource: str
    stream: str
    """"stdout", "stderr", or "host" for what the AppHost has to say."""
    text: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Status:
    """One resource, or one replica of it, as it stands now."""

    name: str
    resource: str
    kind: str
    state: State
    detail: str
    since: datetime
    pid: int | None
    restarts: int
    command: tuple[str, ...]
    links: tuple[Link, ...]
    environment: tuple[tuple[str, str], ...]
    """What the AppHost has set, values included: mask them before showing them."""
    history: tuple[Change, ...]


class Changes:
    """Tells whoever waits that something has changed: a state, a line, telemetry."""

    def __init__(self) -> None:
        self.number = 0
        self.ended = asyncio.Event()
        """Set once nothing more will change: streams end, and do not keep the server."""
        self._event = asyncio.Event()

    def tell(self) -> None:
        """Wake everyone who waits."""
        self.number += 1
        event, self._event = self._event, asyncio.Event()
        event.set()

    async def wait(self, after: int) -> int:
        """Return the number of the latest change once there is one later than `after`."""
        while self.number <= after:
            await self._event.wait()
        return self.number

    def end(self) -> None:
        """Wake everyone who waits, for the last time."""
        self.ended.set()
        self.tell()


class Console:
    """The last lines of each resource."""

    def __init__(self, changes: Changes) -> None:
        self._changes = changes
        self._rings: dict[str, deque[ConsoleLine]] = {}
        self._number = 0

    def add(self, resource: str, stream: str, text: str) -> ConsoleLine:
        """Keep a line and return it; the oldest one of the resource makes room."""
        self._number += 1
        line = ConsoleLine(
            number=self._number, at=datetime.now(UTC), resource=resource, stream=stream, text=text
        )
        self._rings.setdefault(resource, deque(maxlen=LINES)).append(line)
        self._changes.tell()
        return line

    def newest(self, resources: Iterable[str]) -> int:
        """Return the number of the last line of these resources, 0 where they have printed none."""
        rings = (self._rings.get(name) for name in resources)
        return max((ring[-1].number for ring in rings if ring), default=0)

    def lines(
        self, *, resources: Iterable[str] | None = None, text: str = "", after: int = 0, limit: int = 500
    ) -> list[ConsoleLine]:
        """Return the last `limit` lines that fit, oldest first; `after` is a line's number."""
        wanted = self._rings if resources is None else [name for name in resources if name in self._rings]
        needle = text.casefold()
        found = [
            line
            for name in wanted
            for line in self._rings[name]
            if line.number > after and needle in line.text.casefold()
        ]
        found.sort(key=lambda line: line.number)
        return found[-limit:]
