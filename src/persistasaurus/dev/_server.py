"""The AppHost's own HTTP server: the receiver under /v1, everything else behind the token."""

from __future__ import annotations

import asyncio
import secrets
import socket
import sys
from collections.abc import Generator
from contextlib import contextmanager

import uvicorn
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from persistasaurus.dev._environment import LOOPBACK, service_url, tcp_socket
from persistasaurus.dev._guard import Guard
from persistasaurus.dev._receiver import receiver
from persistasaurus.dev._telemetry import Telemetry


class _Quiet(uvicorn.Server):
    """A server among other things in a process, which leaves the signals alone."""

    @contextmanager
    def capture_signals(self) -> Generator[None]:
        yield


class Server:
    """Serves on loopback, with a token of its own and a key for those that send telemetry."""

    def __init__(self, port: int = 0) -> None:
        self.token = secrets.token_urlsafe(24)
        self.key = secrets.token_hex(16)
        self._socket = bound(port)
        self.port = int(self._socket.getsockname()[1])
        self.url = service_url(self.port)
        self._stopping = asyncio.Event()
        self._server: _Quiet | None = None
        self._serving: asyncio.Task[None] | None = None

    @property
    def link(self) -> str:
        """The URL that logs a browser in."""
        return f"{self.url}/?t={self.token}"

    async def start(self, pages: ASGIApp, telemetry: Telemetry) -> None:
        """Serve `pages` behind the token, and receive telemetry from those who know the key."""
        hosts = [f"{name}:{self.port}" for name in (LOOPBACK, "localhost", "[::1]")]
        received = Guard(receiver(telemetry), token=self.key, hosts=hosts)
        # Cookies know no ports, so its name does: two AppHosts side by side do not log each other out.
        shown = Guard(pages, token=self.token, hosts=hosts, cookie=f"persistasaurus-{self.port}")

        async def app(scope: Scope, receive: Receive, send: Send) -> None:
            inner = received if scope.get("path", "").startswith("/v1/") else shown
            await _until(self._stopping, inner, scope, receive, send)

        config = uvicorn.Config(
            app, lifespan="off", log_config=None, access_log=False, server_header=False, ws="none"
        )
        self._server = _Quiet(config)
        self._serving = asyncio.create_task(self._server.serve(sockets=[self._socket]))
        while not self._server.started and not self._serving.done():  # noqa: ASYNC110 - uvicorn tells nobody
            await asyncio.sleep(0.005)

    async def stop(self) -> None:
        """Stop serving, also those who listen to a stream."""
        self._stopping.set()
        if self._server is not None and self._serving is not None:
            self._server.should_exit = True
            self._server.force_exit = True
            await self._serving
        self.close()

    def close(self) -> None:
        """Give the port back."""
        self._socket.close()


async def _until(stopping: asyncio.Event, app: ASGIApp, scope: Scope, receive: Receive, send: Send) -> None:
    """Serve a request; once the server stops, a stream sees its reader leave and is brought to a good end."""
    is_open = False

    async def receive_or_end() -> Message:
        asked, stopped = asyncio.ensure_future(receive()), asyncio.ensure_future(stopping.wait())
        try:
            await asyncio.wait((asked, stopped), return_when=asyncio.FIRST_COMPLETED)
            return asked.result() if asked.done() else {"type": "http.disconnect"}
        finally:
            asked.cancel()
            stopped.cancel()

    async def send_and_note(message: Message) -> None:
        nonlocal is_open
        is_open = message["type"] == "http.response.start" or message.get("more_body", False)
        await send(message)

    await app(scope, receive_or_end, send_and_note)
    if is_open:
        await send({"type": "http.response.body"})


def bound(port: int = 0) -> socket.socket:
    """Return a socket bound to a port of loopback, to a free one for 0.

    Raises:
        OSError: the port is taken.
    """
    found = tcp_socket()
    found.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        found.bind((LOOPBACK, port))
    except OSError:
        found.close()
        raise
    return found


class Reserved:
    """Ports that are kept for the services while those come and go."""

    def __init__(self) -> None:
        self._held: list[socket.socket] = []

    def port(self, wanted: int | None) -> int:
        """Return the port that is wanted, or one that nobody else will be given."""
        if wanted is not None:
            return wanted
        held = bound()
        port = int(held.getsockname()[1])
        # Elsewhere a second socket cannot be bound beside one that does not listen.
        if sys.platform == "linux":
            self._held.append(held)
        else:
            held.close()
        return port

    def close(self) -> None:
        """Give the ports back."""
        for held in self._held:
            held.close()
        self._held.clear()
