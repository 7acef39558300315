"""Named places where a process can be made to die, to see that nothing is lost."""

from __future__ import annotations

import functools
import os
import threading
from collections.abc import Generator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Self, cast

from persistasaurus.errors import UsageError

if TYPE_CHECKING:
    from persistasaurus._app import Persistasaurus
    from persistasaurus._store.base import Store

EXIT_STATUS = 137
"""What the shell shows for a process that was killed by SIGKILL."""

VARIABLE = "PERSISTASAURUS_CRASH_AT"

_PLACES = (
    "open",
    "close",
    "intern",
    "intern_all",
    "commit",
    "register_worker",
    "renew_lease",
    "workers",
    "take_over",
    "release_worker",
    "claim",
    "load",
    "load_short",
    "mailbox",
    "find",
    "list_flows",
    "signals",
    "names",
    "reopen",
    "size",
    "changes",
    "check",
    "effect",
)


def crash_points() -> list[str]:
    """Return the names of all places to die at: before and after each call of the store, and each effect.

    "commit:before" is just before a group commit, "commit:after" when it is durable and nobody has been
    told yet. "effect:before" and "effect:after" are around the blocks that the code under test marks
    with `effect()`.
    """
    return [f"{place}:{side}" for place in _PLACES for side in ("before", "after")]


@dataclass(frozen=True, slots=True)
class CrashAt:
    """Where a process dies: at the `nth` time that it comes to a point, by `os._exit(137)`.

    Nothing is flushed, closed or told. Use it in a child process of the test:

        app = Persistasaurus("flows.db")
        CrashAt("commit:after", nth=3).arm(app)
        with app: ...

    or set the child's environment to `CrashAt(...).environment()` and have it call
    `CrashAt.arm_from_environment(app)`, which does nothing where no crash was asked for.

    Raises:
        UsageError: there is no point of that name, or `nth` is less than 1.
    """

    point: str
    nth: int = 1
    _armed: ClassVar[_Countdown | None] = None

    def __post_init__(self) -> None:
        if self.point not in crash_points():
            raise UsageError(f"There is no crash point {self.point!r}. `crash_points()` lists them.")
        if self.nth < 1:
            raise UsageError(f"nth={self.nth}: the first time is 1.")

    def arm(self, app: Persistasaurus) -> None:
        """Make this process die there; the store's points count the calls of this app from its entering on.

        Raises:
            UsageError: the app was entered already.
        """
        if app._engine is not None:
            raise UsageError("Arm a crash before the app is entered: its store is in use already.")
        countdown = _Countdown(self.point, self.nth)
        CrashAt._armed = countdown
        plain = app._new_store
        setattr(app, "_new_store", lambda: _watched(plain(), countdown))  # noqa: B010 - one instance only

    def environment(self) -> dict[str, str]:
        """Return what to add to a child's environment for `arm_from_environment`."""
        return {VARIABLE: f"{self.point}*{self.nth}"}

    @classmethod
    def arm_from_environment(
        cls, app: Persistasaurus, environment: Mapping[str, str] = os.environ
    ) -> Self | None:
        """Arm the crash that the environment asks for and return it, None where it asks for none."""
        text = environment.get(VARIABLE)
        if not text:
            return None
        point, _, nth = text.partition("*")
        if nth and not nth.isdecimal():
            raise UsageError(f"{VARIABLE}={text!r}: write it like 'commit:after' or 'commit:after*3'.")
        crash = cls(point, int(nth or 1))
        crash.arm(app)
        return crash


@contextmanager
def effect() -> Generator[None]:
    """Mark a step's effect, so that the process can be made to die just before and just after it.

    `with effect(): api.charge(card)` does nothing unless a crash is armed at "effect:before" or
    "effect:after". Where the block raises, "effect:after" is not reached.
    """
    _reach("effect:before")
    yield
    _reach("effect:after")


def _reach(point: str) -> None:
    if CrashAt._armed is not None:
        CrashAt._armed.reach(point)


class _Countdown:
    """Counts how often a point is reached, from all threads, and ends the process at the last time."""

    def __init__(self, point: str, left: int) -> None:
        self._point = point
        self._left = left
        self._lock = threading.Lock()

    def reach(self, point: str) -> None:
        if point != self._point:
            return
        with self._lock:
            self._left -= 1
            if self._left == 0:
                os._exit(EXIT_STATUS)


class _WatchedStore:
    """A store that reports to a countdown around each call."""

    def __init__(self, store: Store, countdown: _Countdown) -> None:
        self._store = store
        self._countdown = countdown

    def __getattr__(self, name: str) -> Any:
        method = getattr(self._store, name)
        if name not in _PLACES:
            return method

        @functools.wraps(method)
        def call(*args: Any, **kwargs: Any) -> Any:
            self._countdown.reach(f"{name}:before")
            answer = method(*args, **kwargs)
            self._countdown.reach(f"{name}:after")
            return answer

        # Found here the next time, so that the calls between two crashes cost next to nothing.
        self.__dict__[name] = call
        return call


def _watched(store: Store, countdown: _Countdown) -> Store:
    return cast("Store", _WatchedStore(store, countdown))
