"""Sends an operation to the part that knows its kind."""

from __future__ import annotations

from typing import TYPE_CHECKING

from persistasaurus._engine.children import begin_child, on_child
from persistasaurus._engine.delays import begin_timer
from persistasaurus._engine.retried import is_kept
from persistasaurus._engine.signals import begin_wait, hand_out
from persistasaurus._engine.steps import begin_step, complete_as_kept
from persistasaurus._model import Kind

if TYPE_CHECKING:
    from persistasaurus._engine.engine import Engine
    from persistasaurus._engine.operation import Operation
    from persistasaurus._engine.run import Run
    from persistasaurus._store.base import Mailbox


def begin(engine: Engine, run: Run, operation: Operation) -> None:
    """Begin an operation that is not recorded as ended."""
    if operation.row is not None and is_kept(operation.row):
        complete_as_kept(engine, run, operation)
        return
    match operation.kind:
        case Kind.STEP:
            begin_step(engine, run, operation)
        case Kind.SLEEP | Kind.TIMER:
            begin_timer(engine, run, operation)
        case Kind.SIGNAL | Kind.WAIT_FOR:
            begin_wait(engine, run, operation)
        case Kind.CHILD:
            begin_child(engine, run, operation)


def deal_out(engine: Engine, run: Run, mail: Mailbox) -> None:
    """Give a flow its signals and its children's outcomes."""
    if run.signals:
        hand_out(engine, run)
    for child in mail.children:
        on_child(run, child)
