"""What happened, for those who watch: frozen facts, told after they are durable and never on replay."""

from __future__ import annotations

import enum
from collections.abc import Callable
from dataclasses import dataclass


class Happening(enum.StrEnum):
    """The kinds of facts that an observer is told."""

    FLOW_STARTED = "flow started"
    FLOW_RECOVERED = "flow recovered"
    FLOW_IDLE = "flow idle"
    FLOW_ENDED = "flow ended"
    FLOW_PARKED = "flow parked"
    STEP_STARTED = "step started"
    STEP_RETRIED = "step retried"
    STEP_ENDED = "step ended"
    LEASE_LOST = "lease lost"


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


Observer = Callable[[Event], None]
"""Called in the thread where the fact became known; it must be quick and may not raise."""
