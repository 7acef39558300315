"""Calls from the body of an async flow that cannot be made there: I/O, threads, what would block it.

Each is an error with a cure and never a hang. It takes no step number: the flow may catch it and go on.
"""

from __future__ import annotations

import asyncio
import contextvars
import math
import re
import socket
from collections.abc import Awaitable, Callable, Iterator
from typing import Any

import pytest

from persistasaurus import Persistasaurus, UsageError, as_completed, flow, sleep, wait, wait_for
from tests.flows.kit import log_of
from tests.flows.places import (
    FOREIGN,
    IN_FLOW,
    async_step,
    entered,
    here,
    in_copied_context,
    in_thread,
    kept,
    place_signal,
    result_of,
)
from tests.flows.unharmed import flow_that_goes_on, step_that_goes_on


@pytest.fixture(scope="module")
def app(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Persistasaurus]:
    with entered(tmp_path_factory.mktemp("places") / "flows.db") as running:
        yield running


async def opens_a_connection() -> None:
    await asyncio.open_connection("localhost", 1)


async def within(limit: float) -> None:
    async with asyncio.timeout(limit):
        await asyncio.sleep(0)


def loop() -> asyncio.AbstractEventLoop:
    return asyncio.get_running_loop()


def no_io(what: str) -> str:
    return f"^WrongContextError: An async flow cannot {what}: its body is replayed .*. Do this in a step.$"


NO_THREAD = no_io("run code in a thread or an executor")
A_SOCKET = socket.socket()
A_SOCKET.close()  # it is refused unseen
ASYNC: dict[str, tuple[Callable[[], Any], str]] = {
    "open_connection": (opens_a_connection, no_io("open a connection")),
    "start_server": (lambda: asyncio.start_server(print, port=0), no_io("start a server")),
    "to_thread": (lambda: asyncio.to_thread(step_that_goes_on, 1), NO_THREAD),
    "run_in_executor": (lambda: loop().run_in_executor(None, print), NO_THREAD),
    "create_subprocess_exec": (lambda: asyncio.create_subprocess_exec("true"), no_io("start a process")),
    "create_subprocess_shell": (lambda: asyncio.create_subprocess_shell("true"), no_io("start a process")),
    "sock_recv": (lambda: loop().sock_recv(A_SOCKET, 1), no_io("use a socket")),
    "sock_sendall": (lambda: loop().sock_sendall(A_SOCKET, b"x"), no_io("use a socket")),
    "sock_connect": (lambda: loop().sock_connect(A_SOCKET, ("localhost", 1)), no_io("use a socket")),
    "getaddrinfo": (lambda: loop().getaddrinfo("localhost", 1), no_io("look up a network address")),
    "add_reader": (lambda: loop().add_reader(A_SOCKET, print), no_io("watch a file descriptor")),
    "call_soon_threadsafe": (
        lambda: loop().call_soon_threadsafe(print),
        "cannot be called from another thread: .* Let",
    ),
    "sync step": (
        lambda: step_that_goes_on(1),
        r"The sync step 'step_that_goes_on' was called directly in the async flow .* Use `await step",
    ),
    "sync child": (
        lambda: flow_that_goes_on(1),
        "The sync flow 'flow_that_goes_on' was called directly in the async f",
    ),
    "signal.wait": (place_signal.wait, r"`signal.wait\(\)` would block the async flow .* Use `await signal`"),
    "sleep": (
        lambda: sleep(0),
        r"`sleep\(\)` would block the async flow .* Use `await asyncio.sleep\(...\)`",
    ),
    "wait_for sync": (
        lambda: wait_for(step_that_goes_on),
        r"wait_for\(step_that_goes_on\) would block the async flow",
    ),
    "wait": (lambda: wait([]), "`wait` is for sync flows. In an async flow use asyncio.wait."),
    "as_completed": (
        lambda: [*as_completed([])],
        "`as_completed` is for sync flows. In an async flow use asyncio.as_c",
    ),
    "step in a thread": (lambda: in_thread(lambda: step_that_goes_on.submit(1)), FOREIGN),
    "async step in a thread": (lambda: in_thread(lambda: asyncio.run(awaited(async_step))), FOREIGN),
    "copied context": (lambda: in_copied_context(lambda: step_that_goes_on.submit(1)), FOREIGN),
    "empty context": (
        lambda: asyncio.create_task(awaited(async_step), context=contextvars.Context()),
        "but in a context that is not the flow's: it would not be recorded. Leave out `context=`",
    ),
    "app.run": (lambda: here["app"].run(flow_that_goes_on, 1), IN_FLOW.format(r"app.run\(\)")),
    "app.run_async": (
        lambda: here["app"].run_async(flow_that_goes_on, 1),
        IN_FLOW.format(r"app.start_async\(\)"),
    ),
    "await handle": (lambda: here["app"].handle("x"), IN_FLOW.format("await handle")),
    "future of a sync flow": (
        lambda: kept["sync"],
        "A future of flow 'keeper' was read outside of it, .* Read it",
    ),
    "future of an async flow": (
        lambda: kept["async"],
        "A future of flow 'async keeper' was read outside of it",
    ),
    "result of a future": (
        lambda: result_of("async"),
        "A future of flow 'async keeper' was read outside of it",
    ),
    "negative wait_for": (
        lambda: wait_for(async_step, timeout=-1),
        "ValueError: the timeout of wait_for is negative",
    ),
    "NaN asyncio.sleep": (
        lambda: asyncio.sleep(math.nan),
        "ValueError: A flow was asked to wait for NaN seconds. Give",
    ),
    "NaN asyncio.timeout": (
        lambda: within(math.nan),
        "ValueError: A flow was asked to wait for NaN seconds. Give",
    ),
    "huge asyncio.sleep": (
        lambda: asyncio.sleep(1e300),
        "ValueError: the delay of a timer is longer than 10,000 years",
    ),
    # As in asyncio: the past is now, and never is never.
    "negative asyncio.sleep": (lambda: asyncio.sleep(-1), "^returned None$"),
    "endless asyncio.timeout": (lambda: within(math.inf), "^returned None$"),
}


async def awaited(called: Callable[[int], Awaitable[int]]) -> int:
    return await called(1)


async def told_later(call: Callable[[], Any]) -> str:
    """Return what a call, or awaiting its answer, raises, as text."""
    try:
        answer = call()
        if hasattr(answer, "__await__"):
            answer = await answer
    except (UsageError, ValueError, TypeError) as error:
        return f"{type(error).__name__}: {error}"
    return answer if isinstance(answer, str) else f"returned {answer!r}"


@flow
async def tries_async(which: str) -> str:
    answer = await told_later(ASYNC[which][0])
    await async_step(1)
    return answer


@pytest.mark.parametrize("which", ASYNC)
def test_an_async_flow_hears_what_it_cannot_do_and_goes_on(app: Persistasaurus, which: str) -> None:
    """I/O in its body too. The refused call has no number in the log; the step after it has the first."""
    handle = app.start(tries_async, which)
    assert re.search(ASYNC[which][1], handle.result(timeout=10))
    assert log_of(handle) == [(1, "async_step", "COMPLETE")]
