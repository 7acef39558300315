"""Stories of a few processes, each told by one or two tests."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
import time
from collections.abc import Callable, Generator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from flows import KINDS, async_sequence, delays, news, sequence
from reporting import report, report_effect, report_end, saw

from persistasaurus import FlowConflict, FlowParked, Persistasaurus, StoreError, current, flow, sleep, step
from persistasaurus._engine.engine import Engine


class Hello:
    """The story of the README of the Java original."""

    broken = False

    @flow
    def say_hello(self) -> int:
        return sum(int(saw(self.say("World", n)).rpartition(" ")[2]) for n in range(5))

    @step
    def say(self, name: str, count: int) -> str:
        value = report_effect()
        if self.broken and count == 2:
            raise RuntimeError("Uh oh")
        return report_end(f"{value} Hello, {name} {count}")


def hello(db: str, *, broken: bool) -> None:
    Hello.broken = broken
    with Persistasaurus(db) as app:
        result = app.get_flow(Hello, "hello").run(lambda f: f.say_hello())
        report("result", flow="hello", value=result)


@flow
async def once(ms: int) -> list[str]:
    return await async_sequence(ms)


def racers(db: str, count: int, ms: int, go: str) -> None:
    """Start one id many times at once, when the file `go` is there."""

    async def race(app: Persistasaurus) -> None:
        try:
            handle = await app.start_async(once.options(flow_id="one"), ms)
        except FlowConflict:
            report("conflict")
            return
        report("started", flow="one")
        report("result", flow="one", value=await handle)

    async def main() -> None:
        async with Persistasaurus(db) as app:
            report("ready")
            _until(Path(go).exists)
            await asyncio.gather(*(race(app) for _ in range(count)))

    asyncio.run(main())


def drive(db: str, lease: float, flow_ids: list[str], ms: int, *, weak: bool = False) -> None:
    """Start flows of short steps and see them through, with a short lease; `weak` is without its deadline."""
    if weak:
        Engine.may_start = lambda engine: not engine.stopping  # type: ignore[method-assign]
    with Persistasaurus(db, lease=lease, drain=0.2) as app:
        report("ready")
        handles = []
        for number, flow_id in enumerate(flow_ids):
            chosen = (sequence, async_sequence, delays)[number % 3]
            handles.append(app.start(chosen.options(flow_id=flow_id), ms))
            report("started", flow=flow_id)
        for handle in handles:
            report("result", flow=handle.flow_id, value=handle.result(timeout=30))


@step
def deadly(*, armed: bool) -> str:
    value = report_effect()
    if armed:
        os.kill(os.getpid(), signal.SIGKILL)
    return report_end(value)


@flow
def poison(name: str) -> str:
    return saw(deadly(armed="CRASH_DEFUSED" not in os.environ))


def poisoned(db: str, innocents: int, *, defused: bool = False) -> None:
    """See the innocent flows through beside one that kills its process."""
    if defused:
        os.environ["CRASH_DEFUSED"] = "1"
    with Persistasaurus(db) as app:
        guilty = app.start(poison.options(flow_id="poison"), "x")
        kinds = ("sequence", "async_sequence", "sleeps", "submits")
        others = [app.start(KINDS[kinds[n % 4]].options(flow_id=f"other-{n}"), 50) for n in range(innocents)]
        for handle in others:
            report("result", flow=handle.flow_id, value=handle.result(timeout=30))
        if defused:
            guilty.retry()
        try:
            report("result", flow="poison", value=guilty.result(timeout=30))
        except FlowParked as parked:
            report("parked", flow="poison", reason=str(parked))


@step
def long(seconds: float) -> str:
    """Take long at the first attempt only."""
    value = report_effect()
    if current().attempt == 1:
        time.sleep(seconds)
    return report_end(value)


@step
async def async_long(seconds: float) -> str:
    value = report_effect()
    if current().attempt == 1:
        await asyncio.sleep(seconds)
    return report_end(value)


@flow
def patient(seconds: float) -> list[str]:
    return [saw(long(seconds)), saw(long(0.0))]


@flow
async def async_patient(seconds: float) -> list[str]:
    return [saw(await async_long(seconds)), saw(await async_long(0.0))]


PATIENT: dict[str, Any] = {"patient": patient, "async_patient": async_patient}


def stand_by(db: str) -> None:
    """Drive what others leave behind; leave in good order at SIGTERM."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    with Persistasaurus(db):
        report("ready")
        signal.pause()


def drive_all(db: str, lease: float) -> None:
    """Be a worker until SIGTERM."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    with _entered(db, lease=lease) as app:
        report("entered", worker=app._engine.worker_id if app._engine is not None else None)
        signal.pause()


def start_evenly(db: str, count: int, seconds: float) -> None:
    """Start many flows in so many seconds, by a client that drives none, and see them all through."""
    with _entered(db, worker=False) as app:
        began = time.monotonic()
        for number in range(count):
            flow_id = f"flow-{number}"
            time.sleep(max(0.0, began + seconds * number / count - time.monotonic()))
            kind = (sequence, async_sequence)[number % 2]
            persistently(lambda kind=kind, flow_id=flow_id: app.start(kind.options(flow_id=flow_id), 5))
            report("started", flow=flow_id)
        for number in range(count):
            handle = app.handle(f"flow-{number}")
            report("result", flow=handle.flow_id, value=persistently(handle.result))


@contextmanager
def _entered(db: str, **settings: Any) -> Generator[Persistasaurus]:
    """Enter an app, once its server is there."""
    app = Persistasaurus(db, crash_limit=10_000, drain=1, **settings)
    persistently(app.__enter__)
    try:
        yield app
    finally:
        app.__exit__(None, None, None)


def persistently(act: Callable[[], Any]) -> Any:
    """Ask until the store answers."""
    until = time.monotonic() + 60
    while True:
        try:
            return act()
        except StoreError:
            if time.monotonic() > until:
                raise
            time.sleep(0.05)


def start_patient(db: str, kind: str, seconds: float, drain: float = 10) -> None:
    """Run a flow with a long step; leave in good order at SIGTERM."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    with Persistasaurus(db, drain=drain) as app:
        handle = app.start(PATIENT[kind].options(flow_id="long"), seconds)
        report("result", flow="long", value=handle.result())


def twins(db: str, kind: str) -> None:
    """Two apps in one process on one file: what the first one drives is none of the second one's."""
    with Persistasaurus(db) as first:
        handle = first.start(PATIENT[kind].options(flow_id="long"), 0.6)
        with Persistasaurus(db) as second:
            time.sleep(0.3)
            report("result", flow="long", value=second.handle("long").result(timeout=20))
        handle.result(timeout=20)


@flow
def sleepy(name: str) -> None:
    sleep(3600)


@flow
async def async_sleepy(name: str) -> None:
    await asyncio.sleep(3600)


@flow
def deaf(name: str) -> str:
    return news.wait()


def sleepers(db: str, *, poke: bool) -> None:
    """Drive flows that only wait until the process is killed; with `poke` after a message for nobody."""
    with Persistasaurus(db) as app:
        for chosen in (sleepy, async_sleepy, deaf):
            handle = app.start(chosen.options(flow_id=chosen.__name__), "x")
            if poke:
                handle.send("nobody waits for this", 1)
        report("ready")
        signal.pause()


def _until(holds: Callable[[], bool]) -> None:
    while not holds():
        time.sleep(0.001)
