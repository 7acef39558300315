"""Where a PostgreSQL store is: the server, the database and the schema in it."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cache
from urllib.parse import unquote_plus

import psycopg
from psycopg.conninfo import conninfo_to_dict, make_conninfo

from persistasaurus.errors import UsageError

DEFAULT_SCHEMA = "persistasaurus"

# A server that is gone without a word is noticed in some 20 seconds, not in the hours that TCP allows.
# All of them are the client's own: nothing is set in the server, which may stand behind a pooler.
_WHERE_THE_URL_IS_SILENT = {
    "connect_timeout": "10",
    "keepalives": "1",
    "keepalives_idle": "10",
    "keepalives_interval": "3",
    "keepalives_count": "3",
    "tcp_user_timeout": "20000",
    "application_name": "persistasaurus",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Address:
    """What a URL says; `shown` is for messages and has no password."""

    conninfo: str = field(repr=False)
    schema: str
    shown: str

    @property
    def place(self) -> str:
        """What is shown, and the schema."""
        return f"{self.shown} (schema {self.schema})"


def address_of(url: str, schema: str | None) -> Address:
    """Read a URL, and the schema beside it or in its `?schema=`.

    Raises:
        UsageError: it is no URL of PostgreSQL, or the schema is none of ours; the message has no password.
    """
    server, in_url = _without_schema(url)
    if schema is not None and in_url is not None and schema != in_url:
        raise UsageError(
            f"The URL says schema {in_url!r:.80} and the setting schema={schema!r:.80}. Keep one."
        )
    named = schema if schema is not None else in_url if in_url is not None else DEFAULT_SCHEMA
    check_schema(named)
    given = _read(server)
    parameters = {**_WHERE_THE_URL_IS_SILENT, **given, "client_encoding": "UTF8"}
    return Address(conninfo=make_conninfo("", **parameters), schema=named, shown=_shown(given))


def check_schema(schema: object) -> None:
    """Refuse what is no plain name of a schema.

    Raises:
        UsageError: it is none.
    """
    plain = isinstance(schema, str) and re.fullmatch(r"[A-Za-z_][A-Za-z0-9_]{0,62}", schema)
    if not plain or str(schema).startswith("pg_"):
        raise UsageError(
            f"schema={schema!r:.80} is no plain name. Use letters, digits and underscores, at most 63, not "
            "beginning with a digit or pg_."
        )


def _read(server: str) -> dict[str, str | int | None]:
    """Return what the driver makes of a URL; its own words are not repeated, for they quote the password."""
    _check_parameters(server.partition("?")[2])
    try:
        given: dict[str, str | int | None] = {**conninfo_to_dict(server)}
    except (psycopg.Error, ValueError):
        given = {}
        is_read = False
    else:
        # A password that is not escaped ends at its first @ or /: the rest passes for a host or a port.
        host, port = str(given.get("host", "")), str(given.get("port", ""))
        is_read = "@" not in host and re.fullmatch(r"[0-9,]*", port) is not None
    if not is_read:
        raise UsageError(
            "The database URL cannot be read. Write postgresql://user:password@host:5432/database, with "
            "special characters of the user and the password as %40 and the like."
        )
    return given


def _check_parameters(query: str) -> None:
    if "@" in query:
        return  # it may be the rest of a password that holds a question mark
    for name in (unquote_plus(part.partition("=")[0]) for part in query.split("&") if part):
        if name not in _known_parameters():
            raise UsageError(
                f"The database URL has a parameter {name!r:.80} that neither PostgreSQL nor this library "
                "knows. Leave it out, or correct its name."
            )


@cache
def _known_parameters() -> frozenset[str]:
    return frozenset(option.keyword.decode() for option in psycopg.pq.Conninfo.get_defaults())


def _without_schema(url: str) -> tuple[str, str | None]:
    server, mark, query = url.partition("?")
    if not mark:
        return url, None
    parts = query.split("&")
    ours = [part for part in parts if part.partition("=")[0] == "schema"]
    rest = "&".join(part for part in parts if part not in ours)
    schema = unquote_plus(ours[-1].partition("=")[2]) if ours else None
    return server + ("?" + rest if rest else ""), schema


def _shown(given: Mapping[str, object]) -> str:
    user = f"{given['user']}@" if given.get("user") else ""
    place = str(given.get("host") or given.get("hostaddr") or "")
    port = f":{given['port']}" if given.get("port") else ""
    return f"'postgresql://{user}{place}{port}/{given.get('dbname') or ''}'"
