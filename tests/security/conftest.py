"""A database file for each test."""

from __future__ import annotations

from pathlib import Path

import pytest


@pytest.fixture
def database(tmp_path: Path) -> Path:
    """The file of this test's flows; entering a second app on it is a restart."""
    return tmp_path / "flows.db"
