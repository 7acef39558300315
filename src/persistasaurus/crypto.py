"""Encryption of what is stored: AES-256 in Galois/counter mode, with keys that can be changed.

Needs the extra `crypto`: `pip install persistasaurus[crypto]`.
"""

from __future__ import annotations

import os
from base64 import b64decode, b64encode
from binascii import Error as Base64Error
from collections.abc import Mapping

try:
    from cryptography.exceptions import InvalidTag
    from cryptography.hazmat.primitives.ciphers.aead import AESGCM
except ImportError as missing:
    raise ImportError(
        "persistasaurus.crypto needs the package cryptography. Install persistasaurus[crypto]."
    ) from missing

from persistasaurus.errors import CipherError, UsageError

__all__ = ["AesGcm"]

KEY_BYTES = 32
NONCE_BYTES = 12


class AesGcm:
    """A cipher for `Persistasaurus(url, cipher=...)`.

    `keys` is 32 bytes by id, the newest last: with it everything new is encrypted, with the others what was
    recorded under them is read. An id is stored beside each text; it is no secret.

    Each text gets a random nonce of 96 bits: change the key before it has encrypted 4 billion texts (NIST SP
    800-38D, 8.3).

    Raises:
        UsageError: there is no key, or one has not 32 bytes.
    """

    __slots__ = ("_keys", "_newest")

    def __init__(self, keys: Mapping[str, bytes]) -> None:
        if not keys:
            raise UsageError("AesGcm needs a key. Make one with AesGcm.new_key() and keep it safe.")
        for key_id, key in keys.items():
            if len(key) != KEY_BYTES:
                raise UsageError(
                    f"The key {key_id!r} has {len(key)} bytes. Give {KEY_BYTES}, as of AesGcm.new_key()."
                )
        self._keys = {key_id: AESGCM(bytes(key)) for key_id, key in keys.items()}
        self._newest = next(reversed(self._keys))

    def __repr__(self) -> str:
        return f"AesGcm(keys {', '.join(map(repr, self._keys))})"

    @classmethod
    def from_text(cls, text: str) -> AesGcm:
        """Return the cipher of `id:base64,id:base64`, the newest key last, as an environment variable has it.

        Raises:
            UsageError: the text is none; the message does not repeat it.
        """
        keys: dict[str, bytes] = {}
        for number, part in enumerate(text.split(","), 1):
            key_id, separator, key = part.strip().partition(":")
            try:
                keys[key_id] = b64decode(key, validate=True)
            except Base64Error:
                separator = ""
            if not separator or not key_id:
                raise UsageError(
                    f"Key {number} is not written as id:base64. Give it an id, a colon and what "
                    "AesGcm.new_key_text() makes."
                )
        return cls(keys)

    @staticmethod
    def new_key() -> bytes:
        """Return a new random key."""
        return os.urandom(KEY_BYTES)

    @classmethod
    def new_key_text(cls) -> str:
        """Return a new random key as base64, for `from_text`."""
        return b64encode(cls.new_key()).decode()

    def encrypt(self, text: bytes, *, bound_to: bytes) -> tuple[str, bytes]:
        """Return the id of the newest key, and the text encrypted with it."""
        nonce = os.urandom(NONCE_BYTES)
        return self._newest, nonce + self._keys[self._newest].encrypt(nonce, text, bound_to)

    def decrypt(self, data: bytes, *, key_id: str, bound_to: bytes) -> bytes:
        """Return the text of what was encrypted for this place.

        Raises:
            CipherError: the key is not here, or the data is not what it encrypted for this place.
        """
        key = self._keys.get(key_id)
        if key is None:
            raise CipherError(f"the key {key_id!r} is not among the keys of this app")
        try:
            return key.decrypt(data[:NONCE_BYTES], data[NONCE_BYTES:], bound_to)
        except (InvalidTag, ValueError) as error:
            raise CipherError(
                f"the key {key_id!r} here is another one, or the text was changed or moved"
            ) from error
