"""Serves one ASGI app on loopback until it is told to stop or the AppHost is gone.

`PORT=8000 python -m persistasaurus.dev._asgi module:app [/health]`. The path is left out of the access log.
"""

from __future__ import annotations

import logging
import os
import socket
import sys

import uvicorn

from persistasaurus.dev._environment import LOOPBACK, tcp_socket
from persistasaurus.dev._stdin import when_stdin_ends

GRACE_S = 1


def main(app: str, health: str | None = None) -> None:
    """Serve `app`, "module:attribute", at the port that the environment names."""
    listener = tcp_socket()
    # The AppHost holds the port, without listening, so that nobody else gets it between two starts.
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    port = int(os.environ["PORT"])
    try:
        listener.bind((LOOPBACK, port))
    except OSError as error:
        sys.exit(f"{app} cannot be served at port {port}: {error.strerror}. End who has it, or take another.")
    config = uvicorn.Config(app, timeout_graceful_shutdown=GRACE_S, server_header=False)
    logging.getLogger("uvicorn.access").addFilter(lambda record: not _is_check(record, health))
    server = uvicorn.Server(config)

    def stop() -> None:
        server.should_exit = True

    when_stdin_ends(stop)
    server.run(sockets=[listener])
    if not server.started:
        sys.exit(3)  # uvicorn has logged why


def _is_check(record: logging.LogRecord, health: str | None) -> bool:
    """Whether an access is the AppHost asking for health, every second, by HTTP 1.0."""
    match record.args:
        case (_, "GET", path, "1.0", _):
            return path == health
        case _:
            return False


if __name__ == "__main__":
    main(*sys.argv[1:])
