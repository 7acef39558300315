"""A database file for each test, and no effects left over."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.flows.kit import ran


@pytest.fixture
def database(tmp_path: Path) -> Path:
    """The file of this test's flows; entering a second app on it is a restart."""
    return tmp_path / "flows.db"


@pytest.fixture(autouse=True)
def _no_effects_yet() -> None:
    ran.clear()
