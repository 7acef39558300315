"""Tells an observer what has happened; nothing of the engine depends on it."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from persistasaurus._engine.registry import display_name
from persistasaurus._events import Event, Happening, Observer, Tracer
from persistasaurus._model import STATUS_BY_CODE, Kind

if TYPE_CHECKING:
    from persistasaurus._engine.names import Names
    from persistasaurus._engine.operation import Operation
    from persistasaurus._engine.progress import Progress
    from persistasaurus._engine.run import Run
    from persistasaurus._model import FlowStatus

log = logging.getLogger("persistasaurus")


class Facts:
    """The way to the observer. `observed` is false where there is none, which spares making the facts."""

    def __init__(self, observer: Observer | None, now_ms: Callable[[], int], names: Names) -> None:
        self.observed = observer is not None
        self._tracer = observer if isinstance(observer, Tracer) else None
        self.traced = self._tracer is not None
        self._observer = observer
        self._now_ms = now_ms
        self._names = names

    def tell_commit(self, reports: Sequence[Progress]) -> None:
        """Tell what has just become durable."""
        if reports:
            self.tell(Happening.COMMITTED, count=len(reports))
        for report in reports:
            self._tell_end(report)

    def _tell_end(self, report: Progress) -> None:
        operation = report.completes
        if operation is None or operation.kind == Kind.CHILD:
            return
        happening = Happening.STEP_ENDED if operation.definition is not None else Happening.WAIT_ENDED
        self.tell(happening, report.run, operation, STATUS_BY_CODE[operation.status])

    def capture(self) -> str | None:
        """Return what to keep with a flow that is started here, None without a tracer."""
        if self._tracer is None:
            return None
        try:
            return self._tracer.capture()
        except Exception:
            log.exception("an observer raised on a start, which changes nothing")
            return None

    def enter(self, happening: Happening, run: Run, operation: Operation | None = None) -> None:
        """Have the tracer make this context that of a flow's body or a step's attempt."""
        if self._tracer is None:
            return
        try:
            self._tracer.enter(self._event(happening, run, operation))
        except Exception:
            log.exception("an observer raised on %r, which changes nothing", happening.value)

    def tell(
        self,
        happening: Happening,
        run: Run | None = None,
        operation: Operation | None = None,
        status: FlowStatus | None = None,
        *,
        count: int = 0,
    ) -> None:
        """Tell a fact about the worker, a flow or a step."""
        if self._observer is None:
            return
        try:
            self._observer(self._event(happening, run, operation, status, count=count))
        except Exception:
            log.exception("an observer raised on %r, which changes nothing", happening.value)

    def _event(
        self,
        happening: Happening,
        run: Run | None = None,
        operation: Operation | None = None,
        status: FlowStatus | None = None,
        *,
        count: int = 0,
    ) -> Event:
        return Event(
            happening=happening,
            at_ms=self._now_ms(),
            flow_id=run.flow_id if run is not None else "",
            flow_name=display_name(run.target.name) if run is not None else "",
            step=operation.number if operation is not None else 0,
            step_name=self._names.of(operation.name_id)[1] if operation is not None else "",
            attempt=operation.attempt if operation is not None else 0,
            status=status.value if status is not None else "",
            count=count,
            trace=(run.flow.trace or "") if run is not None else "",
        )
