"""The Python in the documentation runs: the blocks of a page are one program, in the order of the page.

A block that is only a piece of something is marked "```python fragment" and is compiled, not run.
"""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
BLOCK = re.compile(r"^```python( fragment)?\n(.*?)^```$", re.MULTILINE | re.DOTALL)


def blocks(page: Path) -> Iterator[tuple[int, bool, str]]:
    """Yield each block's line in the page, whether it is complete, and its code."""
    text = page.read_text("utf-8")
    for found in BLOCK.finditer(text):
        yield text.count("\n", 0, found.start(2)), found[1] is None, found[2]


@pytest.mark.real_time
@pytest.mark.parametrize("page", [pytest.param(page, id=page.name) for page in PAGES])
def test_the_python_of_a_page_runs(page: Path, tmp_path: Path) -> None:
    """In a process of its own, as a reader would run it, and an empty folder for its databases."""
    lines: list[str] = []
    for line, complete, code in blocks(page):
        # Empty lines in front, so that a traceback names the line of the page.
        lines += [""] * (line - len(lines))
        compile(code, str(page), "exec", dont_inherit=True)
        if complete:
            lines += code.splitlines()
    program = tmp_path / f"{page.stem}.py"
    program.write_text("\n".join(lines), "utf-8")

    command = [sys.executable, program]
    finished = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)

    assert finished.returncode == 0, finished.stderr


def test_blocks_are_found() -> None:
    """Without this, the test above would pass by looking at nothing."""
    found = {page.name: sum(complete for _, complete, _ in blocks(page)) for page in PAGES}

    assert found["README.md"] >= 1
    assert sum(found.values()) >= 20
