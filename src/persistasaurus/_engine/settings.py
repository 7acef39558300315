"""What a user can set on an app, checked before anything is opened."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Self, get_args

from persistasaurus._clock import Duration, to_ms
from persistasaurus._store._sqlite_open import Durability


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """What a user can set; see `Persistasaurus`."""

    worker: bool
    max_payload: int
    drain_s: float
    lease_s: float
    crash_limit: int
    flow_threads: int
    step_threads: int
    capacity: int
    residents: int

    @classmethod
    def checked(cls, *, worker: bool, drain: Duration, lease: Duration, residents: int, **whole: int) -> Self:
        """Return the settings of an app.

        Raises:
            ValueError: one of them makes no sense; the message names it.
            TypeError: a duration is neither seconds nor a `timedelta`.
        """
        if not isinstance(worker, bool):
            raise ValueError(f"worker={worker!r}: give True, or False for a client that drives nothing.")  # noqa: TRY004
        for name, value in whole.items():
            _check_whole(name, value, least=1)
        _check_whole("residents", residents, least=0)
        lease_ms = to_ms(lease, "lease")
        if not lease_ms:
            raise ValueError("lease=0: a worker could never start a step. Give a second or more.")
        drain_s = to_ms(drain, "drain") / 1000
        return cls(worker=worker, drain_s=drain_s, lease_s=lease_ms / 1000, residents=residents, **whole)


def check_parts(*, durability: Any, clock: Any, observer: Any) -> None:
    """Refuse what would fail only once the app runs.

    Raises:
        ValueError: it is none of the known durabilities, no clock, or cannot be called.
    """
    if durability not in get_args(Durability):
        known = " or ".join(map(repr, get_args(Durability)))
        raise ValueError(f"durability={durability!r}: give {known}.")
    if not all(callable(getattr(clock, method, None)) for method in ("now_ms", "steady")):
        raise ValueError(f"clock={clock!r} is no clock: it lacks now_ms() or steady(). Leave it out.")
    if observer is not None and not callable(observer):
        raise ValueError(f"observer={observer!r} cannot be called. Give a function of one event.")


def _check_whole(name: str, value: Any, *, least: int) -> None:
    if isinstance(value, bool) or not isinstance(value, int) or value < least:
        raise ValueError(f"{name}={value!r}: give a whole number of {least} or more.")
