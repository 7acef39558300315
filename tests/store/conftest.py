"""The stores that the conformance tests run on."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing
from pathlib import Path

import pytest

from persistasaurus._store.base import Store
from tests.store import factories
from tests.store.rows import LEASE_MS, FixedClock, worker


@pytest.fixture
def clock() -> FixedClock:
    """The clock that the stores under test were given."""
    return FixedClock()


@pytest.fixture(params=factories.ALL)
def store(request: pytest.FixtureRequest, tmp_path: Path, clock: FixedClock) -> Iterator[Store]:
    """An open, empty store."""
    with factories.PLACES[request.param](tmp_path) as place:
        opened = factories.ALL[request.param](place, clock)
        opened.open()
        with closing(opened):
            opened.intern("", "hello")
            yield opened


@pytest.fixture(params=factories.SHARED)
def kind(request: pytest.FixtureRequest) -> str:
    """The name of a store that several connections and processes can share."""
    return str(request.param)


@pytest.fixture
def place(kind: str, tmp_path: Path) -> Iterator[str]:
    """Where such a store is."""
    with factories.PLACES[kind](tmp_path) as place:
        yield place


@pytest.fixture
def connect(kind: str, place: str, clock: FixedClock) -> Iterator[Callable[[], Store]]:
    """Open the same database once more, as another process does."""
    with ExitStack() as opened:

        def another() -> Store:
            store = factories.SHARED[kind](place, clock)
            store.open()
            opened.callback(store.close)
            store.intern("", "hello")
            return store

        yield another


@pytest.fixture
def me(store: Store) -> int:
    """A living worker's number."""
    return store.register_worker(worker(), lease_ms=LEASE_MS)
