"""Places from which a flow cannot be spoken to, and what is heard there."""

from __future__ import annotations

import contextvars
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from persistasaurus import Persistasaurus, Signal, UsageError, flow, step
from tests.flows.unharmed import step_that_goes_on

here: dict[str, Persistasaurus] = {}
"""The entered app, for the flows to misuse."""
kept: dict[str, Any] = {}
"""What flows have left lying about for others to find."""
place_signal = Signal("signal of bad places", int)


@step
async def async_step(number: int) -> int:
    return number


@flow
async def async_child(number: int) -> int:
    return number


def told(call: Callable[[], object]) -> str:
    """Return what a call raises, as text."""
    try:
        answer = call()
    except (UsageError, ValueError, TypeError) as error:
        return f"{type(error).__name__}: {error}"
    return answer if isinstance(answer, str) else f"returned {answer!r}"


def in_thread(call: Callable[[], object]) -> str:
    heard: list[str] = []
    thread = threading.Thread(target=lambda: heard.append(told(call)), name="foreign")
    thread.start()
    thread.join()
    return heard[0]


def in_pool(call: Callable[[], object]) -> str:
    with ThreadPoolExecutor(1, thread_name_prefix="foreign") as pool:
        return pool.submit(told, call).result()


def in_copied_context(call: Callable[[], object]) -> str:
    """In a thread that somebody else has started, with the flow's own context."""
    return OLD_POOL.submit(contextvars.copy_context().run, told, call).result()


OLD_POOL = ThreadPoolExecutor(1, thread_name_prefix="foreign")
OLD_POOL.submit(int).result()

FOREIGN = (
    r"WrongContextError: A durable operation was called from thread 'foreign.*', which is not its flow's\."
)
IN_FLOW = (
    r"WrongContextError: {} was called in the body of a flow, .* Call a child flow directly, or make this"
)


@flow
def keeps_a_future() -> int:
    kept["sync"] = step_that_goes_on.submit(1)
    return kept["sync"].result()


@flow
async def keeps_an_async_future() -> int:
    kept["async"] = async_step.submit(1)
    return await kept["async"]


def result_of(name: str) -> Any:
    """Read another flow's future."""
    return kept[name].result()


@contextmanager
def entered(database: Path) -> Iterator[Persistasaurus]:
    """Enter an app in which two flows have left a future each."""
    with Persistasaurus(database) as app:
        here["app"] = app
        app.run(keeps_a_future.options(flow_id="keeper"))
        app.run(keeps_an_async_future.options(flow_id="async keeper"))
        yield app
