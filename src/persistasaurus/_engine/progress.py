"""What is queued for the store: a flow's progress, and a client's orders."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Sequence
from concurrent.futures import Future, InvalidStateError
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from persistasaurus._engine.operation import RowParts
from persistasaurus._store.base import Batch, FlowUpdate, NewFlow, NewSignal, StartedFlow, StepRow
from persistasaurus._store.checksum import step_checksum

if TYPE_CHECKING:
    from persistasaurus._engine.operation import Operation
    from persistasaurus._engine.run import Run
    from persistasaurus._engine.texts import Texts

log = logging.getLogger("persistasaurus.store")


class Progress:
    """What one flow wants written together, and what it does once that is durable."""

    completes: Operation | None = None
    """What ends with the flow's next event number."""
    update: FlowUpdate | None = None
    cancels = False
    """Whether this is the event of the flow's cancel."""
    consumed: int | None = None
    rejected: tuple[int, str] | None = None
    child: NewFlow | None = None
    poke: int | None = None
    cancel_children = False
    then: Callable[[Any], None] | None = None
    """Called by the flow's driver after the commit, with the started child if there is one."""
    answer: StartedFlow | None = None
    """The started child, once the write is durable."""
    rows: Sequence[RowParts] = ()
    """Of operations that begin or go on, before the one that ends."""
    sealed: list[StepRow] | None = None
    is_end_alone = False
    """Whether it holds the end of an operation and the starts before it, and nothing else."""

    def __init__(self, run: Run) -> None:
        self.run = run

    def seal(self) -> list[StepRow]:
        """Give the rows their event numbers and checksums; once, however often the commit is tried."""
        if self.sealed is None:
            run, texts = self.run, self.run.engine.texts
            sealed: list[Any] = []
            for head, tail in self.rows:
                row: Any = texts.seal_step(run.flow_id, (*head, None, *tail))
                sealed.append((*row, step_checksum(row, 0)))
            if self.completes is not None:
                row = self.completes.ended_row(run.key, run.events + 1)
                row = row if texts.plain else texts.seal_step(run.flow_id, row)
                run.events += 1  # not before: a cipher that fails is asked again
                run.chain = step_checksum(row, run.chain)
                sealed.append((*row, run.chain))
            elif self.cancels:
                run.events += 1
                run.cancel_event = run.events
            if self.update is not None and not texts.plain:
                self.update = texts.seal_update(run.flow_id, self.update)
            if self.update is not None and run.cancel_event is not None:
                self.update = self.update._replace(cancel_event=run.cancel_event)
            self.sealed = sealed
        return self.sealed


class Order:
    """A client's write: a start, a signal or a cancel; `answer` gets the store's, after `then` was told.

    A coroutine on the app's own loop hands in a future of that loop, which is answered there. Where nobody
    waits for it (`lasts`), it is written again after a commit that failed, as a flow's progress is.
    """

    __slots__ = ("answer", "lasts", "result", "then", "write")

    def __init__(
        self,
        write: NewFlow | NewSignal | str,
        *,
        answer: asyncio.Future[Any] | None = None,
        then: Callable[[Any], None] | None = None,
        lasts: bool = False,
    ) -> None:
        self.write = write
        self.then = then
        self.lasts = lasts
        self.answer: Future[Any] | asyncio.Future[Any] = Future() if answer is None else answer
        self.result: Any = None

    @property
    def is_host(self) -> bool:
        """Whether it is answered on the app's own loop."""
        return isinstance(self.answer, asyncio.Future)

    def tell(self) -> None:
        """Give the result, which is durable now, to whoever waits for it."""
        if self.then is not None:
            try:
                self.then(self.result)
            except Exception:  # the writer must outlive it
                log.exception("unexpected error after a commit")
        with suppress(InvalidStateError):  # cancelled just now, by another thread
            if not self.answer.done():
                self.answer.set_result(self.result)

    def refuse(self, error: BaseException) -> None:
        """Tell whoever waits that nothing of it was written."""
        with suppress(InvalidStateError):
            if not self.answer.done():
                self.answer.set_exception(error)


def batch_of(
    progress: Sequence[Progress], orders: Sequence[Order], worker_id: int | None, texts: Texts
) -> Batch:
    """Return what to commit, in the order in which it was queued.

    Raises:
        StoreError: the app's cipher fails.
    """
    batch = Batch(worker_id=worker_id)
    updates: dict[int, FlowUpdate] = {}
    steps = batch.steps
    for report in progress:
        steps.extend(report.sealed or report.seal())
        if not report.is_end_alone:
            _add(batch, updates, report)
    batch.updates.extend(updates.values())
    for order in orders:
        write = order.write
        if isinstance(write, NewFlow):
            if write.claim and worker_id is None:
                write = write._replace(claim=False)
            batch.starts.append(write)
        elif isinstance(write, NewSignal):
            batch.signals.append(write)
        else:
            batch.cancels.append(write)
    if not texts.plain:
        texts.seal_orders(batch)
    return batch


def _add(batch: Batch, updates: dict[int, FlowUpdate], report: Progress) -> None:
    if report.update is not None:
        updates[report.run.key] = report.update
    if report.consumed is not None:
        batch.consumed.append(report.consumed)
    if report.rejected is not None:
        batch.rejected.append(report.rejected)
    if report.child is not None:
        batch.starts.append(report.child)
    if report.poke is not None:
        batch.poke.append(report.poke)
    if report.cancel_children:
        batch.cancel_children.append(report.run.key)
