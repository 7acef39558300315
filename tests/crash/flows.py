"""The flows that are killed: every form of durable operation, sync and async."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from datetime import timedelta
from typing import Any

from reporting import report_effect, report_end, saw

from persistasaurus import Retry, Signal, as_completed, current, flow, sleep, step, wait, wait_for
from persistasaurus.testing import effect

FOREVER = Retry(attempts=1_000, wait=0.01, backoff=1.0)
SIGNALS = 3
news = Signal("news", str)


class Flaky(Exception):
    pass


@step
def work(ms: int) -> str:
    with effect():
        value = report_effect()
        time.sleep(ms / 1000)
        return report_end(value)


@step
async def async_work(ms: int) -> str:
    with effect():
        value = report_effect()
        await asyncio.sleep(ms / 1000)
        return report_end(value)


@step(delay=timedelta(milliseconds=30))
def delayed(ms: int) -> str:
    return work(ms)


@step(retry=FOREVER)
def flaky(ms: int) -> str:
    value = report_effect()
    time.sleep(ms / 1000)
    if current().attempt < 3:
        raise Flaky
    return report_end(value)


@step(retry=FOREVER)
async def async_flaky(ms: int) -> str:
    value = report_effect()
    await asyncio.sleep(ms / 1000)
    if current().attempt < 3:
        raise Flaky
    return report_end(value)


@step
def hopeless(ms: int) -> str:
    report_effect()
    time.sleep(ms / 1000)
    raise ValueError("Uh oh")


@step
def confirm(name: str) -> str:
    return report_end(f"{report_effect()} {name}")


@step
async def async_confirm(name: str) -> str:
    return report_end(f"{report_effect()} {name}")


@flow
def sequence(ms: int) -> list[str]:
    return [saw(work(ms)) for _ in range(5)]


@flow
async def async_sequence(ms: int) -> list[str]:
    return [saw(await async_work(ms)) for _ in range(5)]


@flow
def submits(ms: int) -> list[str]:
    futures = [work.submit(ms * n) for n in range(4)]
    first = wait(futures, return_when="FIRST_COMPLETED").done
    return [saw(f.result()) for f in first] + [saw(f.result()) for f in as_completed(futures)]


@flow
async def gathers(ms: int) -> list[str]:
    seen = [saw(v) for v in await asyncio.gather(async_work(ms), work.submit(ms), async_work(0))]
    race = [asyncio.ensure_future(async_work(n * ms)) for n in range(3)]
    done, late = await asyncio.wait(race, return_when=asyncio.FIRST_COMPLETED)
    seen += [saw(task.result()) for task in done]
    for task in late:
        task.cancel()
    return [*seen, saw(await async_work(ms))]


@flow
def sleeps(ms: int) -> list[str]:
    seen = [saw(work(ms))]
    sleep(0.05)
    seen.append(saw(delayed(ms)))
    sleep(0.3)
    return [*seen, saw(work(ms))]


@flow
async def async_sleeps(ms: int) -> list[str]:
    seen = [saw(await async_work(ms))]
    await asyncio.sleep(0.05)
    try:
        async with asyncio.timeout(0.1):
            await asyncio.sleep(60)
    except TimeoutError:
        seen.append(saw(await async_work(ms)))
    return [*seen, saw(await delayed.submit(ms))]


@flow
def delays(ms: int) -> list[str]:
    return [saw(delayed(ms)) for _ in range(5)]


@flow
def listens(ms: int) -> list[str]:
    seen = []
    for _ in range(SIGNALS):
        seen += [news.wait(), saw(work(ms))]
    return seen


@flow
async def async_listens(ms: int) -> list[str]:
    seen = []
    for _ in range(SIGNALS):
        seen += [await news, saw(await async_work(ms))]
    return seen


@flow
def confirms(ms: int) -> list[str]:
    return [saw(work(ms)), saw(wait_for(confirm)), saw(work(ms))]


@flow
async def async_confirms(ms: int) -> list[str]:
    return [saw(await async_work(ms)), saw(await wait_for(async_confirm)), saw(await async_work(ms))]


@flow
def retries(ms: int) -> list[str]:
    return [saw(flaky(ms)), saw(work(ms))]


@flow
async def async_retries(ms: int) -> list[str]:
    return list(map(saw, await asyncio.gather(async_flaky(ms), async_work(ms))))


@flow
def catches(ms: int) -> list[str]:
    try:
        hopeless(ms)
    except ValueError as error:
        return [str(error), saw(work(ms))]
    return []


@flow
def fails(ms: int) -> str:
    saw(work(ms))
    return hopeless(ms)


@flow
def parent(ms: int) -> list[str]:
    early = async_sequence.submit(ms)
    return [saw(work(ms)), *sequence(ms), *early.result()]


@flow
async def async_parent(ms: int) -> list[str]:
    seen = await asyncio.gather(async_sequence(ms), sequence.submit(ms), async_work(ms))
    return [*seen[0], *seen[1], saw(seen[2])]


KINDS: dict[str, Any] = {
    one.__name__: one
    for one in (
        *(sequence, async_sequence, submits, gathers, sleeps, async_sleeps, listens, async_listens),
        *(confirms, async_confirms, retries, async_retries, catches, fails, parent, async_parent),
    )
}
RESUMED: dict[str, Callable[..., Any]] = {"confirms": confirm, "async_confirms": async_confirm}
