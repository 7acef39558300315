"""What the tests of the HTTP API share."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from persistasaurus.web._assets import HOW_TO_GET
from tests.web.serving import Server


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    """The sign-up demo, running."""
    server = Server(tmp_path, SIGNUP_EMAIL_DELAY="0.3")
    server.start()
    yield server
    server.stop()


@pytest.fixture
def slow_server(tmp_path: Path) -> Iterator[Server]:
    """The sign-up demo with time between the sign-up and the mail."""
    server = Server(tmp_path, SIGNUP_EMAIL_DELAY="1.5")
    server.start()
    yield server
    server.stop()


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
