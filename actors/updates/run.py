"""A run: one call of the handlers for one update. Code called by a handler gets its run from :func:`current_run`."""

from __future__ import annotations

from collections import Counter
from contextvars import ContextVar
from dataclasses import dataclass, field

from floodgate.broker.messages.update import Update


@dataclass(slots=True)
class HandlerRun:
    """The context of one run. Belongs to the event loop. Tasks started by a handler share it, even after it is over."""

    update: Update
    queue: str
    arrived_ms: int
    """The message's timestamp, in Unix milliseconds. A redelivery keeps it, a replay sets a new one."""
    attempt: int = 1
    last: bool = True
    """Whether the update is dead-lettered if this attempt fails."""
    error: Exception | None = None
    over: bool = False
    calls: Counter[str] = field(default_factory=Counter)
    """How often the handlers have made each Bot API call, and each keyboard, so far."""
    dropped_keyboards: list[str] = field(default_factory=list)
    """Ids of the keyboards that the handlers have dropped (:mod:`floodgate.actors.updates.callback_data`)."""


_current: ContextVar[HandlerRun | None] = ContextVar("floodgate_run", default=None)


def current_run() -> HandlerRun | None:
    """The run that the current task belongs to; None outside of handlers."""
    return _current.get()


def enter(run: HandlerRun) -> None:
    """Set the run of the current task and of the tasks that it starts."""
    _current.set(run)
