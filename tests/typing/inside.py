"""What the body of a flow can ask for."""

from __future__ import annotations

import asyncio
import random as plain_random
from collections.abc import Iterator
from datetime import datetime, timedelta
from typing import Any, assert_type
from uuid import UUID

from persistasaurus import (
    StepFuture,
    as_completed,
    current,
    flow,
    now,
    random,
    rng,
    sleep,
    step,
    uuid,
    wait,
    wait_for,
)
from tests.typing.flows import Approval, Signup, approval, fetch, gather_pages, lines, say, say_hello


class Order:
    @flow
    async def process(self, order_id: str) -> str:
        assert_type(await self.charge(order_id), int)
        assert_type(await wait_for(self.confirm), datetime)
        assert_type(await wait_for(self.confirm, timeout=timedelta(days=1)), datetime)
        assert_type(await self.refund(3), str)
        assert_type(await self.pack.submit(order_id), bool)
        return await self.refund.submit(1)

    @flow
    def process_sync(self, order_id: str) -> bool:
        assert_type(wait_for(self.pack), bool)
        assert_type(self.charge.submit(order_id), StepFuture[int])
        return self.pack(order_id)

    @step
    async def charge(self, order_id: str) -> int:
        return 1

    @step
    def pack(self, order_id: str) -> bool:
        return True

    @step
    async def confirm(self, at: datetime) -> datetime:
        return at

    @flow
    async def refund(self, charge_id: int) -> str:
        return ""


@flow
def sync_flow(names: list[str]) -> int:
    futures = [say.submit(name) for name in names]
    assert_type(futures, list[StepFuture[int]])
    assert_type(as_completed(futures), Iterator[StepFuture[int]])
    done, not_done = wait(futures, timeout=1, return_when="FIRST_COMPLETED")
    assert_type(done, list[StepFuture[Any]])
    assert_type(not_done, list[StepFuture[Any]])
    assert_type(fetch.submit("u").result(), bytes)
    assert_type(fetch.submit("u").result(timeout=3), bytes)
    assert_type(say_hello("a"), int)
    assert_type(say_hello.submit("a"), StepFuture[int])
    assert_type(gather_pages.submit([]).result(), list[bytes])
    assert_type(approval.wait(), Approval)
    assert_type(lines.wait(timeout=timedelta(hours=1)), list[str])
    sleep(1.5)
    sleep(timedelta(days=1))
    return sum(future.result() for future in as_completed(futures, timeout=2))


@flow
async def async_flow(urls: list[str]) -> bytes:
    assert_type(await asyncio.gather(*(fetch(url) for url in urls)), list[bytes])
    assert_type(await fetch.submit("u"), bytes)
    assert_type(await say.submit("a", count=2), int)
    assert_type(await gather_pages(urls), list[bytes])
    assert_type(await gather_pages.submit(urls), list[bytes])
    assert_type(await say_hello.submit("a"), int)
    assert_type(await approval, Approval)
    async with asyncio.timeout(10), asyncio.TaskGroup() as group:
        task = group.create_task(fetch("u"))
    return task.result()


def determinism() -> None:
    assert_type(now(), datetime)
    assert_type(random(), float)
    assert_type(rng(), plain_random.Random)
    assert_type(uuid(), UUID)
    assert_type(current().flow_id, str)
    assert_type(current().step, int)
    assert_type(current().attempt, int)
    assert_type(current().idempotency_key, str)


def refused() -> None:
    wait_for(3)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    wait_for(len)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    sleep("a day")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    say.submit(1)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    Signup.confirm.submit("now")  # type: ignore[call-overload]  # pyright: ignore[reportArgumentType, reportCallIssue]
    wait([1])  # type: ignore[list-item]  # pyright: ignore[reportArgumentType]
