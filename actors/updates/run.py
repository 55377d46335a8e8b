"""A run: one call of the handlers for one update. What the handlers do can ask for theirs with :func:`current_run`."""

from __future__ import annotations

from collections import Counter
from contextvars import ContextVar
from dataclasses import dataclass, field

from floodgate.broker.messages.update import Update


@dataclass(slots=True)
class HandlerRun:
    """Belongs to the event loop. Tasks that a handler starts see it too, also after it is over."""

    update: Update
    queue: str
    arrived_ms: int
    """Of the message, which a redelivery leaves as it was and a replay renews."""
    attempt: int = 1
    last: bool = True
    """Whether the update is given up if this fails."""
    error: Exception | None = None
    over: bool = False
    calls: Counter[str] = field(default_factory=Counter)
    """How often the handlers have made each call so far."""


_current: ContextVar[HandlerRun | None] = ContextVar("floodgate_run", default=None)


def current_run() -> HandlerRun | None:
    """The run that the calling task belongs to; None outside of handlers."""
    return _current.get()


def enter(run: HandlerRun) -> None:
    """Make it the calling task's, and that of the tasks it starts."""
    _current.set(run)
