"""Which flow or step the running code belongs to."""

from __future__ import annotations

import threading
import weakref
from asyncio import _get_running_loop
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any, NamedTuple, final

from persistasaurus._engine.loop import FlowLoop
from persistasaurus.errors import WrongContextError

if TYPE_CHECKING:
    from persistasaurus._engine.run import Run


@final
class StepScope(NamedTuple):
    """The attempt of a step that the code runs in; user code reads it through `current()`."""

    flow_id: str
    step: int
    attempt: int

    @property
    def idempotency_key(self) -> str:
        """A text that is the same on every attempt of this step and on no other step's."""
        return f"{self.flow_id}/{self.step}"


scope: ContextVar[Run | StepScope | None] = ContextVar("persistasaurus", default=None)

_started_by_flow: weakref.WeakSet[threading.Thread] = weakref.WeakSet()
_any_started = False
"""Whether a flow ever started a thread: every start of a flow asks, and asking the set takes long."""


def running_flow() -> Run | None:
    """Return the flow whose body is running here, None in a step or outside of any flow.

    Raises:
        WrongContextError: the calling thread or event loop is not the flow's own.
    """
    here = scope.get()
    if here is None:
        if _any_started and threading.current_thread() in _started_by_flow:
            raise foreign_thread()
        if isinstance(_get_running_loop(), FlowLoop):
            raise WrongContextError(
                "A durable operation was called in a flow, but in a context that is not the flow's: it would "
                "not be recorded. Leave out `context=`, or give it a copy that the flow has made by "
                "contextvars.copy_context()."
            )
        return None
    # Every call of a step passes here, and this is faster than isinstance.
    if type(here) is StepScope:
        return None
    if here.thread_ident != threading.get_ident():
        raise foreign_thread()
    return here


def in_step() -> StepScope | None:
    """Return the attempt that the calling code is part of."""
    here = scope.get()
    return here if isinstance(here, StepScope) else None


def foreign_thread() -> WrongContextError:
    """Return the error for a durable operation asked for from a thread that is not the flow's."""
    name = threading.current_thread().name
    return WrongContextError(
        f"A durable operation was called from thread {name!r}, which is not its flow's. The order of calls "
        "from other threads is not the same on replay. Call the step from the flow itself, with "
        "`step.submit(...)` to run several at once; threads belong inside a step."
    )


def watch_threads() -> None:
    """Note every thread that a flow's body starts, so that a step called there is refused.

    A new thread does not inherit context variables before Python 3.14: without this note a step
    called there would pass for a plain call and would silently not be recorded.
    """
    plain = threading.Thread.start
    if getattr(plain, "_persistasaurus", False):
        return

    def start(self: threading.Thread, *args: Any, **kwargs: Any) -> None:
        global _any_started  # noqa: PLW0603 - see there
        here = scope.get()
        # A thread that such a thread starts is the flow's doing too.
        by_flow = (
            threading.current_thread() in _started_by_flow if here is None else type(here) is not StepScope
        )
        if by_flow:
            _started_by_flow.add(self)
            _any_started = True
        plain(self, *args, **kwargs)

    setattr(start, "_persistasaurus", True)  # noqa: B010 - an attribute that functions do not declare
    threading.Thread.start = start  # type: ignore[method-assign]
