"""Tells a page when what it shows has changed."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Hashable
from contextlib import suppress

from starlette.responses import StreamingResponse

from persistasaurus.dev._state import Changes

CALM_S = 0.2
"""Between two events: a process that prints without end is looked at five times a second."""
STREAM_FOR_S = 60.0
STILL_HERE_S = 15.0


def stream(changes: Changes, look: Callable[[], Hashable]) -> StreamingResponse:
    """Return a stream with an event for each new value of `look`, the first one at once.

    It is looked after each change of the host, on its loop. The stream ends with the host, or after a
    minute; a browser asks again.
    """
    return StreamingResponse(
        _told(changes, look), media_type="text/event-stream", headers={"cache-control": "no-store"}
    )


async def _told(changes: Changes, look: Callable[[], Hashable]) -> AsyncIterator[str]:
    loop = asyncio.get_running_loop()
    until = loop.time() + STREAM_FOR_S
    seen: Hashable = None
    yield "retry: 1000\n\n"
    while loop.time() < until and not changes.ended.is_set():
        number, now = changes.number, look()
        if now != seen:
            seen = now
            yield "event: change\ndata: -\n\n"
            with suppress(TimeoutError):
                async with asyncio.timeout(CALM_S):
                    await changes.ended.wait()
        try:
            async with asyncio.timeout(STILL_HERE_S):
                await changes.wait(number)
        except TimeoutError:
            yield ": still here\n\n"
