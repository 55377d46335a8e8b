"""Redis: what the failure of the server that holds the state costs, with Sentinels and in a cluster.

The replica is current: the server is killed when it has everything. Sentinels and clusters have the times that
docs/operating.md recommends.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from benchmarks.failures.row import Scene, Servers, within
from benchmarks.stage.scenarios import Target
from benchmarks.stage.servers import rabbitmq
from tests.redis_servers import ReplicatedRedis, ShardedRedis, connected
from tests.services import RedisServer

DOWN_SECONDS: Final = 10.0
KEYS_AT_ONCE: Final = 100  # of a bot that moves: what `redis-cli --cluster reshard` does with a pipeline of as many
MOVES: Final = 20
MOVING_SECONDS: Final = 2.0


def stop() -> None:
    """The rows share nothing."""


@dataclass(slots=True)
class PrimaryKilled:
    """The primary is killed, and comes back as a replica."""

    name: str = "Redis primary killed, replica current"
    targets: tuple[Target, ...] = within(5.0)
    _redis: ReplicatedRedis | None = None

    def why_not(self) -> str | None:
        return None

    def servers(self, home: Path) -> contextlib.AbstractContextManager[Servers]:
        self._redis = ReplicatedRedis(home)
        return _beside(self._redis)

    def strike(self, scene: Scene) -> None:
        assert self._redis is not None
        _kill(self._redis.primary())


@dataclass(slots=True)
class ClusterFailure:
    """A cluster of three shards with a replica each: the bot's node is killed, or the bot is moved to another node."""

    name: str
    moves: bool
    targets: tuple[Target, ...] = within(5.0)
    _redis: ShardedRedis | None = None

    def why_not(self) -> str | None:
        return None

    def servers(self, home: Path) -> contextlib.AbstractContextManager[Servers]:
        self._redis = ShardedRedis(home, replicas=1)
        return _beside(self._redis)

    def strike(self, scene: Scene) -> None:
        assert self._redis is not None
        if not self.moves:
            _kill(self._redis.node_of(scene.ours.bot))
            return
        with self._redis.moving(scene.ours.bot) as move:
            for _ in range(MOVES):
                move(KEYS_AT_ONCE)
                time.sleep(MOVING_SECONDS / MOVES)
            move(1_000_000)


@contextlib.contextmanager
def _beside(redis: ReplicatedRedis | ShardedRedis) -> Iterator[Servers]:
    """Start a Redis, and a RabbitMQ beside it."""
    try:
        redis.start()
        with rabbitmq() as url:
            yield Servers(url, redis.url)
    finally:
        redis.stop()


def _kill(primary: RedisServer) -> None:
    with connected(primary) as client:
        client.set("written", 1)  # WAIT waits for the writes of its own connection, and all before them
        client.wait(1, 1000)
    primary.kill()
    time.sleep(DOWN_SECONDS)
    primary.start()


ROWS: Final = (
    PrimaryKilled(),
    ClusterFailure("Redis Cluster: a node killed, replica current", moves=False),
    ClusterFailure("Redis Cluster: the bot's slot moved", moves=True),
)
