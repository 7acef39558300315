"""The flows' pages over real HTTP: what they show, and what their forms do."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urljoin

import httpx2
import pytest
from fastapi import FastAPI

from persistasaurus import FlowStatus, Persistasaurus
from persistasaurus.web import create_app, dashboard_router
from persistasaurus.web._addresses import segment
from tests.web import dashboard_flows as flows
from tests.web.serving import Server, served, until


@pytest.fixture
def app(database: Path | str) -> Iterator[Persistasaurus]:
    with Persistasaurus(database) as app:
        yield app


@pytest.fixture
def client(app: Persistasaurus) -> Iterator[httpx2.Client]:
    with (
        served(create_app(app)) as url,
        httpx2.Client(base_url=f"{url}/dashboard", timeout=30, follow_redirects=True) as client,
    ):
        yield client


def started(app: Persistasaurus, flow: Any, *arguments: Any, flow_id: str, at: FlowStatus) -> str:
    """Start a flow, wait until it has a status, and return its page's address."""
    handle = app.start(flow.options(flow_id=flow_id), *arguments)
    until(lambda: handle.status() is at)
    return f"/flows/{segment(flow_id)}"


def waits_for_signal(app: Persistasaurus, flow: Any, *arguments: Any, flow_id: str) -> str:
    return started(app, flow, *arguments, flow_id=flow_id, at=FlowStatus.WAITING_FOR_SIGNAL)


def ids(page: str) -> list[str]:
    """The flow ids of a list, in the order of its rows."""
    return re.findall(r'data-item id="link-\d+" href="[^"]*">([^<]*)</a>', page)


def test_the_front_leads_to_the_list_and_an_empty_one_says_how_to_begin(client: httpx2.Client) -> None:
    """An empty store is no blank page."""
    page = client.get("/")

    assert page.status_code == 200
    assert str(page.url).endswith("/dashboard/flows")
    assert "No flow was started in this store yet" in page.text
    assert "persistasaurus start" in page.text


def test_the_list_shows_flows_newest_first_and_the_search_box_picks(
    app: Persistasaurus, client: httpx2.Client
) -> None:
    """By status, name and beginning of the id, alone and together."""
    for number in range(3):
        app.run(flows.dash_echo.options(flow_id=f"e {number}"), "x")
    waits_for_signal(app, flows.dash_count, flow_id="e-count")

    def found(search: str) -> list[str]:
        return ids(client.get("/flows", params={"q": search}).text)

    assert found("") == ["e-count", "e 2", "e 1", "e 0"]
    assert found("status:complete") == ["e 2", "e 1", "e 0"]
    assert found("status:waiting,failed") == ["e-count"]
    assert found("name:dash_count") == ["e-count"]
    assert found("name:ASH_COU") == ["e-count"]
    assert found('id:"e 1" status:complete') == ["e 1"]
    assert found('"e "') == ["e 2", "e 1", "e 0"]
    nothing = client.get("/flows", params={"q": "name:nobody"}).text
    assert "No flow fits <code>name:nobody</code>" in nothing


@pytest.mark.parametrize(
    "search,told",
    [
        ("status:done", "There is no status"),
        ("one two", "An id has one beginning"),
        ("name:a name:b", "A flow has one name"),
    ],
)
def test_a_search_that_makes_no_sense_says_so(client: httpx2.Client, search: str, told: str) -> None:
    """The page tells what it did not understand, rather than showing everything or nothing."""
    page = client.get("/flows", params={"q": search})

    assert page.status_code == 200
    assert told in page.text


def test_pages_of_the_list_follow_each_other_and_new_flows_do_not_move_them(
    app: Persistasaurus, client: httpx2.Client
) -> None:
    """Each flow is on one page; what is started meanwhile is counted, and shown on demand."""
    for number in range(60):
        app.run(flows.dash_echo.options(flow_id=f"p{number:02}"), "x")
    first = client.get("/flows")
    following = re.search(r'href="([^"]*)" rel="next"', first.text)
    assert following is not None
    second = client.get(urljoin(str(first.url), following[1].replace("&amp;", "&")))
    app.run(flows.dash_echo.options(flow_id="late"), "x")
    refresh = re.search(r'data-refresh="([^"]*)"', first.text)
    assert refresh is not None
    again = client.get(urljoin(str(first.url), refresh[1].replace("&amp;", "&")))

    assert ids(first.text) + ids(second.text) == [f"p{number:02}" for number in reversed(range(60))]
    assert ids(again.text) == ids(first.text)
    assert "new</a>" not in first.text + second.text
    assert "1 new</a>" in again.text
    assert ids(client.get("/flows").text)[0] == "late"


@pytest.mark.parametrize("flow_id", ["a/b c", "..", "ü\N{PILE OF POO}?#%", "base64:x", "events"])
def test_a_flow_of_any_id_has_a_page_and_its_links_work(
    app: Persistasaurus, client: httpx2.Client, flow_id: str
) -> None:
    """Slashes, dots and marks in an id part or end no address."""
    address = waits_for_signal(app, flows.dash_count, flow_id=flow_id)
    listed = client.get("/flows")
    link = re.search(r'data-item id="link-\d+" href="([^"]*)"', listed.text)
    assert link is not None

    page = client.get(urljoin(str(listed.url), link[1]))
    action = re.search(r'<form method="post" action="([^"]*)"', page.text)
    assert action is not None
    sent = client.post(urljoin(str(page.url), action[1]), data={"field.value": "41"})

    assert page.status_code == sent.status_code == 200
    assert sent.url == page.url
    assert app.handle(flow_id).result(30) == 42
    assert "COMPLETE" in client.get(address).text


def test_a_waiting_step_is_resumed_by_the_form_of_its_signature(
    app: Persistasaurus, client: httpx2.Client
) -> None:
    """What a browser sends from the form is what the step takes; the page then shows the outcome."""
    address = waits_for_signal(app, flows.dash_signup, "alice", flow_id="s1")
    page = client.get(address)

    done = client.post(f"{address}/resume/dash_confirm", data={"field.confirmed_at": "2026-01-31T09:00:00"})

    assert 'type="datetime-local"' in page.text
    assert "Waits for the step dash_confirm" in page.text
    assert done.history[0].status_code == 303
    assert done.status_code == 200
    until(lambda: 'id="flow-status">COMPLETE<' in client.get(address).text)
    assert "alice confirmed in 2026" in client.get(address).text


def test_wrong_input_is_told_beside_its_field_and_consumes_nothing(
    app: Persistasaurus, client: httpx2.Client
) -> None:
    """The form comes back with what was typed, and the flow waits as before."""
    address = waits_for_signal(app, flows.dash_pack, flow_id="w1")
    wrong = {
        "field.size": '"small"',
        "field.count": "many",
        "field.price": "9.99",
        "field.labels": "[1",
        "field.note": flows.HOSTILE,
    }

    no_json = client.post(f"{address}/signals/dash-packed", data=wrong)
    no_number = client.post(f"{address}/signals/dash-packed", data={**wrong, "field.labels": '["a"]'})
    status = app.handle("w1").status()
    right = {**wrong, "field.labels": '["a"]', "field.count": "3", "field.note": "", "field.fragile": "on"}
    fine = client.post(f"{address}/signals/dash-packed", data=right)

    assert no_json.status_code == no_number.status_code == 422
    assert "This is no JSON" in no_json.text
    wrong_place = re.search(r'value="many" required>\s*<span class="wrong"[^>]*>([^<]*)', no_number.text)
    assert wrong_place is not None
    assert "integer" in wrong_place[1]
    assert "<script>alert" not in no_number.text
    assert status is FlowStatus.WAITING_FOR_SIGNAL
    assert fine.status_code == 200
    assert app.handle("w1").result(30) == "3 small 9.99 True ['a'] None"


def test_the_form_of_a_signal_offers_what_its_type_allows(app: Persistasaurus, client: httpx2.Client) -> None:
    """An enum is a list to choose from, a number a number, a flag a box, and what has parts is JSON."""
    address = waits_for_signal(app, flows.dash_pack, flow_id="w2")
    page = client.get(address).text

    assert re.search(r'<select [^>]*name="field.size"[^>]* required>', page)
    assert '<option value="&#34;large&#34;">large</option>' in page
    assert re.search(r'name="field.count"[^>]* type="number" step="1"', page)
    assert re.search(r'type="checkbox" [^>]*name="field.fragile"', page)
    assert re.search(r'<textarea [^>]*name="field.labels"', page)
    assert re.search(r'name="field.note"[^>]* type="text" value="">', page)


def test_a_failed_flow_shows_its_traceback_and_goes_on_when_retried(
    app: Persistasaurus, client: httpx2.Client
) -> None:
    """Retry asks first, and the recorded failure is shown inert."""
    flows.mended.clear()
    address = started(app, flows.dash_break, flows.HOSTILE, flow_id="b1", at=FlowStatus.FAILED)
    failed = client.get(address).text
    ask = client.get(f"{address}/retry")
    flows.mended.set()
    done = client.post(f"{address}/retry")

    assert "<script>alert" not in failed
    assert "\x1b" not in failed
    assert "RuntimeError: &lt;script&gt;" in failed
    assert "Traceback (most recent call last)" in failed
    assert "Retry it</button>" in ask.text
    assert done.status_code == 200
    assert app.handle("b1").result(30) == flows.HOSTILE
    again = client.post(f"{address}/retry")
    assert again.status_code == 409
    assert "only a FAILED or PARKED flow" in again.text


def test_a_flow_is_cancelled_after_a_question(app: Persistasaurus, client: httpx2.Client) -> None:
    """Asking changes nothing; the answer is a POST."""
    address = started(app, flows.dash_sleep, flow_id="c1", at=FlowStatus.PENDING)
    ask = client.get(f"{address}/cancel")
    before = app.handle("c1").status()
    done = client.post(f"{address}/cancel")

    assert "Cancel it</button>" in ask.text
    assert before is FlowStatus.PENDING
    assert done.status_code == 200
    until(lambda: app.handle("c1").status() is FlowStatus.CANCELLED)
    page = client.get(address).text
    assert "Cancel…" not in page
    assert 'fill="url(#hatch)"' in page
    assert " style=" not in page


def test_what_another_site_sends_is_refused(app: Persistasaurus, client: httpx2.Client) -> None:
    """Every form is guarded, and a GET does nothing."""
    address = waits_for_signal(app, flows.dash_count, flow_id="x1")

    for path in ("cancel", "retry", "signals/dash-counted", "resume/dash_confirm"):
        forged = client.post(
            f"{address}/{path}", data={"field.value": "1"}, headers={"Origin": "http://evil.example"}
        )
        assert forged.status_code == 403, path

    assert client.post(f"{address}/signals/dash-counted", json={"field.value": 1}).status_code == 415
    assert client.get(f"{address}/signals/dash-counted").status_code == 405
    assert app.handle("x1").status() is FlowStatus.WAITING_FOR_SIGNAL


def test_a_flow_that_does_not_wait_takes_nothing(app: Persistasaurus, client: httpx2.Client) -> None:
    """A form that was overtaken says so."""
    address = started(app, flows.dash_echo, "x", flow_id="n1", at=FlowStatus.COMPLETE)
    late = client.post(f"{address}/signals/dash-counted", data={"field.value": "1"})

    assert late.status_code == 409
    assert "does not wait for" in late.text
    assert client.get("/flows/nobody").status_code == 404
    assert client.get("/flows/base64:*").status_code == 404


def test_a_long_payload_is_cut_and_shown_whole_on_demand(app: Persistasaurus, client: httpx2.Client) -> None:
    """A page stays small; all of the text is one link away, as plain text."""
    long = flows.HOSTILE + "x" * 10_000
    address = started(app, flows.dash_echo, long, flow_id="l1", at=FlowStatus.COMPLETE)
    page = client.get(address)
    whole = client.get(f"{address}/payloads/0/result")

    assert len(page.text) < 30_000
    assert "Show all" in page.text
    assert whole.headers["content-type"].startswith("text/plain")
    assert "x" * 10_000 in whole.text
    assert "\x1b" not in whole.text
    assert client.get(f"{address}/payloads/7/input").status_code == 404


def test_the_stream_of_a_flow_tells_of_its_end(app: Persistasaurus, client: httpx2.Client) -> None:
    """A page that listens hears of every change, and then that there will be none."""
    address = waits_for_signal(app, flows.dash_count, flow_id="e1")
    told: list[str] = []

    with client.stream("GET", f"{address}/events") as stream:
        for line in stream.iter_lines():
            if line.startswith("event"):
                told.append(line)
                if len(told) == 1:
                    app.handle("e1").send(flows.counted, 1)

    assert told[0] == "event: change"
    assert told[-1] == "event: end"


def test_a_server_that_is_stopped_does_not_wait_for_those_who_watch(tmp_path: Path) -> None:
    """uvicorn waits for open streams, so they end when it is asked to stop."""
    server = Server(tmp_path, "tests.web.dashboard_app:app")
    server.start()

    with httpx2.stream("GET", f"{server.url}/dashboard/changes", timeout=30) as stream:
        lines = stream.iter_lines()
        until(lambda: next(lines).startswith("event"))
        server.stop()
        rest = list(lines)

    assert not any(line.startswith("event: end") for line in rest)


def test_the_pages_stand_in_an_app_of_the_users_own(app: Persistasaurus) -> None:
    """Included under a prefix, with links of the user's beside ours."""
    outer = FastAPI()
    outer.include_router(dashboard_router(app), prefix="/ops/flows-ui")

    with served(outer) as url, httpx2.Client(base_url=url, follow_redirects=True) as client:
        page = client.get("/ops/flows-ui/")
        style = client.get(urljoin(str(page.url), "./static/dashboard.css"))

    assert page.status_code == style.status_code == 200
    assert page.headers["content-security-policy"].startswith("default-src 'none'")


def test_a_flow_that_is_removed_while_it_is_looked_at_is_not_found(
    app: Persistasaurus, client: httpx2.Client
) -> None:
    """Each of its pages and forms says so, its events end, and the list goes on without it."""
    page = started(app, flows.dash_echo, "x", flow_id="gone", at=FlowStatus.COMPLETE)
    assert client.get(page).status_code == 200
    with client.stream("GET", f"{page}/events") as events:
        assert events.status_code == 200
        engine = app._engine
        assert engine is not None
        assert engine.store.prune(engine.now_ms(), limit=1).flows == 1
        events.read()

    for place in (page, f"{page}/payloads/0/input", f"{page}/cancel", f"{page}/retry"):
        answer = client.get(place)
        assert (answer.status_code, "No flow has the id" in answer.text) == (404, True), place
    assert client.get("/flows").status_code == 200
    api = str(client.base_url).replace("dashboard/", "")
    assert client.get(f"{api}flows/gone").status_code == 404
    assert client.get(f"{api}flows/gone/steps").status_code == 404
