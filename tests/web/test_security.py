"""What is let in: hosts, origins, tokens and sizes, by the middleware alone and around the whole API."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator, Mapping
from typing import Any

import httpx2
import pytest

from persistasaurus.testing import memory_app
from persistasaurus.web import Policy, SecurityMiddleware, create_app
from persistasaurus.web._security import content_policy, nonce_of

HERE = "http://localhost:8000"
TOKEN = "a-long-random-token"


async def echo(scope: Any, receive: Any, send: Any) -> None:
    """Answers with how many bytes it was sent, and with its nonce."""
    size = 0
    try:
        while True:
            message = await receive()
            size += len(message.get("body", b""))
            if not message.get("more_body"):
                break
    except Exception:
        size = -1  # an app that swallows what it does not know
    headers = [(b"x-nonce", nonce_of(scope).encode())]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": str(size).encode()})


def client(policy: Policy | None = None, *, url: str = HERE, server: str = "127.0.0.1") -> httpx2.AsyncClient:
    app = SecurityMiddleware(echo, policy)

    async def reached(scope: Any, receive: Any, send: Any) -> None:
        scope["server"] = (server, 8000)
        await app(scope, receive, send)

    return httpx2.AsyncClient(transport=httpx2.ASGITransport(reached), base_url=url)


@pytest.mark.parametrize(
    "host, status",
    [
        ("localhost", 200),
        ("LOCALHOST:9", 200),
        ("127.0.0.1:8000", 200),
        ("[::1]:8000", 200),
        ("[::1]", 200),
        ("evil.example", 421),
        ("localhost.evil.example", 421),
        ("localhost:evil", 421),
        ("127.0.0.1.evil.example:8000", 421),
        ("", 421),
    ],
)
async def test_only_allowed_hosts_are_answered(host: str, status: int) -> None:
    """A page that rebinds its name to 127.0.0.1 still sends its own name."""
    answer = await client().get("/", headers={"Host": host})

    assert answer.status_code == status
    if status == 421:
        assert answer.headers["content-type"] == "application/problem+json"
        assert "allowed_hosts" in answer.json()["detail"]


async def test_two_hosts_are_none() -> None:
    """What stands in front might have looked at the other one."""
    answer = await client().get("/", headers=[("Host", "evil.example"), ("Host", "localhost")])

    assert answer.status_code == 421


async def test_any_host_is_answered_where_the_policy_says_so() -> None:
    """For servers whose name something in front has checked."""
    answer = await client(Policy(allowed_hosts=("*",))).get("/", headers={"Host": "flows.example"})

    assert answer.status_code == 200


@pytest.mark.parametrize("method", ["POST", "PUT", "PATCH", "DELETE", "OPTIONS", "BREW"])
@pytest.mark.parametrize(
    "headers, status",
    [
        ({}, 200),
        ({"Origin": HERE}, 200),
        ({"Origin": HERE, "Sec-Fetch-Site": "same-origin"}, 200),
        ({"Sec-Fetch-Site": "none"}, 200),
        ({"Origin": "http://evil.example"}, 403),
        ({"Origin": "http://localhost:9000"}, 403),
        ({"Origin": "null"}, 403),
        ({"Origin": ""}, 403),
        ({"Sec-Fetch-Site": "cross-site"}, 403),
        ({"Sec-Fetch-Site": "same-site"}, 403),
        ({"Origin": HERE, "Sec-Fetch-Site": "cross-site"}, 403),
        ({"Origin": "http://evil.example", "Sec-Fetch-Site": "same-origin"}, 403),
    ],
)
async def test_another_sites_page_changes_nothing(
    method: str, headers: Mapping[str, str], status: int
) -> None:
    """Whatever is no GET or HEAD is looked at; what no browser sends, as curl, passes."""
    answer = await client().request(method, "/", headers=dict(headers))

    assert answer.status_code == status


@pytest.mark.parametrize("method", ["GET", "HEAD"])
async def test_a_link_from_another_site_works(method: str) -> None:
    """GET and HEAD change nothing."""
    headers = {"Sec-Fetch-Site": "cross-site", "Origin": "http://evil.example"}

    assert (await client().request(method, "/", headers=headers)).status_code == 200


async def test_default_ports_are_left_out_of_the_comparison() -> None:
    """Browsers leave them out of `Origin` and `Host`, proxies may not."""
    policy = Policy(allowed_hosts=("flows.example",))
    there = client(policy, url="https://flows.example")

    for origin, status in (("https://flows.example", 200), ("https://flows.example:444", 403)):
        answer = await there.post("/", headers={"Origin": origin})
        assert answer.status_code == status


@pytest.mark.parametrize(
    "server, status", [("127.0.0.1", 200), ("::1", 200), ("10.0.0.7", 403), ("fe80::1", 403)]
)
async def test_another_address_is_refused_without_a_token(server: str, status: int) -> None:
    """Whatever the server was bound to: what counts is the address that the request came to."""
    answer = await client(server=server).get("/")

    assert answer.status_code == status
    with_token = await client(Policy(token=TOKEN), server=server).get(
        "/", headers={"Authorization": f"Bearer {TOKEN}"}
    )
    assert with_token.status_code == 200


@pytest.mark.parametrize(
    "headers, status",
    [
        ({}, 401),
        ({"Authorization": f"Bearer {TOKEN}"}, 200),
        ({"Authorization": f"bearer {TOKEN}"}, 200),
        ({"Authorization": f"Bearer {TOKEN}x"}, 401),
        ({"Authorization": f"Basic {TOKEN}"}, 401),
        ({"Authorization": "Bearer "}, 401),
        ({"Cookie": f"{Policy(token=TOKEN).cookie}={TOKEN}"}, 200),
        ({"Cookie": f"{Policy(token=TOKEN).cookie}=x"}, 401),
        ({"Cookie": f"{Policy(token='another').cookie}={TOKEN}"}, 401),
        ({"Cookie": "=;;=\x7f"}, 401),
    ],
)
async def test_a_token_is_wanted(headers: Mapping[str, str], status: int) -> None:
    """In the header, or in the cookie of a browser that has logged in."""
    answer = await client(Policy(token=TOKEN)).post("/", headers=dict(headers))

    assert answer.status_code == status
    if status == 401:
        assert answer.headers["www-authenticate"] == "Bearer"


async def test_the_address_with_the_token_logs_a_browser_in() -> None:
    """The token goes into a cookie that scripts cannot read, and out of the address."""
    there = client(Policy(token=TOKEN))

    answer = await there.get(f"/a%20page?x=1&token={TOKEN}")

    assert (answer.status_code, answer.headers["location"]) == (303, "/a%20page?x=1")
    cookie = answer.headers["set-cookie"].lower()
    assert "httponly" in cookie
    assert "samesite=strict" in cookie
    assert (await there.get(answer.headers["location"])).status_code == 200


async def test_a_token_in_the_address_is_for_looking_only() -> None:
    """A form of another site could name one; and a wrong one is wrong."""
    there = client(Policy(token=TOKEN))

    assert (await there.post(f"/?token={TOKEN}")).status_code == 401
    assert (await there.get("/?token=wrong")).status_code == 401


async def test_logging_in_leads_to_no_other_host() -> None:
    """Two slashes at the beginning of an address would name one."""
    answer = await client(Policy(token=TOKEN)).get(f"{HERE}//evil.example/?token={TOKEN}")

    assert answer.headers["location"] == "/evil.example/"


async def test_the_cookie_of_a_browser_does_not_help_another_site() -> None:
    """The browser would send it along."""
    there = client(Policy(token=TOKEN))
    await there.get(f"/?token={TOKEN}")

    answer = await there.post("/", headers={"Origin": "http://evil.example"})

    assert answer.status_code == 403


@pytest.mark.parametrize("size, status", [(0, 200), (10, 200), (11, 413)])
@pytest.mark.parametrize("chunked", [False, True])
async def test_a_body_is_capped(size: int, status: int, chunked: bool) -> None:
    """Whether it says its length or comes in chunks, and whatever the app makes of the end of it."""

    async def chunks() -> AsyncIterator[bytes]:
        for _ in range(size):
            yield b"x"

    answer = await client(Policy(max_body=10)).post("/", content=chunks() if chunked else b"x" * size)

    assert answer.status_code == status
    if status == 413:
        assert "10 bytes" in answer.json()["detail"]
    else:
        assert answer.text == str(size)


async def test_every_answer_carries_the_headers() -> None:
    """Refusals too."""
    for headers in ({}, {"Host": "evil.example"}):
        answer = await client().get("/", headers=headers)

        assert answer.headers["x-content-type-options"] == "nosniff"
        assert answer.headers["x-frame-options"] == "DENY"
        assert answer.headers["referrer-policy"] == "no-referrer"
        assert answer.headers["cache-control"] == "no-store"
        policy = answer.headers["content-security-policy"]
        assert "default-src 'none'" in policy
        assert "unsafe" not in policy


async def test_a_nonce_serves_one_request() -> None:
    """It is the one that the page gets, and another one next time."""
    nonces = set()
    for _ in range(3):
        answer = await client().get("/")
        found = re.search(r"script-src 'self' 'nonce-([\w-]+)'", answer.headers["content-security-policy"])
        assert found is not None
        assert found[1] == answer.headers["x-nonce"]
        nonces.add(found[1])

    assert len(nonces) == 3


def test_a_page_may_have_a_policy_of_its_own() -> None:
    """A directive takes the place of the one of its name."""
    policy = content_policy("n", more=["connect-src 'none'", "font-src 'self'"])

    assert "connect-src 'none'" in policy
    assert "connect-src 'self'" not in policy
    assert policy.endswith("font-src 'self'")


async def test_a_websocket_is_guarded_too() -> None:
    """Browsers let any page open one."""
    told = []

    async def send(message: Any) -> None:
        told.append(message)

    async def receive() -> Any:
        raise AssertionError("a refused websocket is not read")

    headers = [(b"host", b"localhost"), (b"origin", b"http://evil.example")]
    scope = {"type": "websocket", "path": "/", "headers": headers, "server": ("127.0.0.1", 8000)}
    await SecurityMiddleware(echo)(scope, receive, send)

    assert told == [{"type": "websocket.close", "code": 1008}]


async def test_the_api_is_guarded_and_its_health_is_open() -> None:
    """`create_app` puts the middleware around everything, the API reference and the document too."""
    async with memory_app() as flows:
        app = create_app(flows, token=TOKEN)
        there = httpx2.AsyncClient(transport=httpx2.ASGITransport(app), base_url=HERE)

        for path in ("/flows", "/openapi.json", "/scalar", "/scalar/scalar.js", "/nowhere"):
            assert (await there.get(path)).status_code == 401, path
        for path in ("/health", "/health/ready"):
            assert (await there.get(path)).status_code == 200
        ours = {"Authorization": f"Bearer {TOKEN}"}
        assert (await there.get("/flows", headers=ours)).status_code == 200
        assert (await there.get("/flows", headers={**ours, "Host": "evil.example"})).status_code == 421


def test_an_empty_token_is_refused() -> None:
    """It comes from a setting that was forgotten."""
    with pytest.raises(ValueError, match="would let everybody in"):
        create_app(":memory:", token=" ")
