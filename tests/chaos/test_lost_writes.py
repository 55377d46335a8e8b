"""State stores that lose their last writes under load: the log of a SQLite file after a power loss, a lagging replica."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from floodgate.fake_telegram.server import running_fake
from tests.acceptance.stage import Stage
from tests.chaos.lost_writes import (
    DAMAGE,
    PARTITIONS,
    SHORT_CALLS,
    Load,
    lose_power,
    promote_a_lagging_replica,
    replicated,
)
from tests.services import RedisServer, Vhost


@pytest.fixture
def stage(vhost: Vhost, tmp_path: Path) -> Iterator[Stage]:
    with running_fake() as fake:
        opened = Stage(vhost.url, fake.url, tmp_path, partitions=PARTITIONS, extra=dict(SHORT_CALLS))
        yield opened
        opened.close()


@pytest.mark.timeout(300)
@pytest.mark.parametrize("damage", DAMAGE)
def test_after_a_power_loss(stage: Stage, damage: Callable[[Path], None]) -> None:
    load = Load()
    account = lose_power(stage, load, damage, load.count // 2)
    print(damage.__name__, account)
    print(
        "\n".join(
            line for path in stage.home.glob("worker-*.log") for line in path.read_text().splitlines() if "last" in line
        )
    )


@pytest.mark.timeout(300)
def test_after_a_lagging_replica_was_promoted(stage: Stage, new_redis: Callable[..., RedisServer]) -> None:
    load = Load()
    with replicated(new_redis) as servers:
        stage.extra["FLOODGATE_STATE_URL"] = f"redis://127.0.0.1:{servers.front.port}/0"
        account = promote_a_lagging_replica(stage, servers, load, load.count // 3, 3.0)
        print(account)
        print(
            "\n".join(
                line
                for path in stage.home.glob("worker-*.log")
                for line in path.read_text().splitlines()
                if "last" in line
            )
        )
        stage.close()
