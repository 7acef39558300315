"""An application of real processes: order, environment, restarts, and its end."""

from __future__ import annotations

import asyncio
import socket
import sys

import pytest

from persistasaurus import UsageError
from persistasaurus.dev import State, _instance, host_fixture
from persistasaurus.dev._server import Reserved
from tests.dev.kit import apphost, eventually, is_running


def full() -> object:
    """Return the application of most of these tests."""
    app = apphost("full")
    db = app.sqlite("flows.db")
    api = app.asgi("api", "service:app").uses(db).url("/docs", "API reference").env(COLOUR="green")
    app.worker("worker", "durable", replicas=2).uses(db).after(api)
    app.asgi("shop", "service:app").after(api)
    return app


host = host_fixture(full(), scope="module")


async def test_a_flow_started_over_http_is_run_by_a_worker(host):
    """The service and the workers share the database of this run."""
    async with host.client("api") as client:
        answer = await client.get("/hello/alice")

    assert (answer.status_code, answer.json()) == (200, 5)
    assert (host.folder / "flows.db").exists()
    # and what the worker did is traced: the flow, and its step below it
    eventually(lambda: host.telemetry.traces(text="flow dev-greet"), "the worker's trace did not arrive")
    spans = host.telemetry.trace(host.telemetry.traces(text="flow dev-greet")[0].trace_id)
    assert "step count_letters" in [branch.span.name for branch in spans]


def test_a_sync_test_has_a_client_too(host):
    """The fixture serves both colours."""
    with host.sync_client("api") as client:
        assert client.get("/health").json() == {"status": "healthy"}


def test_a_resource_starts_once_those_it_needs_are_ready(host):
    """The workers come after the service, which says so by its health."""
    ready = next(c.at for c in host.resource("api").history if c.state is State.READY)
    started = [
        next(c.at for c in host.resource(name).history if c.state is State.STARTING)
        for name in ("worker-1", "worker-2", "shop")
    ]

    assert all(at >= ready for at in started)


async def test_a_process_finds_everything_in_its_environment(host):
    """Telemetry, database, port and the other services, and what `.env()` says."""
    async with host.client("api") as client:
        found = (await client.get("/environment")).json()

    assert found["OTEL_EXPORTER_OTLP_ENDPOINT"] == host.dashboard
    assert found["OTEL_EXPORTER_OTLP_PROTOCOL"] == "http/protobuf"
    assert found["OTEL_SERVICE_NAME"] == "api"
    assert "service.namespace=full" in found["OTEL_RESOURCE_ATTRIBUTES"]
    assert found["PERSISTASAURUS_URL"] == f"sqlite:///{host.folder}/flows.db"
    assert found["PERSISTASAURUS_SERVICE_SHOP_URL"] == host.url("shop")
    assert found["PORT"] == host.url("api").rpartition(":")[2]
    assert (found["PYTHONUNBUFFERED"], found["COLOUR"]) == ("1", "green")
    assert host.token not in found.values()


async def test_a_service_finds_another_one(host):
    """By PERSISTASAURUS_SERVICE_<NAME>_URL."""
    async with host.client("api") as client, host.client("shop") as shop:
        assert (await client.get("/ask/SHOP")).json() == (await shop.get("/pid")).text


async def test_what_a_process_prints_is_kept(host):
    """Both streams, by resource; health checks are not among it."""
    async with host.client("api") as client:
        await client.get("/hello/printed")

    lines = {(line.stream, line.text) for line in host.console("api")}
    assert ("stdout", "asked for printed") in lines
    assert ("stderr", "warned of printed") in lines
    assert not any("HTTP/1.0" in text for _, text in lines)


async def test_a_killed_worker_is_started_again(host):
    """With another pid, and the count goes up."""
    before = host.resource("worker-2")

    after = await host.kill("worker-2")

    assert after.pid != before.pid
    assert any("signal 9" in change.detail for change in after.history)
    assert host.resource("worker-1").restarts == 0


async def test_a_killed_service_comes_back_on_its_port(host):
    """Its address does not change."""
    await host.kill("shop")

    async with host.client("shop") as client:
        assert (await client.get("/pid")).json() == host.resource("shop").pid


async def test_a_resource_is_stopped_and_started_on_request(host):
    """Stopped, it is gone and not started again by itself."""
    pid = host.resource("shop").pid

    await host.act("shop", "stop")
    assert not is_running(pid)
    assert host.resource("shop").state is State.STOPPED
    await host.act("shop", "start")
    await host.ready("shop")

    assert host.resource("shop").pid not in (None, pid)


async def test_all_replicas_are_restarted_by_the_name_of_the_resource(host):
    """And one alone by its own name."""
    before = [host.resource(name).pid for name in ("worker-1", "worker-2")]

    await host.act("worker", "restart")
    await host.ready("worker")

    assert not any(is_running(pid) for pid in before)


async def test_a_start_that_is_asked_for_while_it_stops_comes_after_that(host):
    """It is not lost, and what is shown is what runs."""
    pid = host.resource("shop").pid

    await asyncio.gather(host.act("shop", "stop"), host.act("shop", "start"))

    assert not is_running(pid)
    assert host.resource("shop").state is not State.STOPPED
    await host.ready("shop")


async def test_requests_are_traced_and_health_checks_are_not(host):
    """FastAPI sends its spans where the environment says."""
    async with host.client("shop") as client:
        await client.get("/pid")

    def names() -> set[str]:
        return {trace.name for trace in host.telemetry.traces(resource="shop")}

    eventually(lambda: "GET /pid" in names(), "no trace of the request has arrived")
    assert "GET /health" not in names()


async def test_what_is_not_there_is_named(host):
    """An unknown service lists those that there are."""
    with pytest.raises(UsageError, match="api, shop"):
        host.client("nobody")
    with pytest.raises(KeyError):
        await host.act("nobody", "stop")


def test_leaving_ends_every_process():
    """Also what the processes have started themselves, and those that do not heed SIGTERM."""
    app = apphost("leaving")
    app.asgi("api", "service:app")
    app.process("stubborn", "sh", "-c", "trap '' TERM; sleep 1000 & echo child $!; wait; sleep 1000")
    with app.testing() as host:
        eventually(lambda: host.console("stubborn"), "the shell has not printed its child")
        child = int(host.console("stubborn")[0].text.split()[1])
        pids = [status.pid for status in host.resources()]
        folder = host.folder
        assert all(is_running(pid) for pid in (*pids, child))

    assert not any(is_running(pid) for pid in (*pids, child))
    assert not folder.exists()


async def test_testing_closes_its_clients():
    """`async with` on the application is enough."""
    app = apphost("closing")
    app.asgi("api", "service:app")

    async with app.testing() as host:
        client = host.client("api")
        assert (await client.get("/health")).status_code == 200

    assert client.is_closed


def test_a_service_that_is_not_well_is_shown_so(monkeypatch):
    """It is not restarted, and is ready again when it answers again."""
    monkeypatch.setattr(_instance, "LOOK_S", 0.02)
    app = apphost("ailing")
    app.asgi("api", "service:app", health="/moody")

    with app.testing() as host, host.sync_client("api") as client:
        pid = host.resource("api").pid
        client.post("/mood/bad")
        eventually(lambda: host.resource("api").state is State.UNHEALTHY, "it is not shown as unhealthy")
        assert "status 503" in host.resource("api").detail

        client.post("/mood/good")
        eventually(lambda: host.resource("api").state is State.READY, "it is not shown as ready again")
        assert host.resource("api").pid == pid


def test_a_taken_port_is_named(monkeypatch):
    """The console says which."""
    monkeypatch.setattr(_instance, "FIRST_BACKOFF_S", 0.01)
    app = apphost("crowded")
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        app.asgi("api", "service:app", port=port)
        monkeypatch.setattr(Reserved, "port", lambda self, wanted: port)

        with pytest.raises(RuntimeError, match=f"cannot be served at port {port}"):
            app.testing().__enter__()


def test_an_application_that_cannot_run_starts_nothing():
    """It is refused before the first process."""
    app = apphost("workless")
    app.process("first", "true")
    app.worker("worker", "durable")

    with pytest.raises(UsageError, match="no database"):
        app.testing().__enter__()


def test_a_crash_loop_is_given_up_visibly():
    """The test hears what the process printed last."""
    app = apphost("looping")
    app.process("broken", sys.executable, "-c", "print('no database'); raise SystemExit(3)")
    later = app.process("later", "sleep", "1000")
    later.after(app.asgi("never", "nowhere:app"))

    with pytest.raises(RuntimeError, match=r"(?s)ended with status \d+, the 5th time.*(database|nowhere)"):
        app.testing().__enter__()


async def test_a_program_that_ends_well_is_finished():
    """It is not started again."""
    app = apphost("finishing")
    app.process("once", sys.executable, "-c", "print('done')")

    async with app.testing() as host:
        status = await host.until("once", State.FINISHED)

        assert (status.restarts, status.pid) == (0, None)
        assert [line.text for line in host.console("once")] == ["done"]


async def test_a_program_that_is_not_there_is_named():
    """With the cure, in its console."""
    app = apphost("absent")
    app.process("absent", "no-such-program-here")

    with pytest.raises(RuntimeError, match="absent: ended with status 127"):
        await app.testing().__aenter__()


async def test_a_worker_may_register_classes_first():
    """ "module:function" is called with the app."""
    app = apphost("registering")
    app.worker("worker", "durable:register").uses(app.sqlite("flows.db"))

    async with app.testing() as host:
        assert host.console("worker")[0].text == f"registered in {host.resource('worker').pid}"


async def test_ten_thousand_spans_of_the_real_sdk_arrive():
    """None is lost, and each has its parent."""
    app = apphost("spans")
    app.process("spans", sys.executable, "spans.py", "10000")

    async with app.testing() as host:
        await host.until("spans", State.FINISHED)

        assert host.telemetry.span_count == 10_000
        traces = host.telemetry.traces(resource="spans", limit=2_000)
        assert len(traces) == 1_000
        assert {(trace.name, trace.spans) for trace in traces} == {("parent", 10)}
        tree = host.telemetry.trace(traces[0].trace_id)
        assert [branch.depth for branch in tree] == [0, *[1] * 9]
        (series,) = host.telemetry.series("sent")
        assert (series.resource, series.points[-1].value) == ("spans", 10_000)
