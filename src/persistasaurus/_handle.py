"""What a user holds of a flow instance: its outcome, its log, and the ways to act on it."""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import Generator
from concurrent.futures import Future
from datetime import timedelta
from typing import TYPE_CHECKING, Any, Generic, ParamSpec, TypeVar, overload

from persistasaurus._clock import Duration, instant, to_ms
from persistasaurus._codec import value_codec
from persistasaurus._engine.history import verify_outcome
from persistasaurus._engine.recovery import retry
from persistasaurus._engine.registry import StepDefinition, display_name
from persistasaurus._engine.results import Outcome, Waiter, not_found, outcome_of, wait_for
from persistasaurus._engine.signals import Signal, check_signal_name, known_signal
from persistasaurus._engine.texts import ERROR, RESULT
from persistasaurus._failure import rebuild_failure
from persistasaurus._flow import Step
from persistasaurus._model import (
    CANCELLED,
    COMPLETE,
    FAILED,
    STATUS_BY_CODE,
    FlowRecord,
    FlowStatus,
    StepRecord,
)
from persistasaurus._store.base import FlowRow, StepRow
from persistasaurus.errors import (
    CipherError,
    DamagedRecordError,
    FlowCancelled,
    FlowFailed,
    FlowNotWaiting,
    FlowParked,
    NonDeterminismError,
    PersistasaurusError,
    SerializationError,
    UsageError,
)

if TYPE_CHECKING:
    from persistasaurus._app import Persistasaurus

P = ParamSpec("P")
T = TypeVar("T")
V = TypeVar("V")

_REASONS = (NonDeterminismError, SerializationError, DamagedRecordError, CipherError, FlowParked)


class FlowHandle(Generic[T]):
    """One flow instance, by its id. Making a handle checks nothing and costs nothing."""

    __slots__ = ("_app", "_codec", "_key", "flow_id")

    def __init__(
        self, app: Persistasaurus, flow_id: str, *, codec: Any = None, key: int | None = None
    ) -> None:
        self._app = app
        self._codec = codec
        self._key = key
        self.flow_id = flow_id

    def __repr__(self) -> str:
        return f"FlowHandle({self.flow_id!r})"

    # The outcome.

    def result(self, timeout: Duration | None = None) -> T:
        """Wait until the flow has ended and return its result, at most `timeout` (seconds or `timedelta`).

        The wait outlives nothing: it ends with the process, the flow does not.

        Raises:
            TimeoutError: the flow has not ended in time; it goes on.
            FlowNotFound: no flow instance has this id.
            FlowCancelled: the flow was cancelled.
            FlowParked: the flow is parked; a subclass or another named error says why.
            Exception: what the flow raised, as itself, where its class is loaded; else `FlowFailed`.
        """
        timeout_ms = None if timeout is None else to_ms(timeout, "the timeout of result()")
        engine = self._app._engine_here("handle.result()", cure="await handle")
        future: Future[Outcome] = Future()
        outcome = None if self._wait_here(future) else self._wait(future)
        if outcome is None:
            try:
                # A lock's wait has an end of its own, some 292 years.
                limit = None if timeout_ms is None else min(timeout_ms / 1000, threading.TIMEOUT_MAX)
                with engine.flow_pool.lent(), engine.step_pool.lent():
                    outcome = wait_for(future, limit)
            except TimeoutError:
                raise self._late(timeout) from None
            finally:
                engine.results.forget(self.flow_id, future)
        return self._unpack(outcome)

    async def result_async(self, timeout: Duration | None = None) -> T:
        """Like `result`, for async code."""
        timeout_ms = None if timeout is None else to_ms(timeout, "the timeout of result()")
        engine = self._app._engine_here("await handle")
        future: Waiter = engine.host.create_future() if engine.is_on_host() else Future()
        outcome = None if self._wait_here(future) else await asyncio.to_thread(self._wait, future)
        if outcome is None:
            awaited = future if isinstance(future, asyncio.Future) else asyncio.wrap_future(future)
            try:
                if timeout_ms is None:
                    outcome = await awaited
                else:
                    async with asyncio.timeout(timeout_ms / 1000):
                        outcome = await awaited
            except TimeoutError:
                raise self._late(timeout) from None
            finally:
                engine.results.forget(self.flow_id, future)
        return self._unpack(outcome)

    def __await__(self) -> Generator[Any, Any, T]:
        return self.result_async().__await__()

    def _late(self, timeout: Duration | None) -> TimeoutError:
        return TimeoutError(
            f"Flow {self.flow_id!r} has not ended within {timeout}. It goes on; ask again later."
        )

    def _wait_here(self, future: Waiter) -> bool:
        """Begin to wait for a flow that this process drives, which will tell; false where it does not."""
        engine = self._app._engine_here("handle.result()")
        if self._key is None:
            return False
        engine.results.wait(self.flow_id, future, key=self._key)
        run = engine.runs.get(self._key)
        if run is not None and not run.finished:
            return True
        engine.results.forget(self.flow_id, future)
        return False

    def _wait(self, future: Waiter) -> Outcome | None:
        """Begin to wait, then look: what ends between the two is not missed."""
        engine = self._app._engine_here("handle.result()")
        engine.results.wait(self.flow_id, future, key=self._key)
        try:
            row = self._checked()
            self._key = row.flow_key
            engine.results.learn(self.flow_id, row.flow_key)
            outcome = outcome_of(row)
        except BaseException:
            engine.results.forget(self.flow_id, future)
            raise
        if outcome is not None:
            engine.results.forget(self.flow_id, future)
        return outcome

    def _checked(self) -> FlowRow:
        row = self._row()
        if STATUS_BY_CODE[row.status].ended:
            verify_outcome(row)
        return row

    def _unpack(self, outcome: Outcome) -> T:
        texts = self._app._engine_here("handle.result()").texts
        if outcome.status == COMPLETE:
            text = texts.open(outcome.result or "null", self.flow_id, RESULT)
            return self._result_codec().decode(text)  # type: ignore[no-any-return]
        if outcome.status == CANCELLED:
            raise FlowCancelled(f"Flow {self.flow_id!r} was cancelled.")
        if outcome.status == FAILED:
            text = texts.open(outcome.error or "{}", self.flow_id, ERROR)
            error = rebuild_failure(text, missing=FlowFailed)
            error.add_note(_origin(self.flow_id, text))
            raise error
        raise _reason(self.flow_id, outcome.reason)

    def _result_codec(self) -> Any:
        if self._codec is None:
            row = self._row()
            target = self._app._registry.find((row.class_name, row.method_name))
            self._codec = target.definition.result if target is not None else value_codec(Any)
        return self._codec

    # Looking.

    def _row(self) -> FlowRow:
        row = self._app._engine_here("A handle's query").store.find(self.flow_id)
        if row is None:
            raise not_found(self.flow_id)
        return row

    def status(self) -> FlowStatus:
        """Return where the flow stands."""
        return STATUS_BY_CODE[self._row().status]

    def record(self) -> FlowRecord:
        """Return the flow as the store holds it."""
        return self._app._record(self._row())

    def steps(self) -> list[StepRecord]:
        """Return the flow's execution log in the order of the steps, without the flow itself (step 0)."""
        engine = self._app._engine_here("handle.steps()")
        history = engine.store.load(self._row().flow_key)
        rows = [] if history is None else [engine.shown.step(self.flow_id, row) for row in history.steps]
        return [_step_record(row, engine.names.of(row.name_id)) for row in rows]

    # Acting.

    @overload
    def send(self, signal: Signal[V], value: V) -> None: ...
    @overload
    def send(self, signal: str, value: Any = None) -> None: ...
    def send(self, signal: Signal[Any] | str, value: Any = None) -> None:
        """Send a signal; durable once this returns, whether or not the flow exists or waits.

        With a `Signal` the value is validated against its type before anything is recorded. By name the
        value is JSON, checked where the type is known here, else when the flow takes it.

        Raises:
            SerializationError: the value does not fit the signal's type.
        """
        name, payload = _signal_payload(signal, value)
        self._app._send(self.flow_id, name, payload).result()

    @overload
    async def send_async(self, signal: Signal[V], value: V) -> None: ...
    @overload
    async def send_async(self, signal: str, value: Any = None) -> None: ...
    async def send_async(self, signal: Signal[Any] | str, value: Any = None) -> None:
        """Like `send`, for async code."""
        name, payload = _signal_payload(signal, value)
        await asyncio.wrap_future(self._app._send(self.flow_id, name, payload))

    def resume(self, step: Step[P, Any], *args: P.args, **kwargs: P.kwargs) -> None:
        """Resume a step that the flow waits for, or will wait for, with the step's own arguments.

        Durable once this returns. It may come before the wait and before the flow exists.

        Raises:
            SerializationError: an argument does not fit the step's signature; nothing was recorded.
            FlowNotWaiting: the step is none of the flow's own.
        """
        name, payload = self._resume_payload(step, args, kwargs)
        self._app._send(self.flow_id, name, payload).result()

    async def resume_async(self, step: Step[P, Any], *args: P.args, **kwargs: P.kwargs) -> None:
        """Like `resume`, for async code."""
        name, payload = await asyncio.to_thread(self._resume_payload, step, args, kwargs)
        await asyncio.wrap_future(self._app._send(self.flow_id, name, payload))

    def _resume_payload(self, step: Any, args: Any, kwargs: Any) -> tuple[str, str]:
        if not isinstance(step, Step):
            raise UsageError(
                f"resume takes a step and its arguments, as in resume(Signup.confirm, ...), not {step!r}."
            )
        definition = step._definition
        self._check_own(definition)
        return definition.signal_name, _arguments(definition, args, kwargs)

    def _check_own(self, definition: StepDefinition) -> None:
        """Refuse a step that this flow cannot be waiting for."""
        row = self._app._engine_here("handle.resume()").store.find(self.flow_id)
        target = self._app._registry.find((row.class_name, row.method_name)) if row is not None else None
        if row is None or target is None:
            return
        owner, step_owner = target.owner, definition.owner
        if owner is not None and step_owner is not None and (issubclass(owner, step_owner)):
            return
        if definition.function.__module__ == target.definition.function.__module__:
            return
        raise FlowNotWaiting(
            f"Flow {self.flow_id!r} ({display_name(target.name)}) never waits for "
            f"{display_name(definition.log_name)!r}: "
            "the step belongs neither to its class nor to its module. Resume one of its own steps."
        )

    def cancel(self) -> None:
        """Ask the flow to end; durable once this returns.

        Its cleanup steps still run, its children are cancelled.

        Cancelling a flow that has ended changes nothing.

        Raises:
            FlowNotFound: no flow instance has this id.
        """
        if self._app._cancel(self.flow_id).result() is None:
            self._row()

    async def cancel_async(self) -> None:
        """Like `cancel`, for async code."""
        if await asyncio.wrap_future(self._app._cancel(self.flow_id)) is None:
            await asyncio.to_thread(self._row)

    def retry(self) -> None:
        """Let a failed flow go on at the step that failed, or a parked one where it stopped.

        Its recorded steps do not run again. A flow in any other state is left alone.

        Raises:
            FlowNotFound: no flow instance has this id.
            FlowCancelled: the flow failed after it was cancelled.
        """
        engine = self._app._engine_here("handle.retry()")
        history = engine.store.load(self._row().flow_key)
        if history is None:
            raise not_found(self.flow_id)
        retry(engine.store, history, engine.now_ms(), texts=engine.texts)
        engine.kick()

    async def retry_async(self) -> None:
        """Like `retry`, for async code."""
        await asyncio.to_thread(self.retry)

    async def status_async(self) -> FlowStatus:
        """Like `status`, for async code."""
        return await asyncio.to_thread(self.status)

    async def record_async(self) -> FlowRecord:
        """Like `record`, for async code."""
        return await asyncio.to_thread(self.record)

    async def steps_async(self) -> list[StepRecord]:
        """Like `steps`, for async code."""
        return await asyncio.to_thread(self.steps)


def _signal_payload(signal: Any, value: Any) -> tuple[str, str]:
    if isinstance(signal, Signal):
        return signal.name, signal.codec.validate(value, what=f"The value of signal {signal.name!r}")[0]
    if not isinstance(signal, str):
        raise UsageError(
            f"send takes a Signal or a signal's name, as in send('approval', ...), not {signal!r:.60}."
        )
    check_signal_name(signal)
    known = known_signal(signal)
    what = f"The value of signal {signal!r}"
    text = value_codec(Any).encode(value, what=what)
    if known is None:
        return signal, text
    return signal, known.codec.encode(known.codec.from_json(text, what=what), what=what)


def _arguments(definition: StepDefinition, args: Any, kwargs: Any) -> str:
    codec = definition.arguments
    return codec.accept(args, kwargs, what=f"The input of step {definition.log_name[1]!r}")[0]


def _origin(flow_id: str, text: str | None) -> str:
    """Return in which flow, and at which steps, a recorded failure came up."""
    record = json.loads(text or "{}")
    numbered = zip(record.get("steps", []), record.get("step_names", []), strict=False)
    steps = ", ".join(f"step {number} ({name})" for number, name in numbered)
    return f"Flow {flow_id!r} ({record.get('flow', 'unknown')}) failed{' at ' if steps else ''}{steps}."


def _reason(flow_id: str, text: str | None) -> PersistasaurusError:
    """Return why a flow is parked, as the error itself."""
    reason = json.loads(text or "{}")
    kinds = {kind.__name__: kind for kind in _REASONS}
    kind = kinds.get(reason.get("type", ""), FlowParked)
    error: PersistasaurusError = kind(reason.get("message", f"Flow {flow_id!r} is parked."))
    error.add_note(f"Flow {flow_id!r} is parked. Retry it once the cause is repaired.")
    return error


def _step_record(row: StepRow, name: tuple[str, str]) -> StepRecord:
    return StepRecord(
        step=row.step,
        class_name=name[0],
        method_name=name[1],
        status=STATUS_BY_CODE[row.status],
        attempts=row.attempts,
        delay=None if row.delay_ms is None else timedelta(milliseconds=row.delay_ms),
        timestamp=instant(row.started_at_ms),
        parameters=None if row.parameters is None else json.loads(row.parameters),
        return_value=None if row.return_value is None else json.loads(row.return_value),
        error=None if row.error is None else json.loads(row.error),
    )
