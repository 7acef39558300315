"""Lays a trace out: a row for each span, bars along one axis of time."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from persistasaurus.dev._log_pages import attributes, when
from persistasaurus.dev._telemetry import Branch
from persistasaurus.web._payload import inert
from persistasaurus.web._times import span as span_text

WIDTH = 1_000
LEFT = 330
RIGHT = 990
ROW = 22
TOP = 24
LEAST = 2
TICKS = 5
DEEPEST = 14
"""Rows are not moved in further than this; the table tells each row's depth."""
LETTERS = 46
_ROOM_FOR_TEXT = 800


@dataclass(frozen=True, slots=True, kw_only=True)
class Event:
    """Something that happened within a span, as the pages show it."""

    name: str
    offset: str
    attributes: list[tuple[str, str]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One span: its place in the picture, and what the table says of it."""

    branch: Branch
    name: str
    label: str
    y: int
    indent: int
    x: float
    width: float
    tone: str
    """The class of its bar."""
    text_x: float
    text_anchor: str
    offset: str
    took: str
    attributes: list[tuple[str, str]]
    events: list[Event]


@dataclass(frozen=True, slots=True, kw_only=True)
class Tick:
    """A mark on the axis."""

    x: float
    told: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Waterfall:
    """A trace laid out, in a picture of `width` by `height`."""

    start: datetime
    took: str
    rows: list[Row]
    ticks: list[Tick]
    total: int
    errors: int
    width: int = WIDTH

    @property
    def height(self) -> int:
        """How high the picture is."""
        return TOP + ROW * len(self.rows) + 6


def waterfall(branches: Sequence[Branch], limit: int) -> Waterfall:
    """Return a trace that has spans laid out, `limit` of its rows at most."""
    start_ns = min(branch.span.start_ns for branch in branches)
    whole_ns = max(1, max(branch.span.end_ns for branch in branches) - start_ns)
    return Waterfall(
        start=when(start_ns),
        took=took(whole_ns),
        rows=[_row(branch, i, start_ns, whole_ns) for i, branch in enumerate(branches[:limit])],
        ticks=[
            Tick(x=LEFT + (RIGHT - LEFT) * i / TICKS, told=took(whole_ns * i // TICKS)) for i in range(TICKS)
        ],
        total=len(branches),
        errors=sum(branch.span.status == "error" for branch in branches),
    )


def took(ns: int) -> str:
    """Return a time in nanoseconds as a person reads it."""
    if abs(ns) < 1_000_000:  # noqa: PLR2004 - units
        return f"{ns / 1_000:.0f} µs"
    if abs(ns) < 100_000_000:  # noqa: PLR2004
        return f"{ns / 1_000_000:.1f} ms"
    return span_text(ns / 1_000_000)


def _row(branch: Branch, number: int, start_ns: int, whole_ns: int) -> Row:
    span = branch.span
    scale = (RIGHT - LEFT) / whole_ns
    x = LEFT + (span.start_ns - start_ns) * scale
    width = min(max((span.end_ns - span.start_ns) * scale, LEAST), RIGHT + LEAST - x)
    indent = min(branch.depth, DEEPEST)
    name = inert(span.name)
    is_left = x + width > _ROOM_FOR_TEXT
    letters = LETTERS - 2 * indent
    return Row(
        branch=branch,
        name=name,
        label=name if len(name) <= letters else name[: letters - 1] + "…",
        y=TOP + ROW * number,
        indent=8 + 12 * indent,
        x=round(x, 2),
        width=round(width, 2),
        tone="failed" if span.status == "error" else "pending",
        text_x=round(x - 5 if is_left else x + width + 5, 2),
        text_anchor="end" if is_left else "start",
        offset=took(span.start_ns - start_ns),
        took=took(span.end_ns - span.start_ns),
        attributes=attributes(span.attributes),
        events=[
            Event(
                name=inert(event.name),
                offset=took(event.at_ns - start_ns),
                attributes=attributes(event.attributes),
            )
            for event in span.events
        ],
    )
