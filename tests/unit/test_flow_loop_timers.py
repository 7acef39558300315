"""The timers of a flow's event loop go to the engine, which makes them durable."""

from __future__ import annotations

import asyncio
import math

import pytest

from tests.unit.flow_loop_world import World


def test_a_timer_is_cancelled_at_the_port_once() -> None:
    """A cancelled sleep gives its timer back, however often the handle is cancelled."""
    # given
    world = World()

    # when
    handle = world.loop.call_later(5, print)
    handle.cancel()
    handle.cancel()

    # then
    assert world.started == [5]
    assert world.cancelled == [0]
    assert handle.cancelled()
    assert not world.fire_next()


def test_a_timer_that_has_fired_can_be_cancelled_without_effect() -> None:
    """asyncio.sleep does so every time."""
    world = World()
    fired: list[str] = []

    handle = world.loop.call_later(5, fired.append, "once")
    world.fire_next()
    handle.fire()
    world.loop.drain()
    handle.cancel()

    assert fired == ["once"]
    assert world.cancelled == []


@pytest.mark.parametrize("delay", [0, -1, -math.inf])
def test_a_timer_that_is_already_due_is_no_timer(delay: float) -> None:
    """It takes its turn behind what is ready."""
    world = World(now=100)
    order: list[str] = []

    world.loop.call_soon(order.append, "first")
    handle = world.loop.call_later(delay, order.append, "second")
    world.loop.call_at(100 + delay, order.append, "third")
    world.loop.drain()

    assert order == ["first", "second", "third"]
    assert world.started == []
    assert handle.when() == 100 + delay


def test_an_endless_timer_never_fires_and_takes_no_number() -> None:
    """`asyncio.sleep(math.inf)` waits until it is cancelled."""
    world = World()
    handle = world.loop.call_later(math.inf, print)
    handle.cancel()

    assert (world.started, world.cancelled) == ([], [])


def test_a_timer_of_nan_seconds_is_refused() -> None:
    """It would never be due, and no comparison would say so."""
    with pytest.raises(ValueError, match=r"NaN seconds\. Give a number"):
        World().loop.call_later(math.nan, print)


def test_the_length_of_a_timeout_survives_seconds_since_1970() -> None:
    """`when - now` would be 4.999999 or 5.0000002 there."""
    world = World(now=1_763_900_000.123)

    async def flow() -> None:
        for seconds in (0.1, 5, 3600.25):
            async with asyncio.timeout(seconds):
                await asyncio.sleep(0)

    world.run(flow())

    assert world.started == [0.1, 5, 3600.25]


def test_time_never_goes_back() -> None:
    """An event with an earlier time than the last one does not turn the flow's clock."""
    loop = World(now=10).loop

    loop.drain([12, 11])

    assert loop.time() == 12
