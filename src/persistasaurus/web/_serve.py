"""The API as an app of its own: an app for any ASGI server, with everything around the router."""

from __future__ import annotations

import importlib
import os
from collections.abc import AsyncGenerator, Sequence
from contextlib import asynccontextmanager
from typing import Any

from fastapi import FastAPI, HTTPException, Request, Response
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException as StarletteHTTPException

from persistasaurus._app import Persistasaurus
from persistasaurus.errors import PersistasaurusError
from persistasaurus.web._body import MOST_BYTES
from persistasaurus.web._dashboard import dashboard_router
from persistasaurus.web._flows import flow_router
from persistasaurus.web._problem import Refused, problem_response, refusal_of
from persistasaurus.web._scalar import scalar_router
from persistasaurus.web._security import (
    LOOPBACK_HOSTS,
    Policy,
    SecurityMiddleware,
    nonce_of,
    secure,
)


def create_app(
    app_or_url: Persistasaurus | str | os.PathLike[str],
    *,
    modules: Sequence[str] = (),
    token: str | None = None,
    allowed_hosts: Sequence[str] = LOOPBACK_HOSTS,
    max_body: int = MOST_BYTES,
    title: str = "Persistasaurus",
) -> FastAPI:
    """Return a FastAPI app that serves the flows of one store.

    Pages for people are at `/dashboard/`, the API reference is at `/scalar`.

    Given a URL, or an app that is not entered, it enters it when the server starts and leaves it when the
    server stops: its flows are driven in the server's process, async steps on the server's event loop.
    `modules` are imported by name, so that the flows in them are known. Without a `token` it serves loopback
    addresses only; with one, every request but those for `/health` needs it, as `Authorization: Bearer` or,
    in a browser, by opening `/scalar?token=...` once. `max_body` is bytes.

    Raises:
        ImportError: a module cannot be imported.
        ValueError: the token is empty.
    """
    if token is not None and not token.strip():
        raise ValueError(
            "token='' would let everybody in. Give a random text, or None to serve loopback only."
        )
    for module in modules:
        importlib.import_module(module)
    flows = app_or_url if isinstance(app_or_url, Persistasaurus) else Persistasaurus(app_or_url)
    served = _Served(flows, title=title, lifespan=_lifespan_of(flows))
    served.include_router(flow_router(flows, max_body=max_body))
    served.include_router(dashboard_router(flows), prefix="/dashboard")
    served.include_router(scalar_router(title=f"{title} API"))
    add_problem_handlers(served)
    policy = Policy(token=token, allowed_hosts=tuple(allowed_hosts), max_body=max_body)
    served.add_middleware(SecurityMiddleware, policy=policy)
    return served


def add_problem_handlers(app: FastAPI) -> None:
    """Have an app answer in problem+json also where no route of the router was asked."""

    async def answer(request: Request, error: Exception) -> Response:
        refused = refusal_of(_as_fastapi(error))
        if refused is None:
            told = "Something went wrong in the server; its log says what. The flows go on."
            refused = Refused(500, "internal", told)
        response = problem_response(refused)
        # What a server error is answered with passes no middleware.
        secure(response.headers, nonce_of(request.scope))
        return response

    for kind in (StarletteHTTPException, RequestValidationError, PersistasaurusError, Exception):
        app.add_exception_handler(kind, answer)


def _as_fastapi(error: Exception) -> Exception:
    if isinstance(error, StarletteHTTPException) and not isinstance(error, HTTPException):
        return HTTPException(error.status_code, error.detail, dict(error.headers or {}))
    return error


class _Served(FastAPI):
    """Describes the flows that are known when it is asked, rather than at the first time."""

    def __init__(self, flows: Persistasaurus, **settings: Any) -> None:
        super().__init__(docs_url=None, redoc_url=None, version="1", **settings)
        self._flows = flows
        self._described_change = -1

    def openapi(self) -> dict[str, Any]:
        change = self._flows._registry.last_change
        if change != self._described_change:
            self.openapi_schema = None
            self._described_change = change
        return super().openapi()


def _lifespan_of(flows: Persistasaurus) -> Any:
    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncGenerator[None]:
        if flows._engine is not None:
            yield
            return
        async with flows:
            yield

    return lifespan
