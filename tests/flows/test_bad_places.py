"""Calls from places that cannot make them, in sync flows and steps: foreign threads, colours, other flows.

Each is an error with a cure and never a hang. It takes no step number: the flow may catch it and go on.
"""

from __future__ import annotations

import asyncio
import contextvars
import math
import re
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from persistasaurus import (
    Persistasaurus,
    StepFuture,
    WrongContextError,
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
from tests.flows.kit import log_of
from tests.flows.places import (
    FOREIGN,
    IN_FLOW,
    OLD_POOL,
    async_child,
    async_step,
    entered,
    here,
    in_copied_context,
    in_pool,
    in_thread,
    kept,
    place_signal,
    result_of,
    told,
)
from tests.flows.unharmed import flow_that_goes_on, step_that_goes_on


@pytest.fixture(scope="module")
def app(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Persistasaurus]:
    with entered(tmp_path_factory.mktemp("places") / "flows.db") as running:
        yield running


SYNC: dict[str, tuple[Callable[[], object], str]] = {
    "step in a thread": (lambda: in_thread(lambda: step_that_goes_on(1)), FOREIGN),
    "submit in a thread": (lambda: in_thread(lambda: step_that_goes_on.submit(1)), FOREIGN),
    "child in a thread": (lambda: in_thread(lambda: flow_that_goes_on(1)), FOREIGN),
    "sleep in a thread": (lambda: in_thread(lambda: sleep(1)), FOREIGN),
    "signal in a thread": (lambda: in_thread(place_signal.wait), FOREIGN),
    "wait_for in a thread": (lambda: in_thread(lambda: wait_for(step_that_goes_on)), FOREIGN),
    "now in a thread": (lambda: in_thread(now), FOREIGN),
    "random in a thread": (lambda: in_thread(random), FOREIGN),
    "rng in a thread": (lambda: in_thread(rng), FOREIGN),
    "uuid in a thread": (lambda: in_thread(uuid), FOREIGN),
    "current in a thread": (lambda: in_thread(current), FOREIGN),
    "app in a thread": (lambda: in_thread(lambda: here["app"].run(flow_that_goes_on, 1)), FOREIGN),
    "thread of a thread": (lambda: in_thread(lambda: in_thread(lambda: sleep(1))), FOREIGN),
    "step in a pool": (lambda: in_pool(lambda: step_that_goes_on(1)), FOREIGN),
    "copied context": (lambda: in_copied_context(lambda: step_that_goes_on(1)), FOREIGN),
    "async step": (
        lambda: async_step(1),
        r"The async step 'async_step' was called directly in the sync flow .* Use `async_step.submit\(",
    ),
    "async step by asyncio.run": (
        lambda: asyncio.run(async_step(1)),
        "The async step 'async_step' was called directly",
    ),
    "async child": (
        lambda: async_child(1),
        "The async flow 'async_child' was called directly in the sync flow .* Use",
    ),
    "await signal": (
        lambda: place_signal.__await__().send(None),
        r"`await signal` in the sync flow .*: use `signal.wai",
    ),
    "wait_for async": (
        lambda: wait_for(async_step),
        r"wait_for\(async_step\) in the sync flow .*: the step is async. M",
    ),
    "wait_for a function": (
        lambda: wait_for(print),
        r"UsageError: wait_for takes a step, as in wait_for\(self.confirm",
    ),
    "method without self": (
        lambda: Methods.step_of(1),
        r"The step 'Methods.step_of' is a method: call it on an instan",
    ),
    "negative sleep": (lambda: sleep(-1), "ValueError: the duration of sleep is negative"),
    "NaN sleep": (lambda: sleep(math.nan), "ValueError: the duration of sleep is nan"),
    "negative wait_for": (
        lambda: wait_for(step_that_goes_on, timeout=-1),
        "ValueError: the timeout of wait_for is neg",
    ),
    "infinite wait": (
        lambda: place_signal.wait(timeout=math.inf),
        "ValueError: the timeout of a signal is inf",
    ),
    "huge wait": (
        lambda: place_signal.wait(timeout=10**400),
        "ValueError: the timeout of a signal is longer than 10,",
    ),
    "wait for anything": (lambda: wait([3]), "`wait` takes futures that this flow got from `submit`, not 3"),  # type: ignore[list-item]
    "wait until what": (
        lambda: wait([], return_when="some"),
        r"UsageError: wait\(return_when='some'\): give ALL_COMPL",
    ),
    "completed anything": (lambda: [*as_completed([3])], "`as_completed` takes futures that this flow got"),  # type: ignore[list-item]
    "future of a sync flow": (
        lambda: result_of("sync"),
        "A future of flow 'keeper' was read outside of it, .* Read",
    ),
    "wait for another's": (
        lambda: wait([kept["sync"]]),
        "`wait` takes futures that this flow got from `submit`, not",
    ),
    "future of an async flow": (
        lambda: result_of("async"),
        "A future of flow 'async keeper' was read outside",
    ),
    "app.run": (lambda: here["app"].run(flow_that_goes_on, 1), IN_FLOW.format(r"app.run\(\)")),
    "app.start": (lambda: here["app"].start(flow_that_goes_on, 1), IN_FLOW.format(r"app.start\(\)")),
    "app.flows": (lambda: list(here["app"].flows()), IN_FLOW.format(r"app.flows\(\)")),
    "handle.result": (lambda: here["app"].handle("x").result(), IN_FLOW.format(r"handle.result\(\)")),
    "handle.status": (lambda: here["app"].handle("x").status(), IN_FLOW.format("A handle's query")),
    "handle.send": (
        lambda: here["app"].handle("x").send(place_signal, 1),
        IN_FLOW.format(r"handle.send\(\)"),
    ),
    "handle.cancel": (lambda: here["app"].handle("x").cancel(), IN_FLOW.format(r"handle.cancel\(\)")),
}


class Methods:
    @step
    def step_of(self, number: int) -> int:
        return number


@flow
def tries(which: str) -> str:
    answer = told(SYNC[which][0])
    step_that_goes_on(1)
    return answer


@pytest.mark.parametrize("which", SYNC)
def test_a_sync_flow_hears_what_it_cannot_do_and_goes_on(app: Persistasaurus, which: str) -> None:
    """The refused call has no number in the log; the step after it has the first."""
    handle = app.start(tries, which)
    assert re.search(SYNC[which][1], handle.result(timeout=10))
    assert log_of(handle) == [(1, "step_that_goes_on", "COMPLETE")]


@flow
def forgets_to_ask() -> int:
    return in_old_pool(step_that_goes_on.submit(1))


def in_old_pool(future: StepFuture[int]) -> int:
    return OLD_POOL.submit(future.result).result()


def test_an_error_that_a_flow_does_not_catch_fails_that_flow_alone(app: Persistasaurus) -> None:
    """And whoever waits for it gets it as itself."""
    handle = app.start(forgets_to_ask)
    with pytest.raises(WrongContextError, match="was read outside of it"):
        handle.result(timeout=10)
    assert app.run(flow_that_goes_on, 1) == 2


@flow
def leaves_its_context() -> int:
    kept["context"] = contextvars.copy_context()
    return 1


@flow
def finds_a_context() -> str:
    return kept["context"].run(told, lambda: step_that_goes_on(1))


def test_the_context_of_a_flow_that_has_ended_is_of_no_use_to_another(tmp_path: Path) -> None:
    """Also where one thread drives the one after the other."""
    with Persistasaurus(tmp_path / "flows.db", flow_threads=1) as one_thread:
        one_thread.run(leaves_its_context)
        assert "which is not its flow's" in one_thread.run(finds_a_context)
        assert one_thread.run(flow_that_goes_on, 1) == 2


# Steps are plain code, in which an app may be used; only its own loop must not be blocked.


@step
def runs_a_flow() -> int:
    return here["app"].run(flow_that_goes_on, 1)


@step
async def blocks_the_loop(which: str) -> str:
    app = here["app"]
    calls: dict[str, Callable[[], object]] = {
        "run": lambda: app.run(flow_that_goes_on, 1),
        "result": lambda: app.handle("keeper").result(),
        "instance": lambda: app.get_flow(flow_that_goes_on).run(lambda f: f(1)),
    }
    return told(calls[which])


@step
async def runs_a_flow_async() -> int:
    return await here["app"].run_async(flow_that_goes_on, 1)


@flow
def uses_the_app(which: str | None) -> list[Any]:
    if which is not None:
        return [blocks_the_loop.submit(which).result()]
    return [runs_a_flow(), runs_a_flow_async.submit().result()]


def test_a_step_may_run_a_flow(app: Persistasaurus) -> None:
    """A sync one blocks its own thread, an async one awaits."""
    assert app.run(uses_the_app, None) == [2, 2]


@pytest.mark.parametrize(
    "which, message",
    [
        (
            "run",
            r"app.run\(\) would block the event loop that the app .* Use `await app.run_async\(...\)`.",
        ),
        (
            "result",
            r"handle.result\(\) would block the event loop that the app itself runs on. Use `await handle`.",
        ),
        (
            "instance",
            r"FlowInstance.run\(\) would block the event loop .* Use `await instance.run_async\(...\)`.",
        ),
    ],
)
def test_an_async_step_must_not_block_the_apps_own_loop(
    app: Persistasaurus, which: str, message: str
) -> None:
    """It would wait for itself."""
    (answer,) = app.run(uses_the_app, which)
    assert re.search(message, answer)


async def test_a_coroutine_on_the_apps_own_loop_must_not_block_it(tmp_path: Path) -> None:
    """There is an async method for everything; on another loop the sync ones do."""
    async with Persistasaurus(tmp_path / "flows.db") as app:
        began = time.monotonic()
        with pytest.raises(
            WrongContextError, match=r"app.run\(\) would block the event loop .* Use `await app.run_asyn"
        ):
            app.run(flow_that_goes_on, 1)
        handle = await app.start_async(flow_that_goes_on, 1)
        with pytest.raises(
            WrongContextError, match=r"handle.result\(\) would block the event loop .* Use `await handle`"
        ):
            handle.result()
        assert await handle == 2
        assert time.monotonic() - began < 5


def test_waiting_is_for_flows_alone() -> None:
    """Outside of a flow nothing could come back to the wait after a crash."""
    with pytest.raises(
        WrongContextError, match=r"^wait_for was called outside of a flow\. Only a flow waits\.$"
    ):
        wait_for(step_that_goes_on)
    with pytest.raises(
        WrongContextError, match=r"`signal.wait\(\)` for 'signal of bad places' was called outside"
    ):
        place_signal.wait()
    with pytest.raises(WrongContextError, match=r"current\(\) was called outside of a flow and its steps"):
        current()
