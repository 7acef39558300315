"""Looks for damage in a SQLite store: each flow against its checksums, and the file's own structure."""

# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false
# The stubs of apsw say Buffer, which typing knows from Python 3.12 on.

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing
from pathlib import Path
from types import TracebackType
from typing import NamedTuple, Self

from persistasaurus._engine.history import verify, verify_outcome
from persistasaurus._model import STATUS_BY_CODE
from persistasaurus._store._sqlite_errors import explained
from persistasaurus._store._sqlite_open import connect, resolve
from persistasaurus._store._sqlite_rows import read_rows
from persistasaurus._store.base import History
from persistasaurus._store.checksum import signal_checksum
from persistasaurus._store.sqlite import SqliteStore
from persistasaurus.errors import DamagedRecordError

PAGE = 500


class Finding(NamedTuple):
    """Something that is damaged: a flow's record, or with no id the file itself."""

    flow_id: str | None
    problem: str


class Verification:
    """One pass over a store; nothing in it is changed, and workers may go on meanwhile."""

    def __init__(self, path: Path) -> None:
        self._path = resolve(path)
        self._store = SqliteStore(path)
        self._undo = ExitStack()
        self.checked = 0

    def __enter__(self) -> Self:
        self._store.open()
        self._undo.callback(self._store.close)
        self._connection = connect(self._path, durability="full", writing=False)
        self._undo.enter_context(closing(self._connection))
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None
    ) -> None:
        self._undo.close()

    def count(self) -> int:
        """Return how many flows there are now."""
        with explained(self._path):
            return int(read_rows(self._connection, "SELECT count(*) FROM flow")[0][0])

    def findings(self, advance: Callable[[], object]) -> Iterator[Finding]:
        """Yield what is damaged; `advance` is called after each flow.

        Raises:
            StoreError: the file cannot be read at all.
        """
        yield from self._structure()
        names = {name: number for number, name in self._store.names().items()}
        for key, flow_id in self._keys():
            try:
                history = self._store.load(key)
                self._check(history, key, names)
            except DamagedRecordError as error:
                yield Finding(flow_id, str(error))
            self.checked += 1
            advance()

    def _check(self, history: History | None, key: int, names: dict[tuple[str, str], int]) -> None:
        if history is None:
            if read_rows(self._connection, "SELECT 1 FROM flow WHERE flow_key = ?", (key,)):
                raise DamagedRecordError("Its row names a flow that the table of names does not have.")
            return
        flow = history.flow
        name = (flow.class_name, flow.method_name)
        if name not in names:
            # Started since this pass began.
            names.update({name: number for number, name in self._store.names().items()})
        verify(history, names[name])
        if STATUS_BY_CODE[flow.status].ended:
            verify_outcome(flow)
        for signal in history.mailbox.signals:
            expected = signal_checksum(signal.flow_id, signal.name, signal.payload, signal.sent_at_ms)
            if expected != signal.checksum:
                raise DamagedRecordError(f"Its pending signal {signal.name!r} does not match its checksum.")

    def _structure(self) -> Iterator[Finding]:
        with explained(self._path):
            for (line,) in read_rows(self._connection, "PRAGMA integrity_check"):
                if line != "ok":
                    yield Finding(None, f"SQLite's integrity_check reports: {line}")
            orphans = read_rows(
                self._connection,
                "SELECT DISTINCT flow_key FROM step WHERE flow_key NOT IN (SELECT flow_key FROM flow)",
            )
        if orphans:
            keys = json.dumps([key for (key,) in orphans[:10]])
            yield Finding(
                None, f"{len(orphans)} flows have steps but no row of their own (flow_key in {keys})."
            )

    def _keys(self) -> Iterator[tuple[int, str]]:
        after = -1
        while True:
            with explained(self._path):
                page = read_rows(
                    self._connection,
                    # hex: an id that is no text any more is shown all the same.
                    "SELECT flow_key, hex(flow_id) FROM flow WHERE flow_key > ? ORDER BY flow_key LIMIT ?",
                    (after, PAGE),
                )
            for key, flow_id in page:
                yield key, bytes.fromhex(flow_id).decode(errors="replace")
            if len(page) < PAGE:
                return
            after = page[-1][0]
