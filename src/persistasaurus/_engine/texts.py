"""Stored texts under a cipher: encrypted on their way to the store, decrypted on their way to the code.

Encrypted are inputs, parameters, results, errors and the values of signals. Each is bound to its place. The
checksums are over what is stored: they are checked without the key, and say nothing of what is encrypted.
"""

from __future__ import annotations

from typing import Any

from persistasaurus._cipher import Cipher, Envelope, is_encrypted, read_envelope
from persistasaurus._store.base import Batch, FlowUpdate, NewFlow, NewSignal, StepRow
from persistasaurus._store.checksum import flow_checksum, outcome_checksum, signal_checksum
from persistasaurus.errors import CipherError, StoreError

INPUT, RESULT, ERROR = "input", "result", "error"


def of_signal(name: str) -> str:
    """Return the place of a signal's value."""
    return f"signal\0{name}"


def of_step(step: int) -> tuple[str, str, str]:
    """Return the places of a step's parameters, return value and error."""
    return f"{step}\0parameters", f"{step}\0return_value", f"{step}\0error"


class Texts:
    """Seals and opens an app's texts. Without a cipher nothing is sealed, and what is sealed stays shut."""

    def __init__(self, cipher: Cipher | None) -> None:
        self._cipher = cipher
        self.plain = cipher is None
        """Whether there is no cipher; the way without one asks no more than this."""

    def seal(self, text: str | None, flow_id: str, place: str) -> str | None:
        """Return what to store of a text.

        Raises:
            StoreError: the cipher fails; nothing may be written then.
        """
        if self._cipher is None or text is None:
            return text
        try:
            return Envelope(*self._cipher.encrypt(text.encode(), bound_to=_bound(flow_id, place))).text()
        except Exception as error:
            raise StoreError(
                f"The cipher cannot encrypt ({type(error).__qualname__}: {error}), so nothing was written. "
                "Correct the cipher or its access to the keys."
            ) from error

    def open(self, text: str, flow_id: str, place: str) -> str:
        """Return the text that was sealed for this place; one that was stored plainly as it is.

        Raises:
            CipherError: the key is missing or wrong, or the text was changed or belongs elsewhere.
        """
        if not is_encrypted(text):
            return text
        try:
            return self._decrypted(read_envelope(text), _bound(flow_id, place))
        except CipherError as error:
            raise _unreadable(flow_id, place, str(error)) from error
        except Exception as error:  # a cipher is foreign code
            raise _unreadable(flow_id, place, f"{type(error).__qualname__}: {error}") from error

    def _decrypted(self, envelope: Envelope, bound_to: bytes) -> str:
        if self._cipher is None:
            raise CipherError(f"it is encrypted with key {envelope.key_id!r}, and this app has no cipher")
        return self._cipher.decrypt(envelope.data, key_id=envelope.key_id, bound_to=bound_to).decode()

    def open_steps(self, flow_id: str, rows: dict[int, StepRow]) -> dict[int, StepRow]:
        """Return a flow's rows with their texts opened; the same rows where nothing is sealed.

        Raises:
            CipherError: one of them cannot be.
        """
        opened = {step: self.open_step(flow_id, row) for step, row in rows.items() if _has_sealed(row)}
        return {**rows, **opened} if opened else rows

    def open_step(self, flow_id: str, row: StepRow) -> StepRow:
        """Return a row with its texts opened."""
        parameters, value, error = (
            None if text is None else self.open(text, flow_id, place)
            for text, place in zip(row[13:16], of_step(row.step), strict=True)
        )
        return row._replace(parameters=parameters, return_value=value, error=error)

    def seal_step(self, flow_id: str, row: tuple[Any, ...]) -> tuple[Any, ...]:
        """Return a step's row, which has no checksum yet, as it is to be stored."""
        if self.plain:
            return row
        places = of_step(row[1])
        sealed = (self.seal(text, flow_id, place) for text, place in zip(row[13:], places, strict=True))
        return (*row[:13], *sealed)

    def seal_update(self, flow_id: str, update: FlowUpdate) -> FlowUpdate:
        """Return a flow's state as it is to be stored."""
        if update.outcome_checksum is None:
            return update
        result = self.seal(update.result, flow_id, RESULT)
        error = self.seal(update.error, flow_id, ERROR)
        checksum = outcome_checksum(flow_id, update.status, result, error)
        return update._replace(result=result, error=error, outcome_checksum=checksum)

    def _seal_start(self, new: NewFlow) -> NewFlow:
        text = self.seal(new.input, new.flow_id, INPUT) or ""
        checksum = flow_checksum(new.flow_id, new.name_id, new.created_at_ms, new.seed, text)
        return new._replace(input=text, checksum=checksum)

    def _seal_signal(self, new: NewSignal) -> NewSignal:
        text = self.seal(new.payload, new.flow_id, of_signal(new.name)) or ""
        checksum = signal_checksum(new.flow_id, new.name, text, new.sent_at_ms)
        return new._replace(payload=text, checksum=checksum)

    def seal_orders(self, batch: Batch) -> None:
        """Seal what a batch starts and sends; its steps and updates are sealed already."""
        batch.starts = [self._seal_start(new) for new in batch.starts]
        batch.signals = [self._seal_signal(new) for new in batch.signals]


def _bound(flow_id: str, place: str) -> bytes:
    # Neither a flow id nor a signal's name holds a NUL: no two places read alike.
    return f"{flow_id}\0{place}".encode()


def _has_sealed(row: StepRow) -> bool:
    return any(text is not None and is_encrypted(text) for text in row[13:16])


def _unreadable(flow_id: str, place: str, why: str) -> CipherError:
    what = " ".join(reversed(place.split("\0"))) if place[0].isdigit() else place.replace("\0", " ")
    return CipherError(
        f"The text {what!r} of flow {flow_id!r} cannot be decrypted: {why}. Give the app a cipher= with the "
        "key that it was recorded with, then retry the flow; nothing is lost meanwhile."
    )
