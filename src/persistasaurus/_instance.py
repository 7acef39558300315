"""A flow instance in the words of a lambda: `app.get_flow(Signup, id).run(lambda f: f.sign_up(...))`."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Sequence
from typing import TYPE_CHECKING, Any, Generic, TypeVar, cast, overload

from persistasaurus._engine.registry import known_step
from persistasaurus._flow import Flow, Step
from persistasaurus._handle import FlowHandle, _arguments
from persistasaurus._model import FAILED, WAITING, Kind
from persistasaurus.errors import FlowNotWaiting, UsageError

if TYPE_CHECKING:
    from persistasaurus._app import Persistasaurus
    from persistasaurus._engine.registry import StepDefinition
    from persistasaurus._store.base import StepRow

F = TypeVar("F")
T = TypeVar("T")


class FlowInstance(Generic[F]):
    """One flow instance of a class, interface or function; each call takes a lambda that calls one method."""

    def __init__(self, app: Persistasaurus, flow: type[F] | Flow[Any, Any], flow_id: str) -> None:
        self._app = app
        self._flow = flow
        self.flow_id = flow_id

    @overload
    def run(self, call: Callable[[F], Coroutine[Any, Any, T]]) -> T: ...
    @overload
    def run(self, call: Callable[[F], T]) -> T: ...
    def run(self, call: Callable[[F], Any]) -> Any:
        """Run the flow under this id and return its result; a failed one goes on at its failed step.

        Raises:
            FlowConflict: the id belongs to another flow or another input.
            Exception: what the flow raised, as `FlowHandle.result` does.
        """
        self._app._engine_here("FlowInstance.run()", cure="await instance.run_async(...)")
        return self._start(call).result()

    @overload
    async def run_async(self, call: Callable[[F], Coroutine[Any, Any, T]]) -> T: ...
    @overload
    async def run_async(self, call: Callable[[F], T]) -> T: ...
    async def run_async(self, call: Callable[[F], Any]) -> Any:
        """Like `run`, for async code: returns the result."""
        handle = await asyncio.to_thread(self._start, call)
        return await handle

    @overload
    def start(self, call: Callable[[F], Coroutine[Any, Any, T]]) -> FlowHandle[T]: ...
    @overload
    def start(self, call: Callable[[F], T]) -> FlowHandle[T]: ...
    def start(self, call: Callable[[F], Any]) -> FlowHandle[Any]:
        """Like `run`, but return a handle once the start is durable."""
        return self._start(call)

    def resume(self, call: Callable[[F], Any]) -> None:
        """Resume a step with the arguments that the lambda gives it; durable when this returns.

        It may come before the wait and before the flow exists.

        Raises:
            SerializationError: an argument does not fit; nothing was recorded.
            FlowNotWaiting: the step is none of the flow's own.
        """
        step, args, kwargs = self._recorded(call, Step)
        self.handle.resume(step, *args, **kwargs)

    async def resume_async(self, call: Callable[[F], Any]) -> None:
        """Like `resume`, for async code."""
        step, args, kwargs = self._recorded(call, Step)
        await self.handle.resume_async(step, *args, **kwargs)

    def signal_resume(self, *args: Any, **kwargs: Any) -> None:
        """Resume the one step that the flow waits for.

        Raises:
            FlowNotFound: no flow instance has this id.
            FlowNotWaiting: the flow waits for no step, or for several.
        """
        definition = self._waited_for()
        self._app._send(self.flow_id, definition.signal_name, _arguments(definition, args, kwargs)).result()

    async def signal_resume_async(self, *args: Any, **kwargs: Any) -> None:
        """Like `signal_resume`, for async code."""
        await asyncio.to_thread(self.signal_resume, *args, **kwargs)

    @property
    def handle(self) -> FlowHandle[Any]:
        """The handle of this flow instance."""
        return self._app.handle(self.flow_id)

    def _start(self, call: Callable[[F], Any]) -> FlowHandle[Any]:
        flow, args, kwargs = self._recorded(call, Flow)
        found, handle = self._app._start_or_find(flow.options(flow_id=self.flow_id), args, kwargs)
        if not found.created and found.status == FAILED:
            handle.retry()
        return handle

    def _waited_for(self) -> StepDefinition:
        handle = self.handle
        engine = self._app._engine_here("signal_resume()")
        history = engine.store.load(handle._row().flow_key)
        rows: Sequence[StepRow] = () if history is None else history.steps
        waiting = [
            row for row in rows if row.kind == Kind.WAIT_FOR and row.status == WAITING and row.event is None
        ]
        names = [engine.names.of(row.name_id) for row in waiting]
        if len(names) != 1:
            found = ", ".join(sorted(name[1] for name in names)) or "none"
            raise FlowNotWaiting(
                f"Flow {self.flow_id!r} waits for {found}; signal_resume needs exactly one step that it "
                "waits for. "
                "Use resume(lambda f: ...) to name the step, which may also come before the wait."
            )
        definition = known_step(names[0])
        if definition is None:
            raise FlowNotWaiting(
                f"The step {names[0][1]!r} is not defined in this process: import its module first."
            )
        return definition

    def _recorded(self, call: Callable[[F], Any], kind: type) -> tuple[Any, Any, Any]:
        """Call the lambda with a proxy and return the flow or step that it called, with its arguments."""
        calls: list[tuple[Any, Any, Any]] = []
        if isinstance(self._flow, Flow):
            given = self._flow
            recorder = _Recorder(lambda name: given if name is None else None, calls)
        else:
            owner = self._app._registry.implementation(self._flow)
            recorder = _Recorder(lambda name: getattr(owner, name or "__call__", None), calls)
        call(cast("F", recorder))
        if len(calls) != 1:
            raise UsageError(
                f"The lambda called {len(calls)} methods; it must call one, as in `lambda f: f.sign_up(...)`."
            )
        called, args, kwargs = calls[0]
        if not isinstance(called, kind):
            word = kind.__name__.lower()
            raise UsageError(
                f"The lambda must call a {word} of the flow's class, a method marked with @{word}; got "
                f"{called!r}."
            )
        return called, args, kwargs


class _Recorder:
    """Stands for the flow's instance in the lambda and notes the one call."""

    __slots__ = ("_calls", "_find")

    def __init__(self, find: Callable[[str | None], Any], calls: list[tuple[Any, Any, Any]]) -> None:
        self._find = find
        self._calls = calls

    def __call__(self, *args: Any, **kwargs: Any) -> None:
        self._calls.append((self._find(None), args, kwargs))

    def __getattr__(self, name: str) -> Callable[..., None]:
        found = self._find(name)
        if found is None:
            raise AttributeError(name)

        def record(*args: Any, **kwargs: Any) -> None:
            self._calls.append((found, args, kwargs))

        return record
