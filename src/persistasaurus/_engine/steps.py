"""Runs the attempts of steps and records how they end.

A step's start is not made durable before it runs: it travels with the flow's next commit, or alone after
some 10 ms. Its outcome is durable before the flow, or anyone, sees it.
"""

from __future__ import annotations

import asyncio
import contextvars
import logging
from collections.abc import Coroutine
from datetime import timedelta
from functools import partial
from typing import TYPE_CHECKING, Any, cast

from persistasaurus._codec import check_size
from persistasaurus._engine.attempts import next_attempt, starts_durably
from persistasaurus._engine.outbox import put_end, put_failed_attempt, put_nothing
from persistasaurus._engine.progress import Progress
from persistasaurus._engine.recorded import decode_recorded
from persistasaurus._engine.scope import StepScope, scope
from persistasaurus._events import Happening
from persistasaurus._failure import convert, record_failure
from persistasaurus._model import COMPLETE, FAILED, PENDING, Kind
from persistasaurus.errors import SerializationError, StepFailed

if TYPE_CHECKING:
    from persistasaurus._engine.engine import Engine
    from persistasaurus._engine.operation import Operation
    from persistasaurus._engine.registry import StepDefinition
    from persistasaurus._engine.run import Run

log = logging.getLogger("persistasaurus.step")


def ask_step(
    run: Run, definition: StepDefinition, instance: Any, args: Any, kwargs: Any, *, inline: bool
) -> Operation:
    """Ask for a step."""
    # Before it gets a number: a call that is refused has not happened, live and on every replay alike.
    parameters = definition.arguments.write(args, kwargs, what=definition.input_label)
    engine = run.engine
    if len(parameters) > engine.certain_length:
        check_size(parameters, limit=engine.settings.max_payload, what=definition.input_label)
    name_id = definition.name_ids.get(engine.store_number) or run.name_id(definition)
    operation = run.ask(Kind.STEP, name_id)
    operation.definition = definition
    if instance is not None:
        operation.instance = instance
    operation.arguments = args
    operation.keywords = kwargs or None
    operation.parameters = parameters
    operation.codec = definition.result
    if inline:
        operation.inline = True
    return operation


def begin_step(engine: Engine, run: Run, operation: Operation) -> None:
    """Run a step now, or when its delay or the wait for its next attempt is over."""
    definition: StepDefinition = operation.definition
    if operation.row is None:
        operation.started_at_ms = engine.now_ms()
        if definition.delay_ms is not None:
            operation.delay_ms = definition.delay_ms
            operation.due_at_ms = operation.started_at_ms + definition.delay_ms
            engine.write_start(run, operation, PENDING)
    if operation.due_at_ms is not None and operation.due_at_ms > engine.now_ms():
        engine.timers.arm(operation.due_at_ms, run, operation)
        return
    start_attempt(engine, run, operation)


def begin_fresh(engine: Engine, run: Run, operation: Operation) -> None:
    """Begin a step that an async flow has asked for just now: `begin_step`, without what cannot be."""
    definition: StepDefinition = operation.definition
    usual = definition.is_async and definition.delay_ms is None and not run.idle and not run.lost_before
    if not usual or run.worker_id != engine.worker_id:
        begin_step(engine, run, operation)
        return
    operation.started_at_ms = engine.now_ms()
    with run.guard:
        run.active += 1
        # In this order: who leaves the app says so, and then looks whether anything is active.
        if engine.stopping:
            run.active -= 1
        else:
            operation.attempt = 1
            operation.running = True
            run.unwritten[operation.number] = operation
    if not operation.running:
        engine.hold(run, operation)
        return
    engine.committer.note_start(run, operation.number)
    engine.runners.submit(engine.host, run, operation)


def start_attempt(engine: Engine, run: Run, operation: Operation) -> None:
    """Run an attempt, unless the worker may not: its lease is over, or the flow counts as idle."""
    if operation.abandoned or operation.done or run.halted is not None or run.worker_id != engine.worker_id:
        return
    # Told twice to begin: it was due while it was held back, or while its flow was said to run; or the first
    # time it had its attempt, and that this failed is not durable yet.
    if operation.running or operation.commits or operation.held_by_write:
        return
    if operation.due_at_ms is not None and operation.due_at_ms > engine.now_ms():
        engine.timers.arm(operation.due_at_ms, run, operation)
        return
    # Before it is counted: the writer may take its row at any moment from then on.
    if not engine.may_start():
        engine.hold(run, operation)
        return
    if run.idle:
        # A crash during the attempt has to count as one of this flow's: say first that it runs.
        report = Progress(run)
        run.running(report)
        report.then = partial(_go_on, engine, run, operation)
        operation.held_by_write = True
        run.put(report)
        return
    written_first = starts_durably(run, operation)
    with run.guard:  # also what its row says: the writer may be reading that
        operation.attempt = next_attempt(run, operation)
        operation.row = None
        operation.status = PENDING
        operation.due_at_ms = None
        operation.running = True
        run.active += 1
        run.unwritten[operation.number] = operation
    if written_first:
        report = Progress(run)
        report.then = lambda _: _run_attempt(engine, run, operation)
        run.put(report)
        return
    engine.committer.note_start(run, operation.number)
    _run_attempt(engine, run, operation)


def _go_on(engine: Engine, run: Run, operation: Operation, _: object) -> None:
    operation.held_by_write = False
    start_attempt(engine, run, operation)


def _run_attempt(engine: Engine, run: Run, operation: Operation) -> None:
    if operation.definition.is_async:
        engine.on_host(engine.runners.submit, engine.host, run, operation)
    elif operation.inline:
        _run_here(engine, run, operation)
    else:
        engine.step_pool.submit(lambda: _run_here(engine, run, operation))


def _still_may(engine: Engine, run: Run, operation: Operation) -> bool:
    """Whether an attempt may run now that its thread or task is there; else it is dropped or kept back."""
    # In this order: who stands still between the two must not go by the lease that this worker has got since.
    may_start = engine.may_start()
    if operation.abandoned or run.worker_id != engine.worker_id:
        put_nothing(run, operation)
        return False
    if not may_start:
        _take_back(engine, run, operation)
        engine.hold(run, operation)
        return False
    if engine.facts.observed:
        engine.facts.tell(Happening.STEP_STARTED, run, operation)
    return True


def _take_back(engine: Engine, run: Run, operation: Operation) -> None:
    """Say that an attempt has not run, also in its row: that may have been written meanwhile."""
    with run.guard:
        operation.attempt -= 1
        run.unwritten[operation.number] = operation
    engine.committer.note_start(run, operation.number)


def _run_here(engine: Engine, run: Run, operation: Operation) -> None:
    if not _still_may(engine, run, operation):
        return
    attempt, timeout_ms = operation.attempt, operation.definition.timeout_ms
    if timeout_ms is not None:
        engine.on_host(engine.host.call_later, timeout_ms / 1000, _time_over, engine, run, operation, attempt)
    token = scope.set(StepScope(run.flow_id, operation.number, operation.attempt))
    try:
        value = _call_traced(engine, run, operation) if engine.facts.traced else _call(operation)
    except KeyboardInterrupt:
        raise
    except BaseException as error:  # noqa: BLE001 - the one place where a user's failure becomes data
        scope.reset(token)
        if _ends(run, operation, attempt):
            give_up_or_retry(engine, run, operation, error)
    else:
        scope.reset(token)
        if _ends(run, operation, attempt):
            finish(engine, run, operation, value)


def _time_over(engine: Engine, run: Run, operation: Operation, attempt: int) -> None:
    """Fail an attempt whose time is over; its thread cannot be stopped and runs on unheard."""
    if not run.finished and operation.running and _ends(run, operation, attempt):
        give_up_or_retry(engine, run, operation, _too_late(operation))


def _ends(run: Run, operation: Operation, attempt: int) -> bool:
    """Whether this is the first word of the attempt's end: the step's own, or that its time is over."""
    with run.guard:
        first = operation.attempt == attempt and operation.ended_attempt < attempt
        if first:
            operation.ended_attempt = attempt
    return first


def _too_late(operation: Operation) -> TimeoutError:
    definition: StepDefinition = operation.definition
    limit = timedelta(milliseconds=definition.timeout_ms or 0)
    name = definition.log_name[1]
    return TimeoutError(
        f"Attempt {operation.attempt} of step {name!r} took longer than its timeout of {limit}."
    )


def _call(operation: Operation) -> Any:
    definition, args, kwargs = operation.definition, operation.arguments, operation.keywords
    if definition.is_method:
        args = (operation.instance, *args)
    # Without the empty dictionary that the other way makes for each call.
    return definition.function(*args, **kwargs) if kwargs else definition.function(*args)


def _call_traced(engine: Engine, run: Run, operation: Operation) -> Any:
    context = contextvars.copy_context()
    context.run(engine.facts.enter, Happening.STEP_STARTED, run, operation)
    return context.run(_call, operation)


def begin_async(
    engine: Engine, run: Run, operation: Operation, context: contextvars.Context
) -> Coroutine[Any, Any, Any] | None:
    """Return the coroutine of an attempt, None where it may not run now."""
    if not _still_may(engine, run, operation):
        return None
    if engine.facts.traced:
        context.run(engine.facts.enter, Happening.STEP_STARTED, run, operation)
    definition: StepDefinition = operation.definition
    if definition.timeout_ms is not None:
        return _limited(operation)
    try:
        if definition.is_native:
            return cast("Coroutine[Any, Any, Any]", _call(operation))  # which runs none of its code
        called = context.run(_call, operation)
    except KeyboardInterrupt:
        raise
    except BaseException as error:  # noqa: BLE001 - a plain function that is marked as a coroutine function
        give_up_or_retry(engine, run, operation, error)
        return None
    return called if asyncio.iscoroutine(called) else _awaited(called)


async def _awaited(called: Any) -> Any:
    return await called


async def _limited(operation: Operation) -> Any:
    limit = asyncio.timeout(operation.definition.timeout_ms / 1000)
    try:
        async with limit:
            return await _call(operation)
    except TimeoutError:
        if not limit.expired():
            raise
    raise _too_late(operation)


def fail_async(engine: Engine, run: Run, operation: Operation, error: BaseException) -> None:
    """Record what an attempt of an async step raised, but for one cancelled because nobody waits for it."""
    if isinstance(error, asyncio.CancelledError) and (operation.abandoned or engine.stopping):
        put_nothing(run, operation)
        return
    give_up_or_retry(engine, run, operation, error)


def finish(engine: Engine, run: Run, operation: Operation, value: Any) -> None:
    """Record what an attempt returned; what JSON cannot carry fails the step, however often it is tried."""
    what = operation.definition.result_label
    try:
        text, operation.value = operation.codec.record(value, what=what)
        if len(text) > engine.certain_length:
            check_size(text, limit=engine.settings.max_payload, what=what)
    except SerializationError as unrecordable:
        fail(run, operation, unrecordable)
        return
    put_end(run, operation, COMPLETE, return_value=text)


def give_up_or_retry(engine: Engine, run: Run, operation: Operation, error: BaseException) -> None:
    """Record that an attempt failed: the step is tried again, or has failed."""
    made = operation.attempt - operation.attempts_before
    key = f"{run.flow_id}/{operation.number}"
    wait_ms = operation.definition.retry.next_wait_ms(error, made=made, key=key)
    if wait_ms is None:
        fail(run, operation, error)
    else:
        _try_again(engine, run, operation, error, wait_ms)


def complete_as_kept(engine: Engine, run: Run, operation: Operation) -> None:
    """Give an operation the outcome that it had before the flow was retried, as its next event."""
    row = operation.row
    try:
        decode_recorded(engine, run, operation)
    except SerializationError as error:
        run.halted = error
        run.nudge()
        return
    operation.row = None
    if row is not None:
        put_end(run, operation, row.status, return_value=row.return_value, error=row.error)


def fail(run: Run, operation: Operation, error: BaseException) -> None:
    """Write that an operation has failed, with its exception as data."""
    if isinstance(error, asyncio.CancelledError):
        # A step that cancels itself must not look like a cancel of the flow.
        error = StepFailed(str(error), type_name="asyncio.CancelledError")
    text, operation.error = convert(error, StepFailed)
    put_end(run, operation, FAILED, error=text)


def _try_again(engine: Engine, run: Run, operation: Operation, error: BaseException, wait_ms: int) -> None:
    """Record the attempt and the time of the next one before waiting: a crash resets neither."""
    if put_failed_attempt(run, operation, engine.now_ms() + wait_ms, record_failure(error)):
        extra = {"flow_id": run.flow_id, "step": operation.number, "attempt": operation.attempt}
        log.info("step failed, next attempt in %d ms: %s", wait_ms, type(error).__qualname__, extra=extra)
        if engine.facts.observed:
            engine.facts.tell(Happening.STEP_RETRIED, run, operation)
