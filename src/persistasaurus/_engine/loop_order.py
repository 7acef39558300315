"""Futures and tasks whose place in a set is the same in every process.

asyncio keeps futures in sets: those that `wait` returns, those that a `TaskGroup` cancels, those that
`as_completed` starts. An ordinary future hashes by its address, so such a set has another order in every
process, and a flow that walks it would replay differently. Here everything hashes by a number. Equality
stays identity.

Read for this: asyncio's tasks.py, taskgroups.py, locks.py and queues.py of 3.11 to 3.13, and the
_asynciomodule.c of 3.14.
"""

from __future__ import annotations

import asyncio
import inspect
import sys
from asyncio import events, tasks
from collections.abc import Callable, Collection, Iterator
from contextvars import Context
from types import CodeType, FrameType
from typing import Any, NoReturn, cast

from persistasaurus.errors import WrongContextError

_tasks: Any = tasks
"""asyncio's module, of which typeshed knows the public part."""


class FlowFuture(asyncio.Future[Any]):
    """A future of a flow's loop, made by `FlowLoop.create_future`."""

    __slots__ = ("number",)
    number: int

    def __hash__(self) -> int:
        return self.number


class FlowTask(asyncio.Task[Any]):
    """A task of a flow's loop, made by `FlowLoop.create_task`."""

    __slots__ = ("context", "number")
    number: int
    context: Context
    """Python 3.11 cannot say in which context a task runs."""

    def __hash__(self) -> int:
        try:
            number = self.number
        except AttributeError:
            # Up to 3.13 a task puts itself into a weak set of the whole process while it is being made. By
            # number, the first tasks of all flows would collide there; the weak reference keeps this hash.
            return object.__hash__(self)
        if sys._getframe(1).f_code in _ALL_TASKS and events._get_running_loop() is self.get_loop():
            raise WrongContextError(
                "An async flow cannot call asyncio.all_tasks(): the order of its tasks there depends on the "
                "other flows in the process, so it would differ on replay. Keep a list of the tasks that the "
                "flow starts, or start them in an asyncio.TaskGroup."
            )
        return number


class FlowGathering(_tasks._GatheringFuture):  # type: ignore[misc]  # Any to mypy
    """What `asyncio.gather` returns in a flow."""

    number: int

    def __hash__(self) -> int:
        return self.number


def _codes(function: object) -> frozenset[CodeType]:
    """Return a function's code and, up to 3.11, that of the comprehensions in it; none where it is C."""
    code = getattr(function, "__code__", None)
    if code is None:
        return frozenset()
    return frozenset({code, *(inner for inner in code.co_consts if isinstance(inner, CodeType))})


_ALL_TASKS = _codes(asyncio.all_tasks)
GATHERING_INIT: CodeType = _tasks._GatheringFuture.__init__.__code__
WAIT: CodeType = _tasks._wait.__code__
ENSURE_FUTURE = _codes(tasks.ensure_future) | _codes(getattr(tasks, "_ensure_future", None))
# 3.13 made a class of the generator function that as_completed was.
_ITERATOR = getattr(tasks, "_AsCompletedIterator", None)
_AS_COMPLETED = _codes(_ITERATOR.__init__ if _ITERATOR else tasks.as_completed)
_AWAITABLES = "aws" if _ITERATOR else "fs"


def number_gathering(frame: FrameType, number: int) -> None:
    """Give the future that `gather` is making its number: it asks the loop for nothing but its debug flag."""
    gathering = frame.f_locals["self"]
    gathering.__class__ = FlowGathering
    gathering.number = number


def check_awaited(frame: FrameType) -> None:
    """Refuse to let `asyncio.wait` wait for a future whose place in a set is its address."""
    for future in cast("set[Any]", frame.f_locals["fs"]):
        kind = cast("Any", type(future))
        if kind.__hash__ is object.__hash__:
            raise WrongContextError(
                f"An async flow cannot give asyncio.wait() a {kind.__qualname__} that it made itself: its "
                "place in the sets that wait() returns differs from process to process. Make it by "
                "asyncio.get_running_loop().create_future() or asyncio.create_task()."
            )


class CompletionOrder:
    """One call of `asyncio.as_completed`: its tasks, made in the order in which the flow gave them.

    as_completed puts coroutines into a set and makes a task of each as it comes out, which is by address.
    This makes all of them at the first request, in the order of the list that the flow gave, which is a
    local variable of as_completed's frame, and hands them out as they are asked for.
    """

    __slots__ = ("frame", "waiting")

    def __init__(self, frame: FrameType, coroutine: Any, make: Callable[[Any], FlowTask]) -> None:
        self.frame = frame
        self.waiting: dict[int, FlowTask] = {}
        given: Any = frame.f_locals[_AWAITABLES]
        why_not = _why_not(given)
        if why_not is not None:
            _refuse(coroutine, why_not)
        # What is equal counts once, as in asyncio.
        for awaitable in dict.fromkeys(given):
            if asyncio.iscoroutine(awaitable):
                self.waiting[id(awaitable)] = make(awaitable)
            elif inspect.isawaitable(awaitable) and not asyncio.isfuture(awaitable):
                self.waiting[id(awaitable)] = make(_wait_for(awaitable))

    def take(self, coroutine: Any) -> FlowTask:
        """Return the task of what as_completed has drawn from its set."""
        awaitable = _wrapped(coroutine)
        if awaitable is not None:
            coroutine.close()
        task = self.waiting.pop(id(coroutine if awaitable is None else awaitable), None)
        if task is None:
            _refuse(coroutine, "a collection that makes new coroutines whenever it is read")
        return task


def find_as_completed(frame: FrameType) -> FrameType | None:
    """Return the frame of `as_completed` where `frame` is an ensure_future that it has called."""
    caller = frame.f_back
    while caller is not None and caller.f_code in ENSURE_FUTURE:
        caller = caller.f_back
    if caller is None or caller.f_code not in _AS_COMPLETED:
        return None
    # Up to 3.11 a comprehension has a frame of its own.
    return caller.f_back if caller.f_code.co_name == "<setcomp>" else caller


def _why_not(given: Any) -> str | None:
    """Return what is wrong where the order of what the flow gave is not the same in every process."""
    kind: str = type(given).__name__
    match given:
        case set() | frozenset():
            return "a set of coroutines, which has another order in every process"
        case Collection() if not isinstance(given, Iterator):
            # Their callbacks run in the order of a set that the coroutines are in too.
            finished = sum(asyncio.isfuture(future) and future.done() for future in cast("list[Any]", given))
            return "several finished futures and coroutines together" if finished > 1 else None
        case _:
            return f"a {kind} of coroutines, which is used up by now"


def _refuse(coroutine: Any, what: str) -> NoReturn:
    coroutine.close()
    raise TypeError(
        f"asyncio.as_completed() got {what}: in a flow the order must be the same on replay. Pass a list of "
        "coroutines, or one of tasks."
    )


async def _wait_for(awaitable: Any) -> Any:
    return await awaitable


def _wrapped(coroutine: Any) -> Any:
    """Return the awaitable that ensure_future has put into a coroutine of its own, if it has."""
    code = getattr(coroutine, "cr_code", None) or getattr(coroutine, "gi_code", None)
    if code is None or code.co_name != "_wrap_awaitable" or code.co_filename != tasks.__file__:
        return None
    frame = getattr(coroutine, "cr_frame", None) or coroutine.gi_frame
    return frame.f_locals["awaitable"]
