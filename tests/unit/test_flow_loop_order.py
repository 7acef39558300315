"""What asyncio keeps in sets comes out in one order in every process, so that a replay goes the same way."""

from __future__ import annotations

import asyncio
import functools
import gc
import json
import os
import subprocess
import sys
import weakref
from asyncio import as_completed
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from persistasaurus._engine.loop_order import FlowGathering
from persistasaurus.errors import WrongContextError
from tests.unit import flow_loop_orders
from tests.unit.flow_loop_world import World

ROOT = Path(__file__).resolve().parents[2]
PROCESSES = 4

every_scene = pytest.mark.parametrize("scene", flow_loop_orders.SCENES)


@functools.cache
def _orders(loop: str) -> list[dict[str, Any]]:
    """Return what each of several processes saw, with other hash seeds and other addresses."""
    path = os.pathsep.join([str(ROOT), str(ROOT / "src")])
    processes = [
        subprocess.Popen(
            [sys.executable, flow_loop_orders.__file__, loop, str(seed)],
            env={**os.environ, "PYTHONHASHSEED": str(seed), "PYTHONPATH": path},
            stdout=subprocess.PIPE,
        )
        for seed in range(PROCESSES)
    ]
    return [json.loads(process.communicate()[0]) for process in processes]


@pytest.mark.peer("asyncio.wait set order")
@every_scene
def test_the_order_is_the_same_in_every_process(scene: str) -> None:
    """With other hash seeds and other addresses."""
    first, *others = (orders[scene] for orders in _orders("flow"))

    assert others == [first] * (PROCESSES - 1)


@every_scene
def test_on_asyncios_own_loop_the_order_differs(scene: str) -> None:
    """Without this, the test above would pass by comparing what cannot differ."""
    seen = {json.dumps(orders[scene]) for orders in _orders("plain")}

    assert len(seen) > 1


def test_as_completed_starts_coroutines_in_the_order_of_the_list() -> None:
    """The step numbers of a flow follow its code."""
    asked: list[int] = []

    async def ask(number: int) -> None:
        asked.append(number)

    async def flow() -> None:
        for one in as_completed([ask(number) for number in range(50)]):
            await one

    World().run(flow())

    assert asked == list(range(50))


async def _nothing() -> None:
    pass


def _call(function: Callable[[], Any]) -> Any:
    return function()


class _Remade:
    """A collection that makes new coroutines whenever it is read."""

    def __len__(self) -> int:
        return 2

    def __contains__(self, one: object) -> bool:
        return False

    def __iter__(self) -> Iterator[Any]:
        return iter([_nothing(), _nothing()])


REFUSED: dict[str, tuple[Callable[[], Any], str]] = {
    # Python 3.11 itself refuses a generator object.
    "iterator": (lambda: map(_call, [_nothing]), "a map of coroutines, which is used up by now"),
    "set": (lambda: {_nothing()}, "a set of coroutines, which has another order in every process"),
}


@pytest.mark.parametrize("what", REFUSED)
def test_as_completed_of_what_has_no_order_is_refused(what: str) -> None:
    """A list costs nothing and has an order."""
    give, message = REFUSED[what]

    async def flow() -> None:
        for one in as_completed(give()):
            await one

    with pytest.raises(TypeError) as caught:
        World().run(flow())

    assert message in str(caught.value)
    assert str(caught.value).endswith("Pass a list of coroutines, or one of tasks.")


@pytest.mark.filterwarnings("ignore:coroutine '_nothing' was never awaited:RuntimeWarning")
def test_as_completed_of_a_collection_that_makes_new_coroutines_is_refused() -> None:
    """The coroutines that it started are not those that asyncio has drawn."""

    async def flow() -> None:
        for one in as_completed(_Remade()):  # type: ignore[arg-type]
            await one

    with pytest.raises(TypeError, match="makes new coroutines whenever it is read"):
        World().run(flow())
    gc.collect()


def test_as_completed_of_finished_futures_and_coroutines_together_is_refused() -> None:
    """The finished ones' callbacks run in the order of a set in which coroutines lie by their addresses."""

    async def flow() -> None:
        finished = [asyncio.create_task(_nothing()), asyncio.create_task(_nothing())]
        await asyncio.wait(finished)
        for one in as_completed(finished):
            await one
        for one in as_completed([*finished, _nothing()]):
            await one

    with pytest.raises(TypeError, match="several finished futures and coroutines together"):
        World().run(flow())


def test_as_completed_holds_nothing_after_its_turn() -> None:
    """The list that the flow gave is the flow's to let go."""

    class Held(list[Any]):
        pass

    async def flow() -> None:
        given = Held([_nothing(), _nothing()])
        freed = weakref.ref(given)
        for one in as_completed(given):
            await one
        del given, one
        await asyncio.sleep(1)
        loop: Any = asyncio.get_running_loop()
        assert loop._completing is None
        assert freed() is None

    World().run(flow())


@pytest.mark.parametrize("made", [asyncio.Future, lambda: asyncio.Task(_nothing())])
def test_wait_refuses_futures_that_are_not_the_loops(made: Callable[[], Any]) -> None:
    """They hash by their address, and wait() returns sets."""

    async def flow() -> None:
        loop = asyncio.get_running_loop()
        foreign, own = made(), loop.create_future()
        own.set_result(None)
        try:
            await asyncio.wait([own, foreign], return_when=asyncio.FIRST_COMPLETED)
        finally:
            foreign.cancel()

    with pytest.raises(WrongContextError, match=r"made itself.+Make it by asyncio\.get_running_loop"):
        World().run(flow())


@pytest.mark.skipif(sys.version_info >= (3, 14), reason="3.14 keeps the tasks of a thread in order")
def test_a_flow_cannot_ask_for_all_tasks() -> None:
    """They come in an order that depends on the other flows of the process."""

    async def flow() -> None:
        asyncio.all_tasks()

    with pytest.raises(WrongContextError, match="Keep a list of the tasks"):
        World().run(flow())


def test_from_outside_all_tasks_shows_a_flows_tasks_until_they_are_gone() -> None:
    """A debugger sees them; asyncio's registry of the process does not keep them."""
    world = World()
    task = world.start(asyncio.sleep(1))

    assert asyncio.all_tasks(world.loop) == {task}

    world.loop.abandon()
    gone = weakref.ref(task)
    del task, world

    assert gone() is None


def test_the_first_tasks_of_many_flows_do_not_meet_in_asyncios_registry() -> None:
    """By their numbers they would all hash to 1, and each new one would be compared with all others."""
    worlds = [World() for _ in range(5)]
    registered = [world.start(asyncio.sleep(1)) for world in worlds]
    # Its name changed in 3.12.
    tasks = asyncio.tasks.__dict__.get("_scheduled_tasks", asyncio.tasks.__dict__.get("_all_tasks"))
    assert tasks is not None
    known = {hash(ref) for ref in tasks.data if ref() in registered}
    for world in worlds:
        world.loop.abandon()

    assert len(known) == 5


def test_what_gather_returns_is_a_future_of_the_loop() -> None:
    """It is made without asking the loop, and has a number all the same."""

    async def flow() -> None:
        gathering = asyncio.gather(_nothing())
        assert type(gathering) is FlowGathering
        assert hash(gathering) == gathering.number
        await gathering

    World().run(flow())


def test_gather_on_another_loop_is_asyncios() -> None:
    """Nothing outside a flow is changed."""

    async def host() -> None:
        gathering = asyncio.gather(_nothing())
        assert type(gathering) is not FlowGathering
        await gathering

    asyncio.run(host())
