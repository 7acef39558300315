"""Every error that Persistasaurus raises.

PersistasaurusError
├── UsageError                  the library was called in a way that cannot work
│   ├── WrongContextError       a step, flow or app call from a place that cannot make it
│   ├── NotMarkableError        @flow or @step on something that cannot be one (also a TypeError)
│   ├── InvalidFlowIdError      a flow id that no database can hold (also a ValueError)
│   ├── DuplicateNameError      two different flows or signals of one name
│   ├── UnknownFlowError        a flow that this process has not defined or registered
│   └── AppNotRunningError      the app is not entered, was left, or belongs to a parent process
├── FlowNotFound                no flow instance has this id
├── FlowConflict                the id belongs to another flow or another input
├── FlowNotWaiting              nobody waits for what was resumed
├── FlowFailed                  a flow's failure whose class is not loaded here
├── StepFailed                  a step's failure whose class is not loaded here
├── FlowCancelled               the flow was cancelled
├── FlowParked                  the flow is not driven until someone acts
│   └── NonDeterminismError     the code asks for something else than the log holds
├── CipherError                 a stored text cannot be decrypted: the key is missing, or it was changed
├── SerializationError          a value that JSON text cannot carry there and back
├── StoreError                  the database could not be read or written
│   ├── OutcomeUnknownError     a connection was lost during a commit; it may have happened
│   ├── StoreMovedError         the database is out of service: its flows were promoted to another
│   ├── StoreVersionError       the database was written by a newer library
│   └── DamagedRecordError      a row's checksum does not match its content
└── LeaseLost                   another worker took over this worker's flows
"""

from __future__ import annotations


class PersistasaurusError(Exception):
    """The root of every error that the library raises on purpose."""


class UsageError(PersistasaurusError):
    """The library was called in a way that cannot work; nothing was recorded."""


class WrongContextError(UsageError):
    """A step, flow or app call was made from a place that cannot make it."""


class NotMarkableError(UsageError, TypeError):
    """`@flow` or `@step` was put on a generator, a lambda or something that is no function."""


class InvalidFlowIdError(UsageError, ValueError):
    """A flow id is empty, too long, or holds what no database can store."""


class DuplicateNameError(UsageError):
    """Two different flows, or two types of one signal, share a name in this process."""


class UnknownFlowError(UsageError):
    """The flow or interface is not defined or registered in this process."""


class AppNotRunningError(UsageError):
    """The app is not entered yet, was left, or belongs to the parent of a forked process."""


class FlowNotFound(PersistasaurusError):
    """No flow instance has this id."""


class FlowConflict(PersistasaurusError):
    """The flow id already names an instance of another flow, or one with another input."""


class FlowNotWaiting(PersistasaurusError):
    """The flow does not wait for what was resumed, or the step is not one of its own."""


class FlowFailed(PersistasaurusError):
    """A flow failed with an exception whose class is not loaded in this process.

    `type_name` is the qualified name of the class, `message` its text and `traceback_text` the
    traceback of the first run; no class is ever imported by a stored name.
    """

    def __init__(self, message: str = "", *, type_name: str = "", traceback_text: str = "") -> None:
        super().__init__(f"{type_name}: {message}" if type_name else message)
        self.type_name = type_name
        self.message = message
        self.traceback_text = traceback_text


class StepFailed(FlowFailed):
    """A step failed with an exception whose class is not loaded in this process."""


class FlowCancelled(PersistasaurusError):
    """The flow was cancelled."""


class FlowParked(PersistasaurusError):
    """The flow is not driven until someone retries or cancels it; the message says why."""


class NonDeterminismError(FlowParked):
    """The flow's code asks for something else than its execution log holds."""


class CipherError(PersistasaurusError):
    """A stored text cannot be decrypted: its key is missing or wrong, or it was changed or moved."""


class SerializationError(PersistasaurusError):
    """A value cannot be written as JSON text and read back as the same value."""


class StoreError(PersistasaurusError):
    """The database could not be opened, read or written."""


class OutcomeUnknownError(StoreError):
    """The connection to the database was lost during a commit, and whether that happened is not known yet."""

    mark = 0  # which of the store's transactions that was; for the library itself


class StoreMovedError(StoreError):
    """The database is out of service: its flows were, or are being, promoted to another one."""


class StoreVersionError(StoreError):
    """The database was written by a newer version of the library."""


class DamagedRecordError(StoreError):
    """A stored row does not match its checksum, or a row of a flow's history is missing."""


class LeaseLost(PersistasaurusError):
    """Another worker has taken over this worker's flows; nothing it asked for was written."""
