"""State stores that lose their last writes: a Redis replica that lags is promoted."""

from __future__ import annotations

import contextlib
import itertools
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from benchmarks.failures.row import Scene, Servers, within
from benchmarks.stage.scenarios import Target
from benchmarks.stage.servers import rabbitmq
from tests.chaos.lost_writes import Replicated, replicated
from tests.services import RedisServer

LAG_SECONDS: Final = 3.0


def stop() -> None:
    """The rows share nothing."""


@dataclass(slots=True)
class LaggingReplicaPromoted:
    """The replica stops learning; three seconds later the primary is lost and the replica is promoted."""

    name: str = "Redis replica 3 s behind promoted"
    targets: tuple[Target, ...] = within(10.0)
    _redis: Replicated | None = None

    def why_not(self) -> str | None:
        return None

    @contextlib.contextmanager
    def servers(self, home: Path) -> Iterator[Servers]:
        numbers = itertools.count()

        def new_redis(*flags: str) -> RedisServer:
            folder = home / f"redis-{next(numbers)}"
            folder.mkdir()
            return RedisServer(folder, *flags)

        with replicated(new_redis) as self._redis, rabbitmq() as url:
            try:
                yield Servers(url, f"redis://127.0.0.1:{self._redis.front.port}/0")
            finally:
                self._redis.primary.kill()
                self._redis.replica.kill()

    def strike(self, scene: Scene) -> None:
        assert self._redis is not None
        self._redis.lag()
        time.sleep(LAG_SECONDS)
        self._redis.fail_over()


ROWS: Final = (LaggingReplicaPromoted(),)
