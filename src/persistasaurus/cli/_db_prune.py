"""`db prune`: removes flows that ended long ago."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Callable, Generator
from contextlib import closing, contextmanager
from datetime import timedelta

import click

from persistasaurus._clock import SystemClock, to_ms
from persistasaurus._store.base import Store
from persistasaurus._store.urls import make_store, shown, whole_store
from persistasaurus.cli._command import DatabaseCommand, Here
from persistasaurus.cli._database import check_there, file_of
from persistasaurus.cli._exit import INTERRUPTED, Exit
from persistasaurus.cli._progress import Bars
from persistasaurus.cli._time import Span


@click.command(cls=DatabaseCommand)
@click.argument("place", metavar="[PATH|URL]", required=False)
@click.option("--keep", type=Span(), required=True, metavar="TIME", help="As in 90s, 15m, 2h, 30d or 4w.")
@click.option("--batch", type=click.IntRange(min=1), default=100, help="Flows in one transaction. [100]")
@click.option("--dry-run", is_flag=True, help="Remove nothing, and say how many flows would go.")
@click.pass_obj
def prune(here: Here, /, place: str | None, *, keep: timedelta, batch: int, dry_run: bool) -> int:
    """Remove the flows that ended more than --keep ago: complete, failed and cancelled ones.

    Each goes whole, with its steps, its signals and its child flows; one whose child flows have not all
    ended so long ago stays. Workers may go on meanwhile. Ctrl-C stops between two transactions, and the
    same command goes on later.
    """
    url = place or here.settings.url
    check_there(url)
    with closing(whole_store(url)) as whole:
        # Opening it as workers do would make a schema where there is none.
        whole.open()
    with closing(make_store(url, durability="full", clock=SystemClock())) as store, Bars(here.out) as bars:
        store.open()
        before_ms = store.clock.now_ms() - to_ms(keep, "--keep")
        removable = store.prunable(before_ms)
        with _stop_asked() as stop:
            removed = (
                0
                if dry_run
                else _prune(
                    store, before_ms, batch, stop, lambda done: bars.told("flows", done, max(done, removable))
                )
            )
    interrupted = stop.is_set()
    _tell(here, url, removable=removable, removed=removed, dry_run=dry_run, interrupted=interrupted)
    return INTERRUPTED if interrupted else Exit.OK


def _prune(
    store: Store, before_ms: int, batch: int, stop: threading.Event, told: Callable[[int], object]
) -> int:
    removed = 0
    while not stop.is_set():
        started = time.monotonic()
        gone = store.prune(before_ms, limit=batch).flows
        if not gone:
            break
        removed += gone
        told(removed)
        # As long again: else nobody else would come to write to a file.
        stop.wait(time.monotonic() - started)
    return removed


@contextmanager
def _stop_asked() -> Generator[threading.Event, None, None]:
    """Have Ctrl-C and SIGTERM set an event; a second time they end the process, which undoes what is open."""
    asked = threading.Event()
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}

    def on_signal(_number: int, _frame: object) -> None:
        if asked.is_set():
            os._exit(INTERRUPTED)
        asked.set()

    for number in before:
        signal.signal(number, on_signal)
    try:
        yield asked
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _tell(here: Here, url: str, *, removable: int, removed: int, dry_run: bool, interrupted: bool) -> None:
    if here.out.as_json:
        here.out.document(
            {
                "database": shown(url),
                "removable": removable,
                "removed": removed,
                "interrupted": interrupted,
            }
        )
        return
    if dry_run:
        here.out.text(f"{shown(url)}: {removable} flows would be removed")
        return
    rest = ", interrupted: run the command again to go on" if interrupted else ""
    here.out.text(f"{shown(url)}: {removed} flows removed{rest}")
    if removed and file_of(url) is not None:
        here.out.text(
            "The file keeps its size, and later flows use the room. To give it back to the disk, run VACUUM "
            "on it by the sqlite3 shell in a quiet hour."
        )
