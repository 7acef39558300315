"""Flows of every concurrent shape. Each notes what it saw, waits for a signal, and returns the notes.

Run as a script it is one life of a process: `python shapes.py DATABASE begin|end`. What it prints is what
the flows saw in that life.
"""

from __future__ import annotations

import asyncio
import json
import sys
import time
from collections.abc import Callable, Coroutine
from concurrent.futures import FIRST_COMPLETED
from typing import Any

import persistasaurus
from persistasaurus import Persistasaurus, Signal, flow, now, random, rng, step, uuid

finish = Signal("shapes-finish", str)
seen: dict[str, list[list[Any]]] = {}
"""What each shape's body saw, once for each time it ran."""

Notes = list[Any]


@step
async def pause(label: str, ms: int) -> str:
    await asyncio.sleep(ms / 1000)
    return label


@step
def hold(label: str, ms: int) -> str:
    time.sleep(ms / 1000)
    return label


@step
async def fail_after(label: str, ms: int) -> str:
    await asyncio.sleep(ms / 1000)
    raise ValueError(label)


async def gathered(notes: Notes) -> None:
    async def one(label: str, ms: int) -> str:
        value = await pause(label, ms)
        notes.append(value)
        return value

    notes.append(await asyncio.gather(one("a", 30), one("b", 10), one("c", 20)))


async def gathered_exceptions(notes: Notes) -> None:
    found = await asyncio.gather(pause("a", 20), fail_after("b", 5), return_exceptions=True)
    notes.extend(repr(one) for one in found)


async def task_group(notes: Notes) -> None:
    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(pause(label, ms)) for label, ms in (("x", 25), ("y", 5), ("z", 15))]
        for task in tasks:
            task.add_done_callback(lambda done: notes.append(done.result()))
    notes.append([task.result() for task in tasks])


async def task_group_failing(notes: Notes) -> None:
    async def slow() -> None:
        try:
            await pause("slow", 5_000)
        except asyncio.CancelledError:
            notes.append("cancelled")
            raise

    try:
        async with asyncio.TaskGroup() as group:
            group.create_task(slow())
            group.create_task(fail_after("broken", 10))
    except* ValueError as errors:
        notes.append([str(error) for error in errors.exceptions])


async def waited(notes: Notes) -> None:
    tasks = [asyncio.create_task(pause(str(n), 5 * (n % 4))) for n in range(12)]
    pending: Any = tasks
    while pending:
        done, pending = await asyncio.wait(pending, return_when=asyncio.FIRST_COMPLETED)
        notes.append([task.result() for task in done])
        notes.append(len(pending))


async def as_completed(notes: Notes) -> None:
    for next_one in asyncio.as_completed([pause(str(n), 7 * (5 - n)) for n in range(5)]):
        notes.append(await next_one)


async def race_lost(notes: Notes) -> None:
    try:
        async with asyncio.timeout(0.02):
            notes.append(await pause("late", 5_000))
    except TimeoutError:
        notes.append("timeout")
    notes.append(await pause("after", 1))


async def race_won(notes: Notes) -> None:
    async with asyncio.timeout(30):
        notes.append(await pause("in time", 5))
    notes.append(await asyncio.wait_for(pause("again", 5), 30))


async def close_race(notes: Notes) -> None:
    """The timer and the step end together: whoever won has won for ever."""
    for n in range(8):
        try:
            async with asyncio.timeout(0.02):
                notes.append(await pause(str(n), 20))
        except TimeoutError:
            notes.append(f"{n} late")


async def queued(notes: Notes) -> None:
    queue: asyncio.Queue[str] = asyncio.Queue(maxsize=2)

    async def produce(label: str, ms: int) -> None:
        for n in range(3):
            await queue.put(await pause(f"{label}{n}", ms))

    async with asyncio.TaskGroup() as group:
        group.create_task(produce("p", 3))
        group.create_task(produce("q", 5))
        for _ in range(6):
            notes.append(await queue.get())


async def locks(notes: Notes) -> None:
    lock, event, semaphore, condition = (
        asyncio.Lock(),
        asyncio.Event(),
        asyncio.Semaphore(2),
        asyncio.Condition(),
    )
    ready: list[str] = []

    async def worker(label: str, ms: int) -> None:
        await event.wait()
        async with semaphore:
            value = await pause(label, ms)
        async with lock:
            notes.append(await pause(value + "!", 1))
        async with condition:
            ready.append(label)
            condition.notify_all()

    async with asyncio.TaskGroup() as group:
        for label, ms in (("a", 12), ("b", 4), ("c", 8), ("d", 2)):
            group.create_task(worker(label, ms))
        await pause("start", 1)
        event.set()
        async with condition:
            await condition.wait_for(lambda: len(ready) == 4)
            notes.append(list(ready))


async def submitted(notes: Notes) -> None:
    futures = [hold.submit(str(n), 8 * (3 - n)) for n in range(3)]

    async def one(future: Any) -> None:
        notes.append(await future)

    await asyncio.gather(*(one(future) for future in futures))


async def sleeping(notes: Notes) -> None:
    async def one(label: str, seconds: float) -> None:
        await asyncio.sleep(seconds)
        notes.append(label)

    await asyncio.gather(one("long", 0.03), one("short", 0.01), one("none", 0), one("middle", 0.02))


async def chance(notes: Notes) -> None:
    notes.extend([now().isoformat(), random(), str(uuid()), rng().random()])
    await pause("between", 3)
    notes.extend([now().isoformat(), random(), str(uuid()), rng().choice(["a", "b", "c"])])
    notes.append(asyncio.get_running_loop().time())


def sync_as_completed(notes: Notes) -> None:
    futures = [hold.submit(str(n), 8 * (4 - n)) for n in range(4)]
    notes.extend(future.result() for future in persistasaurus.as_completed(futures))


def sync_wait(notes: Notes) -> None:
    left = [hold.submit(str(n), 6 * (n % 3)) for n in range(6)]
    while left:
        done, left = persistasaurus.wait(left, return_when=FIRST_COMPLETED)
        notes.append([future.result() for future in done])


def sync_race(notes: Notes) -> None:
    for n in range(6):
        future = hold.submit(str(n), 15)
        try:
            notes.append(future.result(timeout=0.015))
        except TimeoutError:
            notes.append(f"{n} late")
    notes.append([future.done() for future in [hold.submit("x", 1)]])


def sync_chance(notes: Notes) -> None:
    notes.extend([now().isoformat(), random(), str(uuid()), rng().random()])
    hold("between", 3)
    notes.extend([now().isoformat(), random(), str(uuid()), rng().random()])


ASYNC: dict[str, Callable[[Notes], Coroutine[Any, Any, None]]] = {
    shape.__name__: shape
    for shape in (
        gathered, gathered_exceptions, task_group, task_group_failing, waited, as_completed, race_lost,
        race_won, close_race, queued, locks, submitted, sleeping, chance,
    )
}  # fmt: skip
SYNC: dict[str, Callable[[Notes], None]] = {
    shape.__name__: shape for shape in (sync_as_completed, sync_wait, sync_race, sync_chance)
}


@flow(name="shapes.async")
async def async_shape(shape: str) -> list[Any]:
    notes: Notes = []
    await ASYNC[shape](notes)
    seen.setdefault(shape, []).append(list(notes))
    notes.append(await finish)
    return notes


@flow(name="shapes.sync")
def sync_shape(shape: str) -> list[Any]:
    notes: Notes = []
    SYNC[shape](notes)
    seen.setdefault(shape, []).append(list(notes))
    notes.append(finish.wait())
    return notes


def begin(app: Persistasaurus) -> None:
    """Start a flow of each shape and let it come as far as its wait."""
    for shape in ASYNC:
        app.start(async_shape.options(flow_id=shape), shape)
    for shape in SYNC:
        app.start(sync_shape.options(flow_id=shape), shape)
    until = time.monotonic() + 30
    while any(app.handle(shape).status() != "WAITING_FOR_SIGNAL" for shape in (*ASYNC, *SYNC)):
        if time.monotonic() > until:
            stuck = {shape: app.handle(shape).record() for shape in (*ASYNC, *SYNC)}
            raise AssertionError([(s, r.status, r.reason, r.error) for s, r in stuck.items()])
        time.sleep(0.01)


def end(app: Persistasaurus) -> dict[str, list[Any]]:
    """Send every flow the signal and return the results."""
    for shape in (*ASYNC, *SYNC):
        app.handle(shape).send(finish, "done")
    return {shape: app.handle(shape).result(30) for shape in (*ASYNC, *SYNC)}


def main(database: str, life: str) -> None:
    results: dict[str, list[Any]] = {}
    with Persistasaurus(database) as app:
        if life == "begin":
            begin(app)
        else:
            results = end(app)
    print(json.dumps({"seen": seen, "results": results}))


if __name__ == "__main__":
    main(*sys.argv[1:])
