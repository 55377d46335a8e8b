"""What handles updates, as the worker sees it."""

from __future__ import annotations

from typing import Protocol

from floodgate.actors.updates.run import HandlerRun


class Handler(Protocol):
    """The user's code. Belongs to the event loop, but for ``name``."""

    @property
    def name(self) -> str:
        """As in ``myapp.bot:application``."""
        ...

    async def open(self) -> None:
        """Make ready.

        Raises:
            FloodgateError: it cannot be; says why.
        """
        ...

    async def close(self) -> None:
        """Finish and release what was opened. Safe to call unopened."""
        ...

    async def handle(self, run: HandlerRun) -> None:
        """Handle an update. Once this returns, what it changed is safe.

        Raises:
            UnreadableUpdateError: no attempt can read it.
            Exception: whatever the user's code raised, and did not deal with.
        """
        ...

    async def moved_here(self, bot: str, partition: int, partitions: int) -> None:
        """Another worker had this partition until now: what is in memory of its chats may be out of date."""
        ...


class UnreadableUpdateError(Exception):
    """The library cannot make an object of it, so that no handler can be asked."""
