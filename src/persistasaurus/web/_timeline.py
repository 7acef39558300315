"""A flow's steps as bars along its time: where each goes, in a picture drawn with attributes alone."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate, pairwise
from typing import NamedTuple

from persistasaurus._model import STATUS_BY_CODE, Kind
from persistasaurus._store.base import StepRow
from persistasaurus.web._times import span

WIDTH = 1_000
LABELS = 230
LANE = 24
TOP = 42
_PLOT = WIDTH - LABELS - 12
# All long times in which nothing ran together are drawn at most so many times as long as the rest.
_MOST_IDLE = 1.5
_SHORT_MS = 1_000
_FAR = 1 << 62
_WAITS = (Kind.SLEEP, Kind.TIMER, Kind.SIGNAL, Kind.WAIT_FOR)


@dataclass(frozen=True, slots=True, kw_only=True)
class Bar:
    """A piece of a lane. `kind` is `wait`, or the status of the step."""

    x: float
    width: float
    kind: str
    told: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Lane:
    """A step: its label and its bars, from the top `y`."""

    y: int
    label: str
    bars: Sequence[Bar]


@dataclass(frozen=True, slots=True, kw_only=True)
class Gap:
    """A long time in which nothing ran, drawn shorter than it was."""

    x: float
    width: float
    told: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Timeline:
    """The picture: its height, its lanes, the marks of its axis, and where that is broken."""

    height: int
    lanes: Sequence[Lane]
    marks: Sequence[tuple[float, str]]
    gaps: Sequence[Gap]


def timeline(rows: Sequence[tuple[StepRow, str]], *, begin_ms: int, now_ms: int) -> Timeline:
    """Return the picture of these steps with their names; what has not ended goes on until now."""
    pieces = [_pieces(row, _end_ms(row, now_ms)) for row, _ in rows]
    axis = Axis([piece for lane in pieces for piece in lane], begin_ms=begin_ms)
    lanes = [
        Lane(
            y=TOP + index * LANE,
            label=f"{row.step} {name}",
            bars=[_bar(axis, piece) for piece in lane],
        )
        for index, ((row, name), lane) in enumerate(zip(rows, pieces, strict=True))
    ]
    return Timeline(
        height=TOP + len(rows) * LANE + 6, lanes=lanes, marks=axis.marks(parts=4), gaps=axis.gaps()
    )


class Piece(NamedTuple):
    """A time of a step; `kind` as a bar has it."""

    begin_ms: int
    end_ms: int
    kind: str
    what: str


class Axis:
    """Where a time stands: in proportion, but for long times in which nothing ran."""

    def __init__(self, pieces: Sequence[Piece], *, begin_ms: int) -> None:
        times = {begin_ms, begin_ms + 1}
        times.update(one for piece in pieces for one in (piece.begin_ms, piece.end_ms) if one > begin_ms)
        self._times = sorted(times)
        busy = _busy(pieces)
        spans = list(pairwise(self._times))
        idle = [not _covered(begin, end, busy) for begin, end in spans]
        long = [
            is_idle and end - begin > _SHORT_MS for (begin, end), is_idle in zip(spans, idle, strict=True)
        ]
        rest = sum(end - begin for (begin, end), is_long in zip(spans, long, strict=True) if not is_long)
        cap = max(_MOST_IDLE * rest / max(sum(long), 1), 1.0)
        self._shown = [
            min(float(end - begin), cap) if is_long else float(end - begin)
            for (begin, end), is_long in zip(spans, long, strict=True)
        ]
        total = sum(self._shown)
        self._xs = [LABELS + _PLOT * one / total for one in accumulate(self._shown, initial=0.0)]

    def at(self, ms: int) -> float:
        """Return the place of a time."""
        return round(_between(ms, self._times, self._xs), 1)

    def marks(self, *, parts: int) -> list[tuple[float, str]]:
        """Return evenly spaced places with the time since the beginning."""
        places = [LABELS + _PLOT * part / parts for part in range(parts)]
        return [
            (round(x, 1), f"+{span(_between(x, self._xs, self._times) - self._times[0])}") for x in places
        ]

    def gaps(self) -> list[Gap]:
        """Return what is drawn shorter than it was."""
        spans = zip(pairwise(self._times), pairwise(self._xs), self._shown, strict=True)
        return [
            Gap(x=round(x, 1), width=round(x_end - x, 1), told=span(end - begin))
            for (begin, end), (x, x_end), is_shown in spans
            if is_shown < end - begin
        ]


def _between(value: float, from_: Sequence[float], to: Sequence[float]) -> float:
    """Return what stands where `value` does, straight between the points that are known."""
    index = min(max(bisect_right(from_, value) - 1, 0), len(from_) - 2)
    width = from_[index + 1] - from_[index]
    part = (value - from_[index]) / width if width else 0.0
    return to[index] + min(max(part, 0.0), 1.0) * (to[index + 1] - to[index])


def _busy(pieces: Sequence[Piece]) -> list[tuple[int, int]]:
    """Return the times in which something ran, in order, without overlaps."""
    merged: list[tuple[int, int]] = []
    for begin, end in sorted((one.begin_ms, one.end_ms) for one in pieces if one.kind != "wait"):
        if merged and begin <= merged[-1][1]:
            merged[-1] = (merged[-1][0], max(end, merged[-1][1]))
        else:
            merged.append((begin, end))
    return merged


def _covered(begin: int, end: int, busy: Sequence[tuple[int, int]]) -> bool:
    index = bisect_right(busy, (begin, _FAR)) - 1
    return index >= 0 and busy[index][1] >= end


def _bar(axis: Axis, piece: Piece) -> Bar:
    x, x_end = axis.at(piece.begin_ms), axis.at(piece.end_ms)
    told = f"{piece.what}, {span(piece.end_ms - piece.begin_ms)}"
    return Bar(x=x, width=round(max(x_end - x, 2), 1), kind=piece.kind, told=told)


def _end_ms(row: StepRow, now_ms: int) -> int:
    if row.ended_after_ms is not None:
        return row.started_at_ms + row.ended_after_ms
    return max(now_ms, row.started_at_ms)


def _pieces(row: StepRow, end_ms: int) -> list[Piece]:
    begin = row.started_at_ms
    status = STATUS_BY_CODE[row.status]
    if row.kind in _WAITS:
        return [Piece(begin, end_ms, "wait", "waits")]
    run_from = min(begin + (row.delay_ms or 0), end_ms)
    pieces = [Piece(begin, run_from, "wait", "is delayed")] if run_from > begin else []
    if run_from < end_ms or not pieces:
        times = f", {row.attempts} attempts" if row.attempts > 1 else ""
        pieces.append(Piece(run_from, end_ms, status.lower(), f"{status.lower()}{times}"))
    return pieces
