"""Prints how long the list of flows takes to answer with 100,000 flows in the store (bar: 100 ms)."""

from __future__ import annotations

import statistics
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import quote
from urllib.request import urlopen

import apsw
import uvicorn

from persistasaurus import Persistasaurus
from persistasaurus.web import create_app

FLOWS = 100_000
ROUNDS = 9
SEARCHES = (
    "",
    "status:failed",
    "status:complete",
    "name:Shop.order",
    "name:Shop.order status:failed",
    "id:order-05",
    "id:order-05 status:parked",
    "name:nobody",
)
_FILL = """
    WITH RECURSIVE number (i) AS (VALUES (1) UNION ALL SELECT i + 1 FROM number WHERE i < :flows)
    INSERT INTO flow (
        flow_id, name_id, status, created_at_ms, updated_at_ms, seed, input, result, idle, pokes, crashes,
        lost_claims, checksum
    )
    SELECT
        printf('order-%06d', i), (SELECT name_id FROM name WHERE method_name = iif(i % 2, 'order', 'pay')),
        CASE WHEN i % 1000 = 0 THEN 3 WHEN i % 50 = 0 THEN 2 ELSE 1 END, 1760000000000 + i * 100,
        1760000000500 + i * 100, i, '{"item":"lamp"}', '1', 1, 0, 0, 0, 0
    FROM number
"""


def main() -> None:
    """Make the store, serve it, and ask for each search some times."""
    with tempfile.TemporaryDirectory(prefix="persistasaurus-bench-") as folder:
        path = Path(folder) / "flows.db"
        _fill(path)
        with Persistasaurus(path, worker=False) as app, _served(app) as url:
            for search in SEARCHES:
                figures = [_ask(f"{url}/dashboard/flows?q={quote(search)}") for _ in range(ROUNDS)]
                print(
                    f"{search or '(all)':<32}{statistics.median(figures):6.1f} ms, at most {max(figures):.1f}"
                )


def _fill(path: Path) -> None:
    with Persistasaurus(path, worker=False):
        pass
    connection = apsw.Connection(str(path))
    connection.execute("INSERT INTO name (class_name, method_name) VALUES ('Shop', 'order'), ('Shop', 'pay')")
    connection.execute(_FILL, {"flows": FLOWS})
    connection.close()


def _ask(url: str) -> float:
    begin = time.perf_counter()
    with urlopen(url) as answer:  # noqa: S310 - our own server
        answer.read()
    return (time.perf_counter() - begin) * 1000


@contextmanager
def _served(app: Persistasaurus) -> Iterator[str]:
    server = uvicorn.Server(uvicorn.Config(create_app(app), port=0, log_level="critical"))
    thread = threading.Thread(target=server.run)
    thread.start()
    while not server.started:
        time.sleep(0.01)
    yield f"http://127.0.0.1:{server.servers[0].sockets[0].getsockname()[1]}"
    server.should_exit = True
    thread.join()


if __name__ == "__main__":
    main()
