"""A route that answers in problem+json, takes JSON up to a cap, and finds ids with slashes in them.

All of it in the route and nothing in the app, so that it holds where a user mounts the router in an app
of their own.
"""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from typing import Any

from fastapi import Request, Response
from fastapi.routing import APIRoute
from starlette.routing import Match
from starlette.types import Scope

from persistasaurus.web._addresses import STAND_IN, path_as_sent
from persistasaurus.web._body import announced, capped, headers_of, too_large
from persistasaurus.web._problem import Refused, problem_response, refusal_of

Handler = Callable[[Request], Coroutine[Any, Any, Response]]


def route_class(most_bytes: int) -> type[APIRoute]:
    """Return the class of routes whose requests have bodies of at most `most_bytes`."""

    class FlowRoute(_FlowRoute):
        limit = most_bytes

    return FlowRoute


class _FlowRoute(APIRoute):
    limit: int

    def matches(self, scope: Scope) -> tuple[Match, Scope]:
        return matched_as_sent(super().matches, scope)

    def get_route_handler(self) -> Handler:
        handle = super().get_route_handler()

        async def handle_with_problems(request: Request) -> Response:
            try:
                return await handle(self._checked(request))
            # What is no refusal goes on to the app's own handlers.
            except Exception as error:
                refused = refusal_of(error)
                if refused is None:
                    raise
                return problem_response(refused)

        return handle_with_problems

    def _checked(self, request: Request) -> Request:
        """Refuse what is no JSON or too large, and watch the body of what does not say its length."""
        length = announced(request.scope)
        if length is not None and length > self.limit:
            raise self._too_large()
        headers = headers_of(request.scope)
        has_body = bool(length) or "transfer-encoding" in headers
        media_type = headers.get("content-type", "").partition(";")[0].strip().lower()
        if has_body and media_type != "application/json" and not media_type.endswith("+json"):
            raise Refused(
                415,
                "media-type",
                f"The body is {media_type or 'of no type'!r}. Send Content-Type: application/json, and JSON.",
            )
        return Request(request.scope, capped(request.receive, self.limit, self._too_large), request._send)

    def _too_large(self) -> Refused:
        return Refused(413, "body-too-large", too_large(self.limit), headers={"Connection": "close"})


def matched_as_sent(match_path: Callable[[Scope], tuple[Match, Scope]], scope: Scope) -> tuple[Match, Scope]:
    """Match a path as it was sent, so that a slash within an id parts no segments."""
    if scope["type"] != "http":
        return match_path(scope)
    match, child = match_path({**scope, "path": path_as_sent(scope)})
    found: dict[str, Any] | None = child.get("path_params")
    if found:
        child["path_params"] = {
            name: value.replace(STAND_IN, "/")
            if isinstance(value, str) and STAND_IN not in scope["path"]
            else value
            for name, value in found.items()
        }
    return match, child
