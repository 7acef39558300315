"""The routes of the API, on one router that a user mounts in an app of their own."""

from __future__ import annotations

import asyncio
from collections.abc import Generator
from contextlib import contextmanager
from typing import Annotated, Any
from urllib.parse import quote

from fastapi import APIRouter, Body, Path, Query, Request, Response
from pydantic import AwareDatetime

from persistasaurus._app import Persistasaurus
from persistasaurus._model import FlowStatus
from persistasaurus.errors import InvalidFlowIdError
from persistasaurus.web import _acting
from persistasaurus.web._addresses import STAND_IN, flow_id_of, path_as_sent, segment
from persistasaurus.web._body import MOST_BYTES
from persistasaurus.web._looking import (
    MOST_FLOWS,
    MOST_STEPS,
    Asked,
    flow_page,
    one_flow,
    readiness,
    step_page,
)
from persistasaurus.web._models import (
    FlowAnswer,
    FlowPage,
    Health,
    Queued,
    Readiness,
    Started,
    StepPage,
)
from persistasaurus.web._problem import FieldError, Refused, problems
from persistasaurus.web._route import route_class
from persistasaurus.web._schemas import Start, start_model

FlowId = Annotated[
    str,
    Path(
        description="Percent-encoded, slashes too, or `base64:` and the id in base64url.",
        examples=["01997a3e-5d1c-7000-8000-3f2f6c1f0a55"],
    ),
]
Cursor = Annotated[str | None, Query(description="`next` of the page before.", max_length=100)]

After = Annotated[AwareDatetime | None, Query(alias="createdAfter", description="Included.")]
Before = Annotated[AwareDatetime | None, Query(alias="createdBefore", description="Not included.")]
StepName = Annotated[str, Path(description="Its name.", examples=["confirm_email_address"])]
Arguments = Annotated[
    dict[str, Any] | None,
    Body(description="The step's arguments by name.", examples=[{"confirmed_at": "2026-01-31T09:00:00Z"}]),
]
Value = Annotated[
    Any, Body(description="The signal's value; none is null.", examples=[{"by": "eve", "granted": True}])
]


def flow_router(app: Persistasaurus, *, max_body: int = MOST_BYTES) -> APIRouter:
    """Return the routes for flows and health, to be included in a FastAPI app, under a prefix or not.

    The app must be entered while requests are served. The router brings no authentication: who can reach it
    can start, read and cancel flows, so guard it as the rest of your app, by `include_router(...,
    dependencies=[...])` or a middleware. `max_body` is the most bytes that a body may have.

    Errors are problem+json: 404 unknown id, 409 conflict, 413 too large, 415 no JSON, 422 with the field,
    503 where the store or the app cannot serve.
    """
    router = APIRouter(route_class=route_class(max_body))
    _add_health(router, app)
    _add_list(router, app)
    _add_one(router, app)
    _add_start(router, app)
    _add_sending(router, app)
    _add_changing(router, app)
    return router


def _add_health(router: APIRouter, app: Persistasaurus) -> None:
    @router.get("/health", tags=["Health"], summary="Whether the process answers")
    async def health() -> Health:
        return Health()

    @router.get(
        "/health/ready",
        tags=["Health"],
        summary="Whether flows can be started and are driven",
        responses=problems(503),
    )
    async def health_ready() -> Readiness:
        has_worker, trouble = await asyncio.to_thread(readiness, app)
        if trouble:
            raise Refused(503, "not-ready", trouble)
        return Readiness(worker="ok" if has_worker else "none")


def _add_list(router: APIRouter, app: Persistasaurus) -> None:
    @router.get("/flows", tags=["Flows"], summary="List flows, newest first", responses=problems(422, 503))
    async def list_flows(  # noqa: PLR0913 - filters, each by its name
        request: Request,
        *,
        status: Annotated[list[FlowStatus] | None, Query(description="Any of these.")] = None,
        name: Annotated[str | None, Query(description="The flow's name.")] = None,
        id_prefix: Annotated[str | None, Query(alias="idPrefix", description="How the id begins.")] = None,
        created_after: After = None,
        created_before: Before = None,
        cursor: Cursor = None,
        limit: Annotated[int, Query(ge=1, le=MOST_FLOWS)] = 50,
    ) -> FlowPage:
        asked = Asked(status, name, id_prefix, created_after, created_before)
        with _blaming("cursor" if cursor else "idPrefix"):
            return await asyncio.to_thread(
                flow_page, app, asked, cursor=cursor, limit=limit, url_of=_Urls(request)
            )


def _add_one(router: APIRouter, app: Persistasaurus) -> None:
    looking: dict[str, Any] = {"tags": ["Flows"], "responses": problems(404, 422, 503)}

    @router.get("/flows/{flow_id}", summary="Get a flow", **looking)
    async def get_flow(request: Request, flow_id: FlowId) -> FlowAnswer:
        return await asyncio.to_thread(one_flow, app, _read(flow_id), _Urls(request))

    @router.get("/flows/{flow_id}/steps", summary="Get a flow's execution log", **looking)
    async def list_steps(
        flow_id: FlowId, cursor: Cursor = None, limit: Annotated[int, Query(ge=1, le=MOST_STEPS)] = 200
    ) -> StepPage:
        with _blaming("cursor"):
            return await asyncio.to_thread(step_page, app, _read(flow_id), cursor=cursor, limit=limit)


def _add_start(router: APIRouter, app: Persistasaurus) -> None:
    model = start_model(app)

    async def start_flow(request: Request, response: Response, body: Start) -> Started:
        """Answers once the start is durable; the flow then goes on by itself, whatever happens here."""
        handle, name = await _acting.start(app, body)
        url = _Urls(request)(handle.flow_id)
        response.headers["Location"] = url
        return Started(flow_id=handle.flow_id, name=name, url=url)

    # The model differs from app to app: its schema lists the flows that the app knows.
    start_flow.__annotations__["body"] = model
    router.post(
        "/flows",
        status_code=202,
        tags=["Flows"],
        summary="Start a flow",
        responses={202: _LOCATION, **problems(400, 409, 413, 415, 422, 503)},
    )(start_flow)


def _add_sending(router: APIRouter, app: Persistasaurus) -> None:
    sending: dict[str, Any] = {
        "status_code": 202,
        "tags": ["Flows"],
        "responses": problems(400, 404, 409, 413, 415, 422, 503),
    }

    @router.post(
        "/flows/{flow_id}/resume/{step}",
        summary="Resume a step that the flow waits for, or will wait for",
        **sending,
    )
    async def resume(
        request: Request, flow_id: FlowId, step: StepName, arguments: Arguments = None
    ) -> Queued:
        known = _read(flow_id)
        await _acting.resume(app, known, step, arguments or {})
        return Queued(flow_id=known, name=step, url=_Urls(request)(known))

    @router.post("/flows/{flow_id}/signals/{name}", summary="Send a signal", **sending)
    async def send_signal(
        request: Request,
        flow_id: FlowId,
        name: Annotated[str, Path(examples=["approval"])],
        value: Value = None,
        *,
        ahead: Annotated[bool, Query(description="Queue it though no flow has this id yet.")] = False,
    ) -> Queued:
        known = _read(flow_id)
        await _acting.send(app, known, name, value, ahead=ahead)
        return Queued(flow_id=known, name=name, url=_Urls(request)(known))


def _add_changing(router: APIRouter, app: Persistasaurus) -> None:
    changing: dict[str, Any] = {
        "status_code": 202,
        "tags": ["Flows"],
        "responses": problems(404, 409, 413, 415, 422, 503),
    }

    @router.post(
        "/flows/{flow_id}/cancel", summary="Cancel a flow; one that has ended stays as it is", **changing
    )
    async def cancel(request: Request, flow_id: FlowId) -> FlowAnswer:
        known = _read(flow_id)
        await app.handle(known).cancel_async()
        return await asyncio.to_thread(one_flow, app, known, _Urls(request))

    @router.post("/flows/{flow_id}/retry", summary="Let a failed or parked flow go on", **changing)
    async def retry(request: Request, flow_id: FlowId) -> FlowAnswer:
        known = _read(flow_id)
        await _acting.retry(app, known)
        return await asyncio.to_thread(one_flow, app, known, _Urls(request))


_LOCATION: dict[str, Any] = {
    "headers": {"Location": {"description": "The flow's address.", "schema": {"type": "string"}}},
}


class _Urls:
    """Makes the addresses of flows, where the router is mounted for the request at hand."""

    def __init__(self, request: Request) -> None:
        # Whatever the router was included or mounted under stands in front of the route's own segments.
        own = request.scope["route"].path_format.rpartition("/flows")[2].count("/") + 1
        mounted = "/".join(path_as_sent(request.scope).split("/")[:-own])
        self._base = quote(mounted.replace(STAND_IN, "/")) + "/flows/"

    def __call__(self, flow_id: str) -> str:
        return self._base + segment(flow_id)


def _read(flow_id: str) -> str:
    try:
        return flow_id_of(flow_id)
    except ValueError as error:
        raise Refused(
            422, "payload", str(error), errors=[FieldError(field="flowId", message=str(error))]
        ) from error


@contextmanager
def _blaming(field: str) -> Generator[None]:
    """Blame a field for what is wrong with its value."""
    try:
        yield
    except ValueError as error:
        if isinstance(error, InvalidFlowIdError):
            raise
        raise Refused(
            422, "payload", str(error), errors=[FieldError(field=field, message=str(error))]
        ) from error
