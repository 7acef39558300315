"""The start of a step is not made durable before it runs, but soon."""

from __future__ import annotations

import threading
from collections import deque
from concurrent.futures import Future
from pathlib import Path
from typing import Any

from persistasaurus import FlowStatus, Persistasaurus, flow, step
from tests.flows.kit import eventually, log_of

gate = threading.Event()
AHEAD = 5_000


@step
def takes_long() -> None:
    gate.wait(60)


@flow
def works() -> None:
    takes_long()


def _keep_busy(app: Persistasaurus, until: threading.Event) -> None:
    """Give the writer more than it writes at a time, without a pause."""
    sent: deque[Future[Any]] = deque()
    while not until.is_set():
        sent.append(app._send("nobody", "news", "1"))
        if len(sent) > AHEAD:
            sent.popleft().result()


def test_a_long_step_shows_as_pending_though_the_writer_never_rests(database: Path) -> None:
    """Under load too: a crash during the step has to count as an attempt of it."""
    gate.clear()
    enough = threading.Event()
    with Persistasaurus(database) as app:
        crowd = threading.Thread(target=_keep_busy, args=(app, enough))
        crowd.start()
        try:
            handle = app.start(works)
            eventually(lambda: log_of(handle) == [(1, "takes_long", "PENDING")])
        finally:
            enough.set()
            crowd.join()
            gate.set()
        handle.result(30)

        assert handle.status() == FlowStatus.COMPLETE
