"""Names of flows, steps and signals, and the numbers that stand for them."""

from __future__ import annotations

import hashlib
import json

from persistasaurus._store._pg_rows import Session


def intern(session: Session, name: tuple[str, str]) -> int:
    """Return the number of a name; one transaction where the name is new."""
    digest = digest_of(name)
    found = session.rows("SELECT name_id FROM {schema}.name WHERE digest = $1", (digest,))
    if not found:
        session.send(
            """
            INSERT INTO {schema}.name (class_name, method_name, digest) VALUES ($1, $2, $3)
            ON CONFLICT DO NOTHING
            """,
            (*name, digest),
        )
        found = session.rows("SELECT name_id FROM {schema}.name WHERE digest = $1", (digest,))
    return int(found[0][0])


def digest_of(name: tuple[str, str]) -> str:
    """Return what a name is found by: it may itself be longer than an index can hold."""
    return hashlib.sha256(json.dumps(name).encode()).hexdigest()
