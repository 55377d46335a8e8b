"""Reading dead letters: which queues hold them, and one pass over those that match."""

from __future__ import annotations

import contextlib
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Final

from floodgate.broker.amqp import queue_admin
from floodgate.broker.amqp.async_queue_reader import QueuedMessage
from floodgate.broker.amqp.connections import Connections
from floodgate.broker.amqp.queue_reader import QueueReader
from floodgate.broker.errors import UnknownBotError
from floodgate.broker.messages import queue_names
from floodgate.broker.messages.dead_letters import DeadLetter, in_order_of_death, read_dead_letter
from floodgate.broker.settings.model import Settings, unknown_bot_message
from floodgate.letters.criteria import Criteria

PAGE: Final = 100  # letters in hand at once, of a queue that may hold any number

Looked = Callable[[int], object]
"""Hears how many more letters were looked at."""


def bots(settings: Settings, bot: str | None) -> list[str]:
    """One bot, or all that are configured.

    Raises:
        SettingsError: no bot is configured.
        UnknownBotError: none of this name is.
    """
    known = settings.require_bots()
    if bot is not None and bot not in known:
        raise UnknownBotError(unknown_bot_message(bot, known))
    return [bot] if bot is not None else sorted(known)


def queues(settings: Settings, bot: str | None) -> list[str]:
    """Where dead letters lie: of one bot, or of all and what belongs to none.

    Raises:
        SettingsError: no bot is configured.
        UnknownBotError: none of this name is.
    """
    return queue_names.dead_queues(bots(settings, bot))


def depths(connections: Connections, names: list[str]) -> dict[str, int]:
    """How many letters each queue holds; those that hold some."""
    return {name: count for name, count in queue_admin.depth(connections, names).items() if count}


def read(queue: str, message: QueuedMessage) -> DeadLetter:
    return read_dead_letter(queue, message.message_id, message.headers, message.body)


@dataclass(slots=True)
class Found:
    """What a look at the letters found: the first ``limit`` that match, and all counted by reason."""

    limit: int
    letters: list[DeadLetter] = field(default_factory=list)
    counts: Counter[str] = field(default_factory=Counter)

    def add(self, letter: DeadLetter) -> None:
        self.counts[letter.reason] += 1
        if len(self.letters) < self.limit:
            self.letters.append(letter)


def look(connections: Connections, depths: dict[str, int], criteria: Criteria, limit: int, looked: Looked) -> Found:
    """All matching letters of the queues. They stay where they are.

    Raises:
        RabbitMQError: the connection was lost, or it took too long.
    """
    found = Found(limit)
    for queue, depth in depths.items():
        with QueueReader(connections, queue) as reader:
            for page in reader.pages(PAGE, depth):
                for letter in filter(criteria.match, (read(queue, message) for message in page)):
                    found.add(letter)
                looked(len(page))
    found.letters = in_order_of_death(found.letters)
    return found


@contextlib.contextmanager
def held(
    connections: Connections, depths: dict[str, int], criteria: Criteria, looked: Looked
) -> Iterator[tuple[Counter[str], Callable[[], None]]]:
    """The matching letters in hand: how many for each reason, and a call that removes just these for good.

    Whatever is not removed is back in its place at the end.

    Raises:
        RabbitMQError: the connection was lost, or it took too long.
    """
    with contextlib.ExitStack() as readers:
        counts: Counter[str] = Counter()
        hands: list[tuple[QueueReader, list[QueuedMessage]]] = []
        for queue, depth in depths.items():
            reader = readers.enter_context(QueueReader(connections, queue))
            hand: list[QueuedMessage] = []
            hands.append((reader, hand))
            for page in reader.pages(PAGE, depth):
                for message in page:
                    if criteria.match(letter := read(queue, message)):
                        counts[letter.reason] += 1
                        hand.append(_without_body(message))
                looked(len(page))

        def remove() -> None:
            for reader, hand in hands:
                reader.remove(hand)

        yield counts, remove


def _without_body(message: QueuedMessage) -> QueuedMessage:
    """Enough to remove it by, whatever it weighs."""
    return QueuedMessage(message.message_id, {}, b"", message.tag)
