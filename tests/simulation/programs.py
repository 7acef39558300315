"""Flows that do what a random program says, the programs, and a model of what they must come to.

A program is a list of operations as JSON, and is the flow's input. Its result is the list of what each
operation gave. The model says it without any engine; it also says which rows the log must hold.
"""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from datetime import timedelta
from typing import Any

from persistasaurus import Retry, Signal, as_completed, current, flow, now, sleep, step, wait, wait_for
from tests.simulation import world

Body = list[Any]

STUBBORN = Retry(attempts=1_000, wait=0.01, backoff=1.0)
news = Signal("news", str)
never = Signal("never", str)


class Boom(Exception):
    pass


@step
def work(n: int) -> str:
    return world.effect(n)


@step
async def async_work(n: int) -> str:
    return world.effect(n)


@step
async def slow(n: int, ms: int) -> str:
    world.begin_effect()
    await asyncio.sleep(ms / 1000)
    return world.end_effect(n)


@step(delay=timedelta(milliseconds=30))
def delayed(n: int) -> str:
    return world.effect(n)


@step
def fail(n: int) -> str:
    world.begin_effect()
    raise Boom(n)


@step(retry=Retry(attempts=2, wait=0.01))
def exhaust(n: int) -> str:
    world.begin_effect()
    raise Boom(n)


@step(retry=STUBBORN)
def flaky(n: int) -> str:
    world.begin_effect()
    if current().attempt < 3:
        raise Boom(n)
    return world.end_effect(n)


@step
def hopeless(n: int) -> str:
    world.begin_effect()
    if not world.is_reopened():
        raise Boom(n)
    return world.end_effect(n)


@step
def confirm(name: str) -> str:
    return world.effect(name)


@step
async def async_confirm(name: str) -> str:
    return world.effect(name)


# A flow of each colour, and how it does each operation.


@flow
async def run_async(body: Body) -> Body:
    return await Async(world.trace()).run(body)


@flow
def run_sync(body: Body) -> Body:
    return Sync(world.trace()).run(body)


FLOWS: dict[str, Any] = {"async": run_async, "sync": run_sync}
_STEPS = (work, async_work, slow, delayed, fail, exhaust, flaky, hopeless, confirm, async_confirm)
NAMES = ["timer", "sleep", news.name, never.name, *(one.__name__ for one in (*_STEPS, *FLOWS.values()))]
"""All that a log may hold."""


class Async:
    """Does the operations in an async flow."""

    def __init__(self, trace: list[Any]) -> None:
        self._trace = trace

    async def run(self, body: Body) -> Body:
        return [self._note(kind, await getattr(self, kind)(*given)) for kind, *given in body]

    def _note(self, kind: str, value: Any) -> Any:
        world.check_alive()
        self._trace.append((kind, value, now().isoformat()))
        return value

    async def step(self, n: int) -> str:
        return world.saw(await async_work(n))

    async def other_step(self, n: int) -> str:
        return world.saw(await work.submit(n))

    async def slow(self, n: int, ms: int) -> str:
        return world.saw(await slow(n, ms))

    async def delayed(self, n: int) -> str:
        return world.saw(await delayed.submit(n))

    async def flaky(self, n: int) -> str:
        return world.saw(await flaky.submit(n))

    async def hopeless(self, n: int) -> str:
        return world.saw(await hopeless.submit(n))

    async def fail(self, n: int) -> str:
        try:
            return await fail.submit(n)
        except Boom as error:
            return f"failed:{error}"

    async def exhaust(self, n: int) -> str:
        try:
            return await exhaust.submit(n)
        except Boom as error:
            return f"failed:{error}"

    async def sleep(self, ms: int) -> str:
        await asyncio.sleep(ms / 1000)
        return "slept"

    async def signal(self) -> str:
        return await news

    async def no_signal(self, ms: int) -> str:
        try:
            async with asyncio.timeout(ms / 1000):
                return await never
        except TimeoutError:
            return "timeout"

    async def confirm(self) -> str:
        return world.saw(await wait_for(async_confirm))

    async def child(self, colour: str, body: Body) -> Body:
        return await FLOWS[colour].submit(body)

    async def gather(self, bodies: list[Body]) -> Body:
        return list(await asyncio.gather(*(self.run(body) for body in bodies)))

    async def race(self, body: Body) -> Body:
        """Against what never comes."""
        running = asyncio.create_task(self.run(body))
        idle = asyncio.ensure_future(self._never())
        await asyncio.wait([idle, running], return_when=asyncio.FIRST_COMPLETED)
        idle.cancel()
        return running.result()

    async def _never(self) -> str:
        return await never

    async def first(self, bodies: list[Body]) -> str:
        """A race that any may win."""
        running = [asyncio.create_task(self.run(body)) for body in bodies]
        done, late = await asyncio.wait(running, return_when=asyncio.FIRST_COMPLETED)
        self._note("won", [running.index(task) for task in done])
        for task in late:
            task.cancel()
        await asyncio.gather(*late, return_exceptions=True)
        return "raced"

    async def limited(self, ms: int, body: Body) -> str:
        """What may or may not be in time."""
        try:
            async with asyncio.timeout(ms / 1000):
                await self.run(body)
        except TimeoutError:
            self._note("late", None)
        return "limited"

    async def tidy(self, body: Body, n: int) -> Body:
        """Also where it is cancelled."""
        try:
            value = await self.run(body)
        except (Exception, asyncio.CancelledError):
            world.saw(await async_work(n))
            raise
        world.saw(await async_work(n))
        return value


class Sync:
    """Does the operations in a sync flow."""

    def __init__(self, trace: list[Any]) -> None:
        self._trace = trace

    def run(self, body: Body) -> Body:
        return [self._note(kind, getattr(self, kind)(*given)) for kind, *given in body]

    def _note(self, kind: str, value: Any) -> Any:
        world.check_alive()
        self._trace.append((kind, value, now().isoformat()))
        return value

    def step(self, n: int) -> str:
        return world.saw(work(n))

    def other_step(self, n: int) -> str:
        return world.saw(async_work.submit(n).result())

    def slow(self, n: int, ms: int) -> str:
        return world.saw(slow.submit(n, ms).result())

    def delayed(self, n: int) -> str:
        return world.saw(delayed(n))

    def flaky(self, n: int) -> str:
        return world.saw(flaky(n))

    def hopeless(self, n: int) -> str:
        return world.saw(hopeless(n))

    def fail(self, n: int) -> str:
        try:
            return fail(n)
        except Boom as error:
            return f"failed:{error}"

    def exhaust(self, n: int) -> str:
        try:
            return exhaust(n)
        except Boom as error:
            return f"failed:{error}"

    def sleep(self, ms: int) -> str:
        sleep(ms / 1000)
        return "slept"

    def signal(self) -> str:
        return news.wait()

    def no_signal(self, ms: int) -> str:
        try:
            return never.wait(timeout=ms / 1000)
        except TimeoutError:
            return "timeout"

    def confirm(self) -> str:
        return world.saw(wait_for(confirm))

    def child(self, colour: str, body: Body) -> Body:
        return FLOWS[colour].submit(body).result()

    def submits(self, numbers: list[int]) -> Body:
        futures = [slow.submit(n, n % 7) if n % 2 else work.submit(n) for n in numbers]
        first = [f.result() for f in wait(futures, return_when="FIRST_COMPLETED").done]
        self._note("first", first)
        came = [world.saw(future.result()) for future in as_completed(futures)]
        return sorted(came, key=lambda value: value.partition(":")[2])

    def tidy(self, body: Body, n: int) -> Body:
        try:
            value = self.run(body)
        except Exception:
            world.saw(work(n))
            raise
        world.saw(work(n))
        return value


# Programs.

_PLAIN = ("step", "other_step", "slow", "delayed", "flaky", "fail", "exhaust", "sleep", "no_signal")
_OUTSIDE = ((), ("signal",), ("signal", "signal"), ("confirm",), ("hopeless",), ("hopeless", "signal"))
_NESTED = {
    "async": ("gather", "race", "first", "limited", "child", "tidy"),
    "sync": ("submits", "child", "tidy"),
}


class Maker:
    """Makes programs."""

    def __init__(self, rng: random.Random) -> None:
        self._rng = rng
        self._count = 0

    def program(self, colour: str) -> Body:
        """Return a program for a flow that somebody looks after."""
        body = self.body(colour, depth=2, length=4)
        for kind in self._rng.choice(_OUTSIDE):
            given = [self._number()] if kind == "hopeless" else []
            body.insert(self._rng.randint(0, len(body)), [kind, *given])
        return body

    def body(self, colour: str, *, depth: int, length: int = 2) -> Body:
        """Return a program of which every operation comes to its end by itself."""
        kinds = _PLAIN + (_NESTED[colour] if depth else ())
        return [
            self._operation(self._rng.choice(kinds), colour, depth - 1)
            for _ in range(self._rng.randint(1, length))
        ]

    def _number(self) -> int:
        self._count += 1
        return self._count

    def _operation(self, kind: str, colour: str, depth: int) -> list[Any]:
        rng = self._rng
        match kind:
            case "sleep" | "no_signal":
                given: list[Any] = [rng.choice([1, 20, 100])]
            case "slow":
                given = [self._number(), rng.choice([0, 1, 30])]
            case "submits":
                given = [[self._number() for _ in range(rng.randint(1, 3))]]
            case "child":
                other = rng.choice(["async", "sync"])
                given = [other, self.body(other, depth=depth)]
            case "gather" | "first" | "race" | "limited" | "tidy":
                given = self._nested(kind, colour, depth)
            case _:
                given = [self._number()]
        return [kind, *given]

    def _nested(self, kind: str, colour: str, depth: int) -> list[Any]:
        rng = self._rng
        if kind == "gather" and rng.random() < 0.3:
            # Of an idle flow they are all due in one moment.
            return [[[["delayed", self._number()]] for _ in range(rng.randint(2, 4))]]
        if kind in ("gather", "first"):
            return [[self.body(colour, depth=depth) for _ in range(rng.randint(1, 3))]]
        if kind == "limited":
            return [rng.choice([1, 25, 100]), self.body(colour, depth=depth)]
        return [self.body(colour, depth=depth), *([self._number()] if kind == "tidy" else [])]


# The model.


def expected(body: Body) -> Body:
    """Return what a program must come to."""
    return [_expected(kind, given) for kind, *given in body]


_ALWAYS = {
    "sleep": "slept",
    "no_signal": "timeout",
    "signal": "news",
    "confirm": "news",
    "first": "raced",
    "limited": "limited",
}


def _expected(kind: str, given: list[Any]) -> Any:
    if kind in _ALWAYS:
        return _ALWAYS[kind]
    match kind:
        case "fail" | "exhaust":
            return f"failed:{given[0]}"
        case "submits":
            return sorted(map(str, given[0]))
        case "gather":
            return [expected(body) for body in given[0]]
        case "race" | "tidy":
            return expected(given[0])
        case "child":
            return expected(given[1])
        case _:
            return str(given[0])


def plain(value: Any) -> Any:
    """Return a result without what depends on how often which step was tried."""
    if isinstance(value, list):
        return [plain(each) for each in value]
    return value if value.startswith("failed:") else value.rpartition(":")[2]


Rows = Counter[tuple[str, str]]


def rows(body: Body, colour: str) -> tuple[Rows, Rows] | None:
    """Return the rows by name and status that a flow's log must hold, and those that it may hold.

    None where that depends on who is first.
    """
    must: Rows = Counter()
    may: Rows = Counter()
    for kind, *given in body:
        if kind in ("first", "limited"):
            return None
        _own_rows(kind, given, colour, must, may)
        for inner in _inside(kind, given):
            found = rows(inner, colour)
            if found is None:
                return None
            must += found[0]
            may += found[1]
    return must, may


def _inside(kind: str, given: list[Any]) -> list[Body]:
    if kind == "gather":
        bodies: list[Body] = given[0]
        return bodies
    return [given[0]] if kind in ("race", "tidy") else []


_ROW_OF: dict[str, dict[str, tuple[str, str] | None]] = {
    "async": {
        "step": ("async_work", "COMPLETE"),
        "tidy": ("async_work", "COMPLETE"),
        "other_step": ("work", "COMPLETE"),
        "sleep": ("timer", "COMPLETE"),
        "no_signal": ("timer", "COMPLETE"),
        "confirm": ("async_confirm", "COMPLETE"),
        "race": None,
        "gather": None,
    },
    "sync": {
        "step": ("work", "COMPLETE"),
        "tidy": ("work", "COMPLETE"),
        "other_step": ("async_work", "COMPLETE"),
        "no_signal": ("never", "FAILED"),
        "submits": None,
    },
}
_OF_BOTH = {"fail": ("fail", "FAILED"), "exhaust": ("exhaust", "FAILED"), "signal": ("news", "COMPLETE")}


def _own_rows(kind: str, given: list[Any], colour: str, must: Rows, may: Rows) -> None:
    known = {**_OF_BOTH, **_ROW_OF[colour]}
    if kind == "child":
        must[f"run_{given[0]}", "COMPLETE"] += 1
        return
    row = known.get(kind, (kind, "COMPLETE"))
    if row is not None:
        must[row] += 1
    if kind == "submits":
        must.update(("slow" if n % 2 else "work", "COMPLETE") for n in given[0])
    if colour == "async" and kind in ("no_signal", "race"):
        may["never", "CANCELLED"] += 1
