"""What one can see and do over HTTP, as JSON; pages are further routes on the same objects."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import TYPE_CHECKING, Any, TypeGuard, get_args

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Route

from persistasaurus.dev._state import Action, Status

if TYPE_CHECKING:
    from persistasaurus.dev._host import Host

MASKED = "••••••"
LARGEST_PAGE = 1_000


def control(host: Host) -> Starlette:
    """Return the app that shows a host and acts on it. The token is checked in front of it."""
    api = _Api(host)
    return Starlette(
        routes=[
            Route("/api/resources", api.resources),
            Route("/api/resources/{name}", api.resource),
            Route("/api/resources/{name}/environment", api.environment),
            Route("/api/resources/{name}/{action}", api.act, methods=["POST"]),
            Route("/api/console", api.console),
            Route("/api/logs", api.logs),
            Route("/api/traces", api.traces),
            Route("/api/traces/{trace_id}", api.trace),
            Route("/api/metrics", api.metrics),
            Route("/api/metrics/{name:path}", api.series),
        ]
    )


class _Api:
    def __init__(self, host: Host) -> None:
        self._host = host
        self._telemetry = host.telemetry

    async def resources(self, request: Request) -> JSONResponse:
        return _json([_shown(status) for status in self._host.resources()])

    async def resource(self, request: Request) -> JSONResponse:
        try:
            return _json(_shown(self._host.resource(request.path_params["name"])))
        except KeyError as error:
            return _unknown(error)

    async def environment(self, request: Request) -> JSONResponse:
        try:
            return _json(dict(self._host.resource(request.path_params["name"]).environment))
        except KeyError as error:
            return _unknown(error)

    async def act(self, request: Request) -> JSONResponse:
        name, action = request.path_params["name"], request.path_params["action"]
        if action not in get_args(Action):
            return _problem(404, f"{action!r:.80} cannot be done. Start, stop or restart a resource.")
        try:
            await self._host.act(name, action)
        except KeyError as error:
            return _unknown(error)
        return _json([_shown(status) for status in self._host.resources() if name in _names(status)])

    async def console(self, request: Request) -> JSONResponse:
        name = request.query_params.get("resource")
        names = [s.name for s in self._host.resources() if name is None or name in _names(s)]
        text = request.query_params.get("text", "")
        try:
            after, limit = _number(request, "after", 0), _limit(request)
        except ValueError as error:
            return _problem(422, str(error))
        return _json(self._host.console.lines(resources=names, text=text, after=after, limit=limit))

    async def logs(self, request: Request) -> JSONResponse:
        query = request.query_params
        try:
            found = self._telemetry.logs(
                resource=query.get("resource"),
                lowest_severity=_number(request, "severity", 0),
                text=query.get("text", ""),
                trace_id=query.get("trace"),
                after=_number(request, "after", 0),
                limit=_limit(request),
            )
        except ValueError as error:
            return _problem(422, str(error))
        return _json(found)

    async def traces(self, request: Request) -> JSONResponse:
        query = request.query_params
        try:
            found = self._telemetry.traces(
                resource=query.get("resource"),
                text=query.get("text", ""),
                errors_only=query.get("errors") in ("1", "true"),
                shortest_ms=_number(request, "shortest_ms", 0),
                limit=_limit(request),
            )
        except ValueError as error:
            return _problem(422, str(error))
        return _json(found)

    async def trace(self, request: Request) -> JSONResponse:
        trace_id = request.path_params["trace_id"]
        branches = self._telemetry.trace(trace_id)
        if not branches:
            return _problem(404, f"There is no trace {trace_id!r:.80} in memory. Old ones make room.")
        return _json(branches)

    async def metrics(self, request: Request) -> JSONResponse:
        found = self._telemetry.metrics(resource=request.query_params.get("resource"))
        return _json([{"resource": resource, "name": name} for resource, name in found])

    async def series(self, request: Request) -> JSONResponse:
        name = request.path_params["name"]
        found = self._telemetry.series(name, resource=request.query_params.get("resource"))
        if not found:
            return _problem(404, f"There is no metric {name!r:.80} in memory.")
        return _json(found)


def _names(status: Status) -> tuple[str, str]:
    return status.name, status.resource


def _shown(status: Status) -> Status:
    """Hide the values of the environment: they are shown to whoever asks for them alone."""
    return dataclasses.replace(status, environment=tuple((name, MASKED) for name, _ in status.environment))


def _number(request: Request, name: str, default: int) -> int:
    text = request.query_params.get(name, str(default))
    if not (text.isascii() and text.isdecimal() and len(text) < 16):  # noqa: PLR2004 - far beyond any count
        raise ValueError(f"{name}={text!r:.40} is no whole number. Give one from 0.")
    return int(text)


def _limit(request: Request) -> int:
    limit = _number(request, "limit", 200)
    if not 1 <= limit <= LARGEST_PAGE:
        raise ValueError(f"limit={limit}: a page has 1 to {LARGEST_PAGE} entries.")
    return limit


def _json(value: Any) -> JSONResponse:
    return JSONResponse(_plain(value))


def _plain(value: Any) -> Any:
    if _is_sequence(value):
        return [_plain(item) for item in value]
    if _is_mapping(value):
        return {str(key): _plain(item) for key, item in value.items()}
    match value:
        case datetime():
            return value.isoformat()
        case float() if value != value or abs(value) == float("inf"):  # noqa: PLR0124 - NaN
            return str(value)
        case _ if dataclasses.is_dataclass(value):
            return {field.name: _plain(getattr(value, field.name)) for field in dataclasses.fields(value)}
        case _:
            return value


def _is_sequence(value: Any) -> TypeGuard[Sequence[Any]]:
    return isinstance(value, (list, tuple))


def _is_mapping(value: Any) -> TypeGuard[Mapping[Any, Any]]:
    return isinstance(value, dict)


def _unknown(error: KeyError) -> JSONResponse:
    return _problem(404, f"There is no process {str(error.args[0])!r:.80} here.")


def _problem(status: int, detail: str) -> JSONResponse:
    return JSONResponse(
        {"type": "about:blank", "status": status, "detail": detail},
        status,
        media_type="application/problem+json",
    )
