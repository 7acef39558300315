"""The flows of each database of an application, looked at and acted on as a client of that database."""

from __future__ import annotations

import asyncio
import importlib
import logging
import sys
from typing import TYPE_CHECKING

from fastapi import FastAPI, Request, Response
from starlette.types import ASGIApp, Receive, Scope, Send

from persistasaurus._app import Persistasaurus
from persistasaurus.dev._apphost import Database, Sqlite, Worker
from persistasaurus.dev._environment import import_folder
from persistasaurus.dev._state import State
from persistasaurus.errors import StoreError, UsageError
from persistasaurus.web._dashboard import FLOWS, dashboard_router
from persistasaurus.web._shell import NavEntry, Shell

if TYPE_CHECKING:
    from persistasaurus.dev._host import Host

log = logging.getLogger("persistasaurus.dev")


class FlowPages:
    """The app at `db/NAME`. It opens the database at the first visit for which that is there.

    Nothing runs in it: what a person sends is taken up by the processes of the application. The modules of
    its workers are imported once, for the forms that are made from the signatures of steps.
    """

    def __init__(self, host: Host, database: Database, shell: Shell) -> None:
        self._host = host
        self._database = database
        self._url = database.address(host.place)
        self._shell = shell
        self._flows: Persistasaurus | None = None
        self._pages: FastAPI | None = None
        self._opening = asyncio.Lock()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        async with self._opening:
            inner = self._pages or await self._open()
        await inner(scope, receive, send)

    async def close(self) -> None:
        """Leave the database."""
        async with self._opening:
            self._pages = None
            if self._flows is not None:
                await self._flows.__aexit__(None, None, None)
                self._flows = None

    async def _open(self) -> ASGIApp:
        absent = self._absent()
        if absent:
            return self._nothing(absent)
        try:
            flows = Persistasaurus(self._url, worker=False)
            await flows.__aenter__()
        except (StoreError, UsageError) as error:
            return self._nothing(str(error))
        self._flows = flows
        await asyncio.to_thread(_import_all, self._host, self._database)
        self._pages = self._serving()
        self._pages.include_router(dashboard_router(flows, shell=self._shell))
        return self._pages

    def _absent(self) -> str:
        """Return why there is no database yet, an empty text where there is one."""
        if isinstance(self._database, Sqlite):
            file = self._database.path(self._host.place)
            return "" if file.exists() else f"{file.name} was not made yet: no process has opened it."
        status = self._host.resource(self._database.name)
        return "" if status.state is State.READY else f"{status.name} is {status.state}."

    def _nothing(self, why: str) -> ASGIApp:
        """Return the app for as long as there is nothing to show."""
        router = self._shell.router()

        @router.get("/flows")
        async def no_flows(request: Request) -> Response:
            return self._shell.page(request, "no-flows.html", {"here": FLOWS.path, "why": why})

        served = self._serving()
        served.include_router(router)
        return served

    def _serving(self) -> FastAPI:
        served = FastAPI(openapi_url=None)
        served.include_router(self._shell.static_router())
        return served


def _import_all(host: Host, database: Database) -> None:
    """Import the modules of the workers that use a database; where one cannot be, its steps have no forms."""
    folder = str(import_folder(host.app.folder))
    workers = [one for one in host.app.resources.values() if isinstance(one, Worker)]
    names = {one.module.partition(":")[0] for one in workers if database in one.used}
    sys.path.insert(0, folder)
    try:
        for name in sorted(names):
            try:
                importlib.import_module(name)
            except Exception:
                log.exception("the dashboard makes no forms of the steps in %s: it cannot be imported", name)
    finally:
        sys.path.remove(folder)


def entries(databases: list[Database]) -> tuple[NavEntry, ...]:
    """Return the navigation's links to the flows of each database."""
    return tuple(
        NavEntry(
            FLOWS.label if len(databases) == 1 else f"Flows of {one.name}",
            f"db/{one.name}/{FLOWS.path}",
            FLOWS.key if one is databases[0] else "",
        )
        for one in databases
    )


def within(nav: tuple[NavEntry, ...], database: Database) -> tuple[NavEntry, ...]:
    """Return the navigation as the pages of one database link it, which are mounted two folders down."""
    own = f"db/{database.name}/{FLOWS.path}"
    return tuple(
        entry._replace(path=FLOWS.path if entry.path == own else f"../../{entry.path}") for entry in nav
    )
