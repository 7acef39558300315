"""An application in a test: free ports, databases of its own, gone afterwards."""

from __future__ import annotations

import asyncio
import os
import signal
import tempfile
import threading
from collections.abc import Callable, Coroutine
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, TypeVar

from persistasaurus.dev._apphost import AppHost
from persistasaurus.dev._state import Action, ConsoleLine, State, Status
from persistasaurus.dev._telemetry import Telemetry

if TYPE_CHECKING:
    import httpx2

    from persistasaurus.dev._host import Host

T = TypeVar("T")

TIMEOUT_S = 60.0
_SHOWN = 30


class Testing:
    """An application in a test; entering it starts everything, leaving it ends everything.

    It runs on a thread and an event loop of its own, so that a fixture of any scope may hold it, and
    sync and async tests may share it.

    Raises:
        RuntimeError: on entering, where a resource is failing; the message holds what it printed last.
        TimeoutError: on entering, where not everything is ready within 60 seconds.
    """

    __test__ = False  # no class of tests

    def __init__(self, app: AppHost) -> None:
        self._app = app
        self._running: RunningApp | None = None

    def __enter__(self) -> RunningApp:
        running = RunningApp(self._app)
        running._enter()
        self._running = running
        return running

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None
    ) -> None:
        if self._running is not None:
            self._running._leave()

    async def __aenter__(self) -> RunningApp:
        return await asyncio.to_thread(self.__enter__)

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None
    ) -> None:
        if self._running is not None:
            await self._running._close_clients()
            await asyncio.to_thread(self._running._leave)


class RunningApp:
    """A running application in the hands of a test."""

    def __init__(self, app: AppHost) -> None:
        self._app = app
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="apphost", daemon=True)
        self._scratch = tempfile.TemporaryDirectory(prefix="persistasaurus-")
        if os.geteuid() == 0:  # a PostgreSQL server runs as another user then, and has its data below
            self.folder.chmod(0o711)
        self._clients: list[httpx2.AsyncClient] = []
        self._host: Host

    def __repr__(self) -> str:
        return f"<RunningApp {self._app.name!r}>"

    # Talking to it.

    def client(self, name: str) -> httpx2.AsyncClient:
        """Return an HTTP client of a service, closed at the latest when `async with` is left.

        With a fixture or plain `with`, close it yourself: `async with host.client("api") as client`.

        Raises:
            UsageError: there is no service of this name.
        """
        import httpx2  # noqa: PLC0415 - tests alone need it

        client = httpx2.AsyncClient(base_url=self.url(name), trust_env=False)
        self._clients.append(client)
        return client

    def sync_client(self, name: str) -> httpx2.Client:
        """Like `client`, for sync tests: `with host.sync_client("api") as client`."""
        import httpx2  # noqa: PLC0415 - tests alone need it

        return httpx2.Client(base_url=self.url(name), trust_env=False)

    def url(self, name: str) -> str:
        """Return a service's base URL.

        Raises:
            UsageError: there is no service of this name.
        """
        return self._host.url(name)

    @property
    def dashboard(self) -> str:
        """The URL of the AppHost's own server; requests carry `Authorization: Bearer` and the `token`."""
        return self._host.server.url

    @property
    def token(self) -> str:
        """What the AppHost's own server asks for."""
        return self._host.server.token

    # Looking.

    @property
    def folder(self) -> Path:
        """Where the databases of this run lie."""
        return Path(self._scratch.name)

    @property
    def telemetry(self) -> Telemetry:
        """What the processes have sent of traces, logs and metrics."""
        return self._host.telemetry

    def resources(self) -> list[Status]:
        """Return every resource and replica as it stands."""
        return self._call(_now(self._host.resources))

    def resource(self, name: str) -> Status:
        """Return one resource or replica.

        Raises:
            KeyError: there is none of this name.
        """
        return self._call(_now(lambda: self._host.resource(name)))

    def console(self, *names: str) -> list[ConsoleLine]:
        """Return the last lines that these resources have printed, of all of them without a name."""
        return self._call(_now(lambda: self._host.console.lines(resources=names or None)))

    # Acting.

    async def act(self, name: str, action: Action) -> None:
        """Start, stop or restart a resource or replica; it returns when that has begun or ended."""
        await self._await(self._host.act(name, action))

    async def ready(self, name: str) -> None:
        """Return once a resource or replica is ready, for instance again after its process was killed.

        Raises:
            RuntimeError: it is failing.
        """
        await self._await(self._host.ready(name))

    async def until(self, name: str, state: State) -> Status:
        """Return a resource or replica once it is in this state."""

        async def watch() -> Status:
            while (status := self._host.resource(name)).state is not state:
                await self._host.changes.wait(self._host.changes.number)
            return status

        return await self._await(watch())

    async def kill(self, name: str) -> Status:
        """Kill a process as `kill -9` does, and return it once it was started again and is ready.

        Raises:
            KeyError: there is no process of this name.
        """

        async def watch() -> Status:
            before = self._host.resource(name)
            if before.pid is None:
                raise KeyError(name)
            os.kill(before.pid, signal.SIGKILL)
            while True:
                status = self._host.resource(name)
                if status.restarts > before.restarts and status.state is State.READY:
                    return status
                await self._host.changes.wait(self._host.changes.number)

        return await self._await(watch())

    # Running it on its own thread.

    def _enter(self) -> None:
        self._thread.start()
        try:
            self._call(self._start())
        except BaseException:
            self._leave()
            raise

    async def _start(self) -> None:
        from persistasaurus.dev._host import Host  # noqa: PLC0415 - needs the extra

        self._host = Host(self._app, scratch=self.folder)
        await self._host.start()
        try:
            async with asyncio.timeout(TIMEOUT_S):
                failing = await self._host.settled()
        except TimeoutError:
            late = [s.name for s in self._host.resources() if s.state in (State.WAITING, State.STARTING)]
            raise TimeoutError(
                f"{', '.join(late)} of {self._app.name!r} did not become ready within {TIMEOUT_S:g} s.\n"
                + self._printed(late)
            ) from None
        if failing:
            names = [status.name for status in failing]
            raise RuntimeError(f"{names[0]}: {failing[0].detail}\n{self._printed(names)}")

    def _printed(self, names: list[str]) -> str:
        lines = self._host.console.lines(resources=names, limit=_SHOWN)
        return "\n".join(f"{line.resource} | {line.text}" for line in lines)

    def _leave(self) -> None:
        try:
            if hasattr(self, "_host"):
                self._call(self._host.stop())
        finally:
            self._call(_finish())
            self._loop.call_soon_threadsafe(self._loop.stop)
            self._thread.join()
            self._loop.close()
            self._scratch.cleanup()

    async def _close_clients(self) -> None:
        for client in self._clients:
            await client.aclose()

    def _call(self, coroutine: Coroutine[Any, Any, T]) -> T:
        return asyncio.run_coroutine_threadsafe(coroutine, self._loop).result()

    async def _await(self, coroutine: Coroutine[Any, Any, T]) -> T:
        return await asyncio.wrap_future(asyncio.run_coroutine_threadsafe(coroutine, self._loop))


async def _now(ask: Callable[[], T]) -> T:
    """Ask on the host's own loop, where nothing changes meanwhile."""
    return ask()


async def _finish() -> None:
    """End what is still under way on this loop, as `asyncio.run` does."""
    left = asyncio.all_tasks() - {asyncio.current_task()}
    for task in left:
        task.cancel()
    await asyncio.gather(*left, return_exceptions=True)
    await asyncio.get_running_loop().shutdown_default_executor()
