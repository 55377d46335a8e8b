"""Replays dead letters: enqueues their jobs again, in order. A crash can repeat a job, but never lose one.

    read the letters in order ─▶ the ledger forgets that the job is dead ─▶ publish, confirmed ─▶ remove the letter

A letter is removed only after its job is on disk. A crash between the two leaves the letter, and the next run enqueues
its job a second time under the same id, of which the ledger lets only one be sent. If a letter's job was sent in the
meantime, the letter is removed and not replayed.

Updates that were not handled return to their partition in the same way: the ledger of updates forgets them, and they
are handled as if they had just arrived. After a crash as above, an update may be handled twice.

A letter does not prove that the ledger holds its job as dead: RabbitMQ itself dead-letters messages that exceed the
delivery limit, and a worker may have died between writing the letter and recording it. A job that waits according to
the ledger, or that the ledger does not know, is therefore enqueued as well: a second copy in the queue is harmless, a
missing one is not.

Letters are replayed in the order of their timestamps, not of the queue, because RabbitMQ returns the messages of a
killed process out of order (:mod:`floodgate.broker.amqp.async_queue_reader`). Letters of one chat and priority are
written one after the other, mostly by one worker, so their timestamps give their order. Letters are sorted in groups of
bounded size, which bounds the memory.

Jobs go to their chat's current queue, according to the configured number of partitions. A bounded number of letters is
in flight at once, so the cost of a crash is bounded too.
"""

from __future__ import annotations

import contextlib
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Final, TypeVar

from floodgate.broker.admission.contract import Admission, Record, Standing
from floodgate.broker.amqp import queue_admin, topology
from floodgate.broker.amqp.async_queue_reader import QueuedMessage
from floodgate.broker.amqp.connections import Connections
from floodgate.broker.amqp.queue_reader import QueueReader
from floodgate.broker.errors import RabbitMQError
from floodgate.broker.messages import dead_letters, queue_names
from floodgate.broker.messages.dead_letters import DeadLetter
from floodgate.broker.messages.job import Job, encode_job, unix_ms
from floodgate.broker.messages.publication import Publication
from floodgate.broker.messages.trace_context import carried
from floodgate.broker.messages.update import Update, publication
from floodgate.broker.settings.model import Settings
from floodgate.broker.state.stores import open_handled
from floodgate.letters.criteria import Criteria
from floodgate.letters.reading import PAGE, read

T = TypeVar("T")

SORTED_LETTERS: Final = 10_000
SORTED_BYTES: Final = 64 * 1024 * 1024


class Fate(StrEnum):
    """The outcome of replaying a letter. The values appear in the command's JSON: never rename one."""

    REPLAYED = "replayed"
    SENT_BEFORE = "sent-before"  # the ledger has its result; the letter is removed
    DUPLICATE = "duplicate"  # this run has replayed another letter of the same job; removed
    NO_JOB = "no-job"  # neither a job nor an update; kept, can only be dropped
    UNKNOWN_BOT = "unknown-bot"  # the bot is not configured here; kept

    @property
    def stays(self) -> bool:
        """Whether the letter is kept."""
        return self in (Fate.NO_JOB, Fate.UNKNOWN_BOT)


@dataclass(frozen=True, slots=True)
class _Sorted:
    """A held letter with its fate, and its ``publication`` if it is replayed."""

    message: QueuedMessage
    fate: Fate
    publication: Publication | None = None


class Replay:
    """A run of a replay over any number of queues. Use it from one thread."""

    def __init__(self, connections: Connections, admission: Admission, settings: Settings) -> None:
        self.fates: Counter[Fate] = Counter()
        self._connections = connections
        self._admission = admission
        self._settings = settings
        self._handled = open_handled(settings)
        self._replayed: set[tuple[str, str]] = set()  # bot and id, of this run
        self._cleared: set[tuple[str, str]] = set()  # bot and chat

    def run(self, queue: str, most: int, criteria: Criteria, seen: Callable[[int], object]) -> None:
        """Replay the letters that match among the first ``most`` of a queue.

        Args:
            queue: The dead-letter queue.
            most: Maximum number of letters to read.
            criteria: The conditions that a letter must meet.
            seen: Called with the number of letters read since the last call.

        Raises:
            RabbitMQError: The run was interrupted. The remaining letters are in their places: run it again.
            StateUnavailableError: As above.
        """
        queue_admin.declare(self._connections, topology.pipeline_of(self._settings, self._settings.tokens))
        with contextlib.closing(self._handled), QueueReader(self._connections, queue) as reader:
            for letters in self._meant(reader, queue, most, criteria, seen):
                letters.sort(key=lambda each: each[1].died_at or dead_letters.EPOCH)
                for batch in batched(letters, PAGE):
                    self._replay(reader, batch)

    def _meant(
        self, reader: QueueReader, queue: str, most: int, criteria: Criteria, seen: Callable[[int], object]
    ) -> Iterator[list[tuple[QueuedMessage, DeadLetter]]]:
        """Yield the matching letters in groups that are sorted together."""
        hand: list[tuple[QueuedMessage, DeadLetter]] = []
        weight = 0
        for page in reader.pages(PAGE, most):
            for message in page:
                if criteria.match(letter := read(queue, message)):
                    hand.append((message, letter))
                    weight += len(message.body)
            seen(len(page))
            if len(hand) >= SORTED_LETTERS or weight >= SORTED_BYTES:
                yield hand
                hand, weight = [], 0
        yield hand

    def _replay(self, reader: QueueReader, letters: Iterable[tuple[QueuedMessage, DeadLetter]]) -> None:
        sorted_out = [self._sort(message, letter) for message, letter in letters]
        publications = [each.publication for each in sorted_out if each.publication is not None]
        outcomes = iter(self._connections.publisher.submit_many(publications).result() if publications else ())
        fault: RabbitMQError | None = None
        done: list[_Sorted] = []
        for each in sorted_out:
            if each.publication is not None:
                # The letters after a failed one stay, so that the next run keeps the order.
                fault = fault or next(outcomes)
            if fault is None:
                done.append(each)
        reader.remove([each.message for each in done if not each.fate.stays])
        self.fates.update(each.fate for each in done)
        if fault is not None:
            raise fault

    def _sort(self, message: QueuedMessage, letter: DeadLetter) -> _Sorted:
        job = letter.job
        if job is None:
            return self._sort_update(message, letter.update)
        if job.bot not in self._settings.tokens:
            return _Sorted(message, Fate.UNKNOWN_BOT)
        if (job.bot, job.id) in self._replayed:
            return _Sorted(message, Fate.DUPLICATE)
        if _was_sent(self._admission.reopen(job.bot, job.id)):
            return _Sorted(message, Fate.SENT_BEFORE)
        self._replayed.add((job.bot, job.id))
        self._try_chat_again(job, letter.reason)
        fresh = renewed(job, letter.reason, unix_ms())
        queue = queue_names.home_of(fresh, self._settings.partitions)
        publication = Publication("", queue, encode_job(fresh, queue), fresh.id, headers=carried(message.headers))
        return _Sorted(message, Fate.REPLAYED, publication)

    def _sort_update(self, message: QueuedMessage, update: Update | None) -> _Sorted:
        if update is None:
            return _Sorted(message, Fate.NO_JOB)
        if update.bot not in self._settings.tokens:
            return _Sorted(message, Fate.UNKNOWN_BOT)
        if (update.bot, update.message_id) in self._replayed:
            return _Sorted(message, Fate.DUPLICATE)
        self._handled.forget(update.bot, update.update_id)
        self._replayed.add((update.bot, update.message_id))
        return _Sorted(message, Fate.REPLAYED, publication(update, self._settings.update_partitions))

    def _try_chat_again(self, job: Job, reason: str) -> None:
        """Mark an unreachable chat reachable: an operator who replays its jobs expects that, and Telegram will tell."""
        if reason == dead_letters.REASON_CHAT_UNREACHABLE and job.chat and (job.bot, job.chat) not in self._cleared:
            self._admission.heard_from(job.bot, job.chat)
            self._cleared.add((job.bot, job.chat))


def renewed(job: Job, reason: str, now_ms: int) -> Job:
    """Return a copy of the job as if it were new, without the ``expires`` that ended it: the operator finds it worth
    sending. It no longer supersedes jobs with its key, which may be newer."""
    expires_ms = None if reason == dead_letters.REASON_EXPIRED else job.expires_ms
    times = {"created_ms": now_ms, "not_before_ms": None, "expires_ms": expires_ms, "worth_until_ms": None}
    return job.model_copy(update={"attempts": 0, "unsent": 0, "coalesce": None, **times})


def batched(letters: Sequence[T], size: int) -> Iterator[Sequence[T]]:
    """Yield the letters in slices of ``size``."""
    for start in range(0, len(letters), size):
        yield letters[start : start + size]


def _was_sent(record: Record | None) -> bool:
    return record is not None and record.standing is Standing.SENT
