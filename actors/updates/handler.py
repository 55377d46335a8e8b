"""The protocol between the worker and the code that handles updates."""

from __future__ import annotations

from typing import Protocol

from floodgate.actors.updates.run import HandlerRun


class Handler(Protocol):
    """The user's code. Belongs to the event loop, except for ``name``."""

    @property
    def name(self) -> str:
        """The target that names the user's code, such as ``myapp.bot:application``."""
        ...

    async def open(self) -> None:
        """Prepare to handle updates.

        Raises:
            FloodgateError: the handler cannot be opened; says why.
        """
        ...

    async def close(self) -> None:
        """Finish, and release all resources. Safe to call unopened."""
        ...

    async def handle(self, run: HandlerRun) -> None:
        """Handle an update. When this returns, all changes have been saved.

        Raises:
            UnreadableUpdateError: the update cannot be parsed, however often it is tried.
            Exception: any exception that the user's code raises and does not deal with.
        """
        ...

    async def moved_here(self, bot: str, partition: int, partitions: int) -> None:
        """Refresh data in memory about a partition's chats: another worker had the partition until now."""
        ...


class UnreadableUpdateError(Exception):
    """The library cannot parse an update, so no handler can be called."""
