"""The sign-up demo over HTTP: the four scenarios, and what a killed server loses, which is nothing."""

from __future__ import annotations

import re
from datetime import datetime
from typing import Any

import pytest

from tests.web.serving import Server, until

pytestmark = pytest.mark.real_time

ALICE = {"userName": "alice", "email": "alice@example.com"}
CONFIRMED_AT = "2026-02-03T04:05:00Z"
STEPS = ["create_user_record", "send_welcome_email", "confirm_email_address", "finalize_signup"]


def sign_up(server: Server) -> str:
    answer = server.client.post("/signups", json=ALICE)
    assert answer.status_code == 202, answer.text
    flow_id: str = answer.json()["flowId"]
    assert answer.headers["location"] == f"/signups/{flow_id}"
    return flow_id


def wait_until(server: Server, flow_id: str, status: str) -> dict[str, Any]:
    """Return the sign-up once it has a status."""

    def look() -> Any:
        state = server.get(f"/signups/{flow_id}")
        return state if state["status"] == status else None

    state: dict[str, Any] = until(look, told=server.log)
    return state


def signups(server: Server) -> set[str]:
    return {item["flowId"] for item in server.get("/flows?name=SignupFlow.sign_up")["items"]}


def steps_of(server: Server, flow_id: str) -> list[tuple[str, str, int]]:
    rows = server.get(f"/flows/{flow_id}/steps")["items"]
    return [(row["methodName"], row["status"], row["attempts"]) for row in rows]


def test_the_health_of_the_demo_is_told(server: Server) -> None:
    """The body is exactly this."""
    assert server.get("/health") == {"status": "healthy"}
    assert server.get("/health/ready") == {"status": "ready", "store": "ok", "worker": "ok"}


def test_hello_world_runs_five_steps_and_answers_when_it_is_done(server: Server) -> None:
    """The flow's record is there to be looked at."""
    answer = server.client.post("/flows/hello-world")

    assert answer.status_code == 200
    flow_id = answer.json()["flowId"]
    assert answer.json() == {"flowId": flow_id, "message": "Hello World flow completed!"}
    rows = server.get(f"/flows/{flow_id}/steps")["items"]
    assert [row["parameters"] for row in rows] == [{"name": "World", "count": i} for i in range(5)]
    assert server.get(f"/flows/{flow_id}")["result"] == 10


def test_a_signup_waits_for_its_confirmation_and_is_completed_by_it(server: Server) -> None:
    """PENDING until the mail is sent, then WAITING_FOR_SIGNAL, then COMPLETE."""
    # given
    answer = server.client.post("/signups", json=ALICE)
    flow_id = answer.json()["flowId"]
    assert set(answer.json()) == {"flowId", "message", "userName"}
    assert server.get(f"/signups/{flow_id}")["status"] == "PENDING"

    # when
    waiting = wait_until(server, flow_id, "WAITING_FOR_SIGNAL")
    confirmed = server.client.post(f"/signups/{flow_id}/confirm", json={"confirmedAt": CONFIRMED_AT})
    done = wait_until(server, flow_id, "COMPLETE")

    # then
    assert isinstance(waiting["userId"], int)
    assert waiting == {**waiting, "flowId": flow_id, **ALICE}
    assert confirmed.status_code == 200
    assert confirmed.json()["message"].startswith("Email confirmed!")
    assert confirmed.json()["confirmedAt"] == CONFIRMED_AT
    assert done == {**waiting, "status": "COMPLETE"}
    assert steps_of(server, flow_id) == [(name, "COMPLETE", 1) for name in STEPS]


def test_a_confirmation_without_a_time_is_now(server: Server) -> None:
    """No body is as good as an empty one."""
    flow_id = sign_up(server)

    confirmed = server.client.post(f"/signups/{flow_id}/confirm")

    assert confirmed.status_code == 200, confirmed.text
    told = datetime.fromisoformat(confirmed.json()["confirmedAt"])
    assert abs((datetime.now(told.tzinfo) - told).total_seconds()) < 60


def test_confirming_twice_is_harmless(server: Server) -> None:
    """The first confirmation is the one that counts, and is what later ones are told."""
    flow_id = sign_up(server)
    wait_until(server, flow_id, "WAITING_FOR_SIGNAL")
    server.client.post(f"/signups/{flow_id}/confirm", json={"confirmedAt": CONFIRMED_AT})
    wait_until(server, flow_id, "COMPLETE")

    again = server.client.post(f"/signups/{flow_id}/confirm", json={"confirmedAt": "2027-01-01T00:00:00Z"})

    assert again.status_code == 200
    assert again.json()["confirmedAt"] == CONFIRMED_AT
    assert steps_of(server, flow_id) == [(name, "COMPLETE", 1) for name in STEPS]


def test_a_confirmation_before_the_mail_is_kept_for_later(slow_server: Server) -> None:
    """The mail is sent all the same, and then the flow goes on at once."""
    flow_id = sign_up(slow_server)
    for _ in range(2):
        early = slow_server.client.post(f"/signups/{flow_id}/confirm", json={"confirmedAt": CONFIRMED_AT})
        assert early.status_code == 200
    assert slow_server.get(f"/signups/{flow_id}")["status"] == "PENDING"

    wait_until(slow_server, flow_id, "COMPLETE")

    assert steps_of(slow_server, flow_id) == [(name, "COMPLETE", 1) for name in STEPS]


@pytest.mark.crash
def test_a_server_killed_between_signup_and_confirmation_loses_nothing(own_server: Server) -> None:
    """Once before the mail is sent, once while a person is waited for; each step runs once."""
    # given
    flow_id = sign_up(own_server)
    until(lambda: own_server.get(f"/signups/{flow_id}")["userId"])
    own_server.kill()
    own_server.start()
    before = wait_until(own_server, flow_id, "WAITING_FOR_SIGNAL")
    own_server.kill()
    own_server.start()

    # when
    assert own_server.get(f"/signups/{flow_id}") == before
    confirmed = own_server.client.post(f"/signups/{flow_id}/confirm", json={"confirmedAt": CONFIRMED_AT})
    own_server.kill()
    own_server.start()

    # then
    assert confirmed.status_code == 200
    done = wait_until(own_server, flow_id, "COMPLETE")
    assert done == {**before, "status": "COMPLETE"}
    rows = steps_of(own_server, flow_id)
    assert [(name, status) for name, status, _ in rows] == [(name, "COMPLETE") for name in STEPS]
    assert own_server.log().count("mail to alice@example.com") == 1
    assert len(re.findall("user [0-9]+ created", own_server.log())) == 1


@pytest.mark.crash
def test_each_step_of_a_confirmed_signup_runs_once_around_a_crash(own_server: Server) -> None:
    """The server is killed while a person is waited for, and the confirmation comes after."""
    flow_id = sign_up(own_server)
    wait_until(own_server, flow_id, "WAITING_FOR_SIGNAL")
    own_server.kill()
    own_server.start()

    own_server.client.post(f"/signups/{flow_id}/confirm", json={"confirmedAt": CONFIRMED_AT})

    wait_until(own_server, flow_id, "COMPLETE")
    assert steps_of(own_server, flow_id) == [(name, "COMPLETE", 1) for name in STEPS]


@pytest.mark.parametrize(
    "body, field",
    [
        ({"email": "a@example.com"}, "userName"),
        ({"userName": "", "email": "a@example.com"}, "userName"),
        ({"userName": "alice", "email": "nowhere"}, "email"),
        ({"userName": 3, "email": "a@example.com"}, "userName"),
    ],
)
def test_a_signup_that_does_not_fit_names_the_field(server: Server, body: Any, field: str) -> None:
    """As problem+json, and nothing is started."""
    before = signups(server)

    answer = server.client.post("/signups", json=body)

    assert answer.status_code == 422
    assert answer.headers["content-type"] == "application/problem+json"
    assert [error["field"] for error in answer.json()["errors"]] == [field]
    assert signups(server) == before


def test_only_a_signup_is_found_among_the_signups(server: Server) -> None:
    """An unknown id, and the id of another flow, are 404."""
    hello = server.client.post("/flows/hello-world").json()["flowId"]

    for flow_id in ("nobody", hello):
        for answer in (
            server.client.get(f"/signups/{flow_id}"),
            server.client.post(f"/signups/{flow_id}/confirm"),
        ):
            assert answer.status_code == 404
            assert answer.headers["content-type"] == "application/problem+json"
            assert flow_id in answer.json()["detail"]


def test_a_cancelled_signup_cannot_be_confirmed(server: Server) -> None:
    """It is a conflict that names the status."""
    flow_id = sign_up(server)
    server.client.post(f"/flows/{flow_id}/cancel")
    wait_until(server, flow_id, "CANCELLED")

    answer = server.client.post(f"/signups/{flow_id}/confirm")

    assert answer.status_code == 409
    assert "CANCELLED" in answer.json()["detail"]
