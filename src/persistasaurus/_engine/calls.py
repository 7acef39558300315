"""What the code of a flow asks its driver for; each colour of flow answers in its own way."""

from __future__ import annotations

import random
from abc import ABC, abstractmethod
from collections.abc import Coroutine
from typing import TYPE_CHECKING, Any
from uuid import UUID

if TYPE_CHECKING:
    from persistasaurus._engine.operation import Operation
    from persistasaurus._engine.registry import StepDefinition, Target
    from persistasaurus._engine.signals import Signal
    from persistasaurus._store.base import FlowRow


class Calls(ABC):
    """The durable operations of a flow, and its randomness, which takes no step.

    Raises:
        WrongContextError: the operation is not one for a flow of this colour; the message says the cure.
    """

    flow: FlowRow
    _random: random.Random | None = None

    def rng(self) -> random.Random:
        """Return the flow's own generator, the same in every replay."""
        if self._random is None:
            self._random = random.Random(self.flow.seed)  # noqa: S311 - determinism is the point
        return self._random

    def uuid(self) -> UUID:
        """Return the next UUID of the flow, the same in every replay."""
        return UUID(int=self.rng().getrandbits(128), version=4)

    @abstractmethod
    def call_step(self, definition: StepDefinition, instance: Any, args: Any, kwargs: Any) -> Any:
        """Run a step: in a sync flow return its value, in an async one its coroutine."""

    @abstractmethod
    def submit_step(self, definition: StepDefinition, instance: Any, args: Any, kwargs: Any) -> Operation:
        """Ask for a step without waiting for it."""

    @abstractmethod
    def call_flow(self, target: Target, args: Any, kwargs: Any) -> Any:
        """Run a child flow: in a sync flow return its result, in an async one its coroutine."""

    @abstractmethod
    def submit_flow(self, target: Target, args: Any, kwargs: Any) -> Operation:
        """Start a child flow without waiting for it."""

    @abstractmethod
    def await_signal(self, signal: Signal[Any]) -> Coroutine[Any, Any, Any]:
        """Wait for the next value of a signal in an async flow."""

    @abstractmethod
    def wait_signal(self, signal: Signal[Any], timeout_ms: int | None) -> Any:
        """Wait for the next value of a signal in a sync flow."""

    @abstractmethod
    def wait_for(self, definition: StepDefinition, instance: Any, timeout_ms: int | None) -> Any:
        """Wait until somebody resumes a step, then run it; in an async flow return its coroutine."""

    @abstractmethod
    def sleep(self, duration_ms: int) -> None:
        """Sleep durably in a sync flow."""
