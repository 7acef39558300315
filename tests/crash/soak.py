"""The long run: every trial again and again, with other seeds each time, until the time is over."""

from __future__ import annotations

import shutil
import threading
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests import postgres
from tests.crash.places import Place
from tests.crash.processes import Zygote
from tests.crash.trials.every import TRIALS


@dataclass
class Row:
    """What became of one kind of fault."""

    trials: int = 0
    faults: int = 0
    flows: int = 0
    violations: list[str] = field(default_factory=list)


class Soak:
    """A table that several threads fill, each with processes of its own."""

    def __init__(self, folder: Path, *, until: float) -> None:
        self.rows = {name: Row() for name in TRIALS}
        self._folder = folder
        self._until = until
        self._lock = threading.Lock()
        self._seed = time.time_ns() // 1_000_000_000 * 1_000_000  # printed with each violation

    def run(self, threads: int) -> None:
        """Go on until the time is over, each kind at least once."""
        postgres.server_url()  # before there are threads that would each start one
        lanes = [threading.Thread(target=self._lane, args=(lane, threads)) for lane in range(threads)]
        for lane in lanes:
            lane.start()
        for lane in lanes:
            lane.join()

    def _lane(self, lane: int, lanes: int) -> None:
        first = len(TRIALS) * lane // lanes
        names = [*list(TRIALS)[first:], *list(TRIALS)[:first]]
        turns = 0
        with Zygote() as zygote:
            while turns <= len(TRIALS) // lanes or time.monotonic() < self._until:
                self._try(zygote, names[turns % len(names)], lane)
                turns += 1

    def _try(self, zygote: Zygote, name: str, lane: int) -> None:
        with self._lock:
            self._seed += 1
            seed = self._seed
        folder = self._folder / f"lane-{lane}"
        folder.mkdir(exist_ok=True)
        row = self.rows[name]
        try:
            faults, flows = TRIALS[name](zygote, Place(folder), seed)
        except Exception as error:
            with self._lock:
                row.violations.append(f"{name}, seed {seed}: {error!r:.4000}")
            folder.rename(self._folder / f"violation-{seed}")
        else:
            with self._lock:
                row.trials, row.faults, row.flows = row.trials + 1, row.faults + faults, row.flows + flows
            shutil.rmtree(folder, ignore_errors=True)

    def table(self) -> list[list[Any]]:
        """Return the rows: the fault, trials, faults injected, flows run, violations."""
        return [
            [name, row.trials, row.faults, row.flows, len(row.violations)] for name, row in self.rows.items()
        ]


def printed(rows: list[list[Any]]) -> str:
    """Return a table as text, with the sums."""
    total = ["in all", *(sum(row[column] for row in rows) for column in range(1, 5))]
    head = ["fault", "trials", "injected", "flows", "violations"]
    return "\n".join("{:<26}{:>10}{:>10}{:>10}{:>12}".format(*map(str, row)) for row in [head, *rows, total])
