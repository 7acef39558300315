"""Flows in the middle of something, as they are when they are dropped from memory."""

from __future__ import annotations

import asyncio
from typing import Any


async def later(delay: float = 1, result: object = None) -> object:
    await asyncio.sleep(delay)
    if isinstance(result, Exception):
        raise result
    return result


async def fail() -> None:
    raise ValueError("nobody looks at this")


async def sleeping() -> None:
    await asyncio.sleep(1000)


async def gathering() -> None:
    await asyncio.gather(later(1), later(2), asyncio.gather(later(3), later(4)))


async def grouped() -> None:
    async with asyncio.timeout(100), asyncio.TaskGroup() as group:
        group.create_task(later(10))
        await group.create_task(later(10))


async def background() -> None:
    task = asyncio.create_task(later(10))
    await asyncio.shield(task)


async def failed_child() -> None:
    child = asyncio.create_task(fail())
    await asyncio.sleep(10)
    await child


async def failed_future() -> None:
    future = asyncio.get_running_loop().create_future()
    future.set_exception(ValueError("nobody looks at this"))
    await asyncio.sleep(10)
    await future


async def not_started() -> None:
    await asyncio.sleep(1)
    asyncio.create_task(later()).add_done_callback(print)
    await asyncio.sleep(1)


async def not_awaited_yet() -> None:
    calls = {"list": [later(), later()], "one": later()}
    await asyncio.sleep(10)
    await asyncio.gather(*calls["list"], calls["one"])


async def not_awaited_deep_inside() -> None:
    async def inner(calls: tuple[Any, ...]) -> None:
        await asyncio.sleep(10)
        await asyncio.gather(*calls)

    await inner((later(), later()))


async def completing() -> None:
    for one in asyncio.as_completed([later(1), later(2), later(3)], timeout=9):
        await one


async def queueing() -> None:
    queue: asyncio.Queue[int] = asyncio.Queue()
    lock, condition = asyncio.Lock(), asyncio.Condition()
    async with lock, condition:
        await asyncio.wait_for(asyncio.wait([asyncio.ensure_future(queue.get())]), 10)


async def generating() -> None:
    async def numbers() -> Any:
        try:
            for number in range(9):
                yield await asyncio.create_task(later(1, number))
        finally:
            await asyncio.sleep(1)

    async for _ in numbers():
        async for _ in numbers():
            break


async def ignoring_cancel() -> None:
    for _ in range(20):
        try:
            await asyncio.sleep(10)
        except BaseException:
            continue


async def giving_turns_in_clean_up() -> None:
    try:
        await asyncio.sleep(10)
    finally:
        for _ in range(20):
            try:
                await asyncio.sleep(0)
            except BaseException:
                continue


async def failing_clean_up() -> None:
    try:
        await asyncio.sleep(10)
    finally:
        raise ValueError("clean-up")


FLOWS = [
    sleeping,
    gathering,
    grouped,
    background,
    failed_child,
    failed_future,
    not_started,
    not_awaited_yet,
    not_awaited_deep_inside,
    completing,
    queueing,
    generating,
    ignoring_cancel,
    giving_turns_in_clean_up,
    failing_clean_up,
]
