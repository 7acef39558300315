"""Durable execution for Python: flows that go on after a crash, on one SQLite file."""

from persistasaurus._app import Persistasaurus
from persistasaurus._engine.retry import Retry
from persistasaurus._engine.signals import Signal
from persistasaurus._flow import Flow, Step, flow, step
from persistasaurus._future import StepFuture, as_completed, wait
from persistasaurus._handle import FlowHandle
from persistasaurus._inside import current, now, random, rng, sleep, uuid, wait_for
from persistasaurus._instance import FlowInstance
from persistasaurus._model import FlowRecord, FlowStatus, StepRecord
from persistasaurus._secret import Secret
from persistasaurus.errors import (
    AppNotRunningError,
    CipherError,
    DamagedRecordError,
    DuplicateNameError,
    FlowCancelled,
    FlowConflict,
    FlowFailed,
    FlowNotFound,
    FlowNotWaiting,
    FlowParked,
    InvalidFlowIdError,
    LeaseLost,
    NonDeterminismError,
    NotMarkableError,
    OutcomeUnknownError,
    PersistasaurusError,
    SerializationError,
    StepFailed,
    StoreError,
    StoreMovedError,
    StoreVersionError,
    UnknownFlowError,
    UsageError,
    WrongContextError,
)

__all__ = [
    "AppNotRunningError",
    "CipherError",
    "DamagedRecordError",
    "DuplicateNameError",
    "Flow",
    "FlowCancelled",
    "FlowConflict",
    "FlowFailed",
    "FlowHandle",
    "FlowInstance",
    "FlowNotFound",
    "FlowNotWaiting",
    "FlowParked",
    "FlowRecord",
    "FlowStatus",
    "InvalidFlowIdError",
    "LeaseLost",
    "NonDeterminismError",
    "NotMarkableError",
    "OutcomeUnknownError",
    "Persistasaurus",
    "PersistasaurusError",
    "Retry",
    "Secret",
    "SerializationError",
    "Signal",
    "Step",
    "StepFailed",
    "StepFuture",
    "StepRecord",
    "StoreError",
    "StoreMovedError",
    "StoreVersionError",
    "UnknownFlowError",
    "UsageError",
    "WrongContextError",
    "as_completed",
    "current",
    "flow",
    "now",
    "random",
    "rng",
    "sleep",
    "step",
    "uuid",
    "wait",
    "wait_for",
]
