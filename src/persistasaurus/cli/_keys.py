"""The keys of a command: from the environment alone, for flags are seen by everybody on the machine."""

from __future__ import annotations

import os
from collections.abc import Mapping

from persistasaurus._cipher import Cipher
from persistasaurus.cli._exit import Exit, Refusal
from persistasaurus.errors import UsageError

VARIABLE = "PERSISTASAURUS_KEYS"


def cipher_here(environment: Mapping[str, str] = os.environ) -> Cipher | None:
    """Return the cipher of the keys that the environment holds, None where it holds none.

    Raises:
        Refusal: they are no keys, or the extra is not installed; the message repeats none of them.
    """
    text = environment.get(VARIABLE)
    if not text:
        return None
    try:
        from persistasaurus.crypto import AesGcm  # noqa: PLC0415 (an extra)

        return AesGcm.from_text(text)
    except (ImportError, UsageError) as error:
        raise Refusal(f"{VARIABLE}: {error}", Exit.USAGE) from error
