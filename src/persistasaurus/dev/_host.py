"""Runs an AppHost: brings its resources up in order and ends them together."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

from persistasaurus.dev._apphost import AppHost, Asgi, Database, Place, Resource
from persistasaurus.dev._environment import Wiring, plans_of, service_url
from persistasaurus.dev._instance import Instance
from persistasaurus.dev._pages import Pages
from persistasaurus.dev._server import Reserved, Server
from persistasaurus.dev._state import Action, Changes, Console, ConsoleLine, State, Status
from persistasaurus.dev._telemetry import Telemetry
from persistasaurus.errors import UsageError


class Host:
    """A running application. All of it lives on the event loop that has started it.

    With a `scratch` folder all databases made here lie there, and the ports that services ask for are not
    used. `heard` is called with every line that a process prints.
    """

    def __init__(
        self,
        app: AppHost,
        *,
        scratch: Path | None = None,
        heard: Callable[[ConsoleLine], object] = lambda _: None,
    ) -> None:
        self.app = app
        self.place = Place(app.folder) if scratch is None else Place(scratch, is_scratch=True)
        self.changes = Changes()
        self.console = Console(self.changes)
        self.telemetry = Telemetry(self._told_from_a_thread)
        self.server = Server()
        self._loop = asyncio.get_running_loop()
        self._began = datetime.now(UTC)
        self._reserved = Reserved()
        self.ports: dict[str, int] = {}
        self._acting = asyncio.Lock()
        """Two who restart the same thing at once do it one after the other."""
        self._ended = False
        self._rising: list[asyncio.Task[None]] = []
        self._instances: dict[str, list[Instance]] = {}
        try:
            self._plan(heard)
            self._pages = Pages(self)
        except BaseException:
            self._reserved.close()
            self.server.close()
            raise

    def _plan(self, heard: Callable[[ConsoleLine], object]) -> None:
        for resource in self.app.resources.values():
            if isinstance(resource, Asgi):
                self.ports[resource.name] = self._reserved.port(
                    None if self.place.is_scratch else resource.port
                )
        wiring = Wiring(place=self.place, ports=self.ports, otlp=self.server.url, key=self.server.key)
        for name, resource in self.app.resources.items():
            plans = plans_of(self.app, resource, wiring)
            self._instances[name] = [Instance(plan, self.console, self.changes, heard) for plan in plans]

    # Coming and going.

    async def start(self) -> None:
        """Begin to start everything in its order, and return at once; see `settled`."""
        await self.server.start(self._pages.app, self.telemetry)
        self._rising = [
            asyncio.create_task(self._rise(resource), name=f"start of {resource.name}")
            for resource in self.app.resources.values()
        ]

    async def _rise(self, resource: Resource) -> None:
        while not all(self._is_good(need) for need in resource.needs):
            await self.changes.wait(self.changes.number)
        for instance in self._instances[resource.name]:
            if instance.state is State.WAITING:
                instance.start()

    def _is_good(self, resource: Resource) -> bool:
        return all(instance.good for instance in self._instances[resource.name])

    async def settled(self) -> list[Status]:
        """Return once all is ready, or something is failing: those that are."""
        while True:
            instances = self._all()
            failing = [i.status() for i in instances if i.state is State.FAILING]
            if failing or all(instance.good for instance in instances):
                return failing
            await self.changes.wait(self.changes.number)

    async def stop(self) -> None:
        """End every process within two seconds, and return once none is left."""
        for task in self._rising:
            task.cancel()
        async with self._acting:
            self._ended = True
            # The databases after those who write their last words to them.
            await self._end(databases=False)
            self.changes.end()
            await self._pages.close()
            await self._end(databases=True)
        # Last, so that what the processes send when they end still arrives.
        await self.server.stop()
        self._reserved.close()

    async def _end(self, *, databases: bool) -> None:
        ending = [i for i in self._all() if isinstance(i.plan.resource, Database) is databases]
        await asyncio.gather(*(instance.stop("with the AppHost") for instance in ending))

    # Looking and acting.

    def resources(self) -> list[Status]:
        """Return every resource, in the order in which they were added; a replica is a row of its own."""
        found: list[Status] = []
        for resource in self.app.resources.values():
            instances = self._instances[resource.name]
            found += [instance.status() for instance in instances]
            if isinstance(resource, Database) and not instances:
                found.append(self._database_status(resource))
        return found

    def resource(self, name: str) -> Status:
        """Return one resource or replica.

        Raises:
            KeyError: there is none of this name.
        """
        return next((status for status in self.resources() if status.name == name), None) or _missing(name)

    def names_of(self, name: str) -> list[str]:
        """Return the names of what is meant by a resource's or replica's name, of all by an empty one."""
        return [s.name for s in self.resources() if not name or name in (s.name, s.resource)]

    async def act(self, name: str, action: Action) -> None:
        """Start, stop or restart a replica, or all of a resource; stopping returns once it has ended.

        Raises:
            KeyError: there is no such process.
        """
        chosen = [i for i in self._all() if name in (i.plan.name, i.plan.resource.name)]
        if not chosen:
            _missing(name)
        async with self._acting:
            if action != "start":
                await asyncio.gather(*(instance.stop() for instance in chosen))
            if action != "stop" and not self._ended:
                for instance in chosen:
                    instance.start()

    async def ready(self, name: str) -> None:
        """Return once a resource or replica is ready.

        Raises:
            KeyError: there is no such process.
            RuntimeError: it is failing.
        """
        chosen = [i for i in self._all() if name in (i.plan.name, i.plan.resource.name)]
        if not chosen:
            _missing(name)
        while not all(instance.good for instance in chosen):
            failing = next((i for i in chosen if i.state is State.FAILING), None)
            if failing is not None:
                raise RuntimeError(f"{failing.plan.name}: {failing.status().detail}")
            await self.changes.wait(self.changes.number)

    def url(self, name: str) -> str:
        """Return a service's base URL.

        Raises:
            UsageError: there is no ASGI app of this name.
        """
        if name not in self.ports:
            raise UsageError(
                f"There is no service {name!r}. Those of {self.app.name!r} are: "
                f"{', '.join(self.ports) or 'none'}."
            )
        return service_url(self.ports[name])

    def _all(self) -> list[Instance]:
        return [instance for instances in self._instances.values() for instance in instances]

    def _database_status(self, resource: Database) -> Status:
        return Status(
            name=resource.name,
            resource=resource.name,
            kind=resource.kind,
            state=State.READY,
            detail=resource.shown(self.place),
            since=self._began,
            pid=None,
            restarts=0,
            command=(),
            links=(),
            environment=(),
            history=(),
        )

    def _told_from_a_thread(self) -> None:
        self._loop.call_soon_threadsafe(self.changes.tell)


def _missing(name: str) -> Status:
    raise KeyError(name)
