"""Producer processes, and the ledger in which each records the jobs that RabbitMQ has accepted.

A ledger line is one event: ``try <position> <job> <chat> <priority> <flags>`` before jobs are handed over, and
``ok <position> <job>`` when the client has confirmed them. Positions count the calls of a producer and the jobs
within one; a refused job is tried again with the same id and so has two positions.

The ledger survives a SIGKILL of its producer. A restarted producer reads it and continues after the last confirmed
job; each job's id follows from its dedupe key, so jobs that were already accepted are not duplicated.
"""

from __future__ import annotations

import random
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from tests.chaos.hooks import append_to

BOT = "chaos"
BATCH = 40
BLOCKED_USERS = (701, 702, 703)
OLD_GROUP, NEW_GROUP = -5001, -1005005005001


@dataclass(frozen=True, slots=True)
class Work:
    """The jobs of one producer and how it enqueues them. The same work gives the same jobs."""

    producer: int
    jobs: int
    seconds: float
    users: int
    groups: int
    seed: int
    batches: bool


@dataclass(frozen=True, slots=True)
class Item:
    """One planned job. ``text`` identifies it in all evidence."""

    text: str
    chat: int
    priority: str
    delay: float | None = None
    expires: float | None = None
    asks: bool = False
    """Dead-letter rather than send twice."""

    @property
    def flags(self) -> str:
        return "".join(letter for letter, on in (("d", self.delay), ("e", self.expires), ("a", self.asks)) if on) or "-"


@dataclass(slots=True)
class Accepted:
    """One job of a producer, from its ledger. ``safe_at`` None: never confirmed to the producer."""

    producer: int
    text: str
    chat: str
    priority: str
    flags: str
    first_tried: tuple[int, int]
    safe_at: tuple[int, int] | None = None


def items(work: Work) -> Iterator[Item]:
    """The producer's jobs in order: mostly to users, some to groups, a few to unreachable chats."""
    draw = random.Random(f"{work.seed}/{work.producer}")
    for n in range(work.jobs):
        text = f"p{work.producer}-{n}"
        match draw.random():
            case x if x < 0.03:
                yield Item(text, draw.choice(BLOCKED_USERS), "bulk")
            case x if x < 0.03 + min(0.01, 8 / work.jobs):
                yield Item(text, OLD_GROUP, "bulk")
            case x if x < 0.04 + min(0.1, 12 * work.groups / max(1, work.jobs)):
                yield Item(text, -5100 - draw.randrange(work.groups), "bulk")
            case _:
                yield _to_a_person(draw, text, 10_000 + draw.randrange(work.users))


def _to_a_person(draw: random.Random, text: str, chat: int) -> Item:
    priority = "interactive" if draw.random() < 0.3 else "bulk"
    match draw.random():
        case x if x < 0.04:
            return Item(text, chat, priority, delay=round(draw.uniform(0.2, 6), 2))
        case x if x < 0.06:
            return Item(text, chat, priority, expires=round(draw.uniform(2, 20), 2))
        case x if x < 0.12:
            return Item(text, chat, priority, asks=True)
        case _:
            return Item(text, chat, priority)


def produce(work: Work, ledger: Path) -> None:
    """Enqueues all jobs, spread evenly over the time, however often RabbitMQ refuses."""
    from floodgate.broker.settings.model import load_settings
    from floodgate.producer.client import Client

    settings = load_settings()
    evidence = read_ledger(work.producer, ledger) if ledger.exists() else {}
    note = append_to(ledger)
    started = time.monotonic()
    with Client(settings, bot=BOT) as client:
        desk = Desk(client, note, first_call=_next_call(evidence))
        waiting = [item for item in items(work) if (kept := evidence.get(item.text)) is None or kept.safe_at is None]
        size = BATCH if work.batches else 1
        for start in range(0, len(waiting), size):
            time.sleep(max(0.0, started + start * work.seconds / work.jobs - time.monotonic()))
            desk.put_in(waiting[start : start + size])


class Desk:
    """Hands jobs over until they are confirmed."""

    def __init__(self, client: object, note: object, first_call: int) -> None:
        from floodgate.producer.client import Client

        assert isinstance(client, Client) and callable(note)
        self._client, self._note, self._call = client, note, first_call

    def put_in(self, batch: list[Item]) -> None:
        """Returns when all are confirmed. Unconfirmed jobs are the first of the next call."""
        left = batch
        while left:
            left = self._try(left)

    def _try(self, batch: list[Item]) -> list[Item]:
        from floodgate.broker.errors import EnqueueManyError, RabbitMQError

        self._call += 1
        jobs = {}
        for index, item in enumerate(batch):
            self._note(f"try {self._call}.{index} {item.text} {item.chat} {item.priority} {item.flags}")
            jobs[item.text] = self._job(item)
        safe: set[str] = set()
        try:
            for job in self._client.enqueue_each(jobs.values()) if len(jobs) > 1 else self._one(jobs):
                safe.add(job.params["text"])
                self._note(f"ok {self._call}.{list(jobs).index(job.params['text'])} {job.params['text']}")
        except (EnqueueManyError, RabbitMQError):
            time.sleep(0.2)
        return [item for item in batch if item.text not in safe]

    def _one(self, jobs: dict[str, object]) -> Iterator[object]:
        yield from (self._client.enqueue(job) for job in jobs.values())

    def _job(self, item: Item) -> object:
        return self._client.job(
            "sendMessage",
            chat_id=item.chat,
            text=item.text,
            priority=item.priority,
            delay=item.delay,
            expires=item.expires,
            on_uncertain="dead-letter" if item.asks else "resend",
            dedupe_key=item.text,
        )


def read_ledger(producer: int, ledger: Path) -> dict[str, Accepted]:
    """The jobs of a producer by text."""
    evidence: dict[str, Accepted] = {}
    for line in ledger.read_text().splitlines():
        event, position, text, *rest = line.split()
        call, _, index = position.partition(".")
        place = (int(call), int(index))
        if event == "try":
            evidence.setdefault(text, Accepted(producer, text, *rest, first_tried=place))
        elif evidence[text].safe_at is None:
            evidence[text].safe_at = place
    return evidence


def _next_call(evidence: dict[str, Accepted]) -> int:
    return max((job.safe_at or job.first_tried for job in evidence.values()), default=(0, 0))[0] + 1
