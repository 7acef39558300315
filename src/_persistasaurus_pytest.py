"""The pytest plugin: fixtures `app` and `clock`.

It stands outside of the package, as Hypothesis's does: pytest imports it at every start wherever
Persistasaurus is installed, and importing anything of the package imports pydantic and SQLite too.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from persistasaurus import Persistasaurus
    from persistasaurus.testing import MovableClock


@pytest.fixture
def clock() -> MovableClock:
    """A clock that stands still until the test moves it: `await clock.advance(timedelta(days=3))`."""
    from persistasaurus.testing import MovableClock  # noqa: PLC0415 - not at pytest's start

    return MovableClock()


@pytest.fixture
def app(clock: MovableClock) -> Iterator[Persistasaurus]:
    """An entered app in memory that goes by `clock`, for sync and async tests."""
    from persistasaurus.testing import memory_app  # noqa: PLC0415 - not at pytest's start

    with memory_app(clock=clock) as entered:
        yield entered
