"""What the forked processes run."""

from __future__ import annotations

import asyncio
import ctypes
import faulthandler
import logging
import os
import random
import resource
import signal
import sys
import threading
import time
from collections.abc import Callable, Generator, Iterator
from contextlib import AbstractContextManager, contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import Any

import stories
from flows import KINDS, RESUMED, SIGNALS, news
from reporting import begin, report, serial

from persistasaurus import AppNotRunningError, FlowHandle, FlowNotFound, Persistasaurus, StoreError
from persistasaurus._engine import attempts
from persistasaurus.testing import CrashAt, PowerLoss

PR_SET_PTRACER, PR_SET_PTRACER_ANY = 0x59616D61, ctypes.c_ulong(-1)

Plan = dict[str, list[Any]]
"""Flow id -> kind, milliseconds of its steps, how many messages it was sent for certain."""


def run(serial: int, entry: str, arguments: dict[str, Any]) -> None:
    begin(serial)
    if arguments.pop("traced", False):
        until_traced()
    faulthandler.register(signal.SIGUSR1)
    logging.getLogger("persistasaurus.flow").setLevel(logging.ERROR)  # some are meant to fail
    chosen = globals().get(entry) or getattr(stories, entry)
    chosen(**arguments)


def mark() -> None:
    """Show that all reports of the processes before this one have come."""
    report("mark")


def until_traced() -> None:
    """Wait until strace has taken hold of this process, which still has one thread."""
    ctypes.CDLL(None).prctl(PR_SET_PTRACER, PR_SET_PTRACER_ANY, 0, 0, 0)
    report("ready")
    while "TracerPid:\t0\n" in Path("/proc/self/status").read_text("utf-8"):
        time.sleep(0.001)
    time.sleep(0.005)  # it has taken hold, and counts calls from the next stop on


def soak(db: str, plan: Plan, **faults: Any) -> None:
    """Start every flow again, send what they wait for, and tell what came out."""
    app = _app(db, **faults)
    with app:
        _report_worker(app)
        threading.Thread(target=_send_all, args=(app, plan), daemon=True).start()
        for flow_id, (kind, ms, _) in _shuffled(plan):
            app.start(KINDS[kind].options(flow_id=flow_id), ms)
            report("started", flow=flow_id)
        for flow_id in plan:
            _tell(flow_id, app.handle(flow_id))
        _look(app, plan)
    report("finished")


def _report_worker(app: Persistasaurus) -> None:
    engine = app._engine
    report("entered", worker=engine.worker_id if engine is not None else None)


def _tell(flow_id: str, handle: FlowHandle[Any], *, stubborn: bool = False) -> None:
    try:
        report("result", flow=flow_id, value=handle.result(timeout=50))
    except StoreError as error:
        if stubborn:
            raise
        report("trouble", flow=flow_id, error=str(error))
    except Exception as error:
        report("result", flow=flow_id, error=[type(error).__name__, str(error)])


def _look(app: Persistasaurus, plan: Plan) -> None:
    """Call what else there is to call: its crash points are named too."""
    for record in app.flows(flow="fails"):
        handle = app.handle(record.flow_id)
        if handle.steps()[0].attempts < 3:
            report("reopening", flow=record.flow_id)
            handle.retry()
            _tell(record.flow_id, handle)


def async_soak(db: str, plan: Plan, **faults: Any) -> None:
    """The same in the other colour, on the caller's own loop."""

    async def one(app: Persistasaurus, flow_id: str, kind: str, ms: int) -> None:
        handle = await app.start_async(KINDS[kind].options(flow_id=flow_id), ms)
        report("started", flow=flow_id)
        try:
            report("result", flow=flow_id, value=await handle.result_async(timeout=50))
        except StoreError as error:
            report("trouble", flow=flow_id, error=str(error))
        except Exception as error:
            report("result", flow=flow_id, error=[type(error).__name__, str(error)])

    async def main() -> None:
        async with _app(db, **faults) as app:
            _report_worker(app)
            sending = asyncio.to_thread(_send_all, app, plan)
            await asyncio.gather(sending, *(one(app, i, k, ms) for i, (k, ms, _) in _shuffled(plan)))
        report("finished")

    asyncio.run(main())


def forgetful_soak(**arguments: Any) -> None:
    """The same without the count of lost claims: what the checker must find."""
    attempts.in_doubt = lambda *_: False
    soak(**arguments)


def stubborn_soak(db: str, plan: Plan) -> None:
    """The same on a disk that reports errors: what was refused is asked for again, until it is there."""
    app = _app(db)
    _again_until_done(app.__enter__)
    try:
        for flow_id, (kind, ms, _) in _shuffled(plan):
            _start_stubbornly(app, flow_id, kind, ms)
        _send_all(app, plan)
        for flow_id in plan:
            _again_until_done(lambda flow_id=flow_id: _tell(flow_id, app.handle(flow_id), stubborn=True))
    finally:
        with suppress(StoreError):
            app.__exit__(None, None, None)
    report("finished")


def polite_soak(db: str, plan: Plan, *, forks: int = 0) -> None:
    """The same, and it leaves in good order at SIGTERM; with `forks` it forks children while flows run."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    app = _app(db)
    with app:
        _report_worker(app)
        for flow_id, (kind, ms, _) in _shuffled(plan):
            app.start(KINDS[kind].options(flow_id=flow_id), ms)
            report("started", flow=flow_id)
        for _ in range(forks):
            _fork_and_use(app, next(iter(plan)))
        _send_all(app, plan)
        for flow_id in plan:
            _tell(flow_id, app.handle(flow_id))
    report("finished")


def _fork_and_use(app: Persistasaurus, flow_id: str) -> None:
    # A signal that comes in one of Python's own hooks around fork() would leave a lock of `logging` locked.
    masked = signal.pthread_sigmask(signal.SIG_BLOCK, (signal.SIGINT, signal.SIGTERM))
    pid = os.fork()
    signal.pthread_sigmask(signal.SIG_SETMASK, masked)
    if pid:
        assert os.waitpid(pid, 0)[1] == 0
        return
    try:
        app.handle(flow_id).status()
    except AppNotRunningError:
        app.__exit__(None, None, None)
        os._exit(0)
    finally:
        os._exit(1)


def full_disk_soak(db: str, plan: Plan, how: str, times: int) -> None:
    """The stubborn one, while its disk is full for a moment again and again."""
    threading.Thread(target=_fill, args=(db, FILLED[how], times), daemon=True).start()
    stubborn_soak(db, plan)


def _fill(db: str, full: Callable[[Path], AbstractContextManager[None]], times: int) -> None:
    while not Path(f"{db}-wal").exists():
        time.sleep(0.001)
    for _ in range(times):
        time.sleep(random.uniform(0.0, 0.05))
        with full(Path(db)):
            report("full")
            time.sleep(random.uniform(0.02, 0.1))
        report("freed")


@contextmanager
def _small_files(db: Path) -> Generator[None]:
    most = Path(f"{db}-wal").stat().st_size + random.randrange(20_000)
    resource.setrlimit(resource.RLIMIT_FSIZE, (most, resource.RLIM_INFINITY))
    yield
    resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))


@contextmanager
def _few_pages(db: Path) -> Generator[None]:
    """By SQLite's own quota, as far as the app is there already."""
    engine = next((app._engine for app in _apps if app._engine is not None), None)
    writer = getattr(getattr(engine, "store", None), "_file", None)
    if writer is None:
        yield
        return
    with writer._lock:
        most = writer._writer.pragma("max_page_count")
        writer._writer.pragma("max_page_count", writer._writer.pragma("page_count"))
    yield
    with writer._lock:
        writer._writer.pragma("max_page_count", most)


@contextmanager
def _no_space(db: Path) -> Generator[None]:
    """Fill the small file system that it is on; a large one is left alone."""
    ballast = db.with_name("ballast")
    with suppress(OSError), ballast.open("wb", buffering=0) as file:
        for _ in range(4_000):
            file.write(bytes(1024))
    yield
    ballast.unlink()


FILLED: dict[str, Callable[[Path], AbstractContextManager[None]]] = {
    "file size": _small_files,
    "pages": _few_pages,
    "file system": _no_space,
}
_apps: list[Persistasaurus] = []


def _start_stubbornly(app: Persistasaurus, flow_id: str, kind: str, ms: int) -> None:
    def start() -> None:
        try:
            app.start(KINDS[kind].options(flow_id=flow_id), ms)
        except StoreError:
            with suppress(StoreError):
                try:
                    report("refused", flow=flow_id, found=str(app.handle(flow_id).status()))
                except FlowNotFound:
                    report("refused", flow=flow_id, found=None)
            raise
        report("started", flow=flow_id)

    _again_until_done(start)


def _again_until_done(act: Callable[[], object]) -> None:
    for _ in range(200):
        try:
            act()
        except StoreError as error:
            report("trouble", error=str(error))
            time.sleep(0.001)
        else:
            return
    raise AssertionError("200 errors in a row")


def _app(
    db: str, crash: list[Any] | None = None, power: list[int] | None = None, lease: float = 10
) -> Persistasaurus:
    """Return an app that dies at a crash point, or whose power goes: by a seed, at the n-th write."""
    app = Persistasaurus(db, crash_limit=10_000, drain=1, lease=lease)
    _apps.append(app)
    if crash is not None:
        CrashAt(*crash).arm(app)
    if power is not None:
        PowerLoss(power[0], at=power[1]).arm(app)
    return app


def _shuffled(plan: Plan) -> Iterator[tuple[str, list[Any]]]:
    ids = list(plan)
    random.Random(serial()).shuffle(ids)
    for flow_id in ids:
        yield flow_id, plan[flow_id]


def _send_all(app: Persistasaurus, plan: Plan) -> None:
    """Send until each flow has got what it waits for; before it exists, too."""
    for flow_id, (kind, _, sent) in _shuffled(plan):
        handle = app.handle(flow_id)
        wanted = {"listens": SIGNALS, "async_listens": SIGNALS}.get(kind, 1 if kind in RESUMED else 0)
        for number in range(sent, wanted):
            value = f"{flow_id}#{serial()}.{number}"
            report("sending", flow=flow_id, value=value)
            send = partial(handle.resume, RESUMED[kind]) if kind in RESUMED else partial(handle.send, news)
            _again_until_done(partial(send, value))
            report("sent", flow=flow_id, value=value)
