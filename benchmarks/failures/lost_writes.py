"""State stores that lose their last writes: a Redis replica that lags is promoted, a SQLite file's log is lost."""

from __future__ import annotations

import contextlib
import itertools
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from benchmarks.failures.row import PAUSE, Scene, Servers, within
from benchmarks.stage.scenarios import Target
from benchmarks.stage.servers import rabbitmq
from tests.chaos.lost_writes import Replicated, gone, halved, intact, replicated
from tests.services import RedisServer

LAG_SECONDS: Final = 3.0
# Two workers start anew, whatever is lost; what a loss may cost beyond that is ten seconds.
STARTING_SECONDS: Final = 5.0
# A call under way when its worker is killed may be repeated, if its permit is lost, too.
UNDER_WAY: Final = 10.0


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


@dataclass(frozen=True, slots=True)
class PowerLost:
    """All workers die at once, and with them a part of the log of the SQLite file; then others start."""

    name: str
    damage: Callable[[Path], None]
    targets: tuple[Target, ...]

    def why_not(self) -> str | None:
        return None

    @contextlib.contextmanager
    def servers(self, home: Path) -> Iterator[Servers]:
        with rabbitmq() as url:
            yield Servers(url, f"sqlite:///{home}/state.db")

    def strike(self, scene: Scene) -> None:
        for worker in scene.ours.workers:
            worker.kill()
        count = len(scene.ours.workers)
        scene.ours.workers.clear()
        self.damage(scene.ours.home / "state.db-wal")
        (scene.ours.home / "state.db-shm").unlink()
        scene.ours.start_workers(count)


def _after(lost_seconds: float) -> tuple[Target, ...]:
    return (
        Target(PAUSE, at_most=STARTING_SECONDS + lost_seconds),
        Target("lost", at_most=0),
        Target("doubled", at_most=UNDER_WAY),
    )


ROWS: Final = (
    LaggingReplicaPromoted(),
    PowerLost("SQLite, power lost, nothing missing", intact, _after(0)),
    PowerLost("SQLite, power lost, half of the log missing", halved, _after(10)),
    PowerLost("SQLite, power lost, all of the log missing", gone, _after(10)),
)
