"""A run in which the state store loses its last writes, and its account: what it cost, and what went wrong.

Each chat gets numbered texts, ``<chat>:<number>``, so that the order in which they acted shows an inversion.
"""

from __future__ import annotations

import contextlib
import itertools
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import redis

from floodgate.fake_telegram.control import Arrived
from tests.acceptance.stage import Stage
from tests.proxy import Proxy
from tests.services import RedisServer
from tests.waiting import until

PARTITIONS = 8


@dataclass(frozen=True, slots=True)
class Load:
    """Jobs: each of ``users`` gets ``each`` messages, and each of ``groups`` gets ``each_group``."""

    users: int = 30
    each: int = 6
    groups: int = 3
    each_group: int = 12

    @property
    def count(self) -> int:
        return self.users * self.each + self.groups * self.each_group

    def jobs(self) -> Iterator[tuple[int, str]]:
        """Chats and texts, first messages of all chats first."""
        for number in range(max(self.each, self.each_group)):
            for group in range(self.groups if number < self.each_group else 0):
                yield -(1001 + group), f"{-(1001 + group)}:{number:03}"
            for user in range(self.users if number < self.each else 0):
                yield 1001 + user, f"{1001 + user}:{number:03}"


@dataclass(frozen=True, slots=True)
class Account:
    """What a run cost. Times in seconds."""

    jobs: int
    unsent: int
    twice: tuple[str, ...]
    inversions: tuple[tuple[str, str], ...]
    refused: int
    """Answers 429."""
    longest_pause: float
    """The longest time in which nothing acted, from the fault on."""
    longest_in_chat: float
    """The longest time between two messages of one chat, across the fault, with those still to come."""
    drained: float
    """From the fault to the last message."""


def enqueue(stage: Stage, load: Load) -> None:
    """Puts all jobs in."""
    client = stage.client()
    client.enqueue_many(
        client.job("sendMessage", chat_id=chat, text=text, priority="bulk") for chat, text in load.jobs()
    )


def await_sent(stage: Stage, count: int, seconds: float = 120) -> None:
    """Waits until so many jobs have acted; does not fail if they do not."""
    with contextlib.suppress(AssertionError, TimeoutError):
        until(lambda: len(set(stage.sent())) >= count, seconds)


def account_of(stage: Stage, load: Load, fault_at: float) -> Account:
    """The account of a run. ``fault_at`` is in seconds of Unix time."""
    arrivals = list(stage.control.arrivals())
    acted = [arrival for arrival in arrivals if arrival.acted]
    texts = [str(arrival.params.get("text")) for arrival in acted]
    counted = Counter(texts)
    expected = [text for _, text in load.jobs()]
    after = [fault_at, *(arrival.wall for arrival in acted if arrival.wall > fault_at)]
    return Account(
        jobs=len(expected),
        unsent=sum(text not in counted for text in expected),
        twice=tuple(text for text, times in counted.items() if times > 1),
        inversions=tuple(_inversions(dict.fromkeys(texts))),
        refused=sum(arrival.code == 429 for arrival in arrivals),
        longest_pause=max((b - a for a, b in itertools.pairwise(after)), default=0.0),
        longest_in_chat=max(_gaps(acted, fault_at), default=0.0),
        drained=max(after) - fault_at,
    )


def _inversions(texts: dict[str, None]) -> Iterator[tuple[str, str]]:
    seen: dict[str, str] = {}
    for text in texts:
        chat = text.partition(":")[0]
        if seen.get(chat, "") > text:
            yield seen[chat], text
        seen[chat] = max(seen.get(chat, ""), text)


def _gaps(acted: Sequence[Arrived], fault_at: float) -> Iterator[float]:
    chats: dict[int | None, list[float]] = defaultdict(list)
    for arrival in acted:
        chats[arrival.chat_id].append(arrival.wall)
    for times in chats.values():
        yield from (b - a for a, b in itertools.pairwise(times) if b > fault_at)


def intact(_log: Path) -> None:
    """The control."""


def torn(log: Path) -> None:
    """The last page is on disk in part."""
    log.write_bytes(_valid(log)[:-2000])


def halved(log: Path) -> None:
    """Half of the log is on disk."""
    data = _valid(log)
    log.write_bytes(data[: len(data) // 2])


def zeroed(log: Path) -> None:
    """The file has its length, but its second half was not written."""
    data = _valid(log)
    half = len(data) // 2
    log.write_bytes(data[:half] + bytes(len(data) - half))


def gone(log: Path) -> None:
    """The log was never written."""
    log.unlink()


def _valid(log: Path) -> bytes:
    """The log up to its last frame; what follows is from before the last checkpoint (sqlite.org/walformat.html)."""
    data = log.read_bytes()
    frame = 24 + int.from_bytes(data[8:12], "big")
    end = 32
    while data[end + 8 : end + 16] == data[16:24]:
        end += frame
    return data[:end]


# Nothing that these tests are about: how long a call of a killed worker keeps its chat waiting.
SHORT_CALLS = {"FLOODGATE_CALL_TIMEOUT_SECONDS": "2", "FLOODGATE_LEASE_MARGIN_SECONDS": "1"}

DAMAGE: tuple[Callable[[Path], None], ...] = (intact, torn, halved, zeroed, gone)


def lose_power(stage: Stage, load: Load, damage: Callable[[Path], None], at: int, workers: int = 2) -> Account:
    """All workers are killed after ``at`` messages, and the log of the state file is damaged; then others start."""
    stage.vouch_idle()
    first = [stage.worker() for _ in range(workers)]
    enqueue(stage, load)
    until(lambda: len(stage.sent()) >= at, 60)
    fault_at = time.time()
    for worker in first:
        worker.kill()
    damage(stage.home / "state.db-wal")
    (stage.home / "state.db-shm").unlink()
    for _ in range(workers):
        stage.worker()
    await_sent(stage, load.count)
    return account_of(stage, load, fault_at)


@dataclass
class Replicated:
    """A Redis primary, a replica of it, and what clients connect to: a proxy that leads to the primary."""

    primary: RedisServer
    replica: RedisServer
    link: Proxy
    front: Proxy

    def lag(self) -> None:
        """From now on the replica learns nothing."""
        self.link.stall()

    def fail_over(self) -> None:
        """The primary is lost, and clients reach the replica, which is promoted."""
        self.primary.kill()
        self.link.refuse()
        self.link.cut()
        with contextlib.closing(redis.Redis(port=self.replica.port)) as client:
            client.replicaof("NO", "ONE")
        self.front.lead_to(self.replica.port)


@contextlib.contextmanager
def replicated(new_redis: Callable[..., RedisServer]) -> Iterator[Replicated]:
    """A primary and a replica that is up to date."""
    primary = new_redis().start()
    with Proxy(primary.port) as link, Proxy(primary.port) as front:
        replica = new_redis("--replicaof", f"127.0.0.1 {link.port}").start()
        with contextlib.closing(redis.Redis(port=replica.port)) as client:
            until(lambda: client.info("replication")["master_link_status"] == "up", 20)
        yield Replicated(primary, replica, link, front)


def promote_a_lagging_replica(stage: Stage, servers: Replicated, load: Load, at: int, lag_seconds: float) -> Account:
    """After ``at`` messages the replica stops learning; ``lag_seconds`` later the primary is lost."""
    stage.vouch_idle()
    for _ in range(2):
        stage.worker()
    enqueue(stage, load)
    until(lambda: len(stage.sent()) >= at, 60)
    servers.lag()
    time.sleep(lag_seconds)
    fault_at = time.time()
    servers.fail_over()
    await_sent(stage, load.count)
    return account_of(stage, load, fault_at)
