"""Futures of steps and child flows, and how a sync flow waits for several."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from concurrent.futures import ALL_COMPLETED, FIRST_COMPLETED, FIRST_EXCEPTION
from typing import Any, Generic, NamedTuple, TypeVar

from persistasaurus._clock import Duration, to_ms
from persistasaurus._engine.async_run import AsyncRun
from persistasaurus._engine.operation import Operation
from persistasaurus._engine.run import Run
from persistasaurus._engine.scope import running_flow
from persistasaurus._engine.thread import SyncRun
from persistasaurus.errors import UsageError, WrongContextError

T = TypeVar("T")


class StepFuture(Generic[T]):
    """The outcome of a submitted step or child flow. It belongs to the flow that asked for it."""

    __slots__ = ("_call", "_operation", "_run")

    def __init__(self, run: Run | None, operation: Operation | None) -> None:
        self._run = run
        self._operation = operation
        self._call: Any = None

    @classmethod
    def outside(cls, call: Callable[[], Any], *, is_async: bool) -> StepFuture[Any]:
        """Return the future of a plain call outside of any flow, where nothing is recorded."""
        future: StepFuture[Any] = StepFuture(None, None)
        if is_async:
            future._call = call
            return future
        value = call()
        future._call = lambda: value
        return future

    def done(self) -> bool:
        """Whether the flow has been shown the outcome; the same at the same place in every replay."""
        return self._operation is None or self._operation.done

    def result(self, timeout: Duration | None = None) -> T:
        """Return the step's value, or raise what it raised; for sync flows.

        Waits at most `timeout` (seconds or `timedelta`), which is a durable timer.

        Raises:
            TimeoutError: the outcome did not come in time.
            WrongContextError: called in an async flow before it is done; `await` the future there. Or called
                outside of the flow that the future belongs to.
        """
        timeout_ms = None if timeout is None else to_ms(timeout, "the timeout of result()")
        if self._run is None or self._operation is None:
            return self._call()  # type: ignore[no-any-return]
        operation = self._operation
        run = _here(self._run)
        if isinstance(run, AsyncRun):
            if operation.done:
                return operation.future.result()  # type: ignore[no-any-return]
            raise WrongContextError("`.result()` would block this async flow: `await` the future instead.")
        if timeout_ms is not None and not self.done():
            timer = run.timer(timeout_ms)
            run.block_any([operation, timer])
            if not operation.done:
                raise TimeoutError("The step's outcome did not come within the timeout.")
            run.forget(timer)
        return run.block(operation)  # type: ignore[no-any-return]

    def __await__(self) -> Generator[Any, Any, T]:
        if self._run is None or self._operation is None:
            called = self._call()
            return called.__await__() if hasattr(called, "__await__") else _given(called)
        run = _here(self._run)
        if not isinstance(run, AsyncRun):
            raise WrongContextError("`await` on a step's future in a sync flow: use `.result()`.")
        return run.await_operation(self._operation)


def _given(value: Any) -> Generator[Any, Any, Any]:
    yield from ()
    return value


class Waited(NamedTuple):
    """Futures that are done and those that are not, in the order in which they were given."""

    done: list[StepFuture[Any]]
    not_done: list[StepFuture[Any]]


def wait(
    futures: Iterable[StepFuture[Any]], timeout: Duration | None = None, *, return_when: str = ALL_COMPLETED
) -> Waited:
    """Wait in a sync flow until all of the futures are done, or the first, or `timeout` is over.

    `return_when` is one of `concurrent.futures`' ALL_COMPLETED, FIRST_COMPLETED and FIRST_EXCEPTION.
    The timeout (seconds or `timedelta`) is a durable timer; what is done when it is over is the same on
    replay.
    """
    given = list(futures)
    if return_when not in (ALL_COMPLETED, FIRST_COMPLETED, FIRST_EXCEPTION):
        raise UsageError(
            f"wait(return_when={return_when!r}): give ALL_COMPLETED, FIRST_COMPLETED or FIRST_EXCEPTION."
        )
    run, operations = _of_one_run(given, "wait")
    timer = None if timeout is None else run.timer(to_ms(timeout, "the timeout of wait()"))
    while not _is_enough(operations, return_when) and not (timer is not None and timer.done):
        open_ones = [operation for operation in operations if not operation.done]
        run.block_any(open_ones if timer is None else [*open_ones, timer])
    if timer is not None:
        run.forget(timer)
    return Waited([f for f in given if f.done()], [f for f in given if not f.done()])


def as_completed(
    futures: Iterable[StepFuture[T]], timeout: Duration | None = None
) -> Iterator[StepFuture[T]]:
    """Yield the futures of a sync flow in the order in which they end, the same order on replay.

    Raises:
        TimeoutError: `timeout` (seconds or `timedelta`, a durable timer) was over before the last one.
    """
    left = list(futures)
    run, _ = _of_one_run(left, "as_completed")
    timer = None if timeout is None else run.timer(to_ms(timeout, "the timeout of as_completed()"))
    while left:
        done = [future for future in left if future.done()]
        for future in done:
            left.remove(future)
            yield future
        if done:
            continue
        if timer is not None and timer.done:
            raise TimeoutError(f"{len(left)} of the futures did not end within the timeout.")
        open_ones = [future._operation for future in left if future._operation is not None]
        run.block_any(open_ones if timer is None else [*open_ones, timer])
    if timer is not None:
        run.forget(timer)


def _is_enough(operations: Sequence[Operation], return_when: str) -> bool:
    if all(operation.done for operation in operations):
        return True
    if return_when == FIRST_COMPLETED:
        return any(operation.done for operation in operations)
    if return_when == FIRST_EXCEPTION:
        return any(operation.done and operation.error is not None for operation in operations)
    return False


def _of_one_run(futures: Sequence[StepFuture[Any]], call: str) -> tuple[SyncRun, list[Operation]]:
    run = running_flow()
    if not isinstance(run, SyncRun):
        raise WrongContextError(f"`{call}` is for sync flows. In an async flow use asyncio.{call}.")
    operations: list[Operation] = []
    for future in futures:
        if not isinstance(future, StepFuture) or future._run is not run or future._operation is None:
            raise WrongContextError(
                f"`{call}` takes futures that this flow got from `submit`, not {future!r:.200}. Submit the "
                "step in this "
                "flow."
            )
        operations.append(future._operation)
    return run, operations


def _here(run: Run) -> SyncRun | AsyncRun:
    if running_flow() is run and isinstance(run, (SyncRun, AsyncRun)):
        return run
    raise WrongContextError(
        f"A future of flow {run.flow_id!r} was read outside of it, where the moment of its outcome is not "
        "recorded. "
        "Read it in the flow that submitted the step, and return the value."
    )
