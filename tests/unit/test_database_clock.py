"""The time of a database's server, as a worker far from it knows it."""

from __future__ import annotations

import pytest

from persistasaurus._clock import DatabaseClock


@pytest.fixture
def clock() -> DatabaseClock:
    """One whose steady clock stands at 10.5 seconds."""
    clock = DatabaseClock()
    clock.steady = lambda: 10.5  # type: ignore[method-assign, assignment]
    return clock


def test_a_slow_answer_makes_nothing_due_before_the_server_would_say_so(clock: DatabaseClock) -> None:
    """It showed that time at some moment in the last half second: at the latest now."""
    clock.measured(1_000_000, sent=10.0, received=10.5)

    assert clock.now_ms() == 1_000_000


def test_a_faster_answer_tells_more(clock: DatabaseClock) -> None:
    clock.measured(1_000_000, sent=10.0, received=10.5)
    clock.measured(1_000_400, sent=10.49, received=10.5)

    assert clock.now_ms() == 1_000_400


def test_a_slower_answer_tells_nothing_new(clock: DatabaseClock) -> None:
    clock.measured(1_000_400, sent=10.49, received=10.5)
    clock.measured(1_000_000, sent=10.0, received=10.5)

    assert clock.now_ms() == 1_000_400


def test_time_stands_still_rather_than_going_back(clock: DatabaseClock) -> None:
    clock.measured(1_000_000, sent=10.499, received=10.5)
    assert clock.now_ms() == 1_000_000

    clock.measured(999_000, sent=10.499, received=10.5)

    assert clock.now_ms() == 1_000_000
