"""State stores that lose their last writes under load: a SQLite file after a power loss, a Redis replica that lags."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from floodgate.fake_telegram.server import running_fake
from tests.acceptance.stage import Stage
from tests.chaos.lost_writes import (
    PARTITIONS,
    SHORT_CALLS,
    Account,
    Load,
    gone,
    halved,
    intact,
    lose_power,
    promote_a_lagging_replica,
    replicated,
    torn,
    zeroed,
)
from tests.services import RedisServer, Vhost

SHORT = Load(users=12, each=4, groups=2, each_group=8)
LONG = Load(users=40, each=12, groups=4, each_group=18)
NOTICED = "has lost its last writes"


@pytest.fixture
def stage(vhost: Vhost, tmp_path: Path) -> Iterator[Stage]:
    with running_fake() as fake:
        opened = Stage(vhost.url, fake.url, tmp_path, partitions=PARTITIONS, extra=dict(SHORT_CALLS))
        yield opened
        opened.close()


def logs(stage: Stage) -> str:
    return "".join(log.read_text() for log in stage.home.glob("worker-*.log"))


def check(account: Account) -> None:
    """All is sent. Only calls that were under way when their workers were killed may have acted twice."""
    print(account)
    assert account.unsent == 0, account
    assert len(account.twice) <= 2 * PARTITIONS, account


@pytest.mark.timeout(300)
@pytest.mark.parametrize(
    "damage", [halved, *(pytest.param(each, marks=pytest.mark.full_length) for each in (intact, torn, zeroed, gone))]
)
def test_after_a_power_loss_everything_is_sent_within_seconds(stage: Stage, damage: Callable[[Path], None]) -> None:
    account = lose_power(stage, SHORT, damage, SHORT.count // 2)
    check(account)
    if damage is intact:
        assert account.inversions == ()
        assert NOTICED not in logs(stage)
    elif damage is not torn:  # which may lose nothing that matters
        assert logs(stage).count(NOTICED) == 1


def lagging(stage: Stage, new_redis: Callable[..., RedisServer], load: Load, lag_seconds: float) -> Account:
    with replicated(new_redis) as servers:
        stage.extra["FLOODGATE_STATE_URL"] = f"redis://127.0.0.1:{servers.front.port}/0"
        account = promote_a_lagging_replica(stage, servers, load, load.count // 3, lag_seconds)
        stage.close()
    return account


@pytest.mark.timeout(300)
def test_a_lagging_replica_that_is_promoted_costs_no_order_and_no_repetition(
    stage: Stage, new_redis: Callable[..., RedisServer]
) -> None:
    account = lagging(stage, new_redis, SHORT, 1.0)
    check(account)
    assert account.inversions == account.twice == ()
    assert logs(stage).count(NOTICED) == 1


@pytest.mark.full_length
@pytest.mark.timeout(600)
def test_a_replica_three_seconds_behind_is_promoted(stage: Stage, new_redis: Callable[..., RedisServer]) -> None:
    account = lagging(stage, new_redis, LONG, 3.0)
    check(account)
    assert account.inversions == account.twice == ()
    assert account.refused == 0
    assert logs(stage).count(NOTICED) == 1
