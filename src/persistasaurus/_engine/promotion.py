"""Promotes a store: moves everything in it, flows in flight too, to another one.

At no moment are both stores in service. The source is taken out of it first; the target comes into it once
the digests over all rows match and the source says that its flows have left. Whatever is interrupted before
that is gone on with by the same call, or given up by `abandon`.
"""

from __future__ import annotations

import uuid
from contextlib import closing
from typing import NamedTuple

from persistasaurus._engine.recovery import take_over_the_dead
from persistasaurus._store.backup import Progress
from persistasaurus._store.base import Store
from persistasaurus._store.digest import Digest, readable
from persistasaurus._store.service import Mark, Service
from persistasaurus._store.whole import FLOW, TABLES, Snapshot, Table, WholeStore, batches
from persistasaurus.errors import StoreError


class Promoted(NamedTuple):
    """What was moved."""

    flows: int
    rows: int
    digest: str | None
    """None where an earlier call had compared the digests already."""


class Promotion:
    """One move from `source` to `target`, both open. `driven` is the source as an app sees it, not open."""

    def __init__(self, source: WholeStore, target: WholeStore, driven: Store, *, progress: Progress) -> None:
        self._source = source
        self._target = target
        self._driven = driven
        self._progress = progress
        self._total = 0

    def run(self) -> Promoted:
        """Move everything, or go on with a move that was interrupted.

        Raises:
            StoreError: a worker is on the source, the target is not empty, either cannot be used, or the
                copy differs; the target is then not in service.
        """
        there = self._target.mark()
        mark = self._source.mark()
        if mark is None or mark.in_service:
            self._check_target(there)
            mark = self._leave(mark, there)
        elif mark.state == Service.LEFT:
            return self._after_leaving(mark, there)
        elif (there is None or there.token != mark.token) and mark.place != self._target.shown:
            raise StoreError(
                f"The database {self._source.shown} is being promoted to {mark.place} already. Finish that "
                "with the same two addresses, or give it up with --abandon."
            )
        else:
            self._prepare_target(mark, there)
        digest = self._copy_and_compare(mark)
        self._source.set_mark(mark._replace(state=Service.LEFT), instead_of=mark)
        self._arrive(mark)
        with self._target.snapshot() as snapshot:
            return Promoted(snapshot.count(FLOW), self._total, digest)

    def abandon(self) -> None:
        """Put the source of an unfinished promotion back in service, and empty the target.

        Raises:
            StoreError: the flows have left already, or there is no promotion.
        """
        mark = self._source.mark()
        if mark is None or mark.state != Service.LEAVING:
            raise StoreError(
                f"The database {self._source.shown} is not being promoted: there is nothing to give up."
                if mark is None or mark.in_service
                else f"The flows of the database {self._source.shown} have left for {mark.place}. To move "
                "them back, promote that one to a new database."
            )
        there = self._target.mark()
        self._source.set_mark(None, instead_of=mark)
        if there is not None and there.state == Service.ARRIVING and there.token == mark.token:
            self._target.clear(mark.token)
            self._target.set_mark(None, instead_of=there)

    def _check_target(self, there: Mark | None) -> None:
        if there is not None and not there.in_service:
            if there.state == Service.ARRIVING and there.place == self._source.shown:
                return
            raise StoreError(
                f"The database {self._target.shown} is part of another promotion, with {there.place}. Give "
                "another target."
            )
        if not self._target.is_empty():
            raise StoreError(
                f"The database {self._target.shown} is not empty: it has flows, names of flows, or a worker. "
                "Give a new one (for PostgreSQL another ?schema= will do)."
            )

    def _leave(self, before: Mark | None, there: Mark | None) -> Mark:
        """Take the source out of service, and the target for it."""
        self._check_quiet()
        mark = Mark(Service.LEAVING, self._target.shown, uuid.uuid4().hex)
        self._source.take_out_of_service(mark, instead_of=before, empty=False)
        try:
            self._prepare_target(mark, there)
        except StoreError:
            self._source.set_mark(before, instead_of=mark)
            raise
        return mark

    def _check_quiet(self) -> None:
        with closing(self._driven) as store:
            store.open()
            clock = store.clock
            take_over_the_dead(store, store.workers(), me=0, now_ms=clock.now_ms())
            living = [f"process {worker.pid} on {worker.host}" for worker in store.workers()]
        if living:
            raise StoreError(
                f"{len(living)} workers are on the database {self._source.shown}: {', '.join(living[:5])}. "
                "Nothing was changed. Stop them first; one that was killed on another machine counts until "
                "its lease is over."
            )

    def _prepare_target(self, mark: Mark, there: Mark | None) -> None:
        if there is not None and there.state == Service.ARRIVING:
            if there.token == mark.token:
                return
            # Of a promotion that was given up: the source has gone on since.
            self._target.clear(there.token)
            self._target.set_mark(None, instead_of=there)
            there = None
        self._target.take_out_of_service(self._arriving(mark), instead_of=there, empty=True)

    def _copy_and_compare(self, mark: Mark) -> str:
        with self._source.snapshot() as snapshot:
            self._total = sum(snapshot.count(table) for table in TABLES)
            for table in TABLES:
                self._copy(snapshot, table, mark.token)
            self._target.receive_sequences(snapshot.sequences(), token=mark.token)
            ours = self._digest(snapshot, self._source, "source compared")
        with self._target.snapshot() as snapshot:
            theirs = self._digest(snapshot, self._target, "target compared")
        different = [table.name for table in TABLES if ours.of(table) != theirs.of(table)]
        if different:
            raise StoreError(
                f"The copy in {self._target.shown} differs from {self._source.shown} in the tables "
                f"{', '.join(different)}: somebody has written to one of them. Give the promotion up with "
                "--abandon, and begin again."
            )
        return str(ours)

    def _copy(self, snapshot: Snapshot, table: Table, token: str) -> None:
        last = self._target.last_key(table)
        with self._target.snapshot() as there:
            done, total = there.count(table), snapshot.count(table)
        rows = (readable(table, row, self._source.shown) for row in snapshot.rows(table, after=last))
        for batch in batches(rows):
            self._target.receive(table, batch, after=last, token=token)
            last = table.key_of(batch[-1])
            done += len(batch)
            self._progress(f"{table.name}s copied", done, total)

    def _digest(self, snapshot: Snapshot, store: WholeStore, what: str) -> Digest:
        digest = Digest()
        done = 0
        for table in TABLES:
            for row in snapshot.rows(table):
                digest.add(table, readable(table, row, store.shown))
                done += 1
                if done % 1000 == 0:
                    self._progress(what, done, self._total)
        return digest

    def _after_leaving(self, mark: Mark, there: Mark | None) -> Promoted:
        """Finish what was interrupted after the digests had matched."""
        if there is None or there.token != mark.token:
            raise StoreError(
                f"The flows of the database {self._source.shown} were promoted to {mark.place}. To move them "
                "again, promote that one."
            )
        if not there.in_service:
            self._arrive(mark)
        with self._target.snapshot() as snapshot:
            rows = sum(snapshot.count(table) for table in TABLES)
            return Promoted(snapshot.count(FLOW), rows, None)

    def _arrive(self, mark: Mark) -> None:
        arriving = self._arriving(mark)
        self._target.set_mark(arriving._replace(state=Service.ARRIVED), instead_of=arriving)

    def _arriving(self, mark: Mark) -> Mark:
        return Mark(Service.ARRIVING, self._source.shown, mark.token)
