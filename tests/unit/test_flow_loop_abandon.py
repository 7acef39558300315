"""A flow that is dropped from memory ends without a sound and does nothing more."""

from __future__ import annotations

import asyncio
import contextvars
import gc
import logging
import sys
import warnings
import weakref
from collections.abc import Callable, Coroutine, Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from tests.unit.flow_loop_suspended import FLOWS, fail, later, not_started, sleeping
from tests.unit.flow_loop_world import World

flow_of = contextvars.ContextVar("flow_of", default="none")


@contextmanager
def _silence() -> Iterator[None]:
    """Fail where Python or asyncio warns, logs, or meets an exception that it cannot raise."""
    noise: list[object] = []

    class Listener(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            noise.append(record.getMessage())

    listener, hook = Listener(), sys.unraisablehook
    loggers = [logging.getLogger("asyncio"), logging.getLogger("persistasaurus.flow")]
    for logger in loggers:
        logger.addHandler(listener)
    sys.unraisablehook = noise.append
    try:
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            yield
            gc.collect()
    finally:
        sys.unraisablehook = hook
        for logger in loggers:
            logger.removeHandler(listener)
    assert noise == []
    assert [str(warning.message) for warning in caught] == []


def _drop(flow: Callable[[], Coroutine[Any, Any, Any]]) -> World:
    """Run a flow up to a wait and drop it from memory, in silence."""
    world = World()
    with _silence():
        world.start(flow())
        world.loop.abandon()
    return world


@pytest.mark.parametrize("flow", FLOWS, ids=lambda flow: flow.__name__)
@pytest.mark.parametrize("events", [0, 1, 2])
def test_a_dropped_flow_makes_no_noise(flow: Callable[[], Coroutine[Any, Any, Any]], events: int) -> None:
    """No pending task is reported, no coroutine missed, no exception; and no durable timer is cancelled."""
    world = World()
    with _silence():
        task = world.start(flow())
        for _ in range(events):
            world.fire_next()
        if task.done():
            task.exception()
        before = list(world.cancelled)
        world.loop.abandon()
        assert world.cancelled == before
        assert list(world.loop.unhandled) == []
        assert world.loop.is_closed()
        assert not world.loop.is_running()
        del world, task


@pytest.mark.parametrize("flow", FLOWS, ids=lambda flow: flow.__name__)
def test_without_abandon_it_would(flow: Callable[[], Coroutine[Any, Any, Any]]) -> None:
    """The listener of the test above hears what there is to hear."""
    with pytest.raises(AssertionError), _silence():
        world = World()
        world.start(flow())
        if flow is not_started:
            world.fire_next()
        del world


def test_a_task_that_never_had_a_turn_is_closed() -> None:
    """Its coroutine was made and not run."""
    world = World()
    with _silence():
        world.loop.start(sleeping(), context=contextvars.copy_context(), name="main")
        world.loop.abandon()
        world.loop.drain()


def test_clean_up_that_awaits_ends_there() -> None:
    """Nothing that needs the loop starts any more."""
    seen = []

    async def step() -> None:
        future = asyncio.get_running_loop().create_future()
        seen.append("started")
        await future

    async def flow() -> None:
        try:
            try:
                await asyncio.sleep(10)
            finally:
                seen.append("cleaning up")
                await step()
        except Exception:
            seen.append("caught")
        finally:
            await asyncio.sleep(0)
            await asyncio.sleep(1)
            seen.append("slept")

    world = _drop(flow)

    assert seen == ["cleaning up"]
    assert world.started == [10]


@pytest.mark.parametrize("ask", ["create_future", "create_task", "call_later", "call_at"])
def test_a_closed_loop_takes_nothing_on(ask: str) -> None:
    """`GeneratorExit` passes `except Exception`, and Python takes it as the end of a closed coroutine."""
    loop = _drop(sleeping).loop
    coroutine = later()
    arguments: dict[str, tuple[Any, ...]] = {
        "create_future": (),
        "create_task": (coroutine,),
        "call_later": (1, print),
        "call_at": (1, print),
    }

    with pytest.raises(GeneratorExit):
        getattr(loop, ask)(*arguments[ask])
    coroutine.close()


def test_clean_up_runs_in_the_flows_context_on_the_flows_loop() -> None:
    """A step that it calls must not pass for a plain call outside of any flow, or for the host's."""
    seen: list[object] = []

    async def child() -> None:
        flow_of.set("child")
        try:
            await asyncio.sleep(10)
        finally:
            seen.append((flow_of.get(), asyncio.get_running_loop()))

    async def numbers() -> Any:
        try:
            yield await asyncio.sleep(10)
        finally:
            seen.append((flow_of.get(), asyncio.get_running_loop()))

    async def flow() -> None:
        flow_of.set("flow")
        async with asyncio.TaskGroup() as group:
            group.create_task(child())
            # One that has ended does not keep the others from being closed.
            await group.create_task(asyncio.sleep(0))
            try:
                async for _ in numbers():
                    pass
            finally:
                seen.append((flow_of.get(), asyncio.get_running_loop()))

    world = World()

    async def host() -> None:
        loop = asyncio.get_running_loop()
        world.start(flow())
        world.loop.abandon()
        assert asyncio.get_running_loop() is loop

    with _silence():
        asyncio.run(host())

    assert set(seen) == {("child", world.loop), ("flow", world.loop)}


def test_what_an_async_generator_waits_for_is_closed_in_the_flows_context() -> None:
    """Up to 3.12 closing the coroutine that reads a generator leaves the generator as it is."""
    seen = []

    async def inner() -> None:
        try:
            await asyncio.sleep(10)
        finally:
            seen.append(flow_of.get())

    async def numbers() -> Any:
        await inner()
        yield 1

    async def flow() -> None:
        flow_of.set("flow")
        async for _ in numbers():
            pass

    _drop(flow)

    assert seen == ["flow"]


def test_memory_comes_back_without_the_garbage_collector() -> None:
    """Flows are dropped to make room, and the collector may not come by for long."""

    class Big:
        pass

    held = []

    async def flow() -> None:
        big = Big()
        tasks = [asyncio.create_task(later(10)) for _ in range(3)]
        held.extend(map(weakref.ref, [big, *tasks]))
        await asyncio.wait([asyncio.gather(*tasks), asyncio.ensure_future(later(10))])
        del big

    gc.collect()
    gc.disable()
    try:
        world = World()
        task = world.start(flow())
        held += [weakref.ref(world.loop), weakref.ref(task)]
        world.loop.abandon()
        del world, task
        alive = [ref() for ref in held if ref() is not None]
    finally:
        gc.enable()

    assert alive == []


def test_an_interrupt_in_clean_up_passes_and_the_rest_is_closed_by_the_next_call() -> None:
    """The loop takes nothing on in between."""
    world = World()
    closed = []

    async def child(number: int) -> None:
        try:
            await asyncio.sleep(10)
        finally:
            closed.append(number)
            if number == 1:
                raise KeyboardInterrupt

    async def flow() -> None:
        await asyncio.gather(*map(child, range(3)))

    with _silence():
        world.start(flow())
        with pytest.raises(KeyboardInterrupt):
            world.loop.abandon()
        assert asyncio._get_running_loop() is None
        world.loop.abandon()
        world.loop.abandon()

    assert closed == [2, 1, 0]


def test_a_late_delivery_is_lost() -> None:
    """A step may end after its flow was dropped; replay shows it then."""
    world = World()
    seen = []

    async def flow(future: asyncio.Future[None]) -> None:
        await future
        seen.append("went on")

    with _silence():
        future, other = world.loop.create_future(), world.loop.create_future()
        world.start(flow(future))
        world.loop.abandon()
        other.add_done_callback(seen.append)
        for delivered in (future, other):
            delivered.set_result(None)
        world.loop.drain()

    assert seen == []


def test_failures_that_an_ended_flow_did_not_look_at_are_reported(caplog: pytest.LogCaptureFixture) -> None:
    """Only then is it certain that nobody will."""
    world = World()

    async def flow() -> asyncio.Task[None]:
        children = [asyncio.create_task(fail(), name="seen"), asyncio.create_task(fail(), name="unseen")]
        await asyncio.wait(children)
        assert children[0].exception() is not None
        return children[1]

    task = world.start(flow())
    with caplog.at_level(logging.ERROR, "persistasaurus.flow"):
        world.loop.abandon()

    assert [context["task"] for context in world.loop.unhandled] == [task.result()]
    assert "Task exception was never retrieved (unseen)" in caplog.text
