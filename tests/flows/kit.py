"""What the tests of flows share: a place for effects, patience, and short views of the log."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import apsw

from persistasaurus import FlowHandle, FlowNotFound, FlowStatus, Persistasaurus
from tests import postgres

ran: list[str] = []
"""What steps have really done, in order; emptied before each test."""

PATIENCE_S = 10.0

STORES = ("sqlite", "postgres")


@contextmanager
def new_database(store: str, folder: Path) -> Iterator[Path | str]:
    """Give a place for a store, which is removed afterwards."""
    if store == "sqlite":
        yield folder / "flows.db"
        return
    with postgres.new_schema() as url:
        yield url


def eventually(is_so: Callable[[], Any], *, within: float = PATIENCE_S) -> Any:
    """Ask again and again until the answer is true, and return it."""
    until = time.monotonic() + within
    while True:
        answer = is_so()
        if answer:
            return answer
        if time.monotonic() > until:
            raise AssertionError(f"not within {within} s: the last answer was {answer!r}")
        time.sleep(0.005)


def until_status(handle: FlowHandle[Any], status: FlowStatus | str) -> FlowHandle[Any]:
    """Wait until a flow has a status."""

    def has_it() -> bool:
        try:
            return handle.status() == status
        except FlowNotFound:
            return False  # a child that its parent has not started yet

    eventually(has_it)
    return handle


def until_waiting(handle: FlowHandle[Any]) -> FlowHandle[Any]:
    """Wait until a flow waits for a signal."""
    return until_status(handle, FlowStatus.WAITING_FOR_SIGNAL)


def log_of(handle: FlowHandle[Any]) -> list[tuple[int, str, str]]:
    """Return a flow's steps as (number, name, status)."""
    return [(row.step, row.method_name, row.status.value) for row in handle.steps()]


def start(app: Persistasaurus, flow: Any, flow_id: str, *args: Any) -> FlowHandle[Any]:
    """Start a flow under an id."""
    return app.start(flow.options(flow_id=flow_id), *args)


def sql(database: Path | str, statement: str, *values: Any) -> list[tuple[Any, ...]]:
    """Look at, or tamper with, a database behind the library's back; `?` stands for a value."""
    if str(database).startswith("postgresql:"):
        return postgres.in_schema(str(database), statement.replace("?", "%s"), values)
    connection = apsw.Connection(str(database))
    try:
        connection.set_busy_timeout(5_000)
        return list(connection.execute(statement, values))
    finally:
        connection.close()
