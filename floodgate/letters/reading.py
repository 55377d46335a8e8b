"""Reads dead letters: the queues that hold them, and the letters that match."""

from __future__ import annotations

import contextlib
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from typing import Final

from floodgate.broker.amqp import queue_admin
from floodgate.broker.amqp.async_queue_reader import QueuedMessage
from floodgate.broker.amqp.connections import Connections
from floodgate.broker.amqp.queue_reader import QueueReader
from floodgate.broker.errors import UnknownBotError
from floodgate.broker.messages import queue_names
from floodgate.broker.messages.dead_letters import DeadLetter, in_order_of_death, read_dead_letter
from floodgate.broker.settings.model import Settings, unknown_bot_message
from floodgate.letters.criteria import Criteria, full_id

PAGE: Final = 100  # letters held at once, as a queue may hold any number

Looked = Callable[[int], object]
"""Called with the number of letters read since the last call."""


def bots(settings: Settings, bot: str | None) -> list[str]:
    """Return the given bot, or all configured bots.

    Raises:
        SettingsError: No bot is configured.
        UnknownBotError: No bot of this name is configured.
    """
    known = settings.require_bots()
    if bot is not None and bot not in known:
        raise UnknownBotError(unknown_bot_message(bot, known))
    return [bot] if bot is not None else sorted(known)


def queues(settings: Settings, bot: str | None) -> list[str]:
    """Return the names of a bot's dead-letter queues; for None, those of all bots and of messages without a bot.

    Raises:
        SettingsError: No bot is configured.
        UnknownBotError: No bot of this name is configured.
    """
    return queue_names.dead_queues(bots(settings, bot))


def depths(connections: Connections, names: list[str]) -> dict[str, int]:
    """Return the number of letters in each queue that holds some."""
    return {name: count for name, count in queue_admin.depth(connections, names).items() if count}


def read(queue: str, message: QueuedMessage) -> DeadLetter:
    """Decode a message of a dead-letter queue."""
    return read_dead_letter(queue, message.message_id, message.headers, message.body)


@dataclass(slots=True)
class Found:
    """The first ``limit`` letters that match, and the number of all that match by reason."""

    limit: int
    letters: list[DeadLetter] = field(default_factory=list)
    counts: Counter[str] = field(default_factory=Counter)

    def add(self, letter: DeadLetter) -> None:
        """Count a matching letter, and keep it if there are fewer than ``limit``."""
        self.counts[letter.reason] += 1
        if len(self.letters) < self.limit:
            self.letters.append(letter)


def look(connections: Connections, depths: dict[str, int], criteria: Criteria, limit: int, looked: Looked) -> Found:
    """Find the matching letters of the queues, without removing them.

    Raises:
        RabbitMQError: The connection was lost, or reading took too long.
    """
    found = Found(limit)
    for letter in _matching(connections, depths, criteria, looked):
        found.add(letter)
    found.letters = in_order_of_death(found.letters)
    return found


def with_full_ids(
    connections: Connections, depths: dict[str, int], criteria: Criteria, looked: Looked
) -> tuple[Criteria, list[str]]:
    """Complete the ids of the criteria. Return the criteria, and those ids that no matching letter has.

    Raises:
        InvalidParamsError: Several matching letters begin with one of the ids.
        RabbitMQError: The connection was lost, or reading took too long.
    """
    begun: dict[str, set[str]] = {given: set() for given in criteria.ids}
    for letter in _matching(connections, depths, replace(criteria, ids=frozenset()), looked) if begun else ():
        for given, ids in begun.items():
            # Two other ids are enough to know that the beginning is ambiguous.
            if letter.message_id == given or (letter.message_id.startswith(given) and len(ids) < 2):
                ids.add(letter.message_id)
    full = {given: full_id(given, ids) for given, ids in begun.items()}
    # An unknown id stays among them: without any, all letters would match.
    meant = replace(criteria, ids=frozenset(known or given for given, known in full.items()))
    return meant, [given for given, known in full.items() if known is None]


def _matching(
    connections: Connections, depths: dict[str, int], criteria: Criteria, looked: Looked
) -> Iterator[DeadLetter]:
    for queue, depth in depths.items():
        with QueueReader(connections, queue) as reader:
            for page in reader.pages(PAGE, depth):
                yield from filter(criteria.match, (read(queue, message) for message in page))
                looked(len(page))


@contextlib.contextmanager
def held(
    connections: Connections, depths: dict[str, int], criteria: Criteria, looked: Looked
) -> Iterator[tuple[Counter[str], Callable[[], None]]]:
    """Hold the matching letters; yield their number by reason, and a function that deletes exactly these.

    Letters that are not deleted return to their places when the context ends.

    Raises:
        RabbitMQError: The connection was lost, or reading took too long.
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
    """Return as much of a message as is needed to remove it, without its body."""
    return QueuedMessage(message.message_id, {}, b"", message.tag)
