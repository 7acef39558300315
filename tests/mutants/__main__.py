"""Shows that the tests bite: `python -m tests.mutants` takes each guard away, one at a time.

First every named test must be green with the source as it is; then, for each weakening of a copy, red.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from tests.mutants.weakenings import SOURCE, WEAKENINGS, Weakening, weakened

ROOT = SOURCE.parent
TESTS_FAILED = 1
LONGEST_S = 300


def main() -> int:
    """Run the gate and return the exit status: 0 where every weakening was caught."""
    named = sorted({test for weakening in WEAKENINGS for test in weakening.tests})
    print(f"With every guard: {len(named)} tests or groups of them ...", flush=True)
    status, output = run(named, SOURCE)
    if status:
        print(output, f"They are red as the source is (pytest: {status}). Correct that first.", sep="\n")
        return 1
    missed = [weakening.name for weakening in WEAKENINGS if not is_caught(weakening)]
    print(f"{len(WEAKENINGS) - len(missed)} of {len(WEAKENINGS)} weakenings caught.")
    return 1 if missed else 0


def is_caught(weakening: Weakening) -> bool:
    """Whether tests fail on a copy of the source without the guard."""
    began = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="mutant-") as folder:
        copy = Path(folder) / "src"
        shutil.copytree(SOURCE, copy, ignore=shutil.ignore_patterns("__pycache__", "static"))
        for edit in weakening.edits:
            file = copy / edit.file
            file.write_text(weakened(file.read_text("utf-8"), edit), "utf-8")
        status, output = run(list(weakening.tests), copy)
    # Another status is no red test: nothing was collected, or pytest itself broke.
    caught = status == TESTS_FAILED
    print(
        f"{'caught' if caught else 'MISSED'}  {weakening.name} ({time.monotonic() - began:.1f} s)", flush=True
    )
    if not caught:
        print(output)
    return caught


def run(tests: list[str], source: Path) -> tuple[int, str]:
    """Run tests on a source tree in a process of its own; return pytest's status and what it said."""
    environment = {**os.environ, "PYTHONPATH": str(source), "PYTHONDONTWRITEBYTECODE": "1"}
    command = [sys.executable, "-m", "pytest", "-q", "-x", "-p", "no:cacheprovider", "--timeout=60", *tests]
    finished = subprocess.run(
        command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=LONGEST_S, check=False
    )
    return finished.returncode, finished.stdout + finished.stderr


if __name__ == "__main__":
    sys.exit(main())
