"""The picture of a flow's steps along time: in proportion, but for long times in which nothing ran."""

from __future__ import annotations

import pytest

from persistasaurus._model import COMPLETE, PENDING, Kind
from persistasaurus._store.base import StepRow
from persistasaurus.web._timeline import LABELS, WIDTH, Timeline, timeline

DAY_MS = 86_400_000


def row(
    step: int, begin: int, took: int | None, *, delay: int | None = None, kind: Kind = Kind.STEP
) -> StepRow:
    status, event = (PENDING, None) if took is None else (COMPLETE, step)
    return StepRow(1, step, kind, 1, status, 1, 0, begin, took, delay, None, event, 0, None, None, None, 0)


def drawn(*rows: StepRow, now_ms: int = 10_000) -> Timeline:
    return timeline([(one, f"step {one.step}") for one in rows], begin_ms=0, now_ms=now_ms)


def test_bars_stand_in_proportion_to_their_times() -> None:
    """Twice as long is twice as wide, and one behind the other."""
    first, second = drawn(row(1, 0, 300), row(2, 300, 600)).lanes

    assert first.bars[0].x == LABELS
    assert second.bars[0].width == pytest.approx(2 * first.bars[0].width, abs=0.3)
    assert second.bars[0].x == pytest.approx(first.bars[0].x + first.bars[0].width, abs=0.3)


def test_a_delay_is_a_wait_before_the_run() -> None:
    """One lane, two bars."""
    (lane,) = drawn(row(1, 0, 900, delay=600)).lanes

    assert [bar.kind for bar in lane.bars] == ["wait", "complete"]
    assert lane.bars[0].width == pytest.approx(2 * lane.bars[1].width, abs=0.3)


def test_three_days_of_waiting_squash_nothing() -> None:
    """The wait is drawn shorter and labelled, and both steps around it can be seen."""
    picture = drawn(
        row(1, 0, 500), row(2, 500, 3 * DAY_MS, kind=Kind.WAIT_FOR), row(3, 500 + 3 * DAY_MS, 500)
    )

    assert [gap.told for gap in picture.gaps] == ["3 d"]
    for lane in (picture.lanes[0], picture.lanes[2]):
        assert lane.bars[0].width > 100
    assert all(bar.x >= LABELS and bar.x + bar.width <= WIDTH for lane in picture.lanes for bar in lane.bars)
    assert picture.marks[0][1] == "+0 ms"


def test_a_long_run_is_not_drawn_shorter() -> None:
    """Only what waits is; something ran here all the time."""
    assert drawn(row(1, 0, 10), row(2, 10, DAY_MS)).gaps == []


def test_what_has_not_ended_goes_on_until_now() -> None:
    """Also where a clock of another machine is ahead of ours."""
    running, ahead = drawn(row(1, 0, None), row(2, 20_000, None), now_ms=10_000).lanes

    assert running.bars[0].kind == "pending"
    assert running.bars[0].width > 300
    assert ahead.bars[0].x + ahead.bars[0].width <= WIDTH


def test_many_waits_leave_room_for_the_steps() -> None:
    """A hundred days of waiting are at most some three fifths of the picture."""
    rows = [row(2 * day + 1, day * DAY_MS, 2_000) for day in range(100)]
    waits = [row(2 * day + 2, day * DAY_MS + 2_000, DAY_MS - 2_000, kind=Kind.SLEEP) for day in range(100)]
    picture = drawn(*rows, *waits)

    assert len(picture.gaps) == 100
    assert sum(gap.width for gap in picture.gaps) < 0.65 * (WIDTH - LABELS)
