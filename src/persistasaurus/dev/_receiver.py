"""Receives OTLP over HTTP, as an ASGI app: protobuf or JSON, plain or gzip."""

from __future__ import annotations

import asyncio
import zlib

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from persistasaurus.dev._otlp import MalformedError, receive, refusal
from persistasaurus.dev._telemetry import Telemetry

LARGEST_BODY = 16_000_000
"""In bytes, as sent and as unpacked."""

PROTOBUF = "application/x-protobuf"
JSON = "application/json"
_GZIP_ONLY = 16 + zlib.MAX_WBITS
SIGNALS = ("traces", "logs", "metrics")


class _RefusedError(Exception):
    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status


def receiver(telemetry: Telemetry) -> Starlette:
    """Return the app that takes POST /v1/traces, /v1/logs and /v1/metrics into `telemetry`.

    It answers once what was sent is kept. Nothing survives the process.
    """

    async def take(request: Request) -> Response:
        kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
        is_json = kind == JSON
        try:
            body = await _body(request, kind)
            signal = request.url.path.rpartition("/")[2]
            # In a thread: a large batch takes a while to read, and the pages go on meanwhile.
            answer = await asyncio.to_thread(receive, signal, body, telemetry, is_json=is_json)
        except MalformedError as error:
            return _answer(400, refusal(str(error), is_json=is_json), is_json=is_json)
        except _RefusedError as error:
            return _answer(error.status, refusal(str(error), is_json=is_json), is_json=is_json)
        return _answer(200, answer, is_json=is_json)

    return Starlette(routes=[Route(f"/v1/{signal}", take, methods=["POST"]) for signal in SIGNALS])


def _answer(status: int, body: bytes, *, is_json: bool) -> Response:
    return Response(body, status, media_type=JSON if is_json else PROTOBUF)


async def _body(request: Request, kind: str) -> bytes:
    if kind not in (PROTOBUF, JSON):
        raise _RefusedError(415, f"{kind!r:.80} is not taken. Send {PROTOBUF} or {JSON}.")
    declared = request.headers.get("content-length", "0")
    if declared.isdecimal() and int(declared) > LARGEST_BODY:
        raise _too_large()
    parts: list[bytes] = []
    size = 0
    async for part in request.stream():
        size += len(part)
        if size > LARGEST_BODY:
            raise _too_large()
        parts.append(part)
    body = b"".join(parts)
    match request.headers.get("content-encoding", "identity").strip().lower():
        case "identity" | "":
            return body
        case "gzip":
            return await asyncio.to_thread(_unpacked, body)
        case other:
            raise _RefusedError(415, f"The encoding {other!r:.40} is not taken. Send gzip or plain bytes.")


def _unpacked(body: bytes) -> bytes:
    unpacker = zlib.decompressobj(_GZIP_ONLY)
    try:
        unpacked = unpacker.decompress(body, LARGEST_BODY + 1)
    except zlib.error as error:
        raise _RefusedError(400, f"The body is not gzip: {error}.") from error
    if len(unpacked) > LARGEST_BODY:
        raise _too_large()
    if not unpacker.eof:
        raise _RefusedError(400, "The gzip body ends too early.")
    return unpacked


def _too_large() -> _RefusedError:
    return _RefusedError(
        413, f"A body has at most {LARGEST_BODY} bytes, also unpacked. Send smaller batches."
    )
