"""The only place that asks for the time."""

from __future__ import annotations

import math
import threading
import time
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Protocol

Duration = float | int | timedelta

# 10,000 years in milliseconds: a later due time overflows `datetime`.
LONGEST_MS = 10_000 * 366 * 86_400_000


class Driven(Protocol):
    """An entered app, as a clock that a test moves sees it; `Quiet` says what each does."""

    @property
    def ended(self) -> bool: ...
    def kick(self) -> None: ...
    def is_here(self) -> bool: ...
    def look_through(self) -> None: ...
    def counts(self) -> tuple[int, int]: ...
    def at_rest(self) -> bool: ...
    def next_due_ms(self) -> int | None: ...
    def unfinished(self) -> list[str]: ...


class Clock(Protocol):
    """Wall time for due times and records, a steady one for leases."""

    def now_ms(self) -> int:
        """Return the wall clock's time in milliseconds since 1970, UTC."""
        ...

    def steady(self) -> float:
        """Return seconds that never step back and go on while the machine is suspended."""
        ...

    def drives(self, app: Driven) -> None:
        """Take note of an app that goes by this clock, to wake it after a jump."""
        ...


class SystemClock:
    """The machine's clocks."""

    def now_ms(self) -> int:
        return time.time_ns() // 1_000_000

    def drives(self, app: Driven) -> None:
        pass

    # CLOCK_BOOTTIME counts through a suspend, during which another host may take a lease over. Every step
    # asks twice: a partial is called without a frame of Python's.
    if hasattr(time, "CLOCK_BOOTTIME"):
        steady = staticmethod(partial(time.clock_gettime, time.CLOCK_BOOTTIME))
    else:
        steady = staticmethod(time.monotonic)


class DatabaseClock(SystemClock):
    """The time of a database's server, for apps on many machines: measured now and then, carried on between.

    Between two measurements this machine's steady clock goes on from the last one. It never steps back:
    where a measurement says that it was ahead, it waits. What the machine's own calendar says does not
    matter.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._offset_ms: float | None = None
        self._latest_ms = 0

    def now_ms(self) -> int:
        with self._lock:
            if self._offset_ms is None:
                return super().now_ms()
            self._latest_ms = max(self._latest_ms, int(self.steady() * 1000 + self._offset_ms))
            return self._latest_ms

    def measured(self, server_ms: int, sent: float, received: float) -> None:
        """Go by what the server's clock showed at some moment between two steady times of ours."""
        # One in which the clock agrees with the measurement says nothing new, however slow the network was.
        earliest, latest = server_ms - received * 1000, server_ms + 1 - sent * 1000
        with self._lock:
            if self._offset_ms is None or not earliest <= self._offset_ms <= latest:
                self._offset_ms = earliest  # nothing is due before the server itself would say so


def to_ms(duration: Duration, what: str) -> int:
    """Return a duration in whole milliseconds, rounded up so that nothing ends early.

    Raises:
        ValueError: it is NaN, infinite, negative or beyond 10,000 years; `what` names it.
        TypeError: it is neither a number of seconds nor a `timedelta`.
    """
    if isinstance(duration, timedelta):
        micros = duration // timedelta(microseconds=1)
        ms = -(-micros // 1000)
    elif isinstance(duration, (int, float)) and not isinstance(duration, bool):
        if isinstance(duration, float) and not math.isfinite(duration):
            raise ValueError(f"{what} is {duration!r}. Give a finite number of seconds or a timedelta.")
        # Within limits that no float's and no int's arithmetic leaves.
        ms = math.ceil(round(max(-1.0, min(duration, LONGEST_MS)) * 1000, 6))
    else:
        kind = type(duration).__name__
        raise TypeError(f"{what} is of type {kind}. Give a number of seconds or a timedelta.")
    if ms < 0:
        raise ValueError(f"{what} is negative ({duration!r:.60}). Time only goes forward: give zero or more.")
    if ms > LONGEST_MS:
        raise ValueError(f"{what} is longer than 10,000 years ({duration!r:.60}). Give a shorter one.")
    return ms


def instant(ms: int) -> datetime:
    """Return milliseconds since 1970 as an aware UTC datetime."""
    return datetime(1970, 1, 1, tzinfo=UTC) + timedelta(milliseconds=ms)
