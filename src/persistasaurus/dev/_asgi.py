"""Serves one ASGI app on loopback until it is told to stop or the AppHost is gone.

`PORT=8000 python -m persistasaurus.dev._asgi module:app`
"""

from __future__ import annotations

import os
import socket
import sys

import uvicorn

from persistasaurus.dev._environment import LOOPBACK
from persistasaurus.dev._stdin import when_stdin_ends

GRACE_S = 1


def main(app: str) -> None:
    """Serve `app`, "module:attribute", at the port that the environment names."""
    listener = socket.socket()
    # The AppHost holds the port, without listening, so that nobody else gets it between two starts.
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    listener.bind((LOOPBACK, int(os.environ["PORT"])))
    server = uvicorn.Server(uvicorn.Config(app, timeout_graceful_shutdown=GRACE_S, server_header=False))

    def stop() -> None:
        server.should_exit = True

    when_stdin_ends(stop)
    server.run(sockets=[listener])
    if not server.started:
        sys.exit(3)  # uvicorn has logged why


if __name__ == "__main__":
    main(sys.argv[1])
