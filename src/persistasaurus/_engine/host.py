"""The event loop that calls the flows and runs their async steps: the user's, or one in a thread."""

from __future__ import annotations

import asyncio
import contextvars
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress

from persistasaurus.errors import WrongContextError


async def in_a_thread(call: Callable[[], None], *, undo: Callable[[], None] = lambda: None) -> None:
    """Call a function that may take long in a thread of its own: those of the loop's executor may all wait.

    It cannot be interrupted: where the caller is cancelled meanwhile, `undo` is called behind it first.
    """
    door = ThreadPoolExecutor(1, "persistasaurus-door")
    context = contextvars.copy_context()
    done = asyncio.get_running_loop().run_in_executor(door, context.run, call)
    door.shutdown(wait=False)
    try:
        await asyncio.shield(done)
    except asyncio.CancelledError:
        while not done.done():
            with suppress(asyncio.CancelledError):
                await asyncio.wait([done])
        if done.exception() is None:
            await in_a_thread(undo)
        raise


class Host:
    """An event loop and the thread that it runs in."""

    is_own = False
    """Whether the loop is the app's own: no code runs on it but flows and their async steps."""

    def __init__(self, loop: asyncio.AbstractEventLoop, thread_id: int, close: Callable[[], None]) -> None:
        self.loop = loop
        self.thread_id = thread_id
        self.close = close
        """End the loop where it is the app's own."""

    @classmethod
    def of_caller(cls) -> Host:
        """Return the running loop, so that the user's clients and pools work in async steps as they are."""
        return cls(asyncio.get_running_loop(), threading.get_ident(), lambda: None)

    @classmethod
    def in_thread(cls) -> Host:
        """Return a loop of the app's own, running in a daemon thread."""
        loop = asyncio.new_event_loop()
        ready = threading.Event()

        def serve() -> None:
            asyncio.set_event_loop(loop)
            loop.call_soon(ready.set)
            loop.run_forever()
            loop.run_until_complete(loop.shutdown_asyncgens())
            loop.close()

        thread = threading.Thread(target=serve, name="persistasaurus-loop", daemon=True)
        thread.start()
        ready.wait()

        def close() -> None:
            if loop.is_closed():
                return
            if threading.get_ident() == thread.ident:
                raise WrongContextError("An app cannot be left from its own event loop.")
            loop.call_soon_threadsafe(loop.stop)
            thread.join(5)

        host = cls(loop, thread.ident or 0, close)
        host.is_own = True
        return host

    def is_here(self) -> bool:
        """Whether the calling code runs on this loop's thread."""
        return threading.get_ident() == self.thread_id
