"""A flow's steps as bars along its time: where each goes, in a picture drawn with attributes alone."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from persistasaurus._model import STATUS_BY_CODE, Kind
from persistasaurus._store.base import StepRow
from persistasaurus.web._times import span

WIDTH = 1_000
LABELS = 230
LANE = 24
TOP = 26
_PLOT = WIDTH - LABELS - 12
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
class Timeline:
    """The picture: its height, its lanes, and the marks of its axis."""

    height: int
    lanes: Sequence[Lane]
    marks: Sequence[tuple[float, str]]


def timeline(rows: Sequence[tuple[StepRow, str]], *, begin_ms: int, now_ms: int) -> Timeline:
    """Return the picture of these steps with their names; what has not ended goes on until now."""
    ends = [_end_ms(row, now_ms) for row, _ in rows]
    last_ms = max([*ends, begin_ms + 1])
    scale = _PLOT / (last_ms - begin_ms)

    def at(ms: int) -> float:
        return round(LABELS + max(ms - begin_ms, 0) * scale, 1)

    lanes = [
        Lane(
            y=TOP + index * LANE,
            label=f"{row.step} {name}",
            bars=[
                Bar(
                    x=at(begin),
                    width=round(max(at(end) - at(begin), 2), 1),
                    kind=kind,
                    told=f"{what}, {span(end - begin)}",
                )
                for begin, end, kind, what in _pieces(row, end_ms)
            ],
        )
        for index, ((row, name), end_ms) in enumerate(zip(rows, ends, strict=True))
    ]
    quarter = (last_ms - begin_ms) / 4
    marks = [(round(LABELS + _PLOT * part / 4, 1), f"+{span(quarter * part)}") for part in range(4)]
    return Timeline(height=TOP + len(rows) * LANE + 6, lanes=lanes, marks=marks)


def _end_ms(row: StepRow, now_ms: int) -> int:
    if row.ended_after_ms is not None:
        return row.started_at_ms + row.ended_after_ms
    return max(now_ms, row.started_at_ms)


def _pieces(row: StepRow, end_ms: int) -> list[tuple[int, int, str, str]]:
    begin = row.started_at_ms
    status = STATUS_BY_CODE[row.status]
    if row.kind in _WAITS:
        return [(begin, end_ms, "wait", "waits")]
    run_from = min(begin + (row.delay_ms or 0), end_ms)
    pieces = [(begin, run_from, "wait", "is delayed")] if run_from > begin else []
    if run_from < end_ms or not pieces:
        times = f", {row.attempts} attempts" if row.attempts > 1 else ""
        pieces.append((run_from, end_ms, status.lower(), f"{status.lower()}{times}"))
    return pieces
