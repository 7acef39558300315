"""Writes the page of the last run, its plot and its figures: docs/benchmarks.md, .svg and .json."""

from __future__ import annotations

import json
import subprocess
from itertools import groupby
from pathlib import Path
from typing import Any

from benchmarks.harness import Report, shown

PLOT = Path(__file__).parent / "plot.py"
_HEAD = """\
# Benchmarks

The last run of `make bench PEERS=1`, on a machine with {cores} cores and {memory_gib} GiB of memory, where
the PostgreSQL server ran too. Speeds are medians of {rounds} rounds, and a ratio is the median of the
rounds' ratios: in each round everything is measured once, each time in a fresh process on a fresh database.
"Bar" is what the project asks of itself.

![Steps a second, on a logarithmic scale](benchmarks.svg)

"""
_FOOT = """
## How to run it

```sh
make bench                                    # this library beside raw SQLite
make bench PEERS=1                            # and beside its peers, some 20 minutes; writes this page
make bench PEERS=1 ABSURD_SCHEMA=absurd.sql   # with Absurd, too: sql/absurd.sql of its source
make bench PEERS=1 ROUNDS=1 FLOWS=100         # to see that it runs
```

The peers are installed into `.venv/peers`, from the pins in `benchmarks/requirements-peers.txt`. All
figures of this page stand in [benchmarks.json](benchmarks.json), too.

## What is compared

- Each library runs the same flow: steps that do nothing, one after the other, with the arguments `"World"`
  and a number. Its part is one file in `benchmarks/peers/`, sync or async, whichever was faster.
- A step is on the disk before the next one begins: `fsync` is on in PostgreSQL, and SQLite has
  `synchronous=FULL`. LangGraph is the exception: it writes a task's result while the next task runs, also
  with `durability="sync"`, its strongest mode, so that a crash can lose the last ones.
- DBOS leaves its SQLite file with a rollback journal. The rows "in WAL mode" show what a user gets who
  changes that in the file. Many workflows share 8 threads, the fastest number found; without a bound, each
  takes one.
- Absurd runs one task in the process that starts it, and many by four worker processes, each of which
  claims ten tasks at a time. This library runs all flows in one process.
- A replay begins in a fresh process, and includes the opening of the app and the reading of the history.
  For DBOS only the workflow's body counts, without the launch and the wait for the queue that recovers it.
- Bytes a step are what flows add to tables and indexes, their own rows included, after a checkpoint, on
  PostgreSQL after `VACUUM`. Flow ids are UUIDs everywhere. This library records a step's parameters, the
  peers do not.
- Sleeping flows are on SQLite, those of Absurd on PostgreSQL. LangGraph has no durable timer: its flows
  sleep in a task. One that was interrupted instead holds no memory, but something else must wake it.
"""


def write_page(report: Report, folder: Path, plotter: Path) -> None:
    """Write the figures, the plot and the page; `plotter` is an interpreter that has matplotlib."""
    figures = folder / "benchmarks.json"
    report.write(figures)
    subprocess.run([plotter, "-I", PLOT, figures, folder / "benchmarks.svg"], check=True)
    (folder / "benchmarks.md").write_text(page(json.loads(figures.read_text())))


def page(found: dict[str, Any]) -> str:
    """Return the page of a run's figures."""
    tables = [
        f"## {section}\n\n| | | | |\n|---|---:|---|---|\n{''.join(_row(figure) for figure in figures)}"
        for section, figures in groupby(found["figures"], key=lambda figure: figure["section"])
    ]
    notes = [f"{note}\n" for note in found["notes"]]
    return _HEAD.format(**found) + "\n".join([*notes, *tables]) + _FOOT


def _row(figure: dict[str, Any]) -> str:
    return f"| {figure['name']} | {shown(figure['value'])} | {figure['unit']} | {figure['remark']} |\n"
