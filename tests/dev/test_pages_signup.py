"""The sign-up demo under its AppHost: the four scenarios over HTTP, and a kill in the middle of one."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import httpx2
import pytest

from persistasaurus.dev import RunningApp, apphost_of
from tests.dev.kit import eventually

pytestmark = pytest.mark.real_time

APPHOST = Path(__file__).resolve().parents[2] / "examples" / "signup" / "apphost.py"
STEPS = ["create_user_record", "send_welcome_email", "confirm_email_address", "finalize_signup"]


@pytest.fixture(scope="module", params=[[], ["postgres"]], ids=["sqlite", "postgres"])
def host(request: pytest.FixtureRequest) -> Iterator[RunningApp]:
    """The demo on either store, with a delay of a second: long enough to be seen pending."""
    app = apphost_of(str(APPHOST), arguments=request.param)
    for name in ("api", "worker"):
        app.resources[name].env(SIGNUP_EMAIL_DELAY="1")
    with app.testing() as running:
        yield running


def sign_up(client: httpx2.Client) -> str:
    """Sign alice up and return where her sign-up is."""
    answer = client.post("/signups", json={"userName": "alice", "email": "alice@example.com"})
    assert answer.status_code == 202
    path: str = answer.headers["location"]
    return path


def await_status(client: httpx2.Client, path: str, status: str) -> None:
    eventually(lambda: client.get(path).json()["status"] == status, f"{path} is {status}")


def test_the_demo_is_served_with_its_reference(host: RunningApp) -> None:
    """Healthy, with the page that its AppHost links."""
    with host.sync_client("api") as client:
        assert client.get("/health").json() == {"status": "healthy"}
        assert client.get("/scalar").status_code == 200
    links = {link.label: link.url for link in host.resource("api").links}
    assert links["API reference"] == f"{host.url('api')}/scalar"


def test_hello_world_completes(host: RunningApp) -> None:
    """Five steps within one request."""
    with host.sync_client("api") as client:
        answer = client.post("/flows/hello-world")

    assert answer.status_code == 200
    assert answer.json()["message"] == "Hello World flow completed!"


def test_a_signup_is_mailed_after_a_while_and_confirmed(host: RunningApp) -> None:
    """With a delayed step and a person."""
    with host.sync_client("api") as client:
        path = sign_up(client)
        assert client.get(path).json()["status"] == "PENDING"
        await_status(client, path, "WAITING_FOR_SIGNAL")
        confirmed = client.post(f"{path}/confirm", json={"confirmedAt": "2026-02-03T04:05:00Z"})
        await_status(client, path, "COMPLETE")

    assert confirmed.json()["message"].startswith("Email confirmed!")


async def test_a_signup_outlives_a_killed_api_and_each_of_its_steps_runs_once(host: RunningApp) -> None:
    """Killed by kill -9 between signing up and confirming; the worker beside it does not run them again."""
    with host.sync_client("api") as client:
        path = sign_up(client)
        # A step that is cut off in the middle runs again: kill it between two.
        eventually(lambda: client.get(path).json()["userId"], "the user is created")
        pid = host.resource("api").pid

        again = await host.kill("api")
        assert again.pid != pid

        await_status(client, path, "WAITING_FOR_SIGNAL")
        await host.kill("api")
        client.post(f"{path}/confirm").raise_for_status()
        await_status(client, path, "COMPLETE")
        user_id = client.get(path).json()["userId"]
        rows = client.get(path.replace("/signups/", "/flows/") + "/steps").json()["items"]

    assert [(row["methodName"], row["status"]) for row in rows] == [(name, "COMPLETE") for name in STEPS]
    said = [f"user {user_id} created", f"Welcome, user {user_id}.", f"user {user_id} is signed up since"]
    printed = [line.text for line in host.console()]
    assert [sum(text in line for line in printed) for text in said] == [1, 1, 1]


def test_what_the_demo_did_was_told_once(host: RunningApp) -> None:
    """The flow and its steps stand below the request that started them, with their log records."""
    telemetry = host.telemetry

    def hello() -> list[str]:
        found = telemetry.traces(text="flow hello_world")
        return [branch.span.name for branch in telemetry.trace(found[0].trace_id)] if found else []

    eventually(lambda: hello().count("step say") == 5, "its spans arrive")
    eventually(lambda: telemetry.logs(text="Hello, World (4)"), "its records arrive")
    assert hello()[0] == "POST /flows/hello-world"
    assert hello().count("flow hello_world") == 1
    assert [len(telemetry.logs(text=f"Hello, World ({i})")) for i in range(5)] == [1] * 5
