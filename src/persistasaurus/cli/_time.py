"""Points in time as a person writes and reads them."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta

import click

_UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86_400, "w": 604_800}
_AGO = re.compile(r"(\d+(?:\.\d+)?)\s*([smhdw])")
_STEPS = ((86_400, "d"), (3600, "h"), (60, "min"), (1, "s"))


class When(click.ParamType[datetime]):
    """An ISO date or time (local without an offset), or how long ago: 90s, 15m, 2h, 3d, 1w."""

    name = "WHEN"

    def convert(self, value: object, param: click.Parameter | None, ctx: click.Context | None) -> datetime:
        """Return an aware datetime, or refuse the text by the option's name."""
        text = str(value)
        found = _AGO.fullmatch(text.removesuffix(" ago").strip())
        try:
            if found:
                seconds = float(found[1]) * _UNITS[found[2]]
                return datetime.now(UTC) - timedelta(seconds=seconds)
            return datetime.fromisoformat(text).astimezone(UTC)
        except (ValueError, OverflowError):
            self.fail(f"{text!r} is no time. Write 2026-05-17, 2026-05-17T08:30Z, 15m, 2h or 3d.", param, ctx)


class Span(click.ParamType[timedelta]):
    """A length of time: 90s, 15m, 2h, 30d, 4w."""

    name = "TIME"

    def convert(self, value: object, param: click.Parameter | None, ctx: click.Context | None) -> timedelta:
        """Return a length above nothing, or refuse the text by the option's name."""
        text = str(value)
        found = _AGO.fullmatch(text.strip())
        try:
            length = timedelta(seconds=float(found[1]) * _UNITS[found[2]]) if found else timedelta()
        except OverflowError:
            length = timedelta()
        if not length:
            self.fail(
                f"{text!r} is no length of time above nothing. Write 90s, 15m, 2h, 30d or 4w.", param, ctx
            )
        return length


def ago(at: datetime, now: datetime) -> str:
    """Return how long ago something was, in its largest unit."""
    seconds = int((now - at).total_seconds())
    if seconds < 0:
        return "in the future"
    size, unit = next(((size, unit) for size, unit in _STEPS if seconds >= size), (1, "s"))
    return f"{seconds // size} {unit} ago"
