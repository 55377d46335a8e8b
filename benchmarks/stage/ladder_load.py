"""Constant loads on the delay ladder: what is due comes out how late, and at what rate.

Messages go from a publisher of ours through the ladder to send queues, one active consumer each, and are acknowledged
at once: no worker, store or Bot API is measured, only RabbitMQ.
"""

from __future__ import annotations

import asyncio
import json
import math
import random
import time
from contextlib import suppress
from dataclasses import dataclass
from datetime import timedelta
from typing import Final

from floodgate.broker.amqp import delay_ladder, queue_admin, topology
from floodgate.broker.amqp.connections import Connections
from floodgate.broker.amqp.consumer import Delivery
from floodgate.broker.amqp.publisher import PublishOutcomes
from floodgate.broker.messages import queue_names
from floodgate.broker.messages.job import Priority
from floodgate.broker.messages.publication import Publication
from floodgate.broker.settings.model import Settings
from rabbitmq_node.node import Node

PREFETCH: Final = "dead_letter_worker_consumer_prefetch"
STEADY, BURSTING = "steady", "bursting"  # the names of the bots
PARTITIONS: Final = 32
SHORTEST_SECONDS: Final = 0.5
TICK_SECONDS: Final = 0.01
PATIENCE_SECONDS: Final = 45.0  # for what is late at the end
BODY: Final = "x" * 300  # a job has some hundred bytes


@dataclass(frozen=True, slots=True)
class Load:
    """What is put into the ladder.

    ``rate`` jobs a second of one bot, over ``seconds``, with delays between half a second and ``longest``. Beside them
    ``burst`` jobs of another bot, all due at one moment in the middle. With ``full`` the other bot's queues take none;
    with ``apart`` they are in another vhost, with a ladder of its own.
    """

    name: str
    rate: int
    seconds: float
    longest: float
    burst: int = 0
    full: bool = False
    apart: bool = False


@dataclass(frozen=True, slots=True)
class Lateness:
    """Of one bot's jobs. ``per_second`` is the rate at which they came out while as many went in."""

    load: str
    prefetch: int
    bot: str
    sent: int
    came: int
    per_second: float
    p50_ms: float
    p99_ms: float
    max_ms: float


def run(load: Load, prefetch: int, rabbitmq: str | None) -> list[Lateness]:
    """Put a load on a node of its own, where each level hands on so many messages before the first is confirmed."""
    with Node(rabbitmq) as node:
        node.ctl("eval", f"application:set_env(rabbit, {PREFETCH}, {prefetch}).")  # read when a queue is made
        if load.full:
            full = json.dumps({"max-length": 1})
            node.ctl("set_policy", "full", rf"^send\.{BURSTING}\.", full, "--priority", "9", "--apply-to", "queues")
        urls = {STEADY: node.url}
        if load.burst:
            urls[BURSTING] = _vhost(node) if load.apart else node.url
        return asyncio.run(_run(load, prefetch, urls))


def _vhost(node: Node) -> str:
    node.ctl("add_vhost", BURSTING)
    node.ctl("set_permissions", "--vhost", BURSTING, "guest", ".*", ".*", ".*")
    return node.url_of(BURSTING)


class _Bot:
    """Puts a bot's jobs in, takes them out, and notes when each was due and came, in seconds of ``time.time``."""

    def __init__(self, name: str, url: str) -> None:
        settings = Settings(rabbitmq_url=url, publish_window=10_000, _env_file=None)  # type: ignore[call-arg, arg-type]
        self.name = name
        self.connections = Connections(settings, f"benchmark {name}", on_callers_loop=True)
        self.consumes = False
        self._topology = topology.pipeline([name], PARTITIONS)
        self._sent = 0
        self._due: list[float] = []
        self._came: list[float] = []
        self._complete = asyncio.Event()

    async def open(self, *, consume: bool) -> None:
        await queue_admin.adeclare(self.connections, self._topology)
        self.consumes = consume
        for n in range(PARTITIONS if consume else 0):
            queue = queue_names.send_queue(self.name, Priority.BULK, n)
            self.connections.subscribe(queue, "benchmark", self._take, lambda: self._topology)

    async def feed(self, times: list[tuple[float, float]]) -> None:
        """Enqueue a job at each of these times, due at the other."""
        self._sent = len(times)
        waiting: list[Publication] = []
        receipts: list[asyncio.Future[PublishOutcomes]] = []
        for n, (at, due) in enumerate(times):
            while at > time.time():
                if waiting:
                    receipts.append(await self.connections.publisher.asubmit_many(waiting))
                    waiting = []
                await asyncio.sleep(TICK_SECONDS)
            waiting.append(self._delayed(n, due))
        receipts.append(await self.connections.publisher.asubmit_many(waiting))
        for outcomes in await asyncio.gather(*receipts):
            for refusal in filter(None, outcomes):
                raise refusal

    async def all_came(self) -> None:
        """Wait for it, for as long as is fair."""
        with suppress(TimeoutError):
            await asyncio.wait_for(self._complete.wait(), PATIENCE_SECONDS)

    def lateness(self, load: Load, prefetch: int, began: float) -> Lateness:
        late = sorted((came - due) * 1000 for due, came in zip(self._due, self._came, strict=True)) or [math.nan]
        first, last = began + load.longest, began + load.seconds
        rate = sum(first <= came < last for came in self._came) / (last - first)
        quantiles = (late[min(len(late) - 1, int(len(late) * share))] for share in (0.5, 0.99, 1))
        return Lateness(load.name, prefetch, self.name, self._sent, len(self._came), rate, *quantiles)

    def _take(self, delivery: Delivery) -> None:
        self._came.append(time.time())
        self._due.append(json.loads(delivery.body)["due"])
        delivery.ack()
        if len(self._came) == self._sent:
            self._complete.set()

    def _delayed(self, n: int, due: float) -> Publication:
        body = json.dumps({"due": due, "text": BODY}).encode()
        queue = queue_names.send_queue(self.name, Priority.BULK, n % PARTITIONS)
        job = Publication("", queue, body, f"{self.name}-{n}")
        return delay_ladder.delayed(job, timedelta(seconds=due - time.time()))


async def _run(load: Load, prefetch: int, urls: dict[str, str]) -> list[Lateness]:
    bots = [_Bot(name, url) for name, url in urls.items()]
    for bot in bots:
        await bot.open(consume=not (load.full and bot.name == BURSTING))
    began = time.time() + 0.5
    times = {STEADY: _steady(load, began), BURSTING: _burst(load, began)}
    await asyncio.gather(*(bot.feed(times[bot.name]) for bot in bots))
    for bot in bots:
        if bot.consumes:
            await bot.all_came()
    found = [bot.lateness(load, prefetch, began) for bot in bots]
    for bot in bots:
        await bot.connections.aclose()
    return found


def _steady(load: Load, began: float) -> list[tuple[float, float]]:
    """When each is enqueued, and when it is due: delays are even on a logarithmic scale."""
    chance = random.Random(7)
    ats = [began + n / load.rate for n in range(round(load.rate * load.seconds))]
    return [(at, at + SHORTEST_SECONDS * (load.longest / SHORTEST_SECONDS) ** chance.random()) for at in ats]


def _burst(load: Load, began: float) -> list[tuple[float, float]]:
    middle = load.seconds / 2
    return [(began + 0.8 * middle * n / load.burst, began + middle) for n in range(load.burst)]
