"""A process is killed in the middle of a flow; a second one goes on after the last recorded step.

`make demo` runs this. It starts itself as a child process that runs a flow of six steps on a SQLite
file, kills the child with SIGKILL when it has begun the fourth, and starts it again. It exits with 1
if a recorded step ran twice or the result is wrong.
"""

from __future__ import annotations

import os
import signal
import sqlite3
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from persistasaurus import Persistasaurus, current, flow, step

CITIES = ["Hamburg", "Bremen", "Hanover", "Kassel", "Erfurt", "Jena"]
KILLED_IN = 4


@step
def ship(city: str, parcels: int) -> int:
    """Deliver a parcel: half a second of work, which nobody wants to happen twice."""
    tell(f"begins {current().step} {current().attempt}")
    time.sleep(0.5)
    tell(f"ends {current().step} {current().attempt}")
    return parcels + 1


@flow
def round_trip(cities: list[str]) -> int:
    parcels = 0
    for city in cities:
        parcels = ship(city, parcels)
    return parcels


def drive(database: str) -> None:
    """Be the child: start the flow, or go on with it where it was begun, and tell its result."""
    with Persistasaurus(database) as app:
        parcels = app.run(round_trip.options(flow_id="monday"), CITIES)
    tell(f"result {parcels}")


def tell(fact: str) -> None:
    """Report to the parent. What is in the pipe survives the kill."""
    print(fact, flush=True)


# Below is only the theatre: a parent that starts children, kills the first and checks what they did.


def main() -> int:
    with tempfile.TemporaryDirectory() as folder:
        database = str(Path(folder) / "flows.db")
        print(
            f"A flow of {len(CITIES)} steps, on a SQLite file. In step {KILLED_IN} its process is killed.\n"
        )
        first = watch(database, kill_in=KILLED_IN)
        print("\nThe process is gone: no clean-up, no goodbye. The same program is started again.\n")
        second = watch(database, kill_in=None)
        log = execution_log(database)
    show(log, first, second)
    problems = list(check(log, first, second))
    for problem in problems:
        print(f"WRONG: {problem}")
    if not problems:
        print("Every recorded step ran once. Only the step that was cut off in the middle ran again.")
    return 1 if problems else 0


class Child:
    """What a child process has told."""

    def __init__(self, pid: int) -> None:
        self.pid = pid
        self.begun: list[int] = []
        self.ended: list[int] = []
        self.result: int | None = None

    def note(self, line: str) -> None:
        fact, number, *attempt = line.split()
        if fact == "begins":
            self.begun.append(int(number))
            self.say(f"step {number}, attempt {attempt[0]}, ships to {CITIES[int(number) - 1]}")
        elif fact == "ends":
            self.ended.append(int(number))
        else:
            self.result = int(number)
            self.say(f"the flow is complete, its result is {number}")

    def say(self, what: str) -> None:
        print(f"  process {self.pid}: {what}", flush=True)


def watch(database: str, *, kill_in: int | None) -> Child:
    """Run a child, killing it soon after it has begun a step."""
    command = [sys.executable, __file__, "--child", database]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        child = Child(process.pid)
        assert process.stdout is not None
        for line in process.stdout:
            child.note(line)
            if child.begun[-1:] == [kill_in]:
                time.sleep(0.2)
                os.kill(child.pid, signal.SIGKILL)
                child.say("SIGKILL")
    return child


def execution_log(database: str) -> list[sqlite3.Row]:
    """Read the log as anyone can, with plain SQL."""
    connection = sqlite3.connect(database)
    try:
        connection.row_factory = sqlite3.Row
        return connection.execute("SELECT * FROM execution_log ORDER BY step").fetchall()
    finally:
        connection.close()


def show(log: list[sqlite3.Row], first: Child, second: Child) -> None:
    print("\nThe execution log, by `SELECT * FROM execution_log` (step 0 is the flow itself):\n")
    print("  step  method_name  status    attempts  return_value  executed by")
    for row in log:
        by = [str(child.pid) for child in (first, second) if row["step"] in child.begun]
        who = " (cut off), then ".join(by) if row["step"] else ""
        print(
            f"  {row['step']:>4}  {row['method_name']:<11}  {row['status']:<8}  {row['attempts']:>8}"
            f"  {row['return_value'] or '':>12}  {who}".rstrip()
        )
    print()


def check(log: list[sqlite3.Row], first: Child, second: Child) -> Iterator[str]:
    """Hold what the children did against what must hold."""
    steps = range(1, len(CITIES) + 1)
    if first.result is not None or first.begun != list(range(1, KILLED_IN + 1)):
        yield f"the first process was to be killed in step {KILLED_IN}, it began {first.begun}"
    if second.begun != list(range(KILLED_IN, len(CITIES) + 1)):
        yield f"the second process was to begin at step {KILLED_IN}, it began {second.begun}"
    for step_number in steps:
        if (first.ended + second.ended).count(step_number) != 1:
            yield f"step {step_number} did not run to its end exactly once"
    if second.result != len(CITIES) or log[0]["return_value"] != str(len(CITIES)):
        yield f"the result is {second.result} and the log says {log[0]['return_value']}"
    if [row["status"] for row in log] != ["COMPLETE"] * (len(CITIES) + 1):
        yield "not all of the log is COMPLETE"


if __name__ == "__main__":
    if sys.argv[1:2] == ["--child"]:
        drive(sys.argv[2])
    else:
        sys.exit(main())
