"""A clock that stands still until a test moves it, so that a three-day delay takes milliseconds."""

from __future__ import annotations

import asyncio
import threading
import time
from datetime import datetime

from persistasaurus._clock import Driven, Duration, SystemClock, instant, to_ms
from persistasaurus.errors import WrongContextError

LOOK_AGAIN_S = 0.001


class MovableClock:
    """The wall clock of the apps that it is given to: `Persistasaurus(url, clock=clock)`.

    It starts at `start` (an aware datetime, now if there is none) and stands still between moves: a flow
    that sleeps goes on when a test advances the clock, and at no other time. Leases and the timeouts of
    steps go by real time. `patience` (seconds or `timedelta` of real time) is how long a move waits for
    flows that record nothing at all before it gives up.

    Raises:
        ValueError: `start` is naive, or `patience` negative.
    """

    def __init__(self, start: datetime | None = None, *, patience: Duration = 30) -> None:
        self._real = SystemClock()
        if start is not None and start.tzinfo is None:
            raise ValueError(f"start={start!r} is naive: it names no instant. Give an aware datetime.")
        self._now_ms = self._real.now_ms() if start is None else round(start.timestamp() * 1000)
        self._patience_s = to_ms(patience, "patience") / 1000
        self._apps: list[Driven] = []
        self._lock = threading.Lock()

    def __repr__(self) -> str:
        return f"<MovableClock at {self.now().isoformat()}>"

    def now(self) -> datetime:
        """Return what the clock shows, an aware UTC datetime in whole milliseconds."""
        return instant(self._now_ms)

    async def advance(self, duration: Duration) -> None:
        """Let time pass, and return once all that became due was driven until it rests again.

        The clock stops at each due time on the way, also at those that arise on the way, so that a flow
        that sleeps an hour in a loop sees every hour. `advance(0)` lets only what is due already run.
        Time does not pass while a step runs: for a timer that overtakes one use `set_forward`.

        Raises:
            ValueError: the duration is negative; see `set_back`.
            TimeoutError: a flow runs on and records nothing for as long as the clock's `patience`.
        """
        await asyncio.to_thread(self.advance_sync, duration)

    def advance_sync(self, duration: Duration) -> None:
        """Like `advance`, for sync tests.

        Raises:
            WrongContextError: called on the event loop that the app itself runs on.
        """
        until_ms = self._now_ms + to_ms(duration, "the duration of advance")
        if any(app.is_here() for app in self._living()):
            raise WrongContextError(
                "advance_sync() would block the event loop that the app runs on. "
                "Use `await clock.advance(...)`."
            )
        while True:
            due_ms = self._rest()
            if due_ms is None or due_ms > until_ms:
                break
            self._set(max(self._now_ms, due_ms))
        self._set(max(self._now_ms, until_ms))

    def set_forward(self, duration: Duration) -> None:
        """Set the clock forward in one step, as an administrator does; what is due begins to run.

        Unlike with `advance`, all that became due on the way sees the new time.
        """
        self._set(self._now_ms + to_ms(duration, "the duration of set_forward"))

    def set_back(self, duration: Duration) -> None:
        """Set the clock back in one step: what was not due yet waits for that much longer."""
        self._set(self._now_ms - to_ms(duration, "the duration of set_back"))

    def _set(self, now_ms: int) -> None:
        self._now_ms = now_ms
        for app in self._living():
            app.kick()

    # What the apps ask.

    def now_ms(self) -> int:
        """Return what the clock shows in milliseconds since 1970, UTC."""
        return self._now_ms

    def steady(self) -> float:
        """Return real seconds: leases do not lapse while the clock is moved."""
        return self._real.steady()

    def drives(self, app: Driven) -> None:
        """Take note of an app that goes by this clock."""
        with self._lock:
            self._apps = [*(known for known in self._apps if not known.ended), app]

    # Waiting until nothing runs.

    def _living(self) -> list[Driven]:
        with self._lock:
            return [app for app in self._apps if not app.ended]

    def _rest(self) -> int | None:
        """Wait until no app runs anything, and return when the next one has something to do."""
        counts: list[tuple[int, int]] = []
        looked = False
        give_up_at = time.monotonic() + self._patience_s
        while True:
            apps = self._living()
            # In this order: what begins after `due` was read shows in one of the others.
            due = min((due for app in apps if (due := app.next_due_ms()) is not None), default=None)
            at_rest = all(app.at_rest() for app in apps)
            before, counts = counts, [app.counts() for app in apps]
            if counts != before:
                looked, give_up_at = False, time.monotonic() + self._patience_s
            if not at_rest:
                looked = False
                if time.monotonic() > give_up_at:
                    raise self._in_vain(apps)
                time.sleep(LOOK_AGAIN_S)
            elif looked:
                return due
            else:
                for app in apps:
                    app.look_through()
                looked = True

    def _in_vain(self, apps: list[Driven]) -> TimeoutError:
        busy = [repr(flow_id) for app in apps for flow_id in app.unfinished()]
        which = ", ".join(busy[:5]) + (f" and {len(busy) - 5} more" if len(busy) > 5 else "")  # noqa: PLR2004
        return TimeoutError(
            f"The clock cannot go on: {which or 'an app'} still ran {self._patience_s:g} real seconds after "
            "anything was last recorded. A step hangs or takes long: give it what it waits for, use "
            "`set_forward`, which waits for nothing, or make the clock with more `patience`."
        )
