"""The layout that the pages of a dashboard stand in, wherever it is mounted."""

from __future__ import annotations

from pathlib import Path
from urllib.parse import urljoin

import httpx2
import pytest
from fastapi import FastAPI, Request, Response

from persistasaurus.web import NavEntry, Shell
from tests.web.serving import served


def pages(folder: Path) -> tuple[Shell, FastAPI]:
    """An app with one page two levels deep."""
    (folder / "deep.html").write_text('{% extends "base.html" %}{% block content %}{{ said }}{% endblock %}')
    shell = Shell(nav=[NavEntry("Deep", "a/deep", "d")], folders=[folder])
    router = shell.router()

    @router.get("/a/{name}")
    async def deep(request: Request, name: str) -> Response:
        return shell.page(request, "deep.html", {"here": "a/deep", "said": f"<b>{name}"})

    @router.post("/a/{name}")
    async def act(request: Request, name: str) -> Response:
        return shell.redirect(request, "a/done")

    app = FastAPI()
    app.include_router(shell.static_router(), prefix="/ui")
    app.include_router(router, prefix="/ui")
    return shell, app


@pytest.mark.parametrize("mount", ["", "/mounted"])
def test_a_page_finds_its_files_and_its_siblings_wherever_it_is_mounted(tmp_path: Path, mount: str) -> None:
    """Links are relative, so a prefix, a mount or a proxy in front changes nothing."""
    _, app = pages(tmp_path)
    if mount:
        outer = FastAPI()
        outer.mount(mount, app)
        app = outer

    with served(app) as url, httpx2.Client() as client:
        at = f"{url}{mount}/ui/a/x%2Fy"
        answer = client.get(at)
        style = client.get(urljoin(at, "../static/dashboard.css"))
        link = client.get(urljoin(at, "../a/deep"))
        posted = client.post(at)

    assert answer.status_code == style.status_code == link.status_code == 200
    assert 'href="../static/dashboard.css"' in answer.text
    assert 'href="../a/deep" data-go="d" aria-current="page"' in answer.text
    assert "&lt;b&gt;x/y" in answer.text
    assert posted.status_code == 303
    assert urljoin(at, posted.headers["location"]) == f"{url}{mount}/ui/a/done"


def test_a_page_is_guarded_without_the_middleware(tmp_path: Path) -> None:
    """Another site's page can send nothing, and what we send may run nothing but our own files."""
    _, app = pages(tmp_path)

    with served(app) as url, httpx2.Client(base_url=url) as client:
        fine = client.get("/ui/a/b")
        forged = client.post("/ui/a/b", headers={"Origin": "http://evil.example"})
        cross = client.post("/ui/a/b", headers={"Sec-Fetch-Site": "cross-site"})
        outside = client.get("/ui/static/..%2Fbase.html")

    assert forged.status_code == cross.status_code == 403
    assert "evil.example" in forged.text
    assert outside.status_code == 404
    policy = fine.headers["content-security-policy"]
    assert policy.startswith("default-src 'none'")
    assert "unsafe" not in policy
    assert fine.headers["x-frame-options"] == "DENY"


def test_a_stream_tells_of_each_new_value_and_of_the_end(tmp_path: Path) -> None:
    """The first event comes at once, then one for each change."""
    shell, app = pages(tmp_path)
    values = iter(["a", "a", "b", None])
    router = shell.router()

    @router.get("/events")
    async def events(request: Request) -> Response:
        return shell.events(request, lambda: next(values), every=0.001)

    app.include_router(router)

    with served(app) as url:
        told = httpx2.get(f"{url}/events")

    assert told.headers["content-type"].startswith("text/event-stream")
    assert [line for line in told.text.splitlines() if line.startswith("event")] == [
        "event: change",
        "event: change",
        "event: end",
    ]
