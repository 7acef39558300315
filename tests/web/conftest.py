"""What the tests of the HTTP API share."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from persistasaurus.web._assets import HOW_TO_GET
from tests.flows.kit import STORES, new_database
from tests.web.serving import Server, demo


@pytest.fixture(params=STORES)
def database(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Path | str]:
    """A file, or the URL of a schema, for this test's app."""
    with new_database(request.param, tmp_path) as place:
        yield place


@pytest.fixture(scope="module", params=STORES)
def server(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """The sign-up demo, running on each store, which the tests of a module share."""
    folder = tmp_path_factory.mktemp("server")
    with new_database(request.param, folder) as place, demo(folder, place, email_delay_s=0.3) as server:
        yield server


@pytest.fixture
def own_server(tmp_path: Path, database: Path | str) -> Iterator[Server]:
    """The sign-up demo for a test that kills it, on each store."""
    with demo(tmp_path, database, email_delay_s=0.3) as server:
        yield server


@pytest.fixture
def slow_server(tmp_path: Path, database: Path | str) -> Iterator[Server]:
    """The sign-up demo with time between the sign-up and the mail, on each store."""
    with demo(tmp_path, database, email_delay_s=1.5) as server:
        yield server


@pytest.fixture
def browsed(tmp_path: Path) -> Iterator[Server]:
    """The sign-up demo for a browser, which sees the same pages on any store."""
    with demo(tmp_path, tmp_path / "flows.db", email_delay_s=0.3) as server:
        yield server


@pytest.fixture(scope="session")
def axe() -> str:
    """The checker of accessibility, which `make assets` puts there; where CI=true it must be there."""
    file = Path(__file__).resolve().parents[2] / "node_modules" / "axe-core" / "axe.min.js"
    if file.is_file():
        return file.read_text("utf-8")
    told = f"There is no {file}. {HOW_TO_GET}"
    if os.environ.get("CI") == "true":
        pytest.fail(told)
    pytest.skip(told)


@pytest.fixture(scope="session")
def chromium() -> str:
    """The browser of the system; where CI=true it must be there."""
    names = ("chromium", "chromium-browser", "google-chrome")
    found = next(filter(None, map(shutil.which, names)), None)
    if found is not None:
        return found
    told = f"No browser was found ({', '.join(names)}). Install one: apt-get install chromium"
    if os.environ.get("CI") == "true":
        pytest.fail(told)
    pytest.skip(told)
