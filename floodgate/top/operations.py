"""What an operator can do in `floodgate top`. Each operation blocks, says what it did, and asks before it destroys."""

from __future__ import annotations

import contextlib
from collections import Counter
from collections.abc import Callable
from datetime import timedelta
from functools import cached_property
from typing import TYPE_CHECKING, Final, Self

from floodgate.broker.admission.contract import Admission, ChatExplanation
from floodgate.broker.amqp.connections import Connections
from floodgate.broker.errors import StateError
from floodgate.broker.messages import queue_names
from floodgate.broker.messages.job import Priority, unix_ms
from floodgate.broker.settings.model import Settings
from floodgate.broker.state.stores import open_store
from floodgate.letters import reading
from floodgate.letters.criteria import Criteria, harmless
from floodgate.letters.view import counted
from floodgate.overview.queues import QueueCounts

if TYPE_CHECKING:
    from floodgate.producer.campaigns.operations.service import Campaigns

PAUSE: Final = timedelta(minutes=15)
MOST_LETTERS: Final = 10_000
"""How many dead letters are read at once, oldest first: reading hides them from others for some 20 s."""
CLOSE_SECONDS: Final = 1.0

Confirm = Callable[[str], bool]
"""Asks the operator a question, and waits for the answer."""


class Operations:
    """The operations. Nothing is opened before one needs it. It belongs to one thread."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._open = contextlib.ExitStack()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_raised: object) -> None:
        self._open.close()

    @cached_property
    def _store(self) -> Admission:
        return self._open.enter_context(contextlib.closing(open_store(self._settings)))

    @cached_property
    def _connections(self) -> Connections:
        connections = Connections(self._settings, "top")
        self._open.callback(connections.stop, CLOSE_SECONDS)
        return connections

    @cached_property
    def _campaigns(self) -> Campaigns:
        from floodgate.producer.campaigns.operations.service import Campaigns

        return self._open.enter_context(contextlib.closing(Campaigns(self._settings)))

    def pause(self, bot: str, chat: str | None) -> str:
        """Pause a bot or a chat for :data:`PAUSE`."""
        self._store.pause(bot, chat, PAUSE, "operator")
        return f"Paused for {PAUSE.total_seconds() / 60:.0f} min: {_whom(bot, chat)}."

    def resume(self, bot: str, chat: str | None) -> str:
        """End a pause now."""
        if self._store.resume(bot, chat):
            return f"Resumed: {_whom(bot, chat)}."
        return f"Not paused: {_whom(bot, chat)}."

    def cancel_jobs(self, bot: str, ask: Confirm) -> str:
        """Cancel all jobs of a bot that were enqueued before now."""
        before_ms = unix_ms() + 1  # a job of this same millisecond was enqueued before
        queued = QueueCounts(self._settings, self._connections, [bot]).read().by_bot[bot].queued
        in_queues = sum(queued[kind] for kind in (*map(str, Priority), "answers"))
        waiting = in_queues + sum(self._store.waiting(bot).values())
        if not ask(f"Cancel all jobs of bot {bot}: {waiting:,} that wait, and any that are scheduled?"):
            return "No job was cancelled."
        self._store.cancel_campaign(bot, None, before_ms)
        return f"Cancelled: all jobs of bot {bot}. Each ends when a worker comes to it."

    def letters(self, bot: str) -> Counter[str]:
        """Count a bot's oldest dead letters by reason."""
        return reading.look(self._connections, self._depths(bot), Criteria(), 0, _ignore).counts

    def drop_letters(self, bot: str, reason: str, ask: Confirm) -> str:
        """Delete a bot's oldest dead letters of a reason: exactly those that are counted in the question."""
        criteria = Criteria(reasons=frozenset({reason}))
        with reading.held(self._connections, self._depths(bot), criteria, _ignore) as (counts, remove):
            if not counts:
                return "No dead letters match; nothing was deleted."
            if not ask(
                f"Delete {counts[reason]:,} dead letters of bot {bot} permanently: {harmless(reason.encode())}?"
            ):
                return "Nothing was deleted."
            remove()
        return f"Deleted: {counted(counts)}."

    def _depths(self, bot: str) -> dict[str, int]:
        depths = reading.depths(self._connections, [queue_names.dead_queue(bot)])
        return {name: min(depth, MOST_LETTERS) for name, depth in depths.items()}

    def pause_campaign(self, name: str) -> str:
        """Pause a campaign. What waits in RabbitMQ is taken back within a second."""
        return f"{name} is {self._campaigns.pause(name).state}."

    def resume_campaign(self, name: str) -> str:
        """Resume a campaign that was paused, or that a rule stopped."""
        return f"{name} is {self._campaigns.resume(name).state}."

    def cancel_campaign(self, name: str, ask: Confirm) -> str:
        """End a campaign for good."""
        left = self._campaigns.progress(name).left
        if not ask(f"Cancel {name} for good? Recipients who have not got it and will not: {left:,}"):
            return f"{name} goes on."
        return f"{name} is {self._campaigns.cancel(name).state}."

    def explain(self, bot: str, chat: str) -> ChatExplanation | StateError:
        """Return why a chat waits, or why that is not known."""
        try:
            return self._store.explain(bot, chat)
        except StateError as error:
            return error


def _whom(bot: str, chat: str | None) -> str:
    return f"chat {chat} of bot {bot}" if chat else f"bot {bot}"


def _ignore(_count: int) -> None:
    pass
