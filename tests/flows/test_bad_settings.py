"""Settings and addresses of an app that make no sense: refused where the app is made."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from persistasaurus import Persistasaurus, UsageError


@pytest.mark.parametrize(
    "settings",
    [
        *(
            {name: wrong}
            for name in ("max_payload", "max_steps", "crash_limit", "flow_threads", "capacity")
            for wrong in (0, "x")
        ),
        {"step_threads": -1},
        {"capacity": 1.5},
        {"max_payload": True},
        {"residents": -1},
        {"residents": "x"},
        {"worker": "no"},
        {"durability": "none"},
        {"durability": None},
        {"clock": 3},
        {"observer": 3},
        {"lease": 0},
        {"keep": 0},
        {"keep": timedelta(0)},
        {"cipher": "key"},
        {"redact": "password"},
        {"redact": [3]},
        {"redact": 3},
    ],
    ids=str,
)
def test_a_setting_that_makes_no_sense_is_refused_where_the_app_is_made(settings: dict[str, Any]) -> None:
    """The message names it."""
    with pytest.raises(ValueError, match=f"^{next(iter(settings))}=.*(give|Give|Leave)"):
        Persistasaurus(":memory:", **settings)


@pytest.mark.parametrize("name", ["drain", "lease", "keep"])
def test_a_duration_that_is_none_is_refused_where_the_app_is_made(name: str) -> None:
    """Negative or without an end, or no duration at all; the message names the setting."""
    for wrong in (-1, float("nan"), float("inf"), timedelta(days=-1)):
        with pytest.raises(ValueError, match=f"^{name} is .*[Gg]ive"):
            Persistasaurus(":memory:", **{name: wrong})  # type: ignore[arg-type]
    for no_duration in ("30d", datetime(2030, 1, 1), datetime(2030, 1, 1, tzinfo=UTC), True):
        with pytest.raises(TypeError, match=f"^{name} is of type .* Give a number of seconds or a timedelta"):
            Persistasaurus(":memory:", **{name: no_duration})  # type: ignore[arg-type]


WRONG_ADDRESSES: dict[str, tuple[Any, str]] = {
    "empty": ("", 'The database address is empty or holds a NUL. Give a path such as "flows.db".'),
    "NUL": ("a\0b", 'The database address is empty or holds a NUL. Give a path such as "flows.db".'),
    "NUL in a URL": ("sqlite:///%00", "names no file. Write sqlite:///flows.db"),
    "no file in a URL": (
        "sqlite:///",
        "names no file. Write sqlite:///flows.db, or sqlite:// for one in memory.",
    ),
    "two slashes": ("sqlite://flows.db", "write sqlite:///relative.db or sqlite:////absolute.db"),
    "no slashes": (
        "sqlite:flows.db",
        "There is no store for the address 'sqlite:flows.db'. Give a path, sqlite:///",
    ),
    "parameters": ("sqlite:///flows.db?mode=ro", "sqlite:////absolute.db, without parameters."),
    "another store": (
        "mysql://localhost/flows",
        "There is no store for the address 'mysql://localhost/flows'. Give",
    ),
    "None": (None, "A database is named by a path or a URL, not by None. Give a path such as 'flows.db'."),
    "bytes": (b"flows.db", "A database is named by a path or a URL, not by b'flows.db'. Give a path"),
    "number": (3, "A database is named by a path or a URL, not by 3. Give a path"),
}


@pytest.mark.parametrize("kind", WRONG_ADDRESSES)
def test_an_address_that_means_no_database_is_refused_where_the_app_is_made(
    kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And no file is made of it."""
    monkeypatch.chdir(tmp_path)
    address, message = WRONG_ADDRESSES[kind]
    with pytest.raises(UsageError, match=message.replace("?", r"\?")):
        Persistasaurus(address)
    assert list(tmp_path.iterdir()) == []
