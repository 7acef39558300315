"""Resources: where each stands and came from, its links and environment, and what a person may do to it."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any, assert_never, get_args

from fastapi import APIRouter, Form, Request, Response

from persistasaurus.dev._control import MASKED
from persistasaurus.dev._state import Action, Change, State, Status
from persistasaurus.web._problem import Refused
from persistasaurus.web._shell import Shell

if TYPE_CHECKING:
    from persistasaurus.dev._host import Host

HERE = "resources"
BARS = 24
BAR_WIDTH = 6


@dataclass(frozen=True, slots=True, kw_only=True)
class Bar:
    """One state in the picture of a history."""

    x: int
    tone: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One resource as the pages show it. The values of its environment are not in it."""

    status: Status
    tone: str
    bars: tuple[Bar, ...]
    told: str
    """The picture of the history in words."""
    variables: tuple[str, ...]
    actions: tuple[Action, ...]


class ResourcePages:
    """The list of resources, one of them, and acting on it."""

    def __init__(self, host: Host, shell: Shell) -> None:
        self._host = host
        self._shell = shell

    def router(self) -> APIRouter:
        """Return the routes."""
        router = self._shell.router()
        router.get("/resources")(self._list)
        router.get("/resources/{name}")(self._one)
        router.post("/resources/{name}/reveal")(self._reveal)
        router.get("/resources/{name}/{action}")(self._ask)
        router.post("/resources/{name}/{action}")(self._act)
        return router

    async def _list(self, request: Request) -> Response:
        rows = [row_of(status) for status in self._host.resources()]
        return self._page(request, "resources.html", {"rows": rows, "events": "events/resources"})

    async def _one(self, request: Request, name: str) -> Response:
        context = {"row": row_of(self._known(name)), "masked": MASKED, "events": "events/resources"}
        return self._page(request, "resource.html", context)

    async def _reveal(
        self, request: Request, name: str, variable: Annotated[str, Form(max_length=1_000)]
    ) -> Response:
        values = dict(self._known(name).environment)
        if variable not in values:
            raise Refused(404, "not-found", f"{name!r:.80} is given no variable {variable!r:.80} here.")
        context = {"name": name, "variable": variable, "value": values[variable]}
        return self._page(request, "reveal.html", context)

    async def _ask(self, request: Request, name: str, action: str) -> Response:
        row = row_of(self._known(name))
        return self._page(request, "act.html", {"row": row, "action": _action(row, action)})

    async def _act(self, request: Request, name: str, action: str) -> Response:
        await self._host.act(name, _action(row_of(self._known(name)), action))
        return self._shell.redirect(request, HERE)

    def _known(self, name: str) -> Status:
        try:
            return self._host.resource(name)
        except KeyError:
            raise Refused(404, "not-found", f"There is no resource {name!r:.80} here.") from None

    def _page(self, request: Request, template: str, context: dict[str, Any]) -> Response:
        return self._shell.page(request, template, {"here": HERE, **context})


def row_of(status: Status) -> Row:
    """Return a resource as the pages show it."""
    shown = status.history[-BARS:]
    return Row(
        status=status,
        tone=tone_of(status.state),
        bars=tuple(Bar(x=i * BAR_WIDTH, tone=tone_of(change.state)) for i, change in enumerate(shown)),
        told=_told(shown),
        variables=tuple(name for name, _ in status.environment),
        actions=_actions(status),
    )


def tone_of(state: State) -> str:
    """Return how a state looks: one of the layout's classes."""
    match state:
        case State.READY:
            return "good"
        case State.FAILING | State.UNHEALTHY:
            return "bad"
        case State.RESTARTING:
            return "wait"
        case State.WAITING | State.STARTING:
            return "calm"
        case State.FINISHED | State.STOPPED:
            return "none"
        case _:
            assert_never(state)


def _told(history: Iterable[Change]) -> str:
    return "Last states: " + (", ".join(change.state for change in history) or "none")


def _actions(status: Status) -> tuple[Action, ...]:
    if not status.command:
        return ()  # a database is nobody's process here
    if status.state in (State.STOPPED, State.FINISHED, State.FAILING):
        return ("start",)
    return ("restart", "stop")


def _action(row: Row, name: str) -> Action:
    """Return the action of this name, also one that would change nothing: somebody else was first."""
    known: dict[str, Action] = {action: action for action in get_args(Action)}
    if name not in known or not row.status.command:
        raise Refused(404, "not-found", f"{name!r:.80} cannot be done to {row.status.name!r:.80}.")
    return known[name]
