"""How a text is encrypted: what a cipher must do, and the form in which its work is stored."""

from __future__ import annotations

import json
from binascii import Error as Base64Error
from binascii import a2b_base64, b2a_base64
from typing import NamedTuple, Protocol, runtime_checkable

_BEGINNING = '{"encrypted": '
"""The codec writes no space behind a colon: no value that was recorded plainly begins so."""


@runtime_checkable
class Cipher(Protocol):
    """Encrypts what is stored, and decrypts it again; called from several threads at a time.

    `bound_to` says where the text belongs (the flow, the step, the column). It is no secret, is not stored
    with the text, and must be authenticated: a text that was moved to another place must not decrypt.
    """

    def encrypt(self, text: bytes, *, bound_to: bytes) -> tuple[str, bytes]:
        """Return the id of the key that was used, and the encrypted text."""
        ...

    def decrypt(self, data: bytes, *, key_id: str, bound_to: bytes) -> bytes:
        """Return the text.

        Raises:
            CipherError: there is no such key here, or the data was not encrypted with it for this place.
        """
        ...


class Envelope(NamedTuple):
    """An encrypted text as it is stored: a JSON object, so that tools that read the log go on working."""

    key_id: str
    data: bytes

    def text(self) -> str:
        """Return what is stored."""
        key = json.dumps(self.key_id, ensure_ascii=False)
        return f'{_BEGINNING}{key}, "data": "{b2a_base64(self.data, newline=False).decode()}"}}'


def is_encrypted(text: str) -> bool:
    """Whether a stored text is an envelope."""
    return text.startswith(_BEGINNING)


def read_envelope(text: str) -> Envelope:
    """Return a stored envelope.

    Raises:
        ValueError: it is none any more.
    """
    try:
        parts = json.loads(text)
        return Envelope(str(parts["encrypted"]), a2b_base64(parts["data"], strict_mode=True))
    except (KeyError, TypeError, Base64Error) as error:
        raise ValueError("it is not whole") from error
