"""What a peer does on the same machine, where it is installed. Each runs in a process of its own."""

from __future__ import annotations

import subprocess
import sys

_DBOS = """
import sys, time
from dbos import DBOS

DBOS(config={"name": "bench", "system_database_url": f"sqlite:///{sys.argv[1]}", "log_level": "ERROR"})

@DBOS.step()
def say(name: str, count: int) -> int:
    return count

@DBOS.workflow()
def hello(name: str, steps: int) -> int:
    return sum(say(name, i) for i in range(steps))

DBOS.launch()
hello("World", 5)
started = time.perf_counter()
hello("World", int(sys.argv[2]))
print(int(sys.argv[2]) / (time.perf_counter() - started), flush=True)
DBOS.destroy()
"""


def dbos_sequential(db: str, steps: int = 500) -> float:
    """Return steps a second of one DBOS workflow on SQLite."""
    command = [sys.executable, "-c", _DBOS, db, str(steps)]
    finished = subprocess.run(command, capture_output=True, check=True, text=True)
    return float(finished.stdout.strip().splitlines()[-1])
