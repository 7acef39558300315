"""The routes for flows, mounted in every way: what they answer, and what each refusal names."""

from __future__ import annotations

from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from urllib.parse import quote

import httpx2
import pytest
from fastapi import Depends, FastAPI, HTTPException

from persistasaurus import Persistasaurus
from persistasaurus.testing import memory_app
from persistasaurus.web import create_app, flow_router
from tests.flows.kit import STORES, new_database
from tests.web.flows import broken

PROBLEM = "application/problem+json"
ODD_IDS = [
    "a/b",
    "steps",
    "ü?#%2F",
    "..",
    ".",
    "a%2Fb",
    "base64:YQ",
    "~",
    " ",
    "//",
    "a\\b",
    "x" * 512,
    "\u2028;,=",
    "{flow_id}",
]


def client_of(app: Any) -> httpx2.AsyncClient:
    return httpx2.AsyncClient(transport=httpx2.ASGITransport(app), base_url="http://localhost")


@pytest.fixture(params=STORES)
async def flows(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Persistasaurus]:
    """In memory for the one store, for it is quicker: to the routes it is the same as a file."""
    with new_database(request.param, tmp_path) as place:
        async with memory_app() if request.param == "sqlite" else Persistasaurus(place) as flows:
            yield flows


@pytest.fixture
def client(flows: Persistasaurus) -> httpx2.AsyncClient:
    return client_of(create_app(flows))


async def start(client: httpx2.AsyncClient, flow: str, flow_id: str | None = None, /, **given: Any) -> str:
    """Start a flow and return its address."""
    body = {"name": flow, "input": given} | ({} if flow_id is None else {"flowId": flow_id})
    answer = await client.post("/flows", json=body)
    assert answer.status_code == 202, answer.text
    url: str = answer.headers["location"]
    assert answer.json()["url"] == url
    return url


def problem(answer: httpx2.Response, status: int, kind: str) -> dict[str, Any]:
    """Return a problem, which is of this status and kind."""
    assert answer.status_code == status, answer.text
    assert answer.headers["content-type"] == PROBLEM
    told: dict[str, Any] = answer.json()
    assert (told["status"], told["type"]) == (status, f"urn:persistasaurus:problem:{kind}")
    assert told["title"]
    assert len(told["detail"]) > 10
    return told


def fields(told: dict[str, Any]) -> list[str]:
    return [error["field"] for error in told["errors"]]


async def test_a_flow_is_started_by_its_name_and_shown(
    flows: Persistasaurus, client: httpx2.AsyncClient
) -> None:
    """Durable when the answer comes; the rest is to be looked at."""
    url = await start(client, "web_greet", "greet-1", name="Eve")
    await flows.handle("greet-1").result_async(10)

    shown = (await client.get(url)).json()

    assert shown["createdAt"].endswith("Z")
    assert {
        name: shown[name] for name in ("flowId", "name", "status", "input", "result", "error", "url")
    } == {
        "flowId": "greet-1",
        "name": "web_greet",
        "status": "COMPLETE",
        "input": {"name": "Eve"},
        "result": "Hello, Eve",
        "error": None,
        "url": "/flows/greet-1",
    }


async def test_the_same_start_again_is_the_same_flow(client: httpx2.AsyncClient) -> None:
    """An id names one flow with one input; another input is a conflict."""
    first = await start(client, "web_greet", "greet-2")
    assert await start(client, "web_greet", "greet-2", name="World") == first

    other = await client.post(
        "/flows", json={"name": "web_greet", "flowId": "greet-2", "input": {"name": "Bob"}}
    )
    another = await client.post("/flows", json={"name": "web_wait", "flowId": "greet-2"})

    assert "greet-2" in problem(other, 409, "flow-conflict")["detail"]
    problem(another, 409, "flow-conflict")


@pytest.mark.parametrize("how", ["alone", "under a prefix", "mounted", "under a prefix and mounted"])
async def test_any_flow_id_can_be_addressed(flows: Persistasaurus, how: str) -> None:
    """By the link that the API gives, and percent-encoded where clients leave that alone."""
    app = create_app(flows)
    if how != "alone":
        app = FastAPI()
        app.include_router(flow_router(flows), prefix="/my api" if "prefix" in how else "")
    if "mounted" in how:
        inner, app = app, FastAPI()
        app.mount("/flows/sub", inner)
    base = {"alone": "", "under a prefix": "/my%20api", "mounted": "/flows/sub"}.get(
        how, "/flows/sub/my%20api"
    )
    client = client_of(app)

    for flow_id in ODD_IDS:
        started = await client.post(f"{base}/flows", json={"name": "web_wait", "flowId": flow_id})
        url = started.headers["location"]
        assert url.startswith(f"{base}/flows/"), url
        # Every client resolves dots, whatever their spelling, and `base64:` is ours.
        encoded = f"{base}/flows/{quote(flow_id, safe='')}"
        for way in [url] if flow_id in (".", "..", "base64:YQ") else [url, encoded]:
            shown = await client.get(way)
            assert shown.status_code == 200, (flow_id, way, shown.text)
            assert (shown.json()["flowId"], shown.json()["url"]) == (flow_id, url)
            assert (await client.get(f"{way}/steps")).status_code == 200
            assert (await client.post(f"{way}/cancel")).json()["url"] == url


async def test_a_path_that_is_no_flow_id_is_refused(client: httpx2.AsyncClient) -> None:
    """It names the field; an id that no flow has is another thing."""
    for path in (
        "/flows/base64:!",
        "/flows/base64:gA",
        f"/flows/{'x' * 513}",
        "/flows/a%00b",
    ):
        told = problem(await client.get(path), 422, "payload")
        assert fields(told)[0] in ("flowId", "flow_id")
    assert "nobody" in problem(await client.get("/flows/nobody"), 404, "flow-not-found")["detail"]


async def test_a_waiting_step_is_shown_with_its_form_and_resumed(
    flows: Persistasaurus, client: httpx2.AsyncClient
) -> None:
    """The arguments are checked against the step's signature."""
    url = await start(client, "web_wait", "wait-1")
    await reaches(client, url, "WAITING_FOR_SIGNAL")
    waiting = (await client.get(url)).json()["waitsFor"]
    assert [(one["kind"], one["name"]) for one in waiting] == [("step", "web_confirm")]
    assert waiting[0]["payload"]["properties"]["at"]["format"] == "date-time"

    wrong = await client.post(f"{url}/resume/web_confirm", json={"at": "soon"})
    missing = await client.post(f"{url}/resume/web_confirm")
    right = await client.post(f"{url}/resume/web_confirm", json={"at": "2026-02-03T04:05:06Z"})

    assert fields(problem(wrong, 422, "payload")) == ["at"]
    assert fields(problem(missing, 422, "payload")) == ["at"]
    assert (right.status_code, right.json()) == (202, {"flowId": "wait-1", "name": "web_confirm", "url": url})
    assert await flows.handle("wait-1").result_async(10) == 2026
    late = await client.post(f"{url}/resume/web_confirm", json={"at": "2026-02-03T04:05:06Z"})
    assert "COMPLETE" in problem(late, 409, "flow-not-waiting")["detail"]


async def test_a_step_that_the_flow_does_not_have_cannot_be_resumed(client: httpx2.AsyncClient) -> None:
    """Unknown here, or another flow's: both say so."""
    url = await start(client, "web_wait")

    problem(await client.post(f"{url}/resume/nothing"), 404, "step-not-found")
    foreign = await client.post(f"{url}/resume/say", json={"name": "x", "count": 1})
    assert foreign.status_code in (404, 409)
    problem(await client.post("/flows/nobody/resume/web_confirm"), 404, "flow-not-found")


async def test_a_signal_is_checked_and_sent(flows: Persistasaurus, client: httpx2.AsyncClient) -> None:
    """Against its type, where this process knows it."""
    url = await start(client, "web_order", "order-1", part={"sku": "bolt"}, count=2)

    wrong = await client.post(f"{url}/signals/web-granted", json={"by": "eve"})
    right = await client.post(f"{url}/signals/web-granted", json={"by": "eve", "granted": True})

    assert fields(problem(wrong, 422, "payload")) == ["granted"]
    assert right.status_code == 202
    assert await flows.handle("order-1").result_async(10) == "2 bolt, says eve"
    late = await client.post(f"{url}/signals/web-granted", json={"by": "eve", "granted": True})
    problem(late, 409, "flow-not-waiting")
    problem(await client.post(f"{url}/signals/step:x"), 409, "flow-not-waiting")


async def test_a_signal_may_be_sent_ahead_of_its_flow(
    flows: Persistasaurus, client: httpx2.AsyncClient
) -> None:
    """If one says so: without it a wrong id would pass unnoticed."""
    body = {"by": "bob", "granted": True}
    problem(await client.post("/flows/order-2/signals/web-granted", json=body), 404, "flow-not-found")

    ahead = await client.post("/flows/order-2/signals/web-granted?ahead=true", json=body)
    await start(client, "web_order", "order-2", part={"sku": "nut"})

    assert ahead.status_code == 202
    assert await flows.handle("order-2").result_async(10) == "1 nut, says bob"
    bad_name = await client.post("/flows/order-3/signals/step:x?ahead=true", json=1)
    problem(bad_name, 422, "wrong-use")


async def test_a_failed_flow_is_shown_and_retried(flows: Persistasaurus, client: httpx2.AsyncClient) -> None:
    """It goes on at the failed step."""
    broken["now"] = True
    url = await start(client, "web_break", "break-1")
    failed = await reaches(client, url, "FAILED")
    assert failed["error"]["message"] == "<script>alert(1)</script>"
    broken["now"] = False

    retried = await client.post(f"{url}/retry")

    assert retried.status_code == 202
    assert await flows.handle("break-1").result_async(10) == "mended"
    assert "COMPLETE" in problem(await client.post(f"{url}/retry"), 409, "flow-not-retryable")["detail"]
    problem(await client.post("/flows/nobody/retry"), 404, "flow-not-found")


async def test_a_flow_is_cancelled(client: httpx2.AsyncClient) -> None:
    """Once more changes nothing."""
    url = await start(client, "web_wait", "cancel-1")

    assert (await client.post(f"{url}/cancel")).status_code == 202
    await reaches(client, url, "CANCELLED")
    again = await client.post(f"{url}/cancel")

    assert (again.status_code, again.json()["status"]) == (202, "CANCELLED")
    problem(await client.post("/flows/nobody/cancel"), 404, "flow-not-found")


async def reaches(client: httpx2.AsyncClient, url: str, status: str) -> dict[str, Any]:
    """Return a flow once it has a status."""
    for _ in range(2_000):
        shown: dict[str, Any] = (await client.get(url)).json()
        if shown["status"] == status:
            return shown
    raise AssertionError(shown)


async def test_flows_are_listed_in_pages_newest_first(client: httpx2.AsyncClient) -> None:
    """A cursor goes on behind the last one seen, also where newer ones have come since."""
    for number in range(5):
        await start(client, "web_wait", f"list/{number}")
    seen: list[str] = []
    cursor: str | None = None
    for page_number in range(3):
        query: dict[str, Any] = {"idPrefix": "list/", "limit": 2} | (
            {} if cursor is None else {"cursor": cursor}
        )
        page = (await client.get("/flows", params=query)).json()
        seen += [item["flowId"] for item in page["items"]]
        cursor = page["next"]
        assert (cursor is None) == (page_number == 2)
        await start(client, "web_wait", f"list/new-{page_number}")

    assert seen == [f"list/{number}" for number in (4, 3, 2, 1, 0)]


async def test_flows_are_filtered(flows: Persistasaurus, client: httpx2.AsyncClient) -> None:
    """By status, name, id and time."""
    await start(client, "web_greet", "filter-a")
    await start(client, "web_wait", "filter-b")
    await flows.handle("filter-a").result_async(10)
    await reaches(client, "/flows/filter-b", "WAITING_FOR_SIGNAL")
    later = (datetime.now(UTC) + timedelta(hours=1)).isoformat()

    async def ids(**query: Any) -> list[str]:
        answer = await client.get("/flows", params={"idPrefix": "filter-", **query})
        return [item["flowId"] for item in answer.json()["items"]]

    assert await ids() == ["filter-b", "filter-a"]
    assert await ids(status="COMPLETE") == ["filter-a"]
    assert await ids(status=["COMPLETE", "WAITING_FOR_SIGNAL"]) == ["filter-b", "filter-a"]
    assert await ids(name="web_wait") == ["filter-b"]
    assert await ids(name="nothing") == []
    assert await ids(createdAfter=later) == []
    assert await ids(createdBefore=later) == ["filter-b", "filter-a"]


@pytest.mark.parametrize(
    "query, field",
    [
        ("status=DONE", "status.0"),
        ("limit=0", "limit"),
        ("limit=201", "limit"),
        ("createdAfter=2026-01-01T00:00:00", "createdAfter"),
        ("cursor=zz", "cursor"),
        ("cursor=%00", "cursor"),
        ("idPrefix=%00", "idPrefix"),
    ],
)
async def test_a_filter_that_does_not_fit_names_the_field(
    client: httpx2.AsyncClient, query: str, field: str
) -> None:
    """Nothing is guessed and nothing left out in silence."""
    assert fields(problem(await client.get(f"/flows?{query}"), 422, "payload")) == [field]


async def test_the_steps_of_a_flow_come_in_pages(flows: Persistasaurus, client: httpx2.AsyncClient) -> None:
    """In the order of the log."""
    url = await start(client, "web_many", "many-1", steps=5)
    await flows.handle("many-1").result_async(10)

    first = (await client.get(f"{url}/steps?limit=3")).json()
    rest = (await client.get(f"{url}/steps", params={"limit": 3, "cursor": first["next"]})).json()

    assert [row["returnValue"] for row in first["items"] + rest["items"]] == [0, 1, 2, 3, 4]
    assert first["items"][0] == {
        **first["items"][0],
        "step": 1,
        "className": "",
        "methodName": "web_count",
        "status": "COMPLETE",
        "attempts": 1,
        "delay": None,
        "parameters": {"number": 0},
        "error": None,
    }
    assert rest["next"] is None


@pytest.mark.parametrize(
    "body, expected",
    [
        ({"name": "nothing"}, ["name"]),
        ({}, ["name"]),
        ({"name": "web_greet", "more": 1}, ["more"]),
        ({"name": "web_greet", "flowId": ""}, ["flowId"]),
        ({"name": "web_greet", "flowId": "a\0b"}, ["flowId"]),
        ({"name": "web_greet", "input": {"name": 3}}, ["input.name"]),
        ({"name": "web_greet", "input": {"who": "x"}}, ["input.who"]),
        ({"name": "web_greet", "input": []}, ["input"]),
        ({"name": "web_order"}, ["input.part"]),
        (
            {"name": "web_order", "input": {"part": {"sku": "a", "parts": [{"sku": 1}]}}},
            ["input.part.parts.0.sku"],
        ),
    ],
)
async def test_a_start_that_does_not_fit_names_the_field(
    client: httpx2.AsyncClient, body: dict[str, Any], expected: list[str]
) -> None:
    """And nothing is started."""
    assert fields(problem(await client.post("/flows", json=body), 422, "payload")) == expected
    assert (await client.get("/flows")).json()["items"] == []


@pytest.mark.parametrize(
    "text",
    ['{"name":"web_greet","input":{"name":"\\ud800"}}', '{"name":"web_greet","flowId":"\\udfff"}'],
)
async def test_text_that_no_database_holds_is_refused(client: httpx2.AsyncClient, text: str) -> None:
    """Lone surrogates, which JSON can spell; the refusal can quote them."""
    answer = await client.post("/flows", content=text, headers={"Content-Type": "application/json"})

    problem(answer, 422, "payload")


async def test_a_body_that_is_no_json_is_refused(client: httpx2.AsyncClient) -> None:
    """Broken text, bytes that are no text, a nest without a floor, another type."""
    json_type = {"Content-Type": "application/json"}
    for content in (b"{", b"\xff", b"[" * 100_000, b""):
        answer = await client.post("/flows", content=content, headers=json_type)
        assert answer.status_code in (400, 422), answer.text
        assert answer.headers["content-type"] == PROBLEM
    problem(await client.post("/flows", content=b"{", headers=json_type), 400, "no-json")
    for media_type in (
        "text/plain",
        "application/x-www-form-urlencoded",
        "multipart/form-data; boundary=x",
        "",
    ):
        answer = await client.post("/flows", content=b"{}", headers={"Content-Type": media_type})
        problem(answer, 415, "media-type")


@pytest.mark.parametrize("chunked", [False, True])
async def test_a_router_of_its_own_caps_bodies_too(flows: Persistasaurus, chunked: bool) -> None:
    """No middleware is needed for it."""
    app = FastAPI()
    app.include_router(flow_router(flows, max_body=50))

    async def chunks() -> AsyncIterator[bytes]:
        for _ in range(60):
            yield b" "

    answer = await client_of(app).post(
        "/flows", content=chunks() if chunked else b" " * 60, headers={"Content-Type": "application/json"}
    )

    assert "50 bytes" in problem(answer, 413, "body-too-large")["detail"]


async def test_a_body_that_nobody_reads_is_capped_by_its_length(flows: Persistasaurus) -> None:
    """A route that takes none does not look at it."""
    app = FastAPI()
    app.include_router(flow_router(flows, max_body=50))

    answer = await client_of(app).post("/flows/x/cancel", json="x" * 60)

    problem(answer, 413, "body-too-large")


async def test_a_guard_of_the_users_own_is_asked(flows: Persistasaurus) -> None:
    """Its refusals are problems too."""

    def guard() -> None:
        raise HTTPException(401, "Who are you?", {"WWW-Authenticate": "Basic"})

    app = FastAPI()
    app.include_router(flow_router(flows), dependencies=[Depends(guard)])

    answer = await client_of(app).get("/flows")

    assert problem(answer, 401, "unauthorized")["detail"] == "Who are you?"
    assert answer.headers["www-authenticate"] == "Basic"


async def test_an_unknown_path_or_method_is_a_problem(client: httpx2.AsyncClient) -> None:
    """Outside of the routes as well."""
    problem(await client.get("/nowhere"), 404, "not-found")
    problem(await client.put("/flows", json={}), 405, "method-not-allowed")


async def test_an_app_that_does_not_run_is_told() -> None:
    """503, for it may be back; `/health` says that the process answers."""
    client = client_of(create_app(memory_app()))

    assert (await client.get("/health")).json() == {"status": "healthy"}
    for path in ("/health/ready", "/flows", "/flows/x"):
        problem(await client.get(path), 503, "app-not-running")


async def test_a_store_that_is_gone_is_told(tmp_path: Path) -> None:
    """The file was deleted under the running app."""
    database = tmp_path / "flows.db"
    async with Persistasaurus(database) as flows:
        client = client_of(create_app(flows))
        assert (await client.get("/health/ready")).json()["worker"] == "ok"
        database.unlink()

        problem(await client.get("/health/ready"), 503, "store")


async def test_a_client_is_ready_without_a_worker(tmp_path: Path) -> None:
    """It starts flows that others drive."""
    async with Persistasaurus(tmp_path / "flows.db", worker=False) as flows:
        answer = await client_of(create_app(flows)).get("/health/ready")

    assert answer.json() == {"status": "ready", "store": "ok", "worker": "none"}


async def test_an_app_of_a_url_is_entered_and_left_with_the_server(tmp_path: Path) -> None:
    """And modules are imported by name."""
    app = create_app(str(tmp_path / "flows.db"), modules=["tests.web.flows"])
    client = client_of(app)
    async with app.router.lifespan_context(app):
        await start(client, "web_greet", "served")

    problem(await client.get("/flows/served"), 503, "app-not-running")
    with pytest.raises(ImportError):
        create_app(":memory:", modules=["there.is.no.such.module"])


async def test_the_document_describes_the_start_of_each_flow(client: httpx2.AsyncClient) -> None:
    """From the signatures, with an example that works; what contains itself is described once."""
    document = (await client.get("/openapi.json")).json()
    variants = {one["title"]: one for one in document["components"]["schemas"]["StartFlow"]["oneOf"]}

    order = variants["web_order"]
    assert order["description"] == "Orders a part, once somebody has granted it."
    assert order["required"] == ["name", "input"]
    part = order["properties"]["input"]["properties"]["part"]
    assert part["properties"]["parts"]["items"] == {"title": "Part"}
    assert "$ref" not in str(order)
    for example in (order["examples"][0], variants["web_greet"]["examples"][0]):
        assert (await client.post("/flows", json=example)).status_code == 202, example


async def test_the_document_tells_problems_by_their_type(client: httpx2.AsyncClient) -> None:
    """A client made from it reads them."""
    document = (await client.get("/openapi.json")).json()

    answers = document["paths"]["/flows/{flow_id}"]["get"]["responses"]
    assert list(answers["404"]["content"]) == [PROBLEM]
    assert "detail" in answers["404"]["content"][PROBLEM]["schema"]["properties"]
