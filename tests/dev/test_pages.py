"""The dashboard's pages over HTTP, without a browser: what is in them, what is not, and what they do."""

from __future__ import annotations

import asyncio
import signal
import socket
import subprocess
import sys
from urllib.parse import urljoin

import httpx2
import pytest

from persistasaurus.dev import host_fixture
from persistasaurus.dev._telemetry import LogRecord, Point, Series, Span, SpanEvent
from tests.dev.kit import SERVED, apphost, is_running

HOSTILE = "<script>alert(1)</script>\x1b[31m"
TRACE = "0af7651916cd43dd8448eb211c80319c"
AT_NS = 1_790_000_000_000_000_000


def paged() -> object:
    app = apphost("paged")
    db = app.sqlite("flows.db")
    app.sqlite("other.db")
    app.process("talker", sys.executable, "talker.py").env(SECRET="hunter2")
    app.worker("worker", "durable", replicas=2).uses(db)
    return app


host = host_fixture(paged(), scope="module")


@pytest.fixture(scope="module", autouse=True)
def received(host) -> None:
    """A trace of three spans, two records and two metrics."""
    host.telemetry.add_spans(
        [
            span("1", name="GET /orders", took_ms=120),
            span("2", parent="1", name=HOSTILE, start_ms=10, took_ms=80, status="error"),
            span("3", parent="2", name="INSERT", start_ms=20, took_ms=0.5),
        ]
    )
    host.telemetry.add_logs([log("all is well", 9), log(f"broken {HOSTILE}", 17)])
    points = tuple(Point(at_ns=AT_NS + i * 10**9, value=i * 1.5) for i in range(3))
    counted = (Point(at_ns=AT_NS, count=4, sum=10.0, low=1.0, high=5.0),)
    host.telemetry.add_points([series("orders", "sum", points), series("took", "histogram", counted)])


def span(
    letter: str, *, name: str, took_ms: float, start_ms: float = 0, parent: str = "", status: str = "ok"
):
    start_ns = AT_NS + int(start_ms * 1e6)
    event = SpanEvent(name="happened", at_ns=start_ns, attributes={"why": HOSTILE})
    return Span(
        trace_id=TRACE,
        span_id=letter * 16,
        parent_id=parent * 16,
        name=name,
        kind="server",
        resource="worker",
        instance="worker-1",
        scope="tests",
        start_ns=start_ns,
        end_ns=start_ns + int(took_ms * 1e6),
        status=status,
        message="",
        attributes={"http.route": "/orders", "number": 7},
        events=(event,),
        links=(),
    )


def log(text: str, severity: int) -> LogRecord:
    return LogRecord(
        at_ns=AT_NS,
        resource="worker",
        instance="worker-1",
        scope="tests",
        severity=severity,
        level="ERROR" if severity == 17 else "INFO",
        text=text,
        trace_id=TRACE,
        span_id="1" * 16,
        attributes={"user": HOSTILE},
    )


def series(name: str, kind: str, points: tuple[Point, ...]) -> Series:
    return Series(
        name=name,
        kind=kind,
        unit="1",
        description="how many",
        resource="worker",
        instance="worker-1",
        attributes={"shop": HOSTILE},
        is_monotonic=True,
        points=points,
    )


@pytest.fixture
async def browser(host):
    """What a browser sends along with what a person does on our own pages."""
    own = {"origin": host.dashboard, "sec-fetch-site": "same-origin"}
    async with httpx2.AsyncClient(base_url=host.dashboard, trust_env=False, headers=own) as client:
        login = await client.get("/", params={"t": host.token}, follow_redirects=True)
        assert login.url.path == "/resources"
        yield client


async def page(browser, path: str, **params: str) -> str:
    answer = await browser.get(path, params=params or None)
    assert answer.status_code == 200, answer.text
    assert "alert(1)" not in answer.text.replace("&lt;script&gt;alert(1)&lt;/script&gt;", "")
    assert "\x1b" not in answer.text
    return answer.text


async def test_resources_show_where_each_stands(browser, host):
    """With its process, its history as a picture, and where to look further."""
    text = await page(browser, "/resources")

    for name in ("flows", "other", "talker", "worker-1", "worker-2"):
        assert f'href="./resources/{name}"' in text
    assert f">{host.resource('talker').pid}</td>" in text
    assert 'aria-label="Last states: waiting, starting, ready"' in text
    assert 'href="./db/flows/flows"' in text
    assert "resources/flows/stop" not in text


@pytest.mark.parametrize("path", ["/resources", "/resources/talker", "/resources/talker/stop"])
async def test_no_page_holds_the_environment(browser, path):
    """Not even hidden in it."""
    assert "hunter2" not in await page(browser, path)


async def test_a_variable_is_revealed_alone(browser):
    """By a form, so that its value stands in no address."""
    assert 'value="SECRET"' in await page(browser, "/resources/talker")

    shown = await browser.post("/resources/talker/reveal", data={"variable": "SECRET"})

    assert "hunter2" in shown.text
    assert "OTEL_SERVICE_NAME" not in shown.text
    assert shown.headers["cache-control"] == "no-store"
    missing = await browser.post("/resources/talker/reveal", data={"variable": "NOBODY"})
    assert missing.status_code == 404


async def test_a_resource_is_stopped_and_started_once_it_was_confirmed(browser, host):
    """A GET asks, and a POST acts: all by links and forms."""
    pid = host.resource("talker").pid
    asked = await page(browser, "/resources/talker/stop")
    assert 'method="post" action="../../resources/talker/stop"' in asked
    assert is_running(pid)

    stopped = await browser.post("/resources/talker/stop")

    assert urljoin(str(stopped.url), stopped.headers["location"]) == f"{host.dashboard}/resources"
    assert not is_running(pid)
    assert 'href="./resources/talker/start"' in await page(browser, "/resources")
    await browser.post("/resources/talker/start")
    await host.ready("talker")
    assert host.resource("talker").pid != pid


@pytest.mark.parametrize(
    "method, path, status",
    [
        ("GET", "/resources/nobody", 404),
        ("GET", "/resources/talker/explode", 404),
        ("GET", "/resources/flows/stop", 404),
        ("POST", "/resources/flows/stop", 404),
        ("POST", "/resources/nobody/reveal", 422),
        ("GET", "/traces/none", 404),
        ("GET", "/traces?shortest_ms=soon", 422),
        ("GET", "/traces?limit=5000", 422),
        ("GET", "/metric?resource=worker&name=none", 404),
        ("GET", "/db/flows/flows/none", 404),
        ("GET", "/static/_pages.py", 404),
    ],
)
async def test_what_cannot_be_shown_is_a_page_that_says_why(browser, method, path, status):
    """Within the layout, so that a person gets away from it."""
    answer = await browser.request(method, path)

    assert answer.status_code == status
    assert '<p class="notice bad">' in answer.text
    assert "<nav" in answer.text


async def test_another_sites_page_does_nothing(browser, host):
    """Neither act nor reveal."""
    pid = host.resource("talker").pid
    foreign = {"origin": "http://evil.example", "sec-fetch-site": "cross-site"}

    for path in ("/resources/talker/stop", "/resources/talker/reveal"):
        answer = await browser.post(path, data={"variable": "SECRET"}, headers=foreign)
        assert answer.status_code == 403
        assert "hunter2" not in answer.text
    assert host.resource("talker").pid == pid


@pytest.mark.parametrize(
    "path", ["/resources", "/console", "/traces", "/static/dashboard.js", "/db/flows/flows"]
)
async def test_without_the_token_there_is_no_page(host, path):
    """Nor a file of one."""
    async with httpx2.AsyncClient(base_url=host.dashboard, trust_env=False) as anyone:
        assert (await anyone.get(path)).status_code == 401


async def test_a_page_may_load_nothing_but_our_own(browser):
    """And no script but the files."""
    for path in ("/resources", f"/traces/{TRACE}", "/db/flows/flows"):
        answer = await browser.get(path)
        policy = answer.headers["content-security-policy"]
        assert policy.startswith("default-src 'none'; script-src 'self'")
        assert "unsafe" not in policy
        assert "<style" not in answer.text
        assert " style=" not in answer.text


async def test_the_console_marks_stderr_and_shows_escapes_inert(browser):
    """Lines of one resource or of all, filtered by a text."""
    text = await page(browser, "/console", resource="talker")
    assert "plain \\x1b[31mred\\x1b[0m &lt;script&gt;" in text
    assert 'class="stderr"' in text
    assert "durable" not in text

    found = await page(browser, "/console", text="WARNED")
    assert "warned &lt;b&gt;once&lt;/b&gt;" in found
    assert "plain" not in found
    assert "No line fits" in await page(browser, "/console", resource="nobody")
    both = await page(browser, "/console", resource="worker")
    assert "<td>worker-1</td>" in both
    assert "<td>worker-2</td>" in both


async def test_structured_logs_are_filtered(browser):
    """By resource, level, text and trace, which they link to."""
    text = await page(browser, "/logs")
    assert "all is well" in text
    assert "broken &lt;script&gt;" in text
    assert f'href="./traces/{TRACE}"' in text

    assert "all is well" not in await page(browser, "/logs", level="13")
    assert "broken" not in await page(browser, "/logs", text="WELL")
    assert "broken" in await page(browser, "/logs", trace=TRACE.upper(), resource="worker")
    for asked in ({"trace": "1"}, {"resource": "talker"}, {"text": "%"}):
        assert "No record fits" in await page(browser, "/logs", **asked)


async def test_traces_are_listed_with_their_filters(browser):
    """What was asked for stays in the form."""
    text = await page(browser, "/traces", text="insert", errors="1", shortest_ms="100", resource="worker")
    assert "GET /orders</a>" in text
    assert "<td>120 ms</td>" in text
    assert 'value="insert"' in text
    assert " checked" in text

    for asked in ({"shortest_ms": "121"}, {"resource": "talker"}, {"text": "nowhere"}):
        assert "No trace fits" in await page(browser, "/traces", **asked)


async def test_a_trace_is_a_waterfall_with_a_table_that_says_the_same(browser):
    """Rows in reading order, each with its depth, bars that begin where their spans do."""
    text = await page(browser, f"/traces/{TRACE}")

    assert [text.index(f">{depth}</td>") for depth in (0, 1, 2)] == sorted(
        text.index(f">{depth}</td>") for depth in (0, 1, 2)
    )
    assert 'class="bar pending" x="330.0" y="28" width="660.0"' in text
    assert 'class="bar failed" x="385.0" y="50" width="440.0"' in text
    assert "<td>500 µs</td>" in text
    assert text.count("<details") == 3
    assert "<dt>http.route</dt>" in text
    assert "happened" in text
    assert f'href="../logs?trace={TRACE}"' in text
    assert "The first 2 of 3 spans" in await page(browser, f"/traces/{TRACE}", rows="2")


async def test_metrics_are_listed_and_one_has_its_numbers_in_a_table(browser):
    """The chart's numbers are the table's."""
    listed = await page(browser, "/metrics")
    assert 'href="./metric?resource=worker&amp;name=orders"' in listed
    assert "4 values, mean 2.5, min 1, max 5" in listed
    assert "took" not in await page(browser, "/metrics", text="ORD")

    text = await page(browser, "/metric", resource="worker", name="orders")
    for value in ("0", "1.5", "3"):
        assert f"<td>{value}</td>" in text
    drawn = (await browser.get("/metric-points", params={"resource": "worker", "name": "orders"})).json()
    assert [values["values"] for values in drawn["series"]] == [[0.0, 1.5, 3.0]]
    assert drawn["times"] == [1_790_000_000.0, 1_790_000_001.0, 1_790_000_002.0]
    mean = (await browser.get("/metric-points", params={"resource": "worker", "name": "took"})).json()
    assert mean["series"][0]["values"] == [2.5]


async def test_the_flows_of_each_file_have_pages(browser, host):
    """Of a file that no process has made yet too."""
    text = await page(browser, "/db/flows/flows")
    assert "Search" in text
    assert 'href="./../../resources"' in text
    assert 'href="./../../db/other/flows"' in text
    assert (await browser.get(urljoin("/db/flows/flows", "./static/dashboard.css"))).status_code == 200

    assert "other.db was not made yet" in await page(browser, "/db/other/flows")
    (host.folder / "other.db").write_bytes(b"no database at all" * 100)
    broken = await page(browser, "/db/other/flows")
    assert "not made yet" not in broken
    assert "other.db" in broken


async def test_a_stream_tells_of_each_change_of_what_a_page_shows(browser, host):
    """And of none of what other pages show."""

    async def change(lines) -> None:
        while await asyncio.wait_for(anext(lines), 10) != "event: change":
            pass

    async with (
        browser.stream("GET", "/events/console", params={"of": "talker"}) as console,
        browser.stream("GET", "/events/logs") as logs,
    ):
        of_console, of_logs = console.aiter_lines(), logs.aiter_lines()
        await change(of_console)
        await change(of_logs)
        changed = asyncio.ensure_future(change(of_console))

        host.telemetry.add_logs([log("of no interest to the console", 9)])
        await change(of_logs)
        assert not changed.done()
        await host.act("talker", "restart")
        await changed


def test_streams_end_with_the_host(tmp_path):
    """Whoever looks at a page does not keep the AppHost from ending, nor make it complain."""
    file = tmp_path / "apphost.py"
    file.write_text(
        f"""
from persistasaurus.dev import AppHost

app = AppHost("streamed", folder={str(SERVED)!r})
app.worker("worker", "durable").uses(app.sqlite({str(tmp_path / "flows.db")!r}))
"""
    )
    command = [sys.executable, "-m", "persistasaurus.dev", str(file)]
    with (
        subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as process,
        httpx2.Client(trust_env=False, follow_redirects=True) as client,
    ):
        printed = iter(process.stdout.readline, "")
        link = next(line for line in printed if "Dashboard: " in line).split()[1]
        dashboard = str(client.get(link).url).removesuffix("/resources")
        with (
            client.stream("GET", f"{dashboard}/events/resources") as resources,
            client.stream("GET", f"{dashboard}/db/flows/changes") as flows,
        ):
            for lines in (resources.iter_lines(), flows.iter_lines()):
                assert next(lines) == "retry: 1000"
            process.send_signal(signal.SIGINT)
            rest = list(printed)

    assert process.returncode == 0
    assert rest == ["streamed: stopped\n"]


async def test_answers_are_not_held_back(host, browser):
    """The connections of the server send at once: the system would wait 40 ms for more."""
    servers = host._host.server._server.servers
    assert [each.proto for server in servers for each in server.sockets] == [socket.IPPROTO_TCP]
