"""The sign-up demo as an HTTP API. All state lives in the flows: killing the server loses nothing.

    make api PORT=8000        or: uvicorn examples.signup.api:app

PERSISTASAURUS_URL names the store (signup.db), SIGNUP_EMAIL_DELAY the seconds until the welcome mail (10).
With OTEL_EXPORTER_OTLP_ENDPOINT set, as an AppHost does, traces, metrics and logs go there.
"""

from __future__ import annotations

import logging
import os
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from typing import Any

from fastapi import FastAPI, HTTPException, Response
from pydantic import AwareDatetime, BaseModel, ConfigDict, Field
from pydantic.alias_generators import to_camel

from persistasaurus import FlowHandle, FlowRecord, FlowStatus, Persistasaurus
from persistasaurus.otel import configure
from persistasaurus.web import (
    SecurityMiddleware,
    add_problem_handlers,
    dashboard_router,
    flow_router,
    problems,
    scalar_router,
)

from .flows import SignupFlow, hello_world, register

SIGN_UP = "SignupFlow.sign_up"

# The mails that the demo sends are lines of its log.
logging.basicConfig(level=logging.INFO, format="%(levelname)s:     %(message)s")

flows = Persistasaurus(os.environ.get("PERSISTASAURUS_URL", "signup.db"), observer=configure())
register(flows)


@asynccontextmanager
async def lifespan(_: FastAPI) -> AsyncGenerator[None]:
    async with flows:
        yield


app = FastAPI(
    title="Sign-up demo",
    version="1",
    lifespan=lifespan,
    docs_url=None,
    redoc_url=None,
    # It tells its requests all the same. Its own set-up, on top of ours, would send everything twice.
    telemetry={"auto_configure": False},
)


class Model(BaseModel):
    model_config = ConfigDict(alias_generator=to_camel, populate_by_name=True)


class Hello(Model):
    flow_id: str
    message: str = Field(examples=["Hello World flow completed!"])


class SignupRequest(Model):
    user_name: str = Field(min_length=1, max_length=200, examples=["alice"])
    email: str = Field(pattern=r"^[^@\s]+@[^@\s]+$", max_length=320, examples=["alice@example.com"])


class SignupStarted(Model):
    flow_id: str
    message: str
    user_name: str


class SignupState(Model):
    flow_id: str
    user_name: str
    email: str
    user_id: int | None = Field(description="Null until the user is created.", examples=[42])
    status: FlowStatus = Field(
        description="PENDING until the mail is sent, WAITING_FOR_SIGNAL until confirmed, then COMPLETE."
    )


class Confirmation(Model):
    confirmed_at: AwareDatetime | None = Field(
        None, description="Left out: now.", examples=["2026-01-31T09:00:00Z"]
    )


class Confirmed(Model):
    flow_id: str
    message: str
    confirmed_at: AwareDatetime


@app.post("/flows/hello-world", tags=["Demo"], summary="Say hello five times", responses=problems(503))
async def say_hello_world() -> Hello:
    handle = await flows.start_async(hello_world)
    await handle
    return Hello(flow_id=handle.flow_id, message="Hello World flow completed!")


@app.post("/signups", status_code=202, tags=["Demo"], summary="Sign up", responses=problems(400, 422, 503))
async def sign_up(request: SignupRequest, response: Response) -> SignupStarted:
    handle = await flows.start_async(SignupFlow.sign_up, request.user_name, request.email)
    response.headers["Location"] = f"/signups/{handle.flow_id}"
    return SignupStarted(
        flow_id=handle.flow_id,
        message="Signup started. A mail with a confirmation request is on its way.",
        user_name=request.user_name,
    )


@app.get(
    "/signups/{flow_id}", tags=["Demo"], summary="Where a signup stands", responses=problems(404, 422, 503)
)
async def get_signup(flow_id: str) -> SignupState:
    record = await _signup(flow_id)
    user_id = await _returned(flows.handle(flow_id), "create_user_record")
    return SignupState(
        flow_id=flow_id,
        user_name=record.input["user_name"],
        email=record.input["email"],
        user_id=user_id,
        status=record.status,
    )


@app.post(
    "/signups/{flow_id}/confirm",
    tags=["Demo"],
    summary="Confirm the address; twice is harmless, and before the mail was sent it is kept",
    responses=problems(400, 404, 409, 422, 503),
)
async def confirm(flow_id: str, confirmation: Confirmation | None = None) -> Confirmed:
    record = await _signup(flow_id)
    handle = flows.handle(flow_id)
    confirmed_at = await _returned(handle, "confirm_email_address")
    if confirmed_at is None:
        if record.status.ended:
            raise HTTPException(409, f"The signup is {record.status} and cannot be confirmed. Sign up again.")
        confirmed_at = (confirmation and confirmation.confirmed_at) or datetime.now(UTC)
        await handle.resume_async(SignupFlow.confirm_email_address, confirmed_at)
    return Confirmed(
        flow_id=flow_id, message="Email confirmed! The signup will be completed.", confirmed_at=confirmed_at
    )


async def _signup(flow_id: str) -> FlowRecord:
    record = await flows.handle(flow_id).record_async()
    if record.name != SIGN_UP:
        raise HTTPException(404, f"The flow {flow_id!r} is no signup. Check the id.")
    return record


async def _returned(handle: FlowHandle[Any], step: str) -> Any:
    """Return what a step of the flow has returned, None until it has."""
    steps = await handle.steps_async()
    return next((row.return_value for row in steps if row.method_name == step), None)


app.include_router(flow_router(flows))
app.include_router(dashboard_router(flows), prefix="/dashboard")
app.include_router(scalar_router(title="Sign-up demo API"))
app.add_middleware(SecurityMiddleware)
add_problem_handlers(app)
