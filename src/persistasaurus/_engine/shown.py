"""What people are shown of stored texts: decrypted where the key is here, secrets and named fields masked."""

# Values of any type are walked here, and pyright calls what they hold unknown.
# pyright: reportUnknownArgumentType=false, reportUnknownMemberType=false, reportUnknownVariableType=false

from __future__ import annotations

import json
from typing import Any

from persistasaurus._cipher import is_encrypted
from persistasaurus._engine.texts import ERROR, INPUT, RESULT, Texts, of_step
from persistasaurus._secret import MARK, MASK
from persistasaurus._store.base import FlowRow, History, StepRow
from persistasaurus.errors import CipherError

_MARKED = f'"{MARK}"'


class Shown:
    """Turns stored rows into rows for eyes; the engine never drives a flow by these."""

    def __init__(self, texts: Texts, redact: frozenset[str]) -> None:
        self._texts = texts
        self._redact = redact

    def history(self, history: History) -> History:
        """Return a flow's rows as they may be shown; its mailbox as it is, for its values are never shown."""
        flow_id = history.flow.flow_id
        steps = [self.step(flow_id, row) for row in history.steps]
        return history._replace(flow=self.flow(history.flow), steps=steps)

    def flow(self, row: FlowRow) -> FlowRow:
        """Return a flow's row as it may be shown."""
        return row._replace(
            input=self._text(row.input, row.flow_id, INPUT) or "",
            result=self._text(row.result, row.flow_id, RESULT),
            error=self._text(row.error, row.flow_id, ERROR),
        )

    def step(self, flow_id: str, row: StepRow) -> StepRow:
        """Return a step's row as it may be shown."""
        parameters, return_value, error = of_step(row.step)
        return row._replace(
            parameters=self._text(row.parameters, flow_id, parameters),
            return_value=self._text(row.return_value, flow_id, return_value),
            error=self._text(row.error, flow_id, error),
        )

    def _text(self, text: str | None, flow_id: str, place: str) -> str | None:
        if text is None:
            return None
        if is_encrypted(text):
            try:
                text = self._texts.open(text, flow_id, place)
            except CipherError as error:
                is_error = place.endswith(ERROR)
                told = {"type": "Encrypted", "message": str(error)} if is_error else {"encrypted": str(error)}
                return json.dumps(told, ensure_ascii=False, separators=(",", ":"))
        if not self._redact and _MARKED not in text:
            return text
        try:
            value = json.loads(text)
        except ValueError:
            return text  # a damaged row, which is shown as it is
        return json.dumps(self._masked(value), ensure_ascii=False, separators=(",", ":"))

    def _masked(self, value: Any) -> Any:
        """Return a JSON value without its secrets; it is nested no deeper than the codec allows."""
        if isinstance(value, list):
            return [self._masked(part) for part in value]
        if not isinstance(value, dict):
            return value
        if value.keys() == {MARK}:
            return MASK
        return {
            key: MASK if key.lower() in self._redact and part is not None else self._masked(part)
            for key, part in value.items()
        }
