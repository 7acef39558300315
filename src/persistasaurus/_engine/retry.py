"""When a failed attempt of a step is followed by another one."""

from __future__ import annotations

import random
from dataclasses import dataclass, field
from datetime import timedelta
from typing import cast

from persistasaurus._clock import LONGEST_MS, Duration, to_ms

ExceptionTypes = type[BaseException] | tuple[type[BaseException], ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Retry:
    """Run a failed step again, up to `attempts` times in all, with a growing wait between.

    The wait before attempt n + 1 is `wait * backoff ** (n - 1)`, at most `max_wait`, and up to
    `jitter` longer (a fraction: 0.1 adds at most a tenth). Durations are seconds or a `timedelta`.
    Only exceptions of the types `on` are retried, and none of the types `unless`.

    The attempt number and the time of the next attempt are recorded before the wait begins: a crash
    resets neither. Attempts that a crash cut short count too.

    Raises:
        ValueError: `attempts` is below 1, `backoff` below 1, `jitter` negative, `on` or `unless` no
            exceptions, or a duration is negative, NaN or infinite.
    """

    attempts: int = 3
    wait: Duration = 1.0
    backoff: float = 2.0
    max_wait: Duration = timedelta(hours=1)
    jitter: float = 0.1
    on: ExceptionTypes = Exception
    unless: ExceptionTypes = ()
    _wait_ms: int = field(init=False, repr=False)
    _max_wait_ms: int = field(init=False, repr=False)

    def __post_init__(self) -> None:
        if isinstance(self.attempts, bool) or not isinstance(self.attempts, int) or self.attempts < 1:
            raise ValueError(f"Retry(attempts={self.attempts!r}): give 1 or more; the first attempt counts.")
        if not _is_number(self.backoff) or not 1 <= self.backoff < float("inf"):
            raise ValueError(f"Retry(backoff={self.backoff!r}): give a finite factor of 1 or more.")
        if not _is_number(self.jitter) or not 0 <= self.jitter < float("inf"):
            raise ValueError(f"Retry(jitter={self.jitter!r}): give a finite fraction of 0 or more.")
        for name, types in (("on", self.on), ("unless", self.unless)):
            if not _are_exceptions(types):
                raise ValueError(f"Retry({name}={types!r}): give an exception class, or a tuple of them.")
        object.__setattr__(self, "_wait_ms", to_ms(self.wait, "Retry(wait=...)"))
        object.__setattr__(self, "_max_wait_ms", to_ms(self.max_wait, "Retry(max_wait=...)"))

    def next_wait_ms(self, error: BaseException, *, made: int, key: str) -> int | None:
        """Return the wait after `made` attempts of this round, None where there is no other attempt.

        `key` seeds the jitter, so that it does not depend on the process.
        """
        if made >= self.attempts or not isinstance(error, self.on) or isinstance(error, self.unless):
            return None
        try:
            grown = self._wait_ms * self.backoff ** (made - 1)
        except OverflowError:
            grown = LONGEST_MS
        wait = min(grown, self._max_wait_ms)
        spread = random.Random(f"{key}/{made}").random() * self.jitter  # noqa: S311 - not a secret
        return min(round(wait * (1 + spread)), LONGEST_MS)


def _is_number(value: object) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def _are_exceptions(types: object) -> bool:
    given = cast("tuple[object, ...]", types) if isinstance(types, tuple) else (types,)
    return all(isinstance(one, type) and issubclass(one, BaseException) for one in given)


ONCE = Retry(attempts=1)
"""The default: a step that raises has failed."""
