"""What happened, for those who watch: frozen facts, told after they are durable and never on replay."""

from __future__ import annotations

import enum
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol, runtime_checkable


class Happening(enum.StrEnum):
    """The kinds of facts that an observer is told; `count` is what each says of it."""

    FLOW_STARTED = "flow started"
    FLOW_RECOVERED = "flow recovered"
    """It came into memory with a history; `count` is by how many milliseconds it was late."""
    FLOW_IDLE = "flow idle"
    """Only time, a signal or another flow brings it on."""
    FLOW_ENDED = "flow ended"
    FLOW_PARKED = "flow parked"
    STEP_STARTED = "step started"
    """An attempt runs; nothing of it is durable yet."""
    STEP_RETRIED = "step retried"
    STEP_ENDED = "step ended"
    WAIT_STARTED = "wait started"
    """A sleep, timer, delay or wait for a signal; `count` is its milliseconds, 0 where it has no end."""
    WAIT_ENDED = "wait ended"
    COMMITTED = "committed"
    """A group commit; `count` is how many writes of flows it held."""
    STORE_MEASURED = "store measured"
    """`count` is the store's size in bytes."""
    LEASE_LOST = "lease lost"
    """Every flow of the worker was dropped."""
    APP_LEFT = "app left"
    """So were those that had not ended when the app was left."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Event:
    """One fact. `at_ms` is milliseconds since 1970; there are no payloads in it."""

    happening: Happening
    at_ms: int
    flow_id: str = ""
    flow_name: str = ""
    step: int = 0
    step_name: str = ""
    attempt: int = 0
    status: str = ""
    count: int = 0
    trace: str = ""
    """What the observer gave when the flow was started, see `Tracer.capture`."""


Observer = Callable[[Event], None]
"""Called in the thread where the fact became known; it must be quick and may not raise."""


@runtime_checkable
class Tracer(Protocol):
    """An observer that also keeps track of where things come from. It may not raise either."""

    def __call__(self, event: Event, /) -> None:
        """Take note of a fact."""
        ...

    def capture(self) -> str | None:
        """Return what to keep with a flow that the calling code starts, as W3C's traceparent."""
        ...

    def enter(self, event: Event, /) -> None:
        """Make the calling context that of a flow's body, or of a step's attempt, which begins now."""
        ...
