"""What a flow's event loop cannot do is an error with a cure, and never a hang."""

from __future__ import annotations

import asyncio
import gc
import inspect
import warnings
from typing import Any

import pytest

from persistasaurus._engine.loop_refusals import refuse_the_rest
from persistasaurus.errors import WrongContextError
from tests.unit.flow_loop_world import World

ALLOWED = {
    "call_at",
    "call_exception_handler",
    "call_later",
    "call_soon",
    "create_future",
    "create_task",
    "default_exception_handler",
    "get_debug",
    "get_exception_handler",
    "get_task_factory",
    "is_closed",
    "is_running",
    "time",
}
METHODS = {name for name, value in vars(asyncio.AbstractEventLoop).items() if inspect.isfunction(value)}


@pytest.mark.parametrize("name", sorted(name for name in METHODS - ALLOWED if not name.startswith("_")))
def test_whatever_else_a_loop_can_do_is_refused(name: str) -> None:
    """The message says what, why, and what to do instead."""
    with pytest.raises(WrongContextError, match=r"An async flow cannot [\w .()]+: [\w ,]+\. [A-Z].+\.$"):
        getattr(World().loop, name)()


def test_a_method_of_a_later_python_is_refused_too(monkeypatch: pytest.MonkeyPatch) -> None:
    """A loop that cannot do something must not do it by chance."""
    monkeypatch.setattr(asyncio.AbstractEventLoop, "teleport", lambda self: None, raising=False)

    @refuse_the_rest
    class Later(asyncio.AbstractEventLoop):
        pass

    with pytest.raises(WrongContextError, match=r"cannot use loop\.teleport\(\): its body is replayed"):
        Later().teleport()


REFUSED = {
    "to_thread": (lambda: asyncio.to_thread(print), "run code in a thread or an executor"),
    "open_connection": (lambda: asyncio.open_connection("localhost", 1), "open a connection"),
    "start_server": (lambda: asyncio.start_server(print, port=0), "start a server"),
    "subprocess": (lambda: asyncio.create_subprocess_exec("true"), "start a process"),
}


@pytest.mark.parametrize("what", REFUSED)
def test_asyncios_functions_reach_the_refusal(what: str) -> None:
    """An error with a cure, and never a hang."""
    function, message = REFUSED[what]

    async def flow() -> None:
        await function()

    expected = f"An async flow cannot {message}: its body is replayed after a crash. Do this in a step."
    with pytest.raises(WrongContextError) as caught:
        World().run(flow())
    assert str(caught.value) == expected


def test_a_flow_cannot_run_another_loop() -> None:
    """asyncio refuses this itself; nothing is left behind that was never awaited."""

    async def flow() -> None:
        loop = asyncio.get_running_loop()
        coroutine = asyncio.sleep(1)
        with pytest.raises(RuntimeError, match="running event loop"):
            asyncio.run(coroutine)
        coroutine.close()
        with pytest.raises(WrongContextError, match="Await the coroutine instead"):
            loop.run_until_complete(asyncio.sleep(1))

    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        World().run(flow())
        gc.collect()
    assert caught == []


def test_a_task_is_made_of_a_coroutine_and_takes_its_turn() -> None:
    """Anything else is a TypeError, as in asyncio; an eager start is refused."""

    async def flow() -> None:
        loop: Any = asyncio.get_running_loop()
        with pytest.raises(TypeError, match="a coroutine was expected"):
            await loop.create_task(print)
        with pytest.raises(WrongContextError, match="Leave out eager_start"):
            await loop.create_task(asyncio.sleep(1), eager_start=True)
        await loop.create_task(asyncio.sleep(1), eager_start=False)

    World().run(flow())
