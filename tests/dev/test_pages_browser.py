"""The dashboard of the running sign-up demo in a real browser: alive, accessible, and on its own."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser, BrowserContext, Page, expect, sync_playwright

from persistasaurus.dev import RunningApp, State, apphost_of
from tests.dev.kit import eventually
from tests.web.test_dashboard_browser import violations
from tests.web.test_scalar import ARGUMENTS, Seen

pytestmark = pytest.mark.real_time

APPHOST = Path(__file__).resolve().parents[2] / "examples" / "signup" / "apphost.py"
PATIENCE_MS = 15_000

expect.set_options(timeout=PATIENCE_MS)


@pytest.fixture(scope="module")
def host() -> Iterator[RunningApp]:
    """The demo with a flow that waits for its confirmation, and telemetry of all three kinds."""
    app = apphost_of(str(APPHOST))
    for name in ("api", "worker"):
        app.resources[name].env(SIGNUP_EMAIL_DELAY="0.05")
    app.process("talker", "sh", "-c", "echo '<b>bold</b>' >&2; exec sleep 1000").env(SECRET="hunter2")
    with app.testing() as running:
        with running.sync_client("api") as client:
            client.post("/flows/hello-world").raise_for_status()
            answer = client.post("/signups", json={"userName": "<i>alice", "email": "alice@example.com"})
            path = answer.headers["location"]
            eventually(lambda: client.get(path).json()["status"] == "WAITING_FOR_SIGNAL", "it waits")
        telemetry = running.telemetry
        eventually(lambda: telemetry.span_count and telemetry.metrics() and telemetry.logs(), "telemetry")
        yield running


@pytest.fixture(scope="module")
def browser(chromium: str) -> Iterator[Browser]:
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium, args=ARGUMENTS)
        yield browser
        browser.close()


def login(context: BrowserContext, host: RunningApp) -> Seen:
    """Open the link that was printed."""
    seen = Seen(context.new_page())
    seen.page.goto(f"{host.dashboard}/?t={host.token}")
    expect(seen.page).to_have_url(f"{host.dashboard}/resources")
    return seen


def go(page: Page, label: str) -> None:
    page.get_by_role("navigation").get_by_role("link", name=label, exact=True).click()
    expect(page.get_by_role("heading", level=1)).to_be_visible()


def assert_quiet(seen: Seen, host: RunningApp) -> None:
    """Nothing was complained about, and nobody else was asked for anything."""
    own = (f"{host.dashboard}/", "data:")
    assert seen.complaints == []
    assert [asked for asked in seen.requests if not asked.startswith(own)] == []


def test_the_pages_show_all_that_runs(host: RunningApp, browser: Browser) -> None:
    """Each by its place in the navigation: a trace with its waterfall, a metric with its chart."""
    seen = login(browser.new_context(), host)
    page = seen.page
    for name in ("signup", "api", "worker", "talker"):
        expect(page.locator("tr", has=page.get_by_role("link", name=name, exact=True))).to_contain_text(
            "ready"
        )
    expect(page.get_by_role("link", name="API reference")).to_have_attribute(
        "href", f"{host.url('api')}/scalar"
    )

    go(page, "Console")
    expect(page.locator("tr.stderr", has_text="<b>bold</b>")).to_be_visible()
    go(page, "Logs")
    expect(page.locator("#records tbody tr").first).to_be_visible()
    go(page, "Traces")
    page.get_by_label("Name or id").fill("hello-world")
    page.get_by_role("button", name="Filter").click()
    page.get_by_role("link", name="hello-world").first.click()
    expect(page.get_by_role("img", name="Waterfall")).to_be_visible()
    page.locator("details summary").first.click()
    expect(page.locator("dl.facts").first).to_be_visible()
    go(page, "Metrics")
    page.locator("#instruments a").first.click()
    expect(page.locator("#chart canvas")).to_be_visible()
    assert_quiet(seen, host)


def test_pages_follow_what_happens_without_reloading(host: RunningApp, browser: Browser) -> None:
    """A process that dies, a line that is printed."""
    context = browser.new_context()
    resources, console = login(context, host), Seen(context.new_page())
    console.page.goto(f"{host.dashboard}/console")
    for seen in (resources, console):
        expect(seen.page.locator("#live")).to_have_text("Live")
        seen.page.evaluate("window.neverReloaded = true")
    row = resources.page.locator("tr", has=resources.page.get_by_role("link", name="talker", exact=True))
    restarts = row.locator("td").nth(6)
    expect(restarts).to_have_text("0")

    pid = host.resource("talker").pid
    assert pid is not None
    host._call(host._host.act("talker", "restart"))
    host._call(host._host.ready("talker"))
    expect(row).to_contain_text(str(host.resource("talker").pid))
    with host.sync_client("api") as client:
        client.get("/signups/nobody-knows-this-one")
    expect(console.page.locator("#lines")).to_contain_text("/signups/nobody-knows-this-one")
    expect(console.page.locator("#end")).to_be_in_viewport()

    for seen in (resources, console):
        assert seen.page.evaluate("window.neverReloaded") is True
        assert_quiet(seen, host)


@pytest.mark.parametrize("scripts", [True, False])
def test_a_person_stops_starts_and_reveals_with_and_without_scripts(
    host: RunningApp, browser: Browser, scripts: bool
) -> None:
    """Each is asked before it is done."""
    seen = login(browser.new_context(java_script_enabled=scripts), host)
    page = seen.page

    page.get_by_role("link", name="Stop talker").click()
    page.get_by_role("button", name="Stop it").click()
    row = page.locator("tr", has=page.get_by_role("link", name="talker", exact=True))
    expect(row).to_contain_text("stopped")
    assert host.resource("talker").state is State.STOPPED
    page.get_by_role("link", name="Start talker").click()
    page.get_by_role("button", name="Start it").click()
    expect(row).not_to_contain_text("stopped")
    page.get_by_role("link", name="talker", exact=True).click()
    expect(page.locator("body")).not_to_contain_text("hunter2")
    page.get_by_role("button", name="Reveal SECRET").click()
    expect(page.locator("pre")).to_have_text("hunter2")
    page.get_by_role("link", name="Hide").click()
    expect(page.get_by_role("heading", level=1)).to_have_text("talker")
    assert_quiet(seen, host)


def test_a_person_confirms_a_signup_that_waits(host: RunningApp, browser: Browser) -> None:
    """The dashboard runs no flows: the processes of the application take the confirmation up."""
    seen = login(browser.new_context(), host)
    page = seen.page
    go(page, "Flows")
    page.get_by_label("Search").fill("status:waiting")
    page.get_by_role("button", name="Search").click()
    page.locator("#rows a[data-item]").first.click()
    expect(page.locator("#flow-status")).to_have_text("WAITING_FOR_SIGNAL")
    page.get_by_label("confirmed_at").fill("2026-01-31T09:00")
    page.get_by_role("button", name="Resume").first.click()
    expect(page.locator("#flow-status")).to_have_text("COMPLETE")
    expect(page.locator("#result")).not_to_contain_text("It has not ended")
    assert_quiet(seen, host)


def test_the_pages_are_accessible(host: RunningApp, browser: Browser, axe: str) -> None:
    """axe-core finds nothing on any of them."""
    # The policy would keep the checker itself out.
    page = login(browser.new_context(bypass_csp=True), host).page
    trace_id = host.telemetry.traces()[0].trace_id
    resource, name = host.telemetry.metrics()[0]
    for path in (
        "resources",
        "resources/api",
        "resources/api/stop",
        "resources/nobody",
        "console",
        "console?text=nothing-fits",
        "logs",
        "traces",
        f"traces/{trace_id}",
        "metrics",
        f"metric?resource={resource}&name={name}",
        "db/signup/flows",
    ):
        page.goto(f"{host.dashboard}/{path}")
        assert violations(page, axe) == [], path
    page.goto(f"{host.dashboard}/resources/talker")
    page.get_by_role("button", name="Reveal SECRET").click()
    expect(page.locator("pre")).to_be_visible()
    assert violations(page, axe) == []
    assert re.fullmatch(r".*/reveal", page.url)
