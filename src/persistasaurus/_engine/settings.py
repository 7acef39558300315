"""What a user can set on an app, checked before anything is opened."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Any, Self, cast, get_args

from persistasaurus._cipher import Cipher
from persistasaurus._clock import Duration, to_ms
from persistasaurus._store._sqlite_open import Durability


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """What a user can set; see `Persistasaurus`."""

    worker: bool
    max_payload: int
    max_steps: int
    drain_s: float
    lease_s: float
    crash_limit: int
    flow_threads: int
    step_threads: int
    capacity: int
    residents: int
    keep_ms: int | None
    cipher: Cipher | None
    redact: frozenset[str]
    """Names of fields, in lower case, that are shown masked."""

    @classmethod
    def checked(
        cls,
        *,
        worker: bool,
        drain: Duration,
        lease: Duration,
        residents: int,
        keep: Duration | None,
        **whole: int,
    ) -> Self:
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
        return cls(
            worker=worker,
            drain_s=drain_s,
            lease_s=lease_ms / 1000,
            residents=residents,
            keep_ms=_checked_keep(keep),
            cipher=None,
            redact=frozenset(),
            **whole,
        )

    def guarding(self, cipher: Any, redact: Any) -> Self:
        """Return these settings with what keeps values from others' eyes.

        Raises:
            ValueError: it is no cipher, or these are no names.
        """
        return replace(self, cipher=_checked_cipher(cipher), redact=_checked_names(redact))


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


def _checked_keep(keep: Any) -> int | None:
    keep_ms = None if keep is None else to_ms(keep, "keep")
    if keep_ms == 0:
        raise ValueError(
            f"keep={keep!r}: a flow would be gone before anybody has seen its result. Give a longer time, or "
            "None to keep every flow."
        )
    return keep_ms


def _checked_cipher(cipher: Any) -> Cipher | None:
    if cipher is not None and not isinstance(cipher, Cipher):
        raise ValueError(
            f"cipher=... is a {type(cipher).__name__}, which cannot encrypt(). "
            "Give an AesGcm of persistasaurus.crypto."
        )
    return cipher


def _checked_names(redact: Any) -> frozenset[str]:
    several = isinstance(redact, Iterable) and not isinstance(redact, (str, bytes))
    names: list[Any] = list(cast("Iterable[Any]", redact)) if several else [None]
    if not all(isinstance(name, str) and name for name in names):
        raise ValueError(f"redact={redact!r:.60}: give the names of fields, as in ['password', 'iban'].")
    return frozenset(name.lower() for name in names)


def _check_whole(name: str, value: Any, *, least: int) -> None:
    if isinstance(value, bool) or not isinstance(value, int) or value < least:
        raise ValueError(f"{name}={value!r}: give a whole number of {least} or more.")
