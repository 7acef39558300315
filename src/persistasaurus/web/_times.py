"""Times as a person reads them: how long ago, and when in UTC."""

from __future__ import annotations

from datetime import UTC, datetime

_UNITS = ((86_400, "d"), (3_600, "h"), (60, "min"), (1, "s"))


def utc(when: datetime) -> str:
    """Return an aware datetime as date and time to the millisecond in UTC."""
    return when.astimezone(UTC).strftime("%Y-%m-%d %H:%M:%S.%f")[:-3] + " UTC"


def ago(when: datetime, now: datetime) -> str:
    """Return how long before (or after) `now` something is, in its largest unit."""
    seconds = (now - when).total_seconds()
    whole = int(abs(seconds))
    if whole == 0:
        return "just now"
    told = next(f"{whole // size} {unit}" for size, unit in _UNITS if whole >= size)
    return f"{told} ago" if seconds > 0 else f"in {told}"


def span(ms: float) -> str:
    """Return a time in milliseconds as a person reads it."""
    if ms < 1_000:  # noqa: PLR2004 - units
        return f"{ms:.0f} ms"
    if ms < 60_000:  # noqa: PLR2004
        return f"{ms / 1_000:.1f} s"
    whole = int(ms // 1_000)
    size, unit = next(one for one in _UNITS if whole >= one[0])
    rest = whole % size
    smaller = next(((s, u) for s, u in _UNITS if s < size), None)
    if smaller is None or rest < smaller[0]:
        return f"{whole // size} {unit}"
    return f"{whole // size} {unit} {rest // smaller[0]} {smaller[1]}"
