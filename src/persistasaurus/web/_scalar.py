"""The API reference at /scalar: Scalar from our own package, and nothing from another host."""

from __future__ import annotations

import html
import string

from fastapi import APIRouter, Request, Response
from fastapi.responses import FileResponse, HTMLResponse

from persistasaurus.web._assets import HOW_TO_GET, PAGES, SCALAR
from persistasaurus.web._security import content_policy, nonce_of, secure

_SCRIPT = "text/javascript; charset=utf-8"


def scalar_router(*, path: str = "/scalar", title: str = "API reference") -> APIRouter:
    """Return the routes of the API reference, to be included in a FastAPI app.

    The page shows the OpenAPI document of the app that it is included in and sends requests to it. Its policy
    lets it load nothing but its own files. Where the package holds no Scalar, since npm was missing when it
    was built, the page says how to get it and links the document.
    """
    router = APIRouter(include_in_schema=False)
    page = string.Template((PAGES / "scalar.html").read_text("utf-8"))
    missing = string.Template((PAGES / "no-scalar.html").read_text("utf-8"))
    start = (PAGES / "scalar.js").read_bytes()

    @router.get(path)
    async def scalar(request: Request) -> Response:
        nonce = nonce_of(request.scope)
        response = HTMLResponse(
            (page if SCALAR.path.is_file() else missing).substitute(_filling(request, title))
        )
        # Scalar writes `style` attributes into what it renders; its style elements carry the nonce.
        response.headers["Content-Security-Policy"] = content_policy(
            nonce, more=["style-src-attr 'unsafe-inline'"]
        )
        secure(response.headers, nonce)
        return response

    @router.get(f"{path}/start.js")
    async def scalar_start() -> Response:
        return Response(start, media_type=_SCRIPT, headers={"X-Content-Type-Options": "nosniff"})

    @router.get(f"{path}/{SCALAR.name}")
    async def scalar_bundle() -> Response:
        if not SCALAR.path.is_file():
            return Response(HOW_TO_GET, status_code=404, media_type="text/plain")
        return FileResponse(
            SCALAR.path,
            media_type=SCALAR.media_type,
            headers={"Cache-Control": "no-cache", "X-Content-Type-Options": "nosniff"},
        )

    return router


def _filling(request: Request, title: str) -> dict[str, str]:
    """Return what the page's template asks for."""
    document = request.scope.get("root_path", "") + (request.app.openapi_url or "/openapi.json")
    filling = {
        "title": title,
        "nonce": nonce_of(request.scope),
        "base": request.scope["path"].rstrip("/"),
        "document": document,
        "how": HOW_TO_GET,
    }
    return {name: html.escape(value) for name, value in filling.items()}
