"""Control over HTTP: JSON behind a token, for this machine and for no other site's page."""

from __future__ import annotations

import httpx2
import pytest

from persistasaurus.dev import host_fixture
from tests.dev.kit import apphost, is_running

UNSAFE = "/api/resources/sleeper/restart"


def small() -> object:
    app = apphost("small")
    app.sqlite("flows.db")
    app.process("sleeper", "sh", "-c", "echo awake; exec sleep 1000").env(SECRET="hunter2")
    return app


host = host_fixture(small(), scope="module")


@pytest.fixture
async def anyone(host):
    async with httpx2.AsyncClient(base_url=host.dashboard, trust_env=False) as client:
        yield client


@pytest.fixture
async def client(host, anyone):
    anyone.headers["authorization"] = f"Bearer {host.token}"
    return anyone


@pytest.fixture
async def browser(host, anyone):
    await anyone.get("/api/resources", params={"t": host.token})
    return anyone


async def test_without_the_token_nothing_is_shown(anyone, host):
    """Not even which pages there are."""
    for headers in ({}, {"authorization": "Bearer x"}, {"cookie": "persistasaurus=x"}):
        for path in ("/", "/api/resources", "/nowhere", f"/?t={host.token[:-1]}"):
            assert (await anyone.get(path, headers=headers)).status_code == 401
    assert (await anyone.post(f"{UNSAFE}?t={host.token}")).status_code == 401
    assert (
        await anyone.post("/v1/traces", headers={"authorization": f"Bearer {host.token}"})
    ).status_code == 401


async def test_the_link_logs_a_browser_in(anyone, host):
    """The token leaves the address bar, and scripts cannot read the cookie."""
    answer = await anyone.get("/api/console", params={"t": host.token, "text": "a b"})

    assert (answer.status_code, answer.headers["location"]) == (303, "/api/console?text=a+b")
    cookie = answer.headers["set-cookie"].lower()
    assert "httponly" in cookie
    assert "samesite=strict" in cookie
    assert (await anyone.get("/api/console")).status_code == 200


async def test_a_login_does_not_redirect_to_another_host(anyone, host):
    """Two slashes would begin a host's name."""
    answer = await anyone.get(f"{host.dashboard}//evil.example/?t={host.token}")

    assert answer.headers["location"] == "/evil.example/"


@pytest.mark.parametrize("name", ["evil.example", "127.0.0.1", "127.0.0.1.evil.example:80", ""])
async def test_another_host_is_refused(client, name):
    """A page cannot point its own name at this machine."""
    assert (await client.get("/api/resources", headers={"host": name})).status_code == 421


@pytest.mark.parametrize(
    "headers",
    [
        {"origin": "http://evil.example"},
        {"origin": "null"},
        {"sec-fetch-site": "cross-site"},
        {"sec-fetch-site": "same-site"},
        {"sec-fetch-site": "same-origin", "origin": "http://evil.example"},
    ],
)
async def test_a_page_of_another_site_changes_nothing(browser, client, host, headers):
    """With the cookie, and with the token."""
    pid = host.resource("sleeper").pid

    assert (await browser.post(UNSAFE, headers=headers)).status_code == 403
    assert host.resource("sleeper").pid == pid


async def test_a_cookie_alone_changes_nothing(browser):
    """A browser sends it by itself, so one of its headers must say who asks."""
    assert (await browser.post(UNSAFE)).status_code == 403


async def test_our_own_page_restarts_a_resource(browser, host):
    """With what a browser sends along."""
    pid = host.resource("sleeper").pid

    answer = await browser.post(UNSAFE, headers={"origin": host.dashboard, "sec-fetch-site": "same-origin"})

    assert answer.status_code == 200
    assert not is_running(pid)
    await host.ready("sleeper")


async def test_a_get_changes_nothing(client, host):
    """It is not even routed."""
    pid = host.resource("sleeper").pid

    assert (await client.get(UNSAFE)).status_code == 405
    assert host.resource("sleeper").pid == pid


async def test_resources_are_listed_with_their_environment_masked(client):
    """It is revealed one resource at a time."""
    answer = await client.get("/api/resources")
    database, sleeper = answer.json()

    assert (database["kind"], database["state"]) == ("sqlite", "ready")
    assert (sleeper["name"], sleeper["state"]) == ("sleeper", "ready")
    assert "hunter2" not in answer.text
    assert "SECRET" in answer.text
    revealed = (await client.get("/api/resources/sleeper/environment")).json()
    assert revealed["SECRET"] == "hunter2"


async def test_a_resource_is_stopped_and_started(client):
    """The answer shows where it stands then."""
    (stopped,) = (await client.post("/api/resources/sleeper/stop")).json()
    (started,) = (await client.post("/api/resources/sleeper/start")).json()

    assert (stopped["state"], stopped["pid"], started["state"]) == ("stopped", None, "starting")
    assert (await client.get("/api/resources/sleeper")).json()["history"]


async def test_console_lines_can_be_followed(client):
    """By the number of the last one seen."""
    lines = (await client.get("/api/console", params={"resource": "sleeper", "text": "AWAKE"})).json()
    assert {line["text"] for line in lines} == {"awake"}

    rest = await client.get("/api/console", params={"after": lines[-1]["number"]})
    assert all(line["number"] > lines[-1]["number"] for line in rest.json())


@pytest.mark.parametrize("path", ["/api/logs", "/api/traces", "/api/metrics"])
async def test_telemetry_is_listed(client, path):
    """Empty, as nothing was sent."""
    assert (await client.get(path)).json() == []


@pytest.mark.parametrize(
    "method, path, status",
    [
        ("GET", "/api/resources/nobody", 404),
        ("GET", "/api/resources/nobody/environment", 404),
        ("POST", "/api/resources/nobody/stop", 404),
        ("POST", "/api/resources/sleeper/explode", 404),
        ("POST", "/api/resources/flows/stop", 404),
        ("GET", "/api/traces/none", 404),
        ("GET", "/api/metrics/none", 404),
        ("GET", "/api/console?limit=5000", 422),
        ("GET", "/api/logs?after=x", 422),
        ("GET", "/api/traces?shortest_ms=-1", 422),
    ],
)
async def test_what_cannot_be_answered_says_why(client, method, path, status):
    """As problem+json."""
    answer = await client.request(method, path)

    assert answer.status_code == status
    assert answer.headers["content-type"] == "application/problem+json"
    assert answer.json()["detail"]


async def test_every_answer_has_a_strict_policy(client, anyone):
    """Also a refusal."""
    for answer in (await client.get("/api/resources"), await anyone.get("/", headers={"host": "x"})):
        assert "default-src 'none'" in answer.headers["content-security-policy"]
        assert answer.headers["x-content-type-options"] == "nosniff"
