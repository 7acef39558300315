"""A cap on what a request sends, whether it says its length or not."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from starlette.types import Message, Receive, Scope

MOST_BYTES = 1_000_000


def too_large(limit: int) -> str:
    """Return what to tell whoever sent more than `limit` bytes."""
    return (
        f"The body of the request is larger than the {limit:,} bytes that this server takes. "
        "Keep the value elsewhere and send its id."
    )


def announced(scope: Scope) -> int | None:
    """Return the length that a request announces, None where it announces none or none that is a number."""
    value = headers_of(scope).get("content-length", "")
    return int(value) if value.isascii() and value.isdigit() else None


def headers_of(scope: Scope) -> Mapping[str, str]:
    """Return the headers of a request by their names in lower case, the last of each name."""
    return {name.decode("latin-1").lower(): value.decode("latin-1") for name, value in scope["headers"]}


def capped(receive: Receive, limit: int, refuse: Callable[[], Exception]) -> Receive:
    """Return a `receive` that raises what `refuse` makes once more than `limit` bytes have come."""
    seen = 0

    async def receive_capped() -> Message:
        nonlocal seen
        message = await receive()
        if message["type"] == "http.request":
            seen += len(message.get("body", b""))
            if seen > limit:
                raise refuse()
        return message

    return receive_capped
