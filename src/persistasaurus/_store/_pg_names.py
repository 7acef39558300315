"""Names of flows, steps and signals, and the numbers that stand for them."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence

from persistasaurus._store._pg_rows import Session, texts


def intern(session: Session, names: Sequence[tuple[str, str]]) -> dict[tuple[str, str], int]:
    """Return the numbers of names; one transaction where one is new."""
    # Always in the same order: two that insert the same names would else wait for each other.
    asked = {digest_of(name): name for name in names}
    digests = sorted(asked)
    found = _find(session, digests)
    new = [digest for digest in digests if digest not in found]
    if new:
        columns = zip(*((*asked[digest], digest) for digest in new), strict=True)
        session.send(
            """
            INSERT INTO {schema}.name (class_name, method_name, digest)
            SELECT * FROM unnest($1::text[], $2::text[], $3::text[])
            ON CONFLICT DO NOTHING
            """,
            [texts(column) for column in columns],
        )
        found |= _find(session, new)
    return {asked[digest]: name_id for digest, name_id in found.items()}


def _find(session: Session, digests: Sequence[str]) -> dict[str, int]:
    return dict(
        session.rows(
            "SELECT digest, name_id FROM {schema}.name WHERE digest = ANY($1::text[])", (texts(digests),)
        )
    )


def digest_of(name: tuple[str, str]) -> str:
    """Return what a name is found by: it may itself be longer than an index can hold."""
    return hashlib.sha256(json.dumps(name).encode()).hexdigest()
