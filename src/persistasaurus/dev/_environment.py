"""Which processes an application means, and what each finds in its environment."""

from __future__ import annotations

import os
import re
import socket
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TypeGuard
from urllib.parse import quote

from persistasaurus.dev._apphost import AppHost, Asgi, Database, Place, Postgres, Process, Resource, Worker
from persistasaurus.errors import UsageError

LOOPBACK = "127.0.0.1"
WORKER_READY = "persistasaurus worker is ready"
"""What a worker's process prints once its app is entered."""
POSTGRES_READY = "persistasaurus postgres is ready"
"""What the process around a PostgreSQL server prints once that takes connections."""

_GUARD = Path(__file__).with_name("_process.py")


@dataclass(frozen=True, slots=True, kw_only=True)
class Link:
    """A URL to show."""

    url: str
    label: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Wiring:
    """What the AppHost hands to its processes."""

    place: Place
    ports: Mapping[str, int]
    """The port of each ASGI app, by the resource's name."""
    otlp: str
    """Where telemetry goes."""
    key: str
    """What the receiver asks for."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """One process to keep running."""

    name: str
    resource: Resource
    command: tuple[str, ...]
    folder: Path
    environment: Mapping[str, str]
    """What is set beside the AppHost's own environment."""
    links: tuple[Link, ...]
    port: int | None
    """Where health is asked for."""
    health: str | None
    ready_line: str | None
    ready_detail: str
    """What there is to say of it once it is ready."""


def plans_of(app: AppHost, resource: Resource, wiring: Wiring) -> list[Plan]:
    """Return the processes of a resource, none for a database without a server that is started here.

    Raises:
        UsageError: a worker uses no database, or a server cannot be started.
    """
    if is_served_here(resource):
        resource.home(wiring.place).check()
    elif isinstance(resource, Database):
        return []
    replicas = resource.replicas if isinstance(resource, Worker) else 1
    if isinstance(resource, Worker) and _database(resource) is None and ":" not in resource.module:
        raise UsageError(
            f"The worker {resource.name!r} has no database to look for flows in. Add "
            '.uses(app.sqlite("flows.db")).'
        )
    names = [resource.name] if replicas == 1 else [f"{resource.name}-{n + 1}" for n in range(replicas)]
    return [_plan(app, resource, name, wiring) for name in names]


def is_served_here(resource: Resource) -> TypeGuard[Postgres]:
    """Whether it is a database and a process of ours in one."""
    return isinstance(resource, Postgres) and resource.address_given is None


def service_variable(name: str) -> str:
    """Return the environment variable that holds a service's URL."""
    return f"PERSISTASAURUS_SERVICE_{re.sub('[^A-Z0-9]', '_', name.upper())}_URL"


def service_url(port: int) -> str:
    """Return the base URL of a service."""
    return f"http://{LOOPBACK}:{port}"


def _plan(app: AppHost, resource: Resource, name: str, wiring: Wiring) -> Plan:
    port = wiring.ports.get(resource.name)
    base = "" if port is None else service_url(port)
    links = [Link(url=base, label=resource.name)] if base else []
    links += [Link(url=path if "://" in path else base + path, label=label) for path, label in resource.links]
    return Plan(
        name=name,
        resource=resource,
        command=_command(resource, wiring.place),
        folder=app.folder,
        environment=_environment(app, resource, name, wiring),
        links=tuple(links),
        port=port,
        health=resource.health if isinstance(resource, Asgi) else None,
        ready_line=_ready_line(resource),
        ready_detail=resource.shown(wiring.place) if isinstance(resource, Database) else "",
    )


def _ready_line(resource: Resource) -> str | None:
    match resource:
        case Worker():
            return WORKER_READY
        case Postgres():
            return POSTGRES_READY
        case _:
            return None


def _command(resource: Resource, place: Place) -> tuple[str, ...]:
    # -P: what lies in the current folder is not imported instead of a library.
    python = (sys.executable, "-P", "-m")
    match resource:
        case Asgi():
            health = (resource.health,) if resource.health is not None else ()
            return (*python, "persistasaurus.dev._asgi", resource.app, *health)
        case Worker():
            return (*python, "persistasaurus.dev._worker", resource.module)
        case Postgres():
            home = resource.home(place)
            return (*python, "persistasaurus.dev._postgres", str(home.folder), str(home.sockets))
        case Process():
            return (sys.executable, "-I", str(_GUARD), *resource.command)
        case _:
            raise TypeError(f"{resource!r} has no process.")


def _environment(app: AppHost, resource: Resource, name: str, wiring: Wiring) -> dict[str, str]:
    set_here = {
        "PYTHONUNBUFFERED": "1",
        "PYTHONPATH": os.pathsep.join(
            filter(None, (str(import_folder(app.folder)), os.environ.get("PYTHONPATH")))
        ),
        "OTEL_EXPORTER_OTLP_ENDPOINT": wiring.otlp,
        "OTEL_EXPORTER_OTLP_PROTOCOL": "http/protobuf",
        "OTEL_EXPORTER_OTLP_HEADERS": f"authorization=Bearer%20{wiring.key}",
        "OTEL_SERVICE_NAME": resource.name,
        "OTEL_RESOURCE_ATTRIBUTES": f"service.namespace={quote(app.name)},service.instance.id={quote(name)}",
        # Who develops wants to see it now: the defaults are five seconds and a minute.
        "OTEL_BSP_SCHEDULE_DELAY": "500",
        "OTEL_BLRP_SCHEDULE_DELAY": "500",
        "OTEL_METRIC_EXPORT_INTERVAL": "2000",
    }
    set_here |= {service_variable(other): service_url(port) for other, port in wiring.ports.items()}
    if isinstance(resource, Asgi):
        set_here["PORT"] = str(wiring.ports[resource.name])
        set_here["FASTAPI_OTEL_AUTO_CONFIGURE"] = "true"
    database = _database(resource)
    if database is not None:
        set_here["PERSISTASAURUS_URL"] = database.address(wiring.place)
    return set_here | resource.variables


def _database(resource: Resource) -> Database | None:
    return next((used for used in resource.used if isinstance(used, Database)), None)


def tcp_socket() -> socket.socket:
    """Return a socket for a server to listen on, which asyncio lets answer without delay."""
    # asyncio sets TCP_NODELAY only where the protocol is named. Else most answers take 40 ms longer.
    return socket.socket(socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP)


def import_folder(folder: Path) -> Path:
    """Return the folder from which the modules in `folder` are imported: above the package, if it is one."""
    while (folder / "__init__.py").exists() and folder != folder.parent:
        folder = folder.parent
    return folder
