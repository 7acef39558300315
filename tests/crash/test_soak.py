"""The long run of `make soak`, and the table that it ends with."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.crash.soak import Soak, printed

MINUTES = float(os.environ.get("PERSISTASAURUS_SOAK_MINUTES", "0"))
THREADS = 2

pytestmark = pytest.mark.crash

if MINUTES:

    def test_nothing_is_violated_for_as_long_as_was_asked(
        tmp_path: Path, record_property: Callable[[str, object], None]
    ) -> None:
        """Each trial in turn, two at a time, with seeds that no run had before."""
        soak = Soak(tmp_path, until=time.monotonic() + MINUTES * 60)
        soak.run(THREADS)
        record_property("soak", soak.table())
        violations = [each for row in soak.rows.values() for each in row.violations]
        assert not violations, "\n".join(violations)


def test_the_table_has_a_line_for_each_fault_and_the_sums() -> None:
    text = printed([["power loss", 2, 20, 8, 0], ["lock storm", 1, 1, 8, 1]])

    assert [line.split()[-4:] for line in text.splitlines()[1:]] == [
        ["2", "20", "8", "0"],
        ["1", "1", "8", "1"],
        ["3", "21", "16", "1"],
    ]
