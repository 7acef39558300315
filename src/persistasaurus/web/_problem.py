"""Errors as problem+json (RFC 9457): what happened, why, what to do, and which field."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from http import HTTPStatus
from typing import Any

from fastapi import HTTPException
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from persistasaurus.errors import (
    AppNotRunningError,
    FlowCancelled,
    FlowConflict,
    FlowNotFound,
    FlowNotWaiting,
    InvalidFlowIdError,
    LeaseLost,
    PersistasaurusError,
    SerializationError,
    StoreError,
    UsageError,
    WrongContextError,
)
from persistasaurus.web._schemas import inlined

PROBLEM_JSON = "application/problem+json"


class FieldError(BaseModel):
    """What is wrong with one field of a request."""

    field: str = Field(
        description="The path of the field, its parts joined by dots.", examples=["input.userName"]
    )
    message: str = Field(examples=["Input should be a valid string"])


class Problem(BaseModel):
    """An error as RFC 9457 has it."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {
                    "type": "urn:persistasaurus:problem:flow-not-found",
                    "title": "No such flow",
                    "status": 404,
                    "detail": "No flow has the id 'o-17' in this store. Check the id and the database.",
                }
            ]
        }
    )

    type: str = Field(description="Names the kind of error, the same for ever.")
    title: str
    status: int
    detail: str = Field(description="What happened, why, and what to do about it.")
    errors: list[FieldError] | None = Field(
        None, description="The fields that are wrong, where they are known."
    )


class Refused(HTTPException):
    """A request that is answered with a problem."""

    def __init__(
        self,
        status: int,
        kind: str,
        detail: str,
        *,
        errors: Sequence[FieldError] = (),
        headers: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(status, detail, dict(headers or {}))
        self.kind = kind
        self.errors = list(errors)

    def __str__(self) -> str:
        return str(self.detail)

    @property
    def title(self) -> str:
        """What kind of error it is, in a few words."""
        return _TITLES.get(self.kind) or HTTPStatus(self.status_code).phrase


_TITLES = {
    "app-not-running": "The app is not running",
    "body-too-large": "The body is too large",
    "flow-cancelled": "The flow was cancelled",
    "flow-conflict": "The flow id is taken",
    "flow-not-found": "No such flow",
    "flow-not-retryable": "The flow cannot be retried",
    "flow-not-waiting": "The flow does not wait for this",
    "lease-lost": "Another worker took over",
    "media-type": "The body is of another type",
    "no-json": "The body is no JSON",
    "not-ready": "Not ready",
    "payload": "The payload does not fit",
    "step-not-found": "No such step",
    "store": "The store is in trouble",
    "wrong-use": "This cannot work",
}

_NOTHING = {
    404: "There is nothing at this path. /openapi.json lists what there is.",
    405: "This path does not take that method. /openapi.json lists what it takes.",
}

# The first that fits.
_ANSWERS: tuple[tuple[type[PersistasaurusError], int, str], ...] = (
    (FlowNotFound, 404, "flow-not-found"),
    (FlowConflict, 409, "flow-conflict"),
    (FlowNotWaiting, 409, "flow-not-waiting"),
    (FlowCancelled, 409, "flow-cancelled"),
    (SerializationError, 422, "payload"),
    (InvalidFlowIdError, 422, "payload"),
    (AppNotRunningError, 503, "app-not-running"),
    (LeaseLost, 503, "lease-lost"),
    (StoreError, 503, "store"),
    (UsageError, 422, "wrong-use"),
)


def refusal_of(error: Exception) -> Refused | None:
    """Return the answer to what was raised, None for what is nobody's fault but the server's."""
    if isinstance(error, Refused):
        return error
    if isinstance(error, HTTPException):
        phrase = HTTPStatus(error.status_code).phrase
        kind = phrase.lower().replace(" ", "-")
        told = str(error.detail) if error.detail != phrase else _NOTHING.get(error.status_code, phrase)
        return Refused(error.status_code, kind, told, headers=error.headers)
    if isinstance(error, RequestValidationError):
        if any(one["type"] == "json_invalid" for one in error.errors()):
            return Refused(400, "no-json", "The body cannot be read as JSON. Send JSON text in UTF-8.")
        fields = fields_of(error.errors())
        return Refused(422, "payload", _told(fields), errors=fields)
    if isinstance(error, WrongContextError):
        return None
    for kind_of_error, status, kind in _ANSWERS:
        if isinstance(error, kind_of_error):
            fields = (
                [FieldError(field="flowId", message=str(error))]
                if isinstance(error, InvalidFlowIdError)
                else []
            )
            return Refused(status, kind, str(error), errors=fields or payload_fields(error))
    return None


def payload_fields(error: Exception, within: str = "") -> list[FieldError]:
    """Return the fields that the codec objects to; `within` names the field that holds its value."""
    cause = error.__cause__
    return fields_of(cause.errors(include_url=False), within) if isinstance(cause, ValidationError) else []


def fields_of(errors: Iterable[Mapping[str, Any]], within: str = "") -> list[FieldError]:
    """Return pydantic's complaints by field, without the values that it complains about."""
    return [
        FieldError(
            field=".".join(map(str, [*filter(None, [within]), *_place(error["loc"])])) or "body",
            message=str(error["msg"]),
        )
        for error in errors
    ]


def _place(loc: Sequence[Any]) -> Sequence[Any]:
    """Return a field's path without the part of the request that FastAPI puts in front."""
    return loc[1:] if loc and loc[0] in ("body", "query", "path") and len(loc) > 1 else loc


def _told(fields: Sequence[FieldError]) -> str:
    told = "; ".join(f"{one.field}: {one.message}" for one in fields[:5])
    return f"The request does not fit: {told}. Send what the API's description asks for."


def problem_response(refused: Refused) -> JSONResponse:
    """Return a refusal as problem+json."""
    problem = Problem(
        type=f"urn:persistasaurus:problem:{refused.kind}",
        title=refused.title,
        status=refused.status_code,
        detail=str(refused.detail),
        errors=refused.errors or None,
    )
    # Not by pydantic's own writer: a message may quote what UTF-8 cannot hold, and ASCII escapes can.
    return AsciiJSON(
        problem.model_dump(exclude_none=True),
        status_code=refused.status_code,
        headers=dict(refused.headers or {}),
        media_type=PROBLEM_JSON,
    )


class AsciiJSON(JSONResponse):
    """JSON whose text is ASCII, so that any string can be in it."""

    def render(self, content: Any) -> bytes:
        return json.dumps(content, separators=(",", ":")).encode("ascii")


def problems(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """Return what FastAPI is told of a route's errors."""
    return {
        status: {
            "description": HTTPStatus(status).phrase,
            # FastAPI would put a model under application/json.
            "content": {PROBLEM_JSON: {"schema": inlined(Problem.model_json_schema())}},
        }
        for status in statuses
    }
