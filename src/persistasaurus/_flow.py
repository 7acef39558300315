"""`@flow` and `@step`: they mark functions and methods; what is called inside a flow is recorded."""

from __future__ import annotations

import functools
import inspect
import sys
from collections.abc import Callable, Coroutine, Mapping
from typing import Any, Concatenate, Generic, ParamSpec, Self, TypeVar, overload
from uuid import UUID

from persistasaurus._clock import Duration, to_ms
from persistasaurus._engine.registry import (
    FlowDefinition,
    StepDefinition,
    Target,
    check_in_class,
    check_markable,
    check_name,
    define,
    define_step,
)
from persistasaurus._engine.retry import ONCE, Retry
from persistasaurus._engine.scope import running_flow
from persistasaurus._future import StepFuture
from persistasaurus._ids import LONGEST_NAME, is_name
from persistasaurus.errors import UsageError

P = ParamSpec("P")
Q = ParamSpec("Q")
S = TypeVar("S")
T = TypeVar("T")
R_co = TypeVar("R_co", covariant=True)


class _Marked(Generic[P, R_co]):
    """What flows and steps share: a definition, and the instance or class it was reached through."""

    _definition: Any
    _instance: Any = None
    _owner: type | None = None

    def __set_name__(self, owner: type, name: str) -> None:
        self._definition.owner = owner
        self._definition.attribute = name

    def _bound(self, instance: Any, owner: type | None) -> Self:
        copy = object.__new__(type(self))
        copy._definition = self._definition
        copy._instance = instance
        copy._owner = owner
        return copy

    def _plain(self, args: Any, kwargs: Any) -> Any:
        """Call the function as Python would without the mark."""
        definition = self._definition
        if definition.is_method and self._instance is not None:
            return definition.function(self._instance, *args, **kwargs)
        return definition.function(*args, **kwargs)

    def __getattr__(self, name: str) -> Any:
        if name.startswith("_") and not name.startswith("__"):
            raise AttributeError(name)
        return getattr(self._definition.function, name)

    def __repr__(self) -> str:
        kind = type(self).__name__.lower()
        return f"<{kind} {self._definition.function.__qualname__}>"


class Step(_Marked[P, R_co]):
    """A function marked by `@step`. Inside a flow its outcome is recorded, elsewhere it is plain."""

    _definition: StepDefinition

    def __init__(self, definition: StepDefinition) -> None:
        self._definition = definition
        functools.update_wrapper(self, definition.function)

    def __set_name__(self, owner: type, name: str) -> None:
        super().__set_name__(owner, name)
        define_step(self._definition)

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> R_co:
        run = running_flow()
        if run is None:
            plain: R_co = self._plain(args, kwargs)
            return plain
        definition = self._definition
        receiver = self._receiver() if definition.is_method else None
        value: R_co = run.call_step(definition, receiver, args, kwargs)
        return value

    @overload
    def submit(self: Step[P, Coroutine[Any, Any, T]], *args: P.args, **kwargs: P.kwargs) -> StepFuture[T]: ...
    @overload
    def submit(self: Step[P, T], *args: P.args, **kwargs: P.kwargs) -> StepFuture[T]: ...
    def submit(self, *args: Any, **kwargs: Any) -> StepFuture[Any]:
        """Run the step beside the flow's own code and return a future of its outcome.

        `await` it in an async flow, call `.result()` in a sync one. It also lets an async flow use a
        sync step, which then runs in a thread. After a crash the step runs again unless its outcome
        was recorded.
        """
        run = running_flow()
        if run is None:
            return StepFuture.outside(lambda: self._plain(args, kwargs), is_async=self._definition.is_async)
        return StepFuture(run, run.submit_step(self._definition, self._receiver(), args, kwargs))

    def _receiver(self) -> Any:
        definition = self._definition
        if definition.is_method and self._instance is None:
            check_in_class(definition, "step")
            name = definition.function.__qualname__
            raise UsageError(
                f"The step {name!r} is a method: call it on an instance, as in "
                f"`self.{definition.attribute}()`."
            )
        return self._instance

    @overload
    def __get__(self: Step[Concatenate[S, Q], R_co], instance: None, owner: type[S]) -> Step[Q, R_co]: ...
    @overload
    def __get__(self: Step[Concatenate[S, Q], R_co], instance: S, owner: Any) -> Step[Q, R_co]: ...
    def __get__(self, instance: Any, owner: Any) -> Any:
        return self._bound(instance, owner)


class Flow(_Marked[P, R_co]):
    """A function marked by `@flow`. Start it with `app.start` or `app.run`; inside a flow it is a child."""

    _definition: FlowDefinition
    _flow_id: str | UUID | None = None

    def __init__(self, definition: FlowDefinition) -> None:
        self._definition = definition
        functools.update_wrapper(self, definition.function)

    def __set_name__(self, owner: type, name: str) -> None:
        super().__set_name__(owner, name)
        define(Target(self._definition, owner))

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> R_co:
        run = running_flow()
        if run is None:
            plain: R_co = self._plain(args, kwargs)
            return plain
        result: R_co = run.call_flow(self._target(run), args, kwargs)
        return result

    @overload
    def submit(self: Flow[P, Coroutine[Any, Any, T]], *args: P.args, **kwargs: P.kwargs) -> StepFuture[T]: ...
    @overload
    def submit(self: Flow[P, T], *args: P.args, **kwargs: P.kwargs) -> StepFuture[T]: ...
    def submit(self, *args: Any, **kwargs: Any) -> StepFuture[Any]:
        """Start a child flow and return a future of its outcome."""
        run = running_flow()
        if run is None:
            return StepFuture.outside(lambda: self._plain(args, kwargs), is_async=self._definition.is_async)
        return StepFuture(run, run.submit_flow(self._target(run), args, kwargs))

    def options(self, *, flow_id: str | UUID | None = None) -> Flow[P, R_co]:
        """Return a copy of the flow that `app.start` and `app.run` start under this flow id."""
        copy = self._bound(self._instance, self._owner)
        copy._flow_id = flow_id
        return copy

    def _target(self, run: Any) -> Target:
        target: Target = run.engine.registry.target(self._definition, self._owner_class())
        return target

    def _owner_class(self) -> type | None:
        if not self._definition.is_method:
            return None
        return self._owner or self._definition.owner

    @overload
    def __get__(self: Flow[Concatenate[S, Q], R_co], instance: None, owner: type[S]) -> Flow[Q, R_co]: ...
    @overload
    def __get__(self: Flow[Concatenate[S, Q], R_co], instance: S, owner: Any) -> Flow[Q, R_co]: ...
    def __get__(self, instance: Any, owner: Any) -> Any:
        return self._bound(instance, owner)


@overload
def flow(function: Callable[P, R_co], /) -> Flow[P, R_co]: ...
@overload
def flow(*, name: str | None = None) -> Callable[[Callable[P, R_co]], Flow[P, R_co]]: ...
def flow(function: Callable[..., Any] | None = None, /, *, name: str | None = None) -> Any:
    """Mark a function or method, sync or async, as a flow.

    The steps that it calls are recorded, so that after a crash it goes on after the last one that
    succeeded: its body runs again from the top, and recorded steps return what they returned. The body
    must therefore be deterministic; what is not belongs in a step. Its name, by which it is found after
    a restart, is the qualified name without the module unless `name` is given.

    Raises:
        UsageError: it is a generator, a lambda, or no function.
        DuplicateNameError: a function of another module has the name.
    """
    near = sys._getframe(1).f_locals

    def mark(marked: Callable[..., Any]) -> Flow[Any, Any]:
        return _mark_flow(marked, name, near)

    return mark if function is None else mark(function)


def _mark_flow(function: Callable[..., Any], name: str | None, near: Mapping[str, Any]) -> Flow[Any, Any]:
    check_markable(function, "flow")
    definition = FlowDefinition(**_described(function, name, near))
    marked: Flow[Any, Any] = Flow(definition)
    if not definition.is_method:
        define(Target(definition, None))
        return marked
    class_name, _, attribute = function.__qualname__.rpartition(".")
    check_name(definition, ("", name) if name else (class_name, attribute))
    return marked


@overload
def step(function: Callable[P, R_co], /) -> Step[P, R_co]: ...
@overload
def step(
    *,
    delay: Duration | None = None,
    retry: Retry | None = None,
    timeout: Duration | None = None,
    name: str | None = None,
) -> Callable[[Callable[P, R_co]], Step[P, R_co]]: ...
def step(
    function: Callable[..., Any] | None = None,
    /,
    *,
    delay: Duration | None = None,
    retry: Retry | None = None,
    timeout: Duration | None = None,
    name: str | None = None,
) -> Any:
    """Mark a function or method, sync or async, as a step.

    Inside a flow its outcome is recorded before anyone sees it, and it never runs again after that. A
    crash before the record runs it again, with the same `current().idempotency_key` and a higher
    `current().attempt`. `delay` is waited before it runs, `timeout` limits each attempt (a sync
    step's thread cannot be stopped and runs on unheard); both are seconds or a `timedelta`. `retry` says
    when a failure is followed by another attempt; the default is one attempt.

    Raises:
        UsageError: it is a generator, a lambda, or no function.
        ValueError: a duration is negative, NaN or infinite.
    """
    delay_ms = None if delay is None else to_ms(delay, "@step(delay=...)")
    timeout_ms = None if timeout is None else to_ms(timeout, "@step(timeout=...)")
    near = sys._getframe(1).f_locals

    def mark(marked: Callable[..., Any]) -> Step[Any, Any]:
        check_markable(marked, "step")
        if retry is not None and not isinstance(retry, Retry):
            raise UsageError(f"@step(retry={retry!r:.60}): give a Retry, as in retry=Retry(attempts=3).")
        described = _described(marked, name, near)
        definition = StepDefinition(
            **described, retry=retry or ONCE, delay_ms=delay_ms, timeout_ms=timeout_ms
        )
        if not definition.is_method:
            define_step(definition)
        return Step(definition)

    return mark if function is None else mark(function)


def _described(function: Callable[..., Any], name: str | None, near: Mapping[str, Any]) -> dict[str, Any]:
    if name is not None and not is_name(name):
        raise UsageError(
            f"name={name!r:.60}: no database can keep it. Give a text of 1 to {LONGEST_NAME} characters "
            "without NUL or lone surrogates."
        )
    where = function.__qualname__.rpartition("<locals>.")[2]
    return {
        "function": function,
        "given_name": name,
        "is_async": inspect.iscoroutinefunction(function),
        "is_method": "." in where,
        "local_names": _local_names(function, near),
    }


def _local_names(function: Callable[..., Any], near: Mapping[str, Any]) -> Mapping[str, Any] | None:
    """Return the names around a function whose annotations are texts, to look local classes up in."""
    annotations = getattr(function, "__annotations__", {})
    if near is getattr(function, "__globals__", None) or not any(
        isinstance(a, str) for a in annotations.values()
    ):
        return None
    return near
