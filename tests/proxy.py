"""A TCP proxy before a server, which loses connections where a test says so."""

from __future__ import annotations

import socket
import struct
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import Literal
from urllib.parse import urlsplit, urlunsplit

Place = Literal["before", "amid", "after", "late"]
"""The end of a transaction is not passed on, passed on by half or unanswered, or kept for later."""
BEGINNING = b"SET mark"
"""With this a transaction that writes begins, before it locks anything else."""
SYNC = b"S\0\0\0\4"

CLOSE_WITH_RESET = struct.pack("ii", 1, 0)


class Proxy:
    """Passes on what comes; `cut` makes it lose a connection at the end of one of the next transactions.

    That is the data that ends with PostgreSQL's Sync, and holds the store's COMMIT.
    """

    def __init__(self, url: str) -> None:
        self._target = urlsplit(url)
        self._listening = socket.create_server(("127.0.0.1", 0))
        port = self._listening.getsockname()[1]
        user = f"{self._target.username}@" if self._target.username else ""
        self.url = urlunsplit(self._target._replace(netloc=f"{user}127.0.0.1:{port}"))
        self.cuts = 0
        """How many connections were lost on purpose."""
        self.refusing = False
        """Whether new connections are closed at once, and open ones with their next data."""
        self.refuse_after_cut = False
        """Whether a cut makes it refuse from then on."""
        self.flowing = threading.Event()
        self.flowing.set()
        """Cleared: nothing is passed on to the server, and nothing closed."""
        self._lock = threading.Lock()
        self._left: int | None = None
        self._then: list[int] = []
        self._place: Place = "before"
        self._late: list[tuple[socket.socket, bytes]] = []
        self._pairs: list[tuple[socket.socket, socket.socket]] = []
        threading.Thread(target=self._accept, daemon=True).start()

    def cut(self, place: Place, *, after: int = 0, then: Sequence[int] = ()) -> None:
        """Lose the connection that ends the next transaction, or one that is so many later.

        `then` says how many pass before each of the next losses.
        """
        with self._lock:
            self._place, self._left, self._then = place, after, list(then)

    def deliver(self) -> None:
        """Give the server what was kept, and wait until it has dealt with it."""
        for server, data in self._late:
            server.sendall(data)
            with suppress(OSError):
                server.shutdown(socket.SHUT_WR)  # so that it hangs up when it has done all
                while server.recv(1 << 20):
                    pass
            server.close()
        self._late.clear()

    def is_armed(self) -> bool:
        return self._left is not None

    def close(self) -> None:
        self.flowing.set()
        self.refusing = True
        self._listening.close()
        self.drop_all()

    def drop_all(self) -> None:
        """Lose every connection that is open."""
        for pair in self._pairs:
            for each in pair:
                _reset(each)
        self._pairs.clear()

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._listening.accept()
            except OSError:
                return
            if self.refusing:
                _reset(client)
                continue
            server = socket.create_connection((self._target.hostname, self._target.port))
            for each in (client, server):
                each.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            self._pairs.append((client, server))
            answered = threading.Event()
            deaf = threading.Event()
            threading.Thread(target=self._ask, args=(client, server, answered, deaf), daemon=True).start()
            threading.Thread(target=self._answer, args=(client, server, answered, deaf), daemon=True).start()

    def _ask(
        self, client: socket.socket, server: socket.socket, answered: threading.Event, deaf: threading.Event
    ) -> None:
        with suppress(OSError):
            while data := client.recv(1 << 20):
                self.flowing.wait()
                while (
                    self._place == "late"
                    and self._left == 0
                    and BEGINNING in data
                    and not _ends_transaction(data)
                ):
                    data += client.recv(1 << 20)
                place = self._cut_here() if _ends_transaction(data) else None
                if place is None and not self.refusing:
                    server.sendall(data)
                    continue
                if place == "late":
                    self._late.append((server.dup(), data))
                    _reset(client)
                    return
                if place == "amid":
                    server.sendall(data[: len(data) // 2])
                if place == "after":
                    deaf.set()
                    answered.clear()
                    server.sendall(data)
                    answered.wait(10)
                break
        _reset(client)
        _reset(server)

    def _answer(
        self, client: socket.socket, server: socket.socket, answered: threading.Event, deaf: threading.Event
    ) -> None:
        with suppress(OSError):
            while data := server.recv(1 << 20):
                if deaf.is_set():
                    answered.set()
                    continue
                client.sendall(data)
        answered.set()
        _reset(client)
        _reset(server)

    def _cut_here(self) -> Place | None:
        with self._lock:
            if self._left is None:
                return None
            if self._left > 0:
                self._left -= 1
                return None
            self._left = self._then.pop(0) if self._then else None
            self.cuts += 1
            self.refusing |= self.refuse_after_cut
            return self._place


@contextmanager
def proxied(url: str) -> Iterator[Proxy]:
    proxy = Proxy(url)
    try:
        yield proxy
    finally:
        proxy.close()


def _ends_transaction(data: bytes) -> bool:
    # A Flush may follow the Sync; a statement without values is a message of its own kind.
    return SYNC in data[-10:] or data.startswith(b"Q")


def _reset(one: socket.socket) -> None:
    with suppress(OSError):
        one.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, CLOSE_WITH_RESET)
    with suppress(OSError):
        # A thread that reads from it wakes.
        one.shutdown(socket.SHUT_RDWR)
    with suppress(OSError):
        one.close()
