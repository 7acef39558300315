"""How what a flow has running comes to its end when the flow is dropped from memory: without a sound."""

from __future__ import annotations

import gc
import inspect
from collections import deque
from collections.abc import AsyncGenerator, Iterator, Sized
from contextvars import Context
from types import AsyncGeneratorType, CoroutineType, GeneratorType
from typing import Any, cast

_CONTAINERS = frozenset({list, tuple, dict, set, frozenset, deque})
_LONGEST = 1_000
_MOST_LOOKED_AT = 10_000
_MOST_TRIES = 100


def close_coroutine(coroutine: Any, context: Context) -> None:
    """Close a suspended coroutine in its context; whatever its `finally` blocks raise is lost.

    The context says which flow the code belongs to. Without it, a step that a `finally` block calls would
    pass for a plain call, and run.
    """
    for unstarted in _unstarted(coroutine):
        unstarted.close()
    # A `finally` block that awaits keeps the coroutine from closing; the next try goes on from there.
    for _ in range(_MOST_TRIES):
        try:
            context.run(coroutine.close)
        except RuntimeError:
            continue
        except KeyboardInterrupt:
            raise
        except BaseException:  # noqa: BLE001 - what a dropped flow's clean-up raises concerns nobody
            return  # a step that it asks for raises Halt, which has to end here: others are to be closed yet
        return


def close_generator(generator: AsyncGenerator[Any, Any], context: Context) -> None:
    """Close what an unfinished async generator waits for; the generator itself ends without running."""
    awaited: Any = getattr(generator, "ag_await", None)
    if awaited is not None:
        close_coroutine(awaited, context)


def is_exhausted(generator: AsyncGenerator[Any, Any]) -> bool:
    """Whether an async generator has come to its end."""
    return getattr(generator, "ag_frame", None) is None


def leave_unfinished(generator: AsyncGenerator[Any, Any]) -> None:
    """Do nothing where asyncio runs the generator's `finally`: the moment would be the collector's choice."""


def _unstarted(coroutine: Any) -> Iterator[Any]:
    """Find coroutines that the flow has made and not awaited yet; Python would warn of each.

    It looks at the local variables of the coroutines and into the built-in containers there.
    """
    seen: set[int] = set()
    front: list[object] = [coroutine]
    for _ in range(_MOST_LOOKED_AT):
        if not front:
            return
        found = front.pop()
        if id(found) in seen or not _can_hold(found):
            continue
        seen.add(id(found))
        if _is_unstarted(found):
            yield found
        else:
            front.extend(gc.get_referents(found))


def _is_unstarted(found: Any) -> bool:
    return inspect.iscoroutine(found) and inspect.getcoroutinestate(found) == inspect.CORO_CREATED


def _can_hold(found: object) -> bool:
    """Whether a coroutine may be in it, at a bearable cost."""
    if isinstance(found, CoroutineType | GeneratorType | AsyncGeneratorType):
        return True
    return type(found) in _CONTAINERS and len(cast("Sized", found)) <= _LONGEST
