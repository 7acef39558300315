"""A checksum tells every row from every other that an edit could make of it."""

from __future__ import annotations

from typing import Any

import pytest

from persistasaurus._store.base import StepRow
from persistasaurus._store.checksum import NEVER, step_checksum
from tests.store.rows import step

ROW = step(7, 3)


@pytest.mark.parametrize("column", StepRow._fields[:-1])
def test_each_column_counts(column: str) -> None:
    """Also where nothing becomes something, and -1, which stands for nothing while it is packed."""
    old: Any = getattr(ROW, column)
    others = ["x", "None"] if column in ("parameters", "return_value", "error") else [-1, 0, 1, 2**40]
    edits = [ROW._replace(**{column: new}) for new in [*others, None] if new != old]
    edits = [edit for edit in edits if None not in edit[:8] and edit[12] is not None]

    assert edits
    assert step_checksum(ROW, 0) not in [step_checksum(edit, 0) for edit in edits]


@pytest.mark.parametrize("odd", ["text", 1.5, 2**70, b"1"])
def test_a_number_that_is_none_matches_nothing(odd: object) -> None:
    """What was edited by SQL to hold something else is damage, not an error."""
    assert step_checksum(ROW._replace(started_at_ms=odd), 0) == NEVER  # type: ignore[arg-type]


def test_the_chain_counts() -> None:
    """The same row after another event is another one."""
    assert step_checksum(ROW, 0) != step_checksum(ROW, 1) != step_checksum(ROW, -5)
