"""The flows' pages in a real browser: a person confirms a sign-up and sees it complete."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Browser, Page, expect, sync_playwright

from persistasaurus import FlowStatus, Persistasaurus
from persistasaurus.web import create_app
from tests.web import dashboard_flows as flows
from tests.web.serving import Server, served, until
from tests.web.test_scalar import ARGUMENTS, Seen


@pytest.fixture
def app(tmp_path: Path) -> Iterator[Persistasaurus]:
    with Persistasaurus(tmp_path / "flows.db") as app:
        yield app


@pytest.fixture
def url(app: Persistasaurus) -> Iterator[str]:
    with served(create_app(app)) as url:
        yield f"{url}/dashboard"


@pytest.fixture(scope="module")
def browser(chromium: str) -> Iterator[Browser]:
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium, args=ARGUMENTS)
        yield browser
        browser.close()


def sign_up(app: Persistasaurus, flow_id: str, user_name: str = "alice") -> Any:
    """Start a sign-up and return its handle once it waits for the confirmation."""
    handle = app.start(flows.dash_signup.options(flow_id=flow_id), user_name)
    until(lambda: handle.status() is FlowStatus.WAITING_FOR_SIGNAL)
    return handle


def test_a_person_confirms_a_signup_and_sees_it_complete_without_reloading(
    app: Persistasaurus, url: str, browser: Browser
) -> None:
    """From the list to the form to the outcome; a second page that only looks follows by itself."""
    handle = sign_up(app, "b/1", flows.HOSTILE)
    seen = Seen(browser.new_page())
    onlooker = Seen(browser.new_page())
    page, other = seen.page, onlooker.page

    page.goto(url)
    page.get_by_label("Search").fill("status:waiting")
    page.get_by_role("button", name="Search").click()
    page.get_by_role("link", name="b/1").click()
    other.goto(page.url)
    other.evaluate("window.neverReloaded = true")
    page.get_by_label("confirmed_at").fill("2026-01-31T09:00")
    page.get_by_role("button", name="Resume dash_confirm").click()

    for one in (page, other):
        expect(one.locator("#flow-status")).to_have_text("COMPLETE")
        expect(one.locator("#result")).to_contain_text("confirmed in 2026")
        expect(one.get_by_role("button", name="Resume dash_confirm")).to_have_count(0)
    assert other.evaluate("window.neverReloaded") is True
    assert handle.result(30).endswith("confirmed in 2026")
    for one in (seen, onlooker):
        assert one.complaints == []
        assert [asked for asked in one.requests if not asked.startswith(url)] == []


def test_the_demo_is_confirmed_from_its_dashboard(browsed: Server, browser: Browser) -> None:
    """The sign-up of `make api`, in a process of its own: list and page follow it to its end."""
    browsed.client.post("/signups", json={"userName": "alice", "email": "alice@example.com"})
    seen = Seen(browser.new_page())
    page = seen.page

    page.goto(f"{browsed.url}/dashboard/")
    expect(page.locator("#rows")).to_contain_text("WAITING_FOR_SIGNAL")
    page.locator("#rows a").click()
    page.get_by_label("confirmed_at").fill("2026-01-31T09:00")
    page.get_by_role("button", name="Resume SignupFlow.confirm_email_address").click()

    expect(page.locator("#flow-status")).to_have_text("COMPLETE")
    assert seen.complaints == []


def test_the_list_tells_of_new_flows_without_moving_its_rows(
    app: Persistasaurus, url: str, browser: Browser
) -> None:
    """A row changes where it stands; what is new waits behind a link."""
    handle = sign_up(app, "b-2")
    seen = Seen(browser.new_page())
    page = seen.page
    page.goto(url)
    row = page.locator("tr", has_text="b-2")
    expect(row).to_contain_text("WAITING_FOR_SIGNAL")

    app.run(flows.dash_echo.options(flow_id="b-3"), "x")
    handle.cancel()

    expect(row).to_contain_text("CANCELLED")
    expect(page.locator("#rows tr")).to_have_count(1)
    page.get_by_role("link", name="1 new").click()
    expect(page.locator("#rows tr")).to_have_count(2)
    assert seen.complaints == []


def test_what_is_typed_stays_while_the_page_follows_its_flow(
    app: Persistasaurus, url: str, browser: Browser
) -> None:
    """A form is replaced only once the flow waits for something else."""
    sign_up(app, "b-4")
    page = browser.new_page()
    page.goto(f"{url}/flows/b-4")
    field = page.get_by_label("confirmed_at")
    field.fill("2026-02-03T04:05")

    app.handle("b-4").send("dash-unasked", 1)
    expect(page.locator("#head")).to_contain_text("dash-unasked")

    expect(field).to_have_value("2026-02-03T04:05")


def test_keys_walk_the_pages(app: Persistasaurus, url: str, browser: Browser) -> None:
    """/ searches, j and k walk, Enter opens, g f goes back, ? tells."""
    app.run(flows.dash_echo.options(flow_id="b-5"), "x")
    app.run(flows.dash_echo.options(flow_id="b-6"), "x")
    page = browser.new_page()
    page.goto(url)

    page.keyboard.press("/")
    expect(page.get_by_label("Search")).to_be_focused()
    page.keyboard.press("Tab")
    for key in "jjjk":
        page.keyboard.press(key)
    expect(page.get_by_role("link", name="b-6")).to_be_focused()
    page.keyboard.press("Enter")
    expect(page).to_have_url(f"{url}/flows/b-6")
    # The script shows this button, and from then on listens.
    expect(page.get_by_role("button", name="Keys")).to_be_visible()
    page.keyboard.press("?")
    expect(page.get_by_role("dialog", name="Keys")).to_be_visible()
    page.keyboard.press("Escape")
    expect(page.get_by_role("dialog", name="Keys")).to_be_hidden()
    page.keyboard.press("g")
    page.keyboard.press("f")
    expect(page).to_have_url(f"{url}/flows")


def test_all_of_it_works_without_scripts(app: Persistasaurus, url: str, browser: Browser) -> None:
    """The form is filled and sent, and the page that comes back shows the outcome."""
    sign_up(app, "b-7")
    page = browser.new_context(java_script_enabled=False).new_page()

    page.goto(url)
    page.get_by_role("link", name="b-7").click()
    page.get_by_label("confirmed_at").fill("2026-01-31T09:00")
    page.get_by_role("button", name="Resume dash_confirm").click()

    expect(page.locator("#flow-status")).to_have_text("COMPLETE")
    expect(page.locator("#result")).to_contain_text("alice confirmed in 2026")


def test_hostile_payloads_are_shown_and_do_nothing(app: Persistasaurus, url: str, browser: Browser) -> None:
    """In ids, inputs, failures and tracebacks; no script runs, nothing is loaded, nothing is reordered."""
    flows.mended.clear()
    handle = app.start(flows.dash_break.options(flow_id=f"b {flows.HOSTILE}"), flows.HOSTILE)
    until(lambda: handle.status() is FlowStatus.FAILED)
    seen = Seen(browser.new_page())
    page = seen.page
    page.on("dialog", lambda dialog: seen.complaints.append(dialog.message))

    page.goto(url)
    page.get_by_role("link", name="<script>alert(1)").click()
    page.get_by_text("Traceback").first.click()

    expect(page.locator("h1")).to_contain_text(
        "<script>alert(1)</script>\"onerror=alert(1) '</textarea></pre>"
    )
    expect(page.locator("pre").first).to_contain_text("<script>")
    assert page.locator("main script, main [onerror]").count() == 0
    assert not {"\x1b", "\u202e"} & set(page.locator("body").inner_text())
    assert seen.complaints == []


def test_the_pages_are_accessible(app: Persistasaurus, url: str, browser: Browser, axe: str) -> None:
    """axe-core finds nothing on the list, a waiting flow, a failed one, a wrong form and a question."""
    flows.mended.clear()
    sign_up(app, "b-8")
    app.start(flows.dash_pack.options(flow_id="b-9"))
    failed = app.start(flows.dash_break.options(flow_id="b-10"), "x")
    app.start(flows.dash_sleep.options(flow_id="b-11"))
    until(lambda: failed.status() is FlowStatus.FAILED)
    until(lambda: app.handle("b-9").status() is FlowStatus.WAITING_FOR_SIGNAL)
    # The policy would keep the checker itself out.
    page = browser.new_context(bypass_csp=True).new_page()

    for path in (
        "flows",
        "flows?q=nobody",
        "flows/b-8",
        "flows/b-9",
        "flows/b-10",
        "flows/b-11",
        "flows/b-8/cancel",
        "flows/x",
    ):
        page.goto(f"{url}/{path}")
        assert violations(page, axe) == [], path
    page.goto(f"{url}/flows/b-9")
    page.locator("form[method=post]").evaluate("form => { form.noValidate = true }")
    page.get_by_role("button", name="Send dash-packed").click()
    expect(page.get_by_text("Give a value.").first).to_be_visible()
    assert violations(page, axe) == []


def violations(page: Page, axe: str) -> list[str]:
    """What axe-core objects to on a page, by day and by night."""
    page.evaluate(axe)
    page.emulate_media(color_scheme="light")
    found = page.evaluate("axe.run().then(found => found.violations)")
    page.emulate_media(color_scheme="dark")
    found += page.evaluate("axe.run().then(found => found.violations)")
    return [f"{one['id']}: {[node['html'] for node in one['nodes']]}" for one in found]
