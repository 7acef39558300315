"""Flow ids in paths, and cursors: texts of any characters as one segment of a path.

A segment is percent-encoded, as every client does it. Slashes in an id then arrive as `%2F`, which servers
decode before routes are matched: so routes are matched on the path as it was sent. Some proxies refuse or
decode `%2F`, and clients resolve `.` and `..` whatever their spelling: `base64:` and the id's UTF-8 in
base64url stands for any id, and the links that the API gives out use it where it is needed.
"""

from __future__ import annotations

import base64
import binascii
from urllib.parse import quote, unquote

from starlette.types import Scope

ENCODED = "base64:"
# No flow id holds a NUL, so one may stand for a slash within a segment while routes are matched.
STAND_IN = "\0"


def segment(flow_id: str) -> str:
    """Return a flow id as one segment of a path, for links."""
    if "/" in flow_id or "\\" in flow_id or flow_id in (".", "..") or flow_id.startswith(ENCODED):
        return ENCODED + base64.urlsafe_b64encode(flow_id.encode()).decode().rstrip("=")
    return quote(flow_id, safe=":@!$&'()*+,;=~")


def flow_id_of(decoded: str) -> str:
    """Return the flow id that a percent-decoded segment names.

    Raises:
        ValueError: it begins with `base64:` and goes on with something else.
    """
    if not decoded.startswith(ENCODED):
        return decoded
    text = decoded.removeprefix(ENCODED)
    try:
        return base64.b64decode(text + "=" * (-len(text) % 4), altchars=b"-_", validate=True).decode()
    except (binascii.Error, ValueError) as error:
        raise ValueError(
            f"{decoded!r:.80} is no flow id: behind 'base64:' must stand its UTF-8 in base64url. "
            "Use the `url` that the API gave, or percent-encode the id."
        ) from error


def path_as_sent(scope: Scope) -> str:
    """Return the decoded path of a request with `STAND_IN` for the slashes that were sent as `%2F`.

    Where the server keeps no raw path, or something in front has rewritten the path, it is the path as it is.
    """
    path: str = scope["path"]
    raw: bytes | None = scope.get("raw_path")
    if not raw or b"%2f" not in raw.lower():
        return path
    segments = raw.decode("latin-1").split("/")
    decoded = "/".join(unquote(one).replace("/", STAND_IN) for one in segments)
    return decoded if decoded.replace(STAND_IN, "/") == path and STAND_IN not in path else path


def as_cursor(key: int) -> str:
    """Return an opaque text for the place behind a row."""
    return base64.urlsafe_b64encode(f"k{key}".encode()).decode().rstrip("=")


def from_cursor(cursor: str) -> int:
    """Return the place that a cursor stands for.

    Raises:
        ValueError: this is none of ours.
    """
    try:
        text = base64.b64decode(cursor + "=" * (-len(cursor) % 4), altchars=b"-_", validate=True).decode(
            "ascii"
        )
        key = int(text.removeprefix("k"))
    except (binascii.Error, ValueError):
        text, key = "", -1
    if text != f"k{key}" or not 0 <= key < 1 << 62:
        raise ValueError("This cursor is none of this API's. Use `next` of the page before, as it is.")
    return key
