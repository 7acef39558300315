"""What an event loop can do and a flow's cannot, each with the reason and the cure."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any, NoReturn, TypeVar

from persistasaurus.errors import WrongContextError

_Class = TypeVar("_Class", bound=type)

_REPLAYED = "its body is replayed after a crash"
_DRIVEN = "Persistasaurus drives the loop, live and on replay"
_SAME = "the loop must do the same in every process that replays the flow"
_STEP = "Do this in a step."
_AWAIT = "Await the coroutine instead."
_LEAVE = "Leave it as it is."

_THREAD = ("run code in a thread or an executor", _REPLAYED, _STEP)
_CONNECTION = ("open a connection", _REPLAYED, _STEP)
_SERVER = ("start a server", _REPLAYED, _STEP)
_LOOK_UP = ("look up a network address", _REPLAYED, _STEP)
_SOCKET = ("use a socket", _REPLAYED, _STEP)
_PIPE = ("use a pipe", _REPLAYED, _STEP)
_PROCESS = ("start a process", _REPLAYED, _STEP)
_WATCH = ("watch a file descriptor", _REPLAYED, _STEP)
_OS_SIGNAL = ("handle the signals of the operating system", _REPLAYED, "Do this where the app is entered.")
_RUN = ("run an event loop", _DRIVEN, _AWAIT)
_STOP = ("stop or close its event loop", _DRIVEN, "Return from the flow, or raise.")
_CHANGE = ("change how its event loop works", _SAME, _LEAVE)

_REASONS = {
    "run_in_executor": _THREAD,
    "set_default_executor": _THREAD,
    "call_soon_threadsafe": (
        "be called from another thread",
        "the moment would differ on replay",
        "Let a step wait for the thread, or send the flow a signal.",
    ),
    "create_connection": _CONNECTION,
    "create_unix_connection": _CONNECTION,
    "create_datagram_endpoint": _CONNECTION,
    "connect_accepted_socket": _CONNECTION,
    "start_tls": _CONNECTION,
    "create_server": _SERVER,
    "create_unix_server": _SERVER,
    "getaddrinfo": _LOOK_UP,
    "getnameinfo": _LOOK_UP,
    "sendfile": _SOCKET,
    "connect_read_pipe": _PIPE,
    "connect_write_pipe": _PIPE,
    "subprocess_exec": _PROCESS,
    "subprocess_shell": _PROCESS,
    "add_reader": _WATCH,
    "remove_reader": _WATCH,
    "add_writer": _WATCH,
    "remove_writer": _WATCH,
    "add_signal_handler": _OS_SIGNAL,
    "remove_signal_handler": _OS_SIGNAL,
    "run_forever": _RUN,
    "run_until_complete": _RUN,
    "stop": _STOP,
    "close": _STOP,
    "shutdown_asyncgens": _STOP,
    "shutdown_default_executor": _STOP,
    "set_task_factory": _CHANGE,
    "set_exception_handler": _CHANGE,
    "set_debug": _CHANGE,
}


def refuse_the_rest(cls: _Class) -> _Class:
    """Make every method of an event loop that the class does not define raise, of later Pythons too.

    Raises, when called:
        WrongContextError: always.
    """
    for base in (asyncio.AbstractEventLoop, asyncio.BaseEventLoop):
        for name, value in vars(base).items():
            if callable(value) and not name.startswith("_") and name not in vars(cls):
                setattr(cls, name, _refusal(name))
    return cls


def refusal_of(name: str) -> WrongContextError:
    """Return the error for the loop's method of that name."""
    kind = _SOCKET if name.startswith("sock_") else (f"use loop.{name}()", _REPLAYED, _STEP)
    what, why, cure = _REASONS.get(name, kind)
    return WrongContextError(f"An async flow cannot {what}: {why}. {cure}")


def _refusal(name: str) -> Callable[..., NoReturn]:
    def refuse(*args: Any, **_options: Any) -> NoReturn:
        for argument in args:
            # Refused too, it would else be missed as one that was never awaited.
            if asyncio.iscoroutine(argument):
                argument.close()
        raise refusal_of(name)

    refuse.__name__ = name
    return refuse
