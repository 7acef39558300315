"""One process that forks the others, for all crash tests of a test process."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.crash.processes import Zygote


@pytest.fixture(scope="session")
def forks() -> Iterator[Zygote]:
    with Zygote() as zygote:
        yield zygote


@pytest.fixture
def zygote(forks: Zygote) -> Zygote:
    forks.fresh()
    return forks
