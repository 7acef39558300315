"""The API reference in a real browser: it sends requests, and asks no other host for anything."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import httpx2
import pytest
from fastapi import FastAPI
from playwright.sync_api import ConsoleMessage, Page, expect, sync_playwright

import persistasaurus
from persistasaurus.web import scalar_router
from persistasaurus.web._assets import HOW_TO_GET, SCALAR
from tests.web.serving import Server

ARGUMENTS = [
    "--no-sandbox",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]


@dataclass
class Seen:
    """What a page has asked for and complained about."""

    page: Page
    requests: list[str] = field(default_factory=list)
    complaints: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.page.on("request", lambda request: self.requests.append(request.url))
        self.page.on("pageerror", lambda error: self.complaints.append(str(error)))
        self.page.on(
            "console",
            lambda told: self._complain(told) if told.type in ("error", "warning") else None,
        )

    def _complain(self, told: ConsoleMessage) -> None:
        self.complaints.append(f"{told.text} {told.location['url']}")


@pytest.fixture
def seen(chromium: str) -> Iterator[Seen]:
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium, args=ARGUMENTS)
        yield Seen(browser.new_page(viewport={"width": 1400, "height": 1000}))
        browser.close()


@pytest.fixture
def bundle() -> Path:
    """Scalar, which `make assets` puts there; where CI=true it must be there."""
    if not SCALAR.path.is_file():
        told = f"There is no {SCALAR.path}. {HOW_TO_GET}"
        if os.environ.get("CI") == "true":
            pytest.fail(told)
        pytest.skip(told)
    return SCALAR.path


@pytest.mark.real_time
@pytest.mark.usefixtures("bundle")
def test_the_reference_sends_a_request_and_shows_the_answer(browsed: Server, seen: Seen) -> None:
    """With nothing from another host and no complaint of the browser."""
    page = seen.page
    page.goto(f"{browsed.url}/scalar")

    page.get_by_role("button", name="Test Request").filter(has_text="post /signups").first.click()
    dialog = page.get_by_role("dialog")
    dialog.get_by_role("button", name="Send").first.click()

    expect(dialog.get_by_text("202 Accepted")).to_be_visible(timeout=15_000)
    expect(dialog.get_by_text("Signup started.")).to_be_visible()
    started = browsed.get("/flows?name=SignupFlow.sign_up")["items"]
    assert len(started) == 1
    assert browsed.get(started[0]["url"])["input"] == {"user_name": "alice", "email": "alice@example.com"}
    assert f"{browsed.url}/signups" in seen.requests
    assert [url for url in seen.requests if not url.startswith((browsed.url, "data:", "blob:"))] == []
    assert seen.complaints == []


@pytest.mark.usefixtures("bundle")
def test_the_bundle_is_served_from_the_package(browsed: Server) -> None:
    """With a type that a browser believes."""
    answer = browsed.client.get("/scalar/scalar.js")

    assert answer.status_code == 200
    assert answer.headers["content-type"].startswith("text/javascript")
    assert len(answer.content) == SCALAR.path.stat().st_size
    assert browsed.client.get("/scalar/..%2F_scalar.py").status_code == 404
    assert browsed.client.get("/scalar/htmx.js").status_code == 404


async def test_the_page_lets_in_no_script_but_its_own() -> None:
    """By a nonce that is another one each time, with or without the middleware."""
    app = FastAPI()
    app.include_router(scalar_router(title="<b>Mine & yours</b>"), prefix="/docs")
    client = httpx2.AsyncClient(transport=httpx2.ASGITransport(app), base_url="http://localhost")

    first, second = await client.get("/docs/scalar"), await client.get("/docs/scalar")

    policy = first.headers["content-security-policy"]
    assert policy != second.headers["content-security-policy"]
    script_policy = next(one for one in policy.split("; ") if one.startswith("script-src"))
    assert "unsafe" not in script_policy
    assert "&lt;b&gt;Mine &amp; yours&lt;/b&gt;" in first.text
    if SCALAR.path.is_file():
        nonce = script_policy.partition("'nonce-")[2].rstrip("'")
        assert first.text.count(f'<script nonce="{nonce}" src="/docs/scalar/') == 2
        assert first.text.count("<script") == 2


WITHOUT = """
from fastapi import FastAPI
from fastapi.testclient import TestClient
from persistasaurus.web import scalar_router

app = FastAPI()
app.include_router(scalar_router())
client = TestClient(app)
print(client.get("/scalar").text)
print(client.get("/scalar/scalar.js").status_code)
"""


def test_without_the_bundle_the_page_says_how_to_get_it(tmp_path: Path) -> None:
    """And links the document. Seen in a copy of the package that was built without npm."""
    package = tmp_path / "persistasaurus"
    shutil.copytree(Path(persistasaurus.__file__).parent, package, ignore=shutil.ignore_patterns("static"))

    done = subprocess.run(
        [sys.executable, "-c", WITHOUT],
        env={**os.environ, "PYTHONPATH": str(tmp_path)},
        capture_output=True,
        text=True,
        check=False,
    )

    assert done.returncode == 0, done.stderr
    assert "make assets" in done.stdout
    assert 'href="/openapi.json"' in done.stdout
    assert done.stdout.splitlines()[-1] == "404"
