"""What SQLite alone does on this machine, with the engine's durability: WAL and synchronous=FULL."""

from __future__ import annotations

import time

import apsw

TABLE = """
CREATE TABLE log (
    flow_id TEXT NOT NULL, step INTEGER NOT NULL, timestamp INTEGER, name TEXT, status TEXT,
    attempts INTEGER, parameters TEXT, return_value TEXT, PRIMARY KEY (flow_id, step)
) WITHOUT ROWID
"""
INSERT = "INSERT INTO log VALUES (?, ?, ?, ?, ?, ?, ?, ?)"


def open_raw(db: str) -> apsw.Connection:
    """Return a connection as durable as the engine's own."""
    connection = apsw.Connection(db)
    connection.execute("PRAGMA journal_mode = WAL").fetchall()
    connection.execute("PRAGMA synchronous = FULL")
    connection.execute(TABLE)
    return connection


def row(number: int, per_flow: int) -> tuple[object, ...]:
    """Return a row like that of a hello step."""
    flow = f"0190a5c0-0000-7000-8000-{number // per_flow:012d}"
    return (
        flow,
        number % per_flow,
        1_790_000_000_000,
        "say",
        "COMPLETE",
        1,
        '{"name":"World","count":3}',
        "3",
    )


def rows_per_second(db: str, *, commits: int, rows_a_commit: int) -> float:
    """Return how many rows a second are durably inserted."""
    connection = open_raw(db)
    started = time.perf_counter()
    for commit in range(commits):
        connection.execute("BEGIN IMMEDIATE")
        first = commit * rows_a_commit
        connection.executemany(INSERT, [row(n, 10) for n in range(first, first + rows_a_commit)])
        connection.execute("COMMIT")
    seconds = time.perf_counter() - started
    connection.close()
    return commits * rows_a_commit / seconds
