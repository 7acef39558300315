"""What the body of a flow may ask for beside its steps, the same on every replay."""

from __future__ import annotations

import random as _random
import time
import uuid as _uuid
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, TypeVar

from persistasaurus._clock import Duration, instant, to_ms
from persistasaurus._engine.scope import StepScope, in_step, running_flow
from persistasaurus._flow import Step
from persistasaurus.errors import UsageError, WrongContextError

R = TypeVar("R")


def wait_for(step: Step[..., R], timeout: Duration | None = None) -> R:
    """Wait until somebody resumes `step` with its arguments, then run it and return what it returns.

    It has the step's colour: `await wait_for(self.confirm)` for an async one. A resume that came before
    the wait is used at once. The wait survives restarts and holds no thread. Past `timeout` (seconds or
    `timedelta`) it raises `TimeoutError`, which is recorded.

    Raises:
        TimeoutError: nobody resumed the step in time.
        WrongContextError: called outside of a flow, or in one of the other colour.
    """
    if not isinstance(step, Step):
        raise UsageError(f"wait_for takes a step, as in wait_for(self.confirm), not {step!r}.")
    timeout_ms = None if timeout is None else to_ms(timeout, "the timeout of wait_for")
    run = running_flow()
    if run is None:
        raise WrongContextError("wait_for was called outside of a flow. Only a flow waits.")
    waited: R = run.wait_for(step._definition, step._receiver(), timeout_ms)
    return waited


def sleep(duration: Duration) -> None:
    """Sleep durably in a sync flow; after a restart only the rest is waited.

    `duration` is seconds or a `timedelta`. Outside of a flow, and in a step, it is `time.sleep`. In an
    async flow use `asyncio.sleep`, which is durable there.

    Raises:
        ValueError: the duration is negative, NaN or infinite.
    """
    duration_ms = to_ms(duration, "the duration of sleep")
    run = running_flow()
    if run is None:
        time.sleep(duration_ms / 1000)
        return
    run.sleep(duration_ms)


def now() -> datetime:
    """Return the time as an aware UTC datetime; in a flow that of its last event, the same on replay."""
    run = running_flow()
    if run is None:
        return datetime.now(UTC)
    return instant(run.now_ms)


def random() -> float:
    """Return a float in [0, 1); in a flow the same on replay."""
    run = running_flow()
    return _random.random() if run is None else run.rng().random()  # noqa: S311 - no secret


def rng() -> _random.Random:
    """Return a random number generator; in a flow one that yields the same on replay."""
    run = running_flow()
    seed = _random.getrandbits(62) if run is None else run.rng().getrandbits(62)
    return _random.Random(seed)  # noqa: S311 - no secret


def uuid() -> _uuid.UUID:
    """Return a random UUID; in a flow the same on replay."""
    run = running_flow()
    return _uuid.uuid4() if run is None else run.uuid()


@dataclass(frozen=True, slots=True, kw_only=True)
class Current:
    """The flow, and within a step the attempt, that the calling code is part of.

    In the body of a flow `step` is 0, `attempt` is how often it was begun by this process's count (1
    unless it was lost before) and `idempotency_key` is the flow id.
    """

    flow_id: str
    step: int
    attempt: int
    idempotency_key: str


def current() -> Current:
    """Return what the calling code is part of.

    Raises:
        WrongContextError: it runs in no flow and no step.
    """
    here: StepScope | None = in_step()
    if here is not None:
        return Current(
            flow_id=here.flow_id, step=here.step, attempt=here.attempt, idempotency_key=here.idempotency_key
        )
    run: Any = running_flow()
    if run is None:
        raise WrongContextError("current() was called outside of a flow and its steps.")
    return Current(flow_id=run.flow_id, step=0, attempt=1 + run.lost_before, idempotency_key=run.flow_id)
