"""The app object: one store, one worker, and the ways to start and find flows."""

from __future__ import annotations

import asyncio
import json
import os
import uuid
from collections.abc import Callable, Coroutine, Iterable, Iterator, Sequence
from concurrent.futures import Future
from datetime import datetime
from functools import partial
from types import TracebackType
from typing import Any, ParamSpec, Self, TypeVar, cast, overload

from persistasaurus._cipher import Cipher
from persistasaurus._clock import Clock, Duration, SystemClock
from persistasaurus._codec import check_size
from persistasaurus._engine.engine import Engine
from persistasaurus._engine.host import Host, in_a_thread
from persistasaurus._engine.listing import checked_prefix, instant_ms, reason_of, record_of, status_codes
from persistasaurus._engine.progress import Order
from persistasaurus._engine.quiet import Quiet
from persistasaurus._engine.registry import Factory, Registry, Target, display_name
from persistasaurus._engine.scope import running_flow, watch_threads
from persistasaurus._engine.settings import Settings, check_parts
from persistasaurus._engine.texts import INPUT
from persistasaurus._events import Observer
from persistasaurus._flow import Flow
from persistasaurus._handle import FlowHandle
from persistasaurus._ids import checked_id, new_id
from persistasaurus._instance import FlowInstance
from persistasaurus._model import FlowRecord, FlowStatus
from persistasaurus._store._sqlite_open import Durability
from persistasaurus._store.base import FlowFilter, FlowRow, NewFlow, NewSignal, StartedFlow, Store
from persistasaurus._store.checksum import signal_checksum
from persistasaurus._store.urls import make_store
from persistasaurus.errors import AppNotRunningError, FlowConflict, UsageError, WrongContextError

P = ParamSpec("P")
T = TypeVar("T")
F = TypeVar("F")

PAGE = 200


class Persistasaurus:
    """Durable flows on one database: a file name, "sqlite:///flows.db", ":memory:" or "postgresql://...".

    Entering it (`with` or `async with`) migrates the store, recovers what was left unfinished and starts
    the worker. Leaving it starts no more steps, gives running ones up to `drain` and leaves the rest to
    the next start. Several apps may share a process and a file. With `worker=False` it is a client: it
    starts, signals and queries, and drives nothing.

    Durations are seconds or a `timedelta`; `max_payload` is bytes of one value's JSON text, `max_steps` how
    many durable operations a flow may ask for before it is parked. `lease` is
    how long a worker that cannot be seen keeps its flows, `crash_limit` after how many crashes in a row
    a flow is parked. `flow_threads` and `step_threads` bound the threads of sync flows and steps,
    `capacity` the flows in memory, `residents` how many of those may be idle. A worker
    removes flows that ended longer than `keep` ago, None keeps all. `durability`
    "may-lose-last-commits-on-power-loss" trades an fsync a commit for speed. `schema` is PostgreSQL's. With a
    `cipher` the values are encrypted in the database; `redact` names fields that are masked where values are
    shown.

    Raises:
        StoreError: on entering, where the database cannot be used; the message says why.
        ValueError: a setting makes no sense.
    """

    _engine: Engine | None = None
    _host: Host | None = None
    _state = "not entered yet: use `with app:` or `async with app:` around this"
    _new_store: Callable[[], Store]

    def __init__(  # noqa: PLR0913 - settings, each by its name
        self,
        url: str | os.PathLike[str],
        *,
        worker: bool = True,
        drain: Duration = 10,
        lease: Duration = 10,
        max_payload: int = 16_000_000,
        max_steps: int = 100_000,
        crash_limit: int = 5,
        flow_threads: int = 12,
        step_threads: int = 12,
        capacity: int = 4_000,
        residents: int = 1_000,
        keep: Duration | None = None,
        durability: Durability = "full",
        schema: str | None = None,
        clock: Clock | None = None,
        observer: Observer | None = None,
        cipher: Cipher | None = None,
        redact: Iterable[str] = (),
    ) -> None:
        self._settings = Settings.checked(
            worker=worker,
            drain=drain,
            lease=lease,
            residents=residents,
            max_payload=max_payload,
            max_steps=max_steps,
            crash_limit=crash_limit,
            flow_threads=flow_threads,
            step_threads=step_threads,
            capacity=capacity,
            keep=keep,
        ).guarding(cipher, redact)
        self._clock = SystemClock() if clock is None else clock
        check_parts(durability=durability, clock=self._clock, observer=observer)
        self._url, self._observer, self._registry, self._pid = url, observer, Registry(), os.getpid()
        self._new_store = partial(make_store, url, durability=durability, clock=self._clock, schema=schema)
        self._new_store()  # refuse a bad address now, not on entering

    # Entering and leaving.

    def __enter__(self) -> Self:
        self._enter(Host.in_thread())
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None
    ) -> None:
        self._leave()

    async def __aenter__(self) -> Self:
        host = Host.of_caller()
        await in_a_thread(lambda: self._enter(host), undo=self._leave)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None
    ) -> None:
        await in_a_thread(self._leave)

    def _enter(self, host: Host) -> None:
        if self._engine is not None:
            host.close()
            raise UsageError("This app is entered already. Make a second Persistasaurus for a second worker.")
        watch_threads()
        store = self._new_store()
        try:
            engine = Engine(store, self._registry, self._settings, self._observer)
            store.open(engine.worker.ring_for_change)
            engine.start(host)
        except BaseException:
            host.close()
            store.close()
            raise
        self._clock.drives(Quiet(engine))
        self._pid = os.getpid()
        self._host = host
        self._engine = engine

    def _leave(self) -> None:
        engine, host = self._engine, self._host
        if engine is None or host is None or os.getpid() != self._pid or not engine.begin_leaving():
            return
        try:
            # Until then a step that still runs may use the app.
            engine.drain(self._settings.drain_s)
        except BaseException:
            # Interrupted: attempts may begin yet of which nothing is written.
            engine.committer.has_lost = True
            raise
        finally:
            self._state = "left already: enter it again to use it"
            self._engine = None
            try:
                engine.stop()
            finally:
                host.close()
                engine.store.close()

    def _engine_here(self, call: str, *, cure: str | None = None) -> Engine:
        """Return the running engine, where this is a place that may use it."""
        engine = self._engine
        if os.getpid() != self._pid:
            raise AppNotRunningError(
                f"{call} was called in a forked process. Database connections do not survive a fork: make "
                "and enter "
                "an app of its own in the child."
            )
        if engine is None:
            raise AppNotRunningError(f"{call} was called on an app that was {self._state}.")
        if engine.gone is not None:
            raise engine.gone
        if running_flow() is not None:
            raise WrongContextError(
                f"{call} was called in the body of a flow, which is run again on replay. Call a child flow "
                "directly, "
                "or make this call in a step."
            )
        if cure is not None and self._host is not None and self._host.is_here():
            raise WrongContextError(
                f"{call} would block the event loop that the app itself runs on. Use `{cure}`."
            )
        return engine

    # Flows.

    def register(self, cls: type, maker: Factory | type | None = None) -> None:
        """Tell how the instances of a flow's class are made, or which class implements an interface.

        `maker` is a function without arguments, or the implementing class. Functions, and classes that
        need no constructor arguments, need no registering. Before or after entering.
        """
        self._registry.register(cls, maker)

    @overload
    def start(
        self, flow: Flow[P, Coroutine[Any, Any, T]], *args: P.args, **kwargs: P.kwargs
    ) -> FlowHandle[T]: ...
    @overload
    def start(self, flow: Flow[P, T], *args: P.args, **kwargs: P.kwargs) -> FlowHandle[T]: ...
    def start(self, flow: Any, *args: Any, **kwargs: Any) -> FlowHandle[Any]:
        """Start a flow and return its handle once the start is durable: from then on it survives a crash.

        The id is a new UUIDv7 unless `flow.options(flow_id=...)` gives one. The same id, flow and input
        again is the same flow instance.

        Raises:
            FlowConflict: the id belongs to another flow or another input.
            SerializationError: an argument does not fit its annotation or JSON; nothing was recorded.
            UnknownFlowError: the flow's class needs constructor arguments and is not registered.
        """
        return self._start_or_find(flow, args, kwargs)[1]

    @overload
    async def start_async(
        self, flow: Flow[P, Coroutine[Any, Any, T]], *args: P.args, **kwargs: P.kwargs
    ) -> FlowHandle[T]: ...
    @overload
    async def start_async(self, flow: Flow[P, T], *args: P.args, **kwargs: P.kwargs) -> FlowHandle[T]: ...
    async def start_async(self, flow: Any, *args: Any, **kwargs: Any) -> FlowHandle[Any]:
        """Like `start`, for async code."""
        engine = self._engine
        answer = engine.host.create_future() if engine is not None and engine.is_on_host() else None
        started, new, target = self._start(flow, args, kwargs, "app.start_async()", answer)
        awaited = started if isinstance(started, asyncio.Future) else asyncio.wrap_future(started)
        return self._handle_of(await awaited, new, target)

    @overload
    def run(self, flow: Flow[P, Coroutine[Any, Any, T]], *args: P.args, **kwargs: P.kwargs) -> T: ...
    @overload
    def run(self, flow: Flow[P, T], *args: P.args, **kwargs: P.kwargs) -> T: ...
    def run(self, flow: Any, *args: Any, **kwargs: Any) -> Any:
        """Start a flow, wait until it has ended and return its result.

        Raises:
            FlowConflict: the id belongs to another flow or another input.
            Exception: what the flow raised, as `FlowHandle.result` does.
        """
        self._engine_here("app.run()", cure="await app.run_async(...)")
        return self.start(flow, *args, **kwargs).result()

    @overload
    async def run_async(
        self, flow: Flow[P, Coroutine[Any, Any, T]], *args: P.args, **kwargs: P.kwargs
    ) -> T: ...
    @overload
    async def run_async(self, flow: Flow[P, T], *args: P.args, **kwargs: P.kwargs) -> T: ...
    async def run_async(self, flow: Any, *args: Any, **kwargs: Any) -> Any:
        """Like `run`, for async code."""
        handle: FlowHandle[Any] = await self.start_async(flow, *args, **kwargs)
        return await handle

    def _start_or_find(self, flow: Any, args: Any, kwargs: Any) -> tuple[StartedFlow, FlowHandle[Any]]:
        """Start a flow, or find it under its id; returns also how it was found, before it went on."""
        answer, new, target = self._start(flow, args, kwargs, "app.start()")
        started = cast("Future[StartedFlow]", answer).result()
        return started, self._handle_of(started, new, target)

    def _start(
        self,
        flow: Any,
        args: Any,
        kwargs: Any,
        call: str,
        answer: asyncio.Future[StartedFlow] | None = None,
    ) -> tuple[Future[StartedFlow] | asyncio.Future[StartedFlow], NewFlow, Target]:
        engine = self._engine_here(call)
        if not isinstance(flow, Flow):
            raise UsageError(
                f"{call} takes a function or method marked with @flow, not {flow!r:.200}. Mark it."
            )
        target = self._registry.target(flow._definition, flow._owner_class())
        flow_id = new_id(self._clock.now_ms()) if flow._flow_id is None else checked_id(flow._flow_id)
        codec = target.definition.arguments
        what = f"The input of flow {display_name(target.name)!r}"
        text, bound = codec.accept(args, kwargs, what=what)
        check_size(text, limit=self._settings.max_payload, what=what)
        new = engine.memory.new_flow(flow_id, target, text)
        return engine.memory.start_flow(new, target, bound, answer), new, target

    def _handle_of(self, started: StartedFlow, new: NewFlow, target: Target) -> FlowHandle[Any]:
        if not started.created:
            same_flow = started.name_id == new.name_id
            # As values, for the order of a dictionary's keys says nothing.
            before = self._engine_here("app.start()").texts.open(started.input, new.flow_id, INPUT)
            if not same_flow or (before != new.input and json.loads(before) != json.loads(new.input)):
                what = "with another input" if same_flow else "of another flow"
                raise FlowConflict(
                    f"The flow id {new.flow_id!r} belongs to an instance {what}. An id names one flow with "
                    "one input for ever: use another id, or start it with the same input."
                )
        return FlowHandle(self, new.flow_id, codec=target.definition.result, key=started.flow_key)

    @overload
    def get_flow(
        self, flow: Flow[P, T], flow_id: str | uuid.UUID | None = None
    ) -> FlowInstance[Flow[P, T]]: ...
    @overload
    def get_flow(self, flow: Callable[..., F], flow_id: str | uuid.UUID | None = None) -> FlowInstance[F]: ...
    def get_flow(self, flow: Any, flow_id: Any = None) -> FlowInstance[Any]:
        """Return a flow instance of a class, an interface or a function, without an id a new one."""
        if not isinstance(flow, (type, Flow)):
            raise UsageError(
                f"get_flow takes a class with flows or a @flow function, not {flow!r:.200}. Mark it."
            )
        known = new_id(self._clock.now_ms()) if flow_id is None else checked_id(flow_id)
        return FlowInstance[Any](self, cast("Any", flow), known)

    def handle(self, flow_id: str | uuid.UUID) -> FlowHandle[Any]:
        """Return the handle of a flow id; nothing is checked until it is asked for something."""
        return FlowHandle(self, checked_id(flow_id))

    def flows(
        self,
        *,
        status: FlowStatus | str | Sequence[FlowStatus | str] | None = None,
        flow: Flow[..., Any] | str | None = None,
        id_prefix: str | None = None,
        created_after: datetime | None = None,
        created_before: datetime | None = None,
    ) -> Iterator[FlowRecord]:
        """Iterate over the flows that fit, newest first; fetched in pages as the iteration goes on.

        Datetimes are aware; `created_after` is included, `created_before` is not.

        Raises:
            ValueError: a datetime is naive, or a status unknown.
            TypeError: an argument is of another type than its annotation says.
        """
        engine = self._engine_here("app.flows()")
        which = FlowFilter(
            statuses=status_codes(status),
            names=self._names_of(engine, flow),
            id_prefix=checked_prefix(id_prefix),
            created_from_ms=instant_ms(created_after, "created_after"),
            created_before_ms=instant_ms(created_before, "created_before"),
        )
        return self._pages(engine, which)

    def _pages(self, engine: Engine, which: FlowFilter) -> Iterator[FlowRecord]:
        before: int | None = None
        while True:
            page = engine.store.list_flows(which, before_key=before, limit=PAGE)
            for row in page:
                yield self._record(row)
            if len(page) < PAGE:
                return
            before = page[-1].flow_key

    def _names_of(self, engine: Engine, flow: Flow[..., Any] | str | None) -> list[tuple[str, str]] | None:
        if flow is None:
            return None
        if isinstance(flow, Flow):
            return [flow._definition.name_in(flow._owner_class())]
        if not isinstance(flow, str):
            raise TypeError(
                f"flow={flow!r:.60} is no flow. Give a function marked with @flow, or a flow's name."
            )
        return [name for name in engine.store.names().values() if display_name(name) == flow]

    def _record(self, row: FlowRow) -> FlowRecord:
        return record_of(self._engine_here("A record"), row)

    def _reason_of(self, row: FlowRow) -> str | None:
        return reason_of(self._engine_here("A handle's query"), row)

    # Writes of the handles.

    def _send(self, flow_id: str, name: str, payload: str) -> Future[Any]:
        engine = self._engine_here("handle.send()")
        check_size(payload, limit=self._settings.max_payload, what=f"The value for {name!r}")
        sent_at_ms = engine.now_ms()
        checksum = signal_checksum(flow_id, name, payload, sent_at_ms)
        new = NewSignal(flow_id, name, payload, sent_at_ms, checksum)
        return self._order(engine, Order(new, then=engine.mail_sent))

    def _cancel(self, flow_id: str) -> Future[Any]:
        engine = self._engine_here("handle.cancel()")
        return self._order(engine, Order(flow_id, then=lambda _: engine.kick()))

    def _order(self, engine: Engine, order: Order) -> Future[Any]:
        engine.committer.put(order)
        return cast("Future[Any]", order.answer)
