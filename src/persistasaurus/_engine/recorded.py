"""What a recorded row shows the flow: the same value or error as it saw live."""

from __future__ import annotations

from typing import TYPE_CHECKING

from persistasaurus._failure import rebuild_failure
from persistasaurus._model import CANCELLED, FAILED, Kind
from persistasaurus.errors import FlowCancelled, FlowFailed, SerializationError, StepFailed

if TYPE_CHECKING:
    from persistasaurus._engine.engine import Engine
    from persistasaurus._engine.operation import Operation
    from persistasaurus._engine.run import Run


def decode_recorded(engine: Engine, run: Run, operation: Operation) -> None:
    """Set what a recorded row says: the value, or the error through the same conversion as live."""
    row = operation.row
    if row is None:
        return
    if row.status == FAILED:
        missing = FlowFailed if operation.kind == Kind.CHILD else StepFailed
        operation.error = rebuild_failure(row.error or "{}", missing=missing)
    elif row.status == CANCELLED:
        operation.error = child_cancelled(f"{run.flow_id}/{operation.number}")
    elif operation.codec is not None:
        text = row.return_value or "null"
        try:
            operation.value = operation.codec.decode(text)
        except SerializationError:
            step = f"step {row.step} ({engine.names.of(row.name_id)[1]!r})"
            operation.codec.decode(text, what=f"The recorded value of {step} of flow {run.flow_id!r}")


def child_cancelled(flow_id: str) -> FlowCancelled:
    """Return the error that a flow sees whose child was cancelled."""
    return FlowCancelled(f"The child flow {flow_id!r} was cancelled.")
