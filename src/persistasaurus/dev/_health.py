"""Asks a service whether it is well."""

from __future__ import annotations

import asyncio
import secrets

from persistasaurus.dev._environment import LOOPBACK

TIMEOUT_S = 2.0
_WELL = range(200, 300)


async def complaint_of(port: int, path: str | None) -> str:
    """Return what is wrong with a service, an empty text where nothing is.

    Without a path it is well when it takes connections.
    """
    try:
        async with asyncio.timeout(TIMEOUT_S):
            return await _ask(port, path)
    except TimeoutError:
        return f"no answer within {TIMEOUT_S:g} s"
    except OSError as error:
        return f"no connection to port {port}: {error.strerror or error}"


async def _ask(port: int, path: str | None) -> str:
    reader, writer = await asyncio.open_connection(LOOPBACK, port)
    try:
        if path is None:
            return ""
        # 1.0, so that the answer needs no decoding and the server closes.
        lines = f"GET {path} HTTP/1.0", f"Host: {LOOPBACK}:{port}", "Accept: */*", f"traceparent: {_unseen()}"
        writer.write("".join(f"{line}\r\n" for line in (*lines, "")).encode())
        first = (await reader.readline()).split()
    except ValueError:  # a first line without an end
        first = []
    finally:
        writer.close()
    status = first[1].decode("ascii", "replace") if len(first) > 1 else ""
    if not status.isdecimal():
        return f"GET {path} was answered by something that is not HTTP"
    return "" if int(status) in _WELL else f"GET {path} was answered with status {status}"


def _unseen() -> str:
    """Return a W3C trace context that is not sampled, so that no traces of health checks pile up."""
    return f"00-{secrets.token_hex(16)}-{secrets.token_hex(8)}-00"
