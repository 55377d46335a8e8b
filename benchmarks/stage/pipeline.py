"""Floodgate itself as a contender: its queues, its state store, and as many workers as asked for."""

from __future__ import annotations

import contextlib
import json
import uuid
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from benchmarks.stage.programs import Program
from broker import topology
from broker.connections import Connections
from broker.settings import Settings, load_settings
from producer.client import Client

BOT_ID: Final = 100200300
TOKEN: Final = f"{BOT_ID}:" + "A" * 35
OWN: Final = (topology.Role.SEND, topology.Role.UPDATES, topology.Role.LEADER)


@dataclass(slots=True)
class Pipeline:
    """One bot's queues and workers. Used by one thread at a time."""

    settings: Settings
    bot: str
    home: Path
    client: Client
    connections: Connections
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

    def queue_names(self) -> list[str]:
        """All that is this bot's alone."""
        settings = self.settings
        mine = topology.pipeline([self.bot], settings.partitions, update_partitions=settings.update_partitions).queues
        return [queue.name for queue in mine if queue.role in OWN] + [topology.dead_queue(self.bot)]

    def dead_letters(self) -> int:
        queue = topology.dead_queue(self.bot)
        return topology.depth(self.connections, [queue])[queue] or 0

    def _worker(self) -> Program:
        self._started += 1
        log = self.home / f"{self.bot}-worker-{self._started}.log"
        return Program(["-m", "floodgate", "worker"], self.env, log, "worker ready").start()


@contextlib.contextmanager
def pipeline(home: Path, rabbitmq_url: str, api_url: str, state_url: str, **settings: Any) -> Iterator[Pipeline]:
    """A pipeline under a bot name of its own, with no worker yet; its queues are removed at the end.

    Args:
        settings: further ones by their names; all processes get them.
    """
    bot = f"bench-{uuid.uuid4().hex[:6]}"
    given = {
        "rabbitmq_url": rabbitmq_url,
        "telegram_api_url": api_url,
        "state_url": state_url,
        "bots": {bot: TOKEN},
        "log_level": "WARNING",
        **settings,
    }
    loaded = load_settings(_env_file=None, bot_token=None, **given)
    with contextlib.ExitStack() as stack:
        connections = stack.enter_context(Connections(loaded, "benchmark"))
        client = stack.enter_context(Client(loaded, bot=bot, connections=connections))
        ours = Pipeline(loaded, bot, home, client, connections, _environment(given))
        stack.callback(lambda: topology.delete(connections, ours.queue_names()))
        stack.callback(ours.stop_workers)
        yield ours


def _environment(given: Mapping[str, Any]) -> dict[str, str]:
    """The settings as processes read them; the log says at least when a worker is ready."""
    texts = {name: value if isinstance(value, str) else json.dumps(value) for name, value in given.items()}
    return {f"FLOODGATE_{name.upper()}": text for name, text in texts.items()} | {
        "FLOODGATE_BOT_TOKEN": "",
        "FLOODGATE_LOG_LEVEL": "INFO",
    }
