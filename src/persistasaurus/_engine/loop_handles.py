"""The small things that a flow's event loop keeps: callbacks, timers, and what is not finished yet."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextvars import Context
from typing import TYPE_CHECKING, Any, Generic, TypeVar

if TYPE_CHECKING:
    from persistasaurus._engine.loop import FlowLoop

T = TypeVar("T")

_FEW = 16


class Handle:
    """A queued callback.

    One is made for every turn of a task: the loop fills it in itself, which takes half of what a
    constructor takes.
    """

    __slots__ = ("args", "callback", "context")
    callback: Callable[..., Any] | None
    args: tuple[Any, ...]
    context: Context

    def cancel(self) -> None:
        """Keep the callback from being called."""
        self.callback = None
        self.args = ()

    def cancelled(self) -> bool:
        """Whether `cancel` was called."""
        return self.callback is None

    def get_context(self) -> Context:
        """Return the context in which the callback runs."""
        return self.context


class TimerHandle(Handle):
    """A callback that a timer queues when it fires."""

    __slots__ = ("_loop", "_when", "number")

    def __init__(self, loop: FlowLoop, when: float) -> None:
        self._loop = loop
        self._when = when
        self.number: int | None = None
        """The timer's number at the port, until it fires or is cancelled."""

    def when(self) -> float:
        """Return the loop's time at which the callback is due."""
        return self._when

    def fire(self) -> None:
        """Queue the callback, once."""
        if self.number is not None:
            self.number = None
            self._loop._ready.append(self)

    def cancel(self) -> None:
        """Keep the callback from being called, and let the port forget the timer."""
        super().cancel()
        number, self.number = self.number, None
        if number is not None:
            self._loop._timers.cancel_timer(number)


class Nowhere(list[Handle]):
    """The ready queue of a loop whose flow was dropped."""

    def append(self, handle: Handle) -> None:
        """Forget the callback."""


class NoTimers:
    """The timer port of a loop whose flow was dropped: the timers stay as they are, for its next replay."""

    def start_timer(self, delay: float, fire: Callable[[], None]) -> int:
        """Return a number; nothing fires."""
        return 0

    def cancel_timer(self, number: int) -> None:
        """Cancel nothing."""


class Unfinished(Generic[T]):
    """Strong references to what is not finished, in the order in which it came.

    Finished items are swept out when the list has doubled: at most half of it, or a few, are finished.
    """

    __slots__ = ("_is_finished", "_items", "_sweep_at")

    def __init__(self, is_finished: Callable[[T], bool]) -> None:
        self._items: list[T] = []
        self._is_finished = is_finished
        self._sweep_at = _FEW

    def add(self, item: T) -> None:
        """Hold an item until it is finished."""
        items = self._items
        items.append(item)
        if len(items) >= self._sweep_at:
            is_finished = self._is_finished
            items[:] = [item for item in items if not is_finished(item)]
            self._sweep_at = max(_FEW, 2 * len(items))

    def __iter__(self) -> Iterator[T]:
        return iter(self._items)

    def are_finished(self) -> bool:
        """Whether every item is finished."""
        return all(map(self._is_finished, self._items))

    def clear(self) -> None:
        """Let go of all items."""
        self._items.clear()

    def drop(self) -> Iterator[T]:
        """Let go of the items one by one, newest first."""
        while self._items:
            yield self._items.pop()
