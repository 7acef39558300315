"""A database of each kind for each test, and no effects left over."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.flows.kit import STORES, new_database, ran


@pytest.fixture(params=STORES)
def database(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Path | str]:
    """A file, or the URL of a schema, for this test's flows; entering a second app on it is a restart."""
    with new_database(request.param, tmp_path) as place:
        yield place


@pytest.fixture(autouse=True)
def _no_effects_yet() -> None:
    ran.clear()
