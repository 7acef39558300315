"""What is loaded late is loaded before the first flow runs."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.flows.unharmed import child_process

ENTERS = """
import sys
from persistasaurus import Persistasaurus
assert "pydantic" not in sys.modules
with Persistasaurus(sys.argv[1], worker=sys.argv[2] == "worker"):
    print("pydantic" in sys.modules)
"""


@pytest.mark.parametrize("what, loaded", [("worker", "True"), ("client", "False")])
def test_a_worker_has_loaded_what_flows_need_before_it_drives_one(
    database: Path, what: str, loaded: str
) -> None:
    """An import that Ctrl-C interrupts in one thread fails in all, and would be some flow's failure."""
    assert child_process(ENTERS, database, what) == loaded
