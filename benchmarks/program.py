"""A peer's part of the benchmarks: a script that an interpreter with the peer's packages runs."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

SCRIPTS = Path(__file__).parent / "peers"
LONGEST_S = 900


@dataclass(frozen=True, slots=True, kw_only=True)
class Program:
    """One workload of one peer. Called with a database, it is a measure like any other."""

    interpreter: Path
    peer: str
    workload: str
    options: Mapping[str, Any]

    def __call__(self, database: str) -> Any:
        """Run the workload in a process of its own and return its answer."""
        script = SCRIPTS / f"on_{self.peer}.py"
        # -I: the peers' packages, and nothing of ours.
        command = [
            str(self.interpreter),
            "-I",
            str(script),
            self.workload,
            database,
            json.dumps(self.options),
        ]
        finished = subprocess.run(command, stdout=subprocess.PIPE, check=True, text=True, timeout=LONGEST_S)
        return json.loads(finished.stdout.splitlines()[-1])


def import_seconds(interpreter: Path, statement: str) -> float:
    """Return how long a fresh interpreter takes to run an import."""
    code = f"import time; started = time.perf_counter(); {statement}; print(time.perf_counter() - started)"
    command = [str(interpreter), "-c", code]
    return float(subprocess.run(command, stdout=subprocess.PIPE, check=True, text=True).stdout)
