"""The engine drives a flow's event loop, from inside another loop or from a plain thread."""

from __future__ import annotations

import asyncio
import contextvars
import gc
import logging
import sys
import threading
import tracemalloc
from typing import Any

import pytest

from persistasaurus._engine.loop import FlowLoop
from tests.unit.flow_loop_world import World, run_plainly


def test_the_flow_goes_on_at_a_delivery_and_stops_at_its_next_wait() -> None:
    """One result, one drain."""
    # given
    world = World()
    futures = [world.loop.create_future() for _ in range(3)]
    seen = []

    async def flow() -> None:
        for future in futures:
            seen.append(await future)

    world.start(flow())

    # when
    futures[1].set_result("b")
    world.loop.drain()

    # then
    assert seen == []

    # when
    futures[0].set_result("a")
    world.loop.drain()

    # then
    assert seen == ["a", "b"]
    world.loop.abandon()


def test_many_deliveries_share_one_way_in_and_the_flow_runs_after_each() -> None:
    """A replay delivers its recorded events so."""
    world = World()
    futures = [world.loop.create_future() for _ in range(3)]
    seen: list[object] = []

    async def flow() -> None:
        for number, future in enumerate(futures):
            await future
            seen.append(number)

    def deliver() -> Any:
        for future in futures:
            future.set_result(None)
            yield 0
            seen.append("next")

    world.start(flow())
    world.loop.drain(deliver())

    assert seen == [0, "next", 1, "next", 2, "next"]


def _drive_a_flow() -> None:
    async def flow() -> tuple[object, bool]:
        loop = asyncio.get_running_loop()
        await asyncio.sleep(1)
        return loop, loop.is_running()

    world = World()
    assert not world.loop.is_running()
    assert world.run(flow()) == (world.loop, True)
    assert not world.loop.is_running()


@pytest.mark.parametrize("where", ["callback", "task"])
def test_a_flow_driven_inside_another_loop_leaves_that_loop_running(where: str) -> None:
    """The host's loop, task and async generator hooks are the host's again."""

    async def host() -> None:
        loop = asyncio.get_running_loop()
        before = loop, asyncio.current_task(), sys.get_asyncgen_hooks()
        if where == "callback":
            done = loop.create_future()
            loop.call_soon(lambda: done.set_result((_drive_a_flow(), asyncio.get_running_loop())))
            assert (await done)[1] is loop
        else:
            _drive_a_flow()
        assert (asyncio.get_running_loop(), asyncio.current_task(), sys.get_asyncgen_hooks()) == before

    asyncio.run(host(), debug=True)


def test_a_flow_may_be_driven_in_a_thread_without_a_loop() -> None:
    """Afterwards the thread has no loop again."""
    left: list[object] = []

    def drive() -> None:
        _drive_a_flow()
        left.append(asyncio._get_running_loop())
        left.append(sys.get_asyncgen_hooks().firstiter)

    thread = threading.Thread(target=drive)
    thread.start()
    thread.join()

    assert left == [None, None]


def test_a_flow_cannot_drive_its_own_loop() -> None:
    """A drain inside a drain would run tasks in the middle of another's turn."""

    async def flow() -> None:
        loop: Any = asyncio.get_running_loop()
        for drive in (loop.drain, loop.abandon):
            with pytest.raises(RuntimeError, match="driven from inside the flow"):
                drive()

    World().run(flow())


def test_a_failing_callback_is_reported_and_the_next_one_runs(caplog: pytest.LogCaptureFixture) -> None:
    """As on asyncio's own loop."""
    world = World()
    seen: list[str] = []

    def fail() -> None:
        raise ValueError("broken")

    world.loop.call_soon(fail)
    world.loop.call_soon(seen.append, "next")
    with caplog.at_level(logging.ERROR, "persistasaurus.flow"):
        world.loop.drain()

    assert seen == ["next"]
    assert [str(context["exception"]) for context in world.loop.unhandled] == ["broken"]
    assert "Exception in callback" in caplog.text


@pytest.mark.parametrize("stop", [KeyboardInterrupt, SystemExit])
def test_an_interrupt_leaves_the_loop_as_it_was_and_the_rest_ready(stop: type[BaseException]) -> None:
    """Whoever catches it may drain again."""
    world = World()
    seen: list[str] = []

    def interrupt() -> None:
        raise stop

    for name in "ab":
        world.loop.call_soon(seen.append, name)
    world.loop.call_soon(interrupt)
    world.loop.call_soon(world.loop.call_soon, seen.append, "e")
    for name in "cd":
        world.loop.call_soon(seen.append, name)
    with pytest.raises(stop):
        world.loop.drain()

    assert seen == ["a", "b"]
    assert asyncio._get_running_loop() is None
    assert not world.loop.is_running()

    world.loop.drain()

    assert seen == ["a", "b", "c", "d", "e"]


def test_callbacks_and_tasks_run_in_their_context() -> None:
    """A child starts with its parent's context; what it sets there, the parent does not see."""
    variable = contextvars.ContextVar("variable", default="outside")

    async def child() -> str:
        before = variable.get()
        variable.set("child")
        return before

    async def flow() -> object:
        variable.set("flow")
        own = contextvars.copy_context()
        own.run(variable.set, "own")
        loop = asyncio.get_running_loop()
        seen = [await asyncio.create_task(child()), await loop.create_task(child(), context=own)]
        loop.call_soon(lambda: seen.append(variable.get()), context=own)
        await asyncio.sleep(1)
        return [*seen, variable.get()]

    assert World().run(flow()) == ["flow", "own", "child", "flow"]
    assert variable.get() == "outside"


def test_debug_mode_and_origin_tracking_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """asyncio's debug mode follows a variable and a setting of the interpreter."""

    async def flow() -> list[str]:
        return await asyncio.gather(*(asyncio.sleep(delay, str(delay)) for delay in (3, 1, 2)))

    monkeypatch.setenv("PYTHONASYNCIODEBUG", "1")
    depth = sys.get_coroutine_origin_tracking_depth()
    sys.set_coroutine_origin_tracking_depth(5)
    try:
        assert World().run(flow()) == run_plainly(flow())
    finally:
        sys.set_coroutine_origin_tracking_depth(depth)


def test_a_task_that_nobody_holds_is_not_collected() -> None:
    """asyncio holds tasks weakly: in a cycle, one would end whenever the garbage collector comes by."""
    ended = []

    async def background() -> None:
        future = asyncio.get_running_loop().create_future()
        try:
            await future
        finally:
            ended.append("collected")

    async def flow() -> None:
        asyncio.create_task(background())  # noqa: RUF006 - this is what the test is about
        await asyncio.sleep(1)
        gc.collect()
        await asyncio.sleep(1)
        assert ended == []

    World().run(flow())


def test_finished_tasks_and_generators_are_let_go() -> None:
    """A flow of many short tasks holds a few of them at a time."""

    async def short() -> Any:
        yield 1

    async def child() -> None:
        async for _ in short():
            await asyncio.sleep(0)

    async def flow() -> tuple[int, int]:
        for _ in range(500):
            await asyncio.create_task(child())
        loop: Any = asyncio.get_running_loop()
        return len(list(loop._tasks)), len(list(loop._generators))

    held = World().run(flow())

    assert max(held) <= 16


def test_an_async_generator_that_is_left_open_is_not_finished_by_the_collector() -> None:
    """Its `finally` would run at a moment that no replay could repeat."""
    ended = []

    async def numbers() -> Any:
        try:
            yield 1
            yield 2
        finally:
            ended.append("finished")

    async def flow() -> None:
        async for _ in numbers():
            break
        gc.collect()
        await asyncio.sleep(1)

    World().run(flow())
    gc.collect()

    assert ended == []


def test_a_suspended_flow_takes_about_three_kilobytes() -> None:
    """Idle flows are kept in memory while there is room: a million in a few gigabytes."""

    async def flow() -> None:
        await asyncio.sleep(1000)

    warm = [World() for _ in range(10)]
    for world in warm:
        world.start(flow())
    kept = []
    tracemalloc.start()
    for _ in range(200):
        loop = FlowLoop(warm[0], now=0.0)
        loop.start(flow(), context=contextvars.copy_context(), name="main")
        loop.drain()
        kept.append(loop)
    size = tracemalloc.get_traced_memory()[0] / len(kept)
    tracemalloc.stop()
    for loop in [*kept, *(world.loop for world in warm)]:
        loop.abandon()

    assert size < 4000
