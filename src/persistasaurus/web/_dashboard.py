"""The flows' pages: a list, a page for each flow, and what a person may do to it, all without scripts."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Annotated, Any
from urllib.parse import parse_qsl

from fastapi import APIRouter, Query, Request, Response
from fastapi.responses import PlainTextResponse

from persistasaurus._app import Persistasaurus
from persistasaurus.errors import AppNotRunningError, StoreError
from persistasaurus.web import _acting
from persistasaurus.web._addresses import flow_id_of, segment
from persistasaurus.web._flow_list import listing
from persistasaurus.web._flow_view import FlowView, WaitForm, Watch, flow_view, payload_text
from persistasaurus.web._forms import WHOLE, Form, filled, values_of
from persistasaurus.web._payload import inert
from persistasaurus.web._problem import Refused
from persistasaurus.web._shell import NavEntry, Shell

FLOWS = NavEntry("Flows", "flows", "f")
FORM = "application/x-www-form-urlencoded"
# Long enough for most flows to have taken what they were sent, so that a page without scripts shows it.
SETTLE_S = 0.4
SETTLED_S = 0.1
_LIST_EVERY_S = 0.5
_MOST_FIELDS = 1_000

Text = Annotated[str, Query(max_length=1_000)]
Cursor = Annotated[str | None, Query(max_length=100)]


def dashboard_router(
    app: Persistasaurus, *, shell: Shell | None = None, nav: Sequence[NavEntry] = ()
) -> APIRouter:
    """Return the flows' pages, to be included in a FastAPI app, under a prefix or not.

    The app must be entered while requests are served. The pages bring no authentication: who can reach them
    can read, resume and cancel flows, so guard them as the rest of your app. They refuse what other sites
    send. `nav` are links beside the one to the flows. With a `shell` the pages stand in that one, and its
    static router is the caller's to include.
    """
    own = shell or Shell(nav=[FLOWS, *nav])
    pages = _Pages(app, own)
    router = own.router()
    if shell is None:
        router.include_router(own.static_router())
        router.get("/")(pages.front)
    router.get("/flows")(pages.flows)
    router.get("/changes")(pages.changes)
    router.get("/flows/{flow_id}")(pages.flow)
    router.get("/flows/{flow_id}/events")(pages.flow_events)
    router.get("/flows/{flow_id}/payloads/{step}/{part}")(pages.payload)
    router.get("/flows/{flow_id}/cancel")(pages.ask_cancel)
    router.post("/flows/{flow_id}/cancel")(pages.cancel)
    router.get("/flows/{flow_id}/retry")(pages.ask_retry)
    router.post("/flows/{flow_id}/retry")(pages.retry)
    router.post("/flows/{flow_id}/resume/{step}")(pages.resume)
    router.post("/flows/{flow_id}/signals/{name}")(pages.send)
    return router


class _Pages:
    def __init__(self, app: Persistasaurus, shell: Shell) -> None:
        self._app = app
        self._shell = shell

    # Looking.

    async def front(self, request: Request) -> Response:
        return self._shell.redirect(request, "flows")

    async def flows(
        self, request: Request, q: Text = "", before: Cursor = None, seen: Cursor = None
    ) -> Response:
        try:
            found = await asyncio.to_thread(
                listing, self._app, text=q.strip(), before=before or None, seen=seen or None
            )
        except ValueError as error:
            raise Refused(422, "payload", str(error)) from error
        context = {
            "here": FLOWS.path,
            "listing": found,
            "events": "changes",
            "refresh": f"{self._shell.base(request)}flows{found.refresh}",
        }
        return self._shell.page(request, "flows.html", context)

    async def changes(self, request: Request) -> Response:
        engine = self._app._engine_here("The list of flows")
        return self._shell.events(request, _until_left(engine.store.changes), every=_LIST_EVERY_S)

    async def flow(
        self, request: Request, flow_id: str, after: Annotated[int, Query(ge=0, le=1 << 62)] = 0
    ) -> Response:
        view = await asyncio.to_thread(flow_view, self._app, _read(flow_id), after=after)
        return self._flow_page(request, view)

    def _flow_page(
        self, request: Request, view: FlowView, tried: WaitForm | None = None, *, status: int = 200
    ) -> Response:
        waits = [tried if tried and one.address == tried.address else one for one in view.waits]
        if tried is not None and tried not in waits:
            waits.append(tried)
        context: dict[str, Any] = {
            "here": FLOWS.path,
            "flow": view,
            "waits": waits,
            "at": f"{self._shell.base(request)}flows/{view.address}",
            "events": f"flows/{view.address}/events",
            "refresh": f"{self._shell.base(request)}flows/{view.address}" if tried else None,
            "tried": tried is not None,
        }
        return self._shell.page(request, "flow.html", context, status=status)

    async def flow_events(self, request: Request, flow_id: str) -> Response:
        return self._shell.events(request, _until_left(Watch(self._app, _read(flow_id))))

    async def payload(self, flow_id: str, step: int, part: str) -> Response:
        text = await asyncio.to_thread(payload_text, self._app, _read(flow_id), step, part)
        return PlainTextResponse(inert(text).encode("utf-8", "replace"))

    # Acting.

    async def ask_cancel(self, request: Request, flow_id: str) -> Response:
        return await self._ask(request, flow_id, "cancel")

    async def ask_retry(self, request: Request, flow_id: str) -> Response:
        return await self._ask(request, flow_id, "retry")

    async def _ask(self, request: Request, flow_id: str, what: str) -> Response:
        view = await asyncio.to_thread(flow_view, self._app, _read(flow_id))
        at = f"{self._shell.base(request)}flows/{view.address}"
        context = {"here": FLOWS.path, "flow": view, "what": what, "at": at}
        return self._shell.page(request, "confirm.html", context)

    async def cancel(self, request: Request, flow_id: str) -> Response:
        known = _read(flow_id)
        watch = await _watched(self._app, known)
        await self._app.handle(known).cancel_async()
        return await self._back(request, known, watch)

    async def retry(self, request: Request, flow_id: str) -> Response:
        known = _read(flow_id)
        watch = await _watched(self._app, known)
        await _acting.retry(self._app, known)
        return await self._back(request, known, watch)

    async def resume(self, request: Request, flow_id: str, step: str) -> Response:
        return await self._submit(request, _read(flow_id), f"resume/{segment(_read(step))}", _read(step))

    async def send(self, request: Request, flow_id: str, name: str) -> Response:
        return await self._submit(request, _read(flow_id), f"signals/{segment(_read(name))}", _read(name))

    async def _submit(self, request: Request, flow_id: str, address: str, name: str) -> Response:
        """Send what a form says; where it does not fit show the form again, with nothing recorded."""
        sent = await _sent(request)
        view = await asyncio.to_thread(flow_view, self._app, flow_id)
        asked = next((one for one in view.waits if one.address == address), None)
        if asked is None or asked.form is None:
            raise Refused(
                409,
                "flow-not-waiting",
                f"Flow {flow_id!r} does not wait for {name!r:.80} now. Nothing was recorded.",
            )
        values, errors = values_of(asked.form, sent)
        told = ""
        if not errors:
            watch = await _watched(self._app, flow_id)
            try:
                await self._deliver(flow_id, asked, values)
            except Refused as refused:
                errors, told = refused.errors, str(refused)
            else:
                return await self._back(request, flow_id, watch)
        tried = _tried(asked, filled(asked.form, sent, errors, told))
        return self._flow_page(request, view, tried, status=422)

    async def _deliver(self, flow_id: str, asked: WaitForm, values: dict[str, Any]) -> None:
        if asked.kind == "step":
            await _acting.resume(self._app, flow_id, asked.name, values)
            return
        whole = asked.form is not None and asked.form.whole
        value = values.get(WHOLE) if whole else values
        await _acting.send(self._app, flow_id, asked.name, value, ahead=False)

    async def _back(self, request: Request, flow_id: str, watch: Watch) -> Response:
        """Go to the flow's page, once it shows what was done or after a moment."""
        await _settled(watch)
        return self._shell.redirect(request, f"flows/{segment(flow_id)}")


async def _watched(app: Persistasaurus, flow_id: str) -> Watch:
    """Begin to watch a flow, before something is done to it."""
    watch = Watch(app, flow_id)
    await asyncio.to_thread(watch)
    return watch


async def _settled(watch: Watch) -> None:
    """Wait until a watched flow is another and stays that for a moment, or has ended, or takes its time."""
    loop = asyncio.get_running_loop()
    first = last = watch.seen
    end, changed_at = loop.time() + SETTLE_S, loop.time()
    while loop.time() < end:
        await asyncio.sleep(0.02)
        now = await asyncio.to_thread(watch)
        if now is None or (now == last != first and loop.time() - changed_at > SETTLED_S):
            return
        if now != last:
            last, changed_at = now, loop.time()


def _tried(asked: WaitForm, form: Form) -> WaitForm:
    return WaitForm(kind=asked.kind, name=asked.name, address=asked.address, since=asked.since, form=form)


async def _sent(request: Request) -> dict[str, str]:
    media_type = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if media_type != FORM:
        raise Refused(415, "media-type", f"The body is {media_type or 'of no named type'!r}. Send a form.")
    try:
        text = (await request.body()).decode("ascii")
        return dict(parse_qsl(text, keep_blank_values=True, errors="strict", max_num_fields=_MOST_FIELDS))
    except ValueError as error:
        raise Refused(422, "payload", f"The form cannot be read: {error}. Send it from its page.") from error


def _read(decoded: str) -> str:
    try:
        return flow_id_of(decoded)
    except ValueError as error:
        raise Refused(404, "flow-not-found", str(error)) from error


def _until_left(look: Any) -> Any:
    """Return a look that ends the stream where the app was left or its store cannot be read."""

    def looked() -> Any:
        try:
            return look()
        except (AppNotRunningError, StoreError):
            return None

    return looked
