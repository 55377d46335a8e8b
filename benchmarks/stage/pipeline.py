"""Floodgate itself as a contender: its queues, its state store, and as many workers as asked for."""

from __future__ import annotations

import contextlib
import json
import uuid
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import pika

from benchmarks.stage.editions import CURRENT, Edition
from benchmarks.stage.programs import Program
from floodgate.broker.amqp import topology
from floodgate.broker.amqp.topology import PartitionCount
from floodgate.broker.messages import queue_names
from floodgate.broker.settings.model import Settings, load_settings
from floodgate.producer.client import Client

BOT_ID: Final = 100200300
TOKEN: Final = f"{BOT_ID}:" + "A" * 35


@dataclass(slots=True)
class Pipeline:
    """One bot's queues and workers. Used by one thread at a time."""

    settings: Settings
    bot: str
    home: Path
    client: Client
    edition: Edition
    env: Mapping[str, str]
    workers: list[Program] = field(default_factory=list)
    _started: int = 0

    def start_workers(self, count: int) -> None:
        """Start so many, and wait until they are ready."""
        fresh = [self._worker() for _ in range(count)]
        self.workers += fresh
        for worker in fresh:
            worker.ready_line()

    def stop_workers(self) -> None:
        while self.workers:
            self.workers.pop().stop()

    def enqueue(self, first: int, count: int) -> None:
        """Queue one bulk message each to so many users from number ``first`` on."""
        self.client.enqueue_many(
            self.client.job("sendMessage", chat_id=chat, text=f"message {chat}", priority="bulk")
            for chat in range(first, first + count)
        )

    def queue_names(self) -> list[str]:
        """All that is this bot's alone."""
        sends = queue_names.send_queues(self.bot, self.settings.partitions)
        updates = (queue_names.updates_queue(self.bot, n) for n in range(self.settings.update_partitions))
        return [*sends, *updates, queue_names.leader_queue(self.bot), queue_names.dead_queue(self.bot)]

    def _worker(self) -> Program:
        self._started += 1
        return self.edition.worker(self.env, self.home / f"{self.bot}-worker-{self._started}.log").start()


@contextlib.contextmanager
def pipeline(
    home: Path, rabbitmq_url: str, api_url: str, state_url: str, edition: Edition = CURRENT, **settings: Any
) -> Iterator[Pipeline]:
    """A pipeline under a bot name of its own, with no worker yet; its queues are removed at the end.

    Args:
        edition: whose workers run. The client that fills the queues is always this tree's.
        settings: further ones by their names; all processes get them.
    """
    bot = f"bench-{uuid.uuid4().hex[:6]}"
    given = {
        "rabbitmq_url": rabbitmq_url,
        "telegram_api_url": api_url,
        "state_url": state_url,
        "bots": {bot: TOKEN},
        "log_level": "WARNING",
        **edition.settings,
        **settings,
    }
    loaded = load_settings(_env_file=None, bot_token=None, **given)
    with contextlib.ExitStack() as stack:
        client = stack.enter_context(Client(loaded, bot=bot))
        ours = Pipeline(loaded, bot, home, client, edition, environment(given))
        counts = topology.pipeline_of(loaded, [bot]).counts
        stack.callback(lambda: _delete(loaded.rabbitmq_urls, ours.queue_names(), counts))
        stack.callback(ours.stop_workers)
        yield ours


def environment(given: Mapping[str, Any]) -> dict[str, str]:
    """The settings as processes read them; the log says at least when a worker is ready."""
    texts = {name: value if isinstance(value, str) else json.dumps(value) for name, value in given.items()}
    return {f"FLOODGATE_{name.upper()}": text for name, text in texts.items()} | {
        "FLOODGATE_BOT_TOKEN": "",
        "FLOODGATE_LOG_LEVEL": "INFO",
    }


def _delete(rabbitmq_urls: Iterable[str], queues: Iterable[str], counts: Iterable[PartitionCount]) -> None:
    """Deleting a queue that is not there is no error."""
    connection = pika.BlockingConnection([pika.URLParameters(url) for url in rabbitmq_urls])
    channel = connection.channel()
    for queue in queues:
        channel.queue_delete(queue)
    for exchange in (exchange for count in counts for exchange in count.exchanges):
        channel.exchange_delete(exchange.name)
    connection.close()
