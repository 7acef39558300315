"""The same workloads on this library and on its peers, in the same rounds on the same machine."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from benchmarks import ours, raw, workloads
from benchmarks.harness import Measure, Report, alone, beside, in_turn, median
from benchmarks.program import Program, import_seconds
from benchmarks.stores import Fresh, bytes_on_disk, fresh_file, fresh_on_server

SIDE_BY_SIDE = "Side by side"
"""With this the sections' names begin: the plot draws those of them that are in steps a second."""
OURS = "Persistasaurus"
SQLITE, POSTGRESQL = "SQLite", "PostgreSQL"
WAL = ", its file put in WAL mode"
SLEEPERS = 2_000
SIZES = (("a 2,000-step flow", 1, 2_000), ("500 flows of 10 steps", 500, 10))
BARS = {
    ("sequential", "DBOS"): 6,
    ("concurrent", "DBOS"): 80,
    ("concurrent", "Absurd"): 15,
    ("concurrent", "LangGraph"): 40,
}
"""How many times a peer's steps a second are asked for."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Peer:
    """Another library."""

    name: str
    stores: tuple[str, ...]
    statement: str
    """What a program that uses it imports."""
    options: Mapping[str, Any] = field(default_factory=dict)
    """What its part of the benchmarks is told, whatever the workload."""


DBOS = Peer(name="DBOS", stores=(SQLITE, POSTGRESQL), statement="from dbos import DBOS")
LANGGRAPH = Peer(
    name="LangGraph",
    stores=(SQLITE,),
    statement="from langgraph.func import entrypoint, task;"
    "from langgraph.checkpoint.sqlite.aio import AsyncSqliteSaver",
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Contest:
    """Who takes part, and how often."""

    report: Report
    rounds: int
    interpreter: Path
    peers: tuple[Peer, ...]
    stores: Mapping[str, Fresh]

    def program(self, peer: Peer, workload: str, **options: Any) -> Program:
        """Return a workload of a peer."""
        return Program(
            interpreter=self.interpreter,
            peer=peer.name.lower(),
            workload=workload,
            options={**peer.options, **options},
        )

    def on(self, store: str) -> list[Peer]:
        """Return the peers that keep flows in a store."""
        return [peer for peer in self.peers if store in peer.stores]


def side_by_side(
    report: Report, rounds: int, *, peers: Path, absurd_schema: Path | None = None, flows: int = 1_000
) -> None:
    """Measure this library and its peers, which the interpreter `peers` can import.

    The schema of Absurd is not in its wheel. Without the file it is left out.
    """
    absurd = _absurd(absurd_schema)
    with fresh_on_server() as fresh_postgres:
        contest = Contest(
            report=report,
            rounds=rounds,
            interpreter=peers.absolute(),
            peers=(DBOS, LANGGRAPH, *absurd),
            stores={SQLITE: fresh_file, POSTGRESQL: fresh_postgres},
        )
        for store in contest.stores:
            sequential(contest, store)
            concurrent(contest, store, flows)
            replay(contest, store)
            size(contest, store)
        sleeping(contest)
        imports(contest)
    if not absurd:
        report.note(
            "Absurd was left out: its wheel has no schema. Get sql/absurd.sql from its source, and name the "
            "file by ABSURD_SCHEMA or --absurd-schema."
        )


def sequential(contest: Contest, store: str, steps: int = 500) -> None:
    """Steps a second of one flow, each durable before the next."""
    label = "one row a commit"
    measures: dict[str, Measure] = {
        f"raw {store}, {label}": partial(_raw_rows_per_second, commits=1_000, rows_a_commit=1),
        f"{OURS}, sync": partial(workloads.sequential, steps=steps, is_async=False),
        f"{OURS}, async": partial(workloads.sequential, steps=steps, is_async=True),
        **{peer.name: contest.program(peer, "sequential", steps=steps) for peer in contest.on(store)},
    }
    if store == SQLITE:
        measures[f"DBOS{WAL}"] = contest.program(DBOS, "sequential", steps=steps, journal="wal")
    _throughput(contest, store, f"one flow of {steps} steps", measures, "sequential")


def concurrent(contest: Contest, store: str, flows: int, steps: int = 10) -> None:
    """Steps a second of many flows at once, from the first start to the last result."""
    measures: dict[str, Measure] = {
        f"raw {store}, 100 rows a commit": partial(_raw_rows_per_second, commits=400, rows_a_commit=100),
        f"{OURS}, async": partial(workloads.concurrent, flows=flows, steps=steps, is_async=True),
        **{
            peer.name: contest.program(peer, "concurrent", flows=flows, steps=steps)
            for peer in contest.on(store)
        },
    }
    if store == SQLITE:
        measures[f"DBOS{WAL}"] = contest.program(DBOS, "concurrent", flows=flows, steps=steps, journal="wal")
    _throughput(contest, store, f"{flows:,} flows of {steps} steps", measures, "concurrent")


def replay(contest: Contest, store: str, steps: int = 2_000) -> None:
    """Steps a second at which a recorded history is run through again in a fresh process."""
    measures: dict[str, Measure] = {
        f"{OURS}, async": partial(workloads.replay, steps=steps, is_async=True),
        **{peer.name: contest.program(peer, "replay", steps=steps) for peer in contest.on(store)},
    }
    _throughput(contest, store, f"replay of {steps:,} steps", measures, "replay")


def size(contest: Contest, store: str) -> None:
    """Bytes that a step adds to the tables and indexes, its flow's share included."""
    contest.report.section(f"{SIDE_BY_SIDE}, {store}: bytes on disk a step")
    for what, flows, steps in SIZES:
        for name, empty, full in _fillings(contest, store, flows, steps):
            with contest.stores[store]() as database:
                alone(empty, database)
                before = bytes_on_disk(database)
            with contest.stores[store]() as database:
                alone(full, database)
                added = bytes_on_disk(database) - before
            contest.report.line(f"{name}, {what}", added / (flows * steps), "bytes")


def sleeping(contest: Contest) -> None:
    """What sleeping flows add to an app's memory and threads."""
    contest.report.section(f"{SIDE_BY_SIDE}: what {SLEEPERS:,} sleeping flows add to an app")
    measures: list[tuple[str, str, Any]] = [
        (f"{OURS}, {word}", SQLITE, partial(ours.sleeping, flows=SLEEPERS, is_async=word == "async"))
        for word in ("sync", "async")
    ]
    for peer in contest.peers:
        store = peer.stores[0]
        if peer is not DBOS:
            measures.append((peer.name, store, contest.program(peer, "sleeping", flows=SLEEPERS)))
            continue
        for word in ("sync", "async"):
            program = contest.program(peer, "sleeping", flows=SLEEPERS, is_async=word == "async")
            measures.append((f"{peer.name}, {word}", store, program))
    for name, store, measure in measures:
        with contest.stores[store]() as database:
            found = alone(measure, database)
        contest.report.line(name, found["mb"], "MB", f"and {found['threads']:,.0f} threads")


def imports(contest: Contest) -> None:
    """How long a fresh interpreter takes to import each."""
    own = Path(sys.executable)
    statements = {OURS: (own, "from persistasaurus import Persistasaurus, flow, step")}
    statements |= {peer.name: (contest.interpreter, peer.statement) for peer in contest.peers}
    taken: dict[str, list[float]] = {name: [] for name in statements}
    for _ in range(contest.rounds):
        for name, (interpreter, statement) in statements.items():
            taken[name].append(import_seconds(interpreter, statement))
    contest.report.section(f"{SIDE_BY_SIDE}: import")
    for name, figures in taken.items():
        remark = "" if name == OURS else f"{OURS} takes {beside(taken[OURS], figures):.2f} of it"
        contest.report.line(name, median(figures), "s", remark + (" (bar 0.5)" if name == "DBOS" else ""))


def _throughput(
    contest: Contest, store: str, what: str, measures: Mapping[str, Measure], workload: str
) -> None:
    taken = in_turn(contest.rounds, contest.stores[store], measures)
    contest.report.section(f"{SIDE_BY_SIDE}, {store}: {what}")
    best = max((name for name in taken if name.startswith(OURS)), key=lambda name: median(taken[name]))
    for name, figures in taken.items():
        if name.startswith("raw"):
            contest.report.line(name, median(figures), "rows/s")
            continue
        remark = ""
        if not name.startswith(OURS):
            bar = BARS.get((workload, name))
            remark = f"{OURS}: {beside(taken[best], figures):.1f} times"
            remark += f" (bar {bar})" if bar else ""
        contest.report.line(name, median(figures), "steps/s", remark)


def _fillings(contest: Contest, store: str, flows: int, steps: int) -> Iterator[tuple[str, Any, Any]]:
    """Give, by name, what makes the tables and what fills them."""
    yield OURS, partial(ours.fill, flows=0, steps=0), partial(ours.fill, flows=flows, steps=steps)
    for peer in contest.on(store):
        yield (
            peer.name,
            contest.program(peer, "fill", flows=0, steps=0),
            contest.program(peer, "fill", flows=flows, steps=steps),
        )


def _raw_rows_per_second(database: str, *, commits: int, rows_a_commit: int) -> float:
    if not database.startswith("postgresql://"):
        return raw.rows_per_second(database, commits=commits, rows_a_commit=rows_a_commit)
    # Only here: without the peers, the benchmarks do without psycopg.
    from benchmarks import postgres  # noqa: PLC0415

    return postgres.raw_rows_per_second(
        f"{database}?schema=raw", commits=commits, rows_a_commit=rows_a_commit
    )


def _absurd(schema: Path | None) -> tuple[Peer, ...]:
    if schema is None:
        return ()
    return (
        Peer(
            name="Absurd",
            stores=(POSTGRESQL,),
            statement="from absurd_sdk import Absurd",
            options={"schema": str(schema.resolve(strict=True))},
        ),
    )
