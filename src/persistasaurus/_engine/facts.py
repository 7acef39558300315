"""Tells an observer what has happened; nothing of the engine depends on it."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import TYPE_CHECKING

from persistasaurus._events import Event, Happening, Observer
from persistasaurus._model import STATUS_BY_CODE

if TYPE_CHECKING:
    from persistasaurus._engine.commit import Progress
    from persistasaurus._engine.names import Names
    from persistasaurus._engine.operation import Operation
    from persistasaurus._engine.run import Run
    from persistasaurus._model import FlowStatus

log = logging.getLogger("persistasaurus")


class Facts:
    """The way to the observer. `observed` is false where there is none, which spares making the facts."""

    def __init__(self, observer: Observer | None, now_ms: Callable[[], int], names: Names) -> None:
        self.observed = observer is not None
        self._observer = observer
        self._now_ms = now_ms
        self._names = names

    def tell_end(self, report: Progress) -> None:
        """Tell the end of a step that has just become durable, if the write holds one."""
        operation = report.completes
        if operation is not None and operation.definition is not None:
            self.tell(Happening.STEP_ENDED, report.run, operation, STATUS_BY_CODE[operation.status])

    def tell(
        self,
        happening: Happening,
        run: Run | None = None,
        operation: Operation | None = None,
        status: FlowStatus | None = None,
    ) -> None:
        """Tell a fact about the worker, a flow or a step."""
        if self._observer is None:
            return
        fact = Event(
            happening=happening,
            at_ms=self._now_ms(),
            flow_id=run.flow_id if run is not None else "",
            flow_name=run.target.name[1] if run is not None else "",
            step=operation.number if operation is not None else 0,
            step_name=self._names.of(operation.name_id)[1] if operation is not None else "",
            attempt=operation.attempt if operation is not None else 0,
            status=status.value if status is not None else "",
        )
        try:
            self._observer(fact)
        except Exception:
            log.exception("an observer raised on %r, which changes nothing", happening.value)
