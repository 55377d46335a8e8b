"""Workers under load whose Redis changes: a primary that is killed, and a cluster that moves or loses a bot's keys."""

from __future__ import annotations

import time
from collections.abc import Iterator

import pytest

from tests.acceptance.conftest import MakeStage
from tests.acceptance.stage import BOT, Stage
from tests.redis_servers import ReplicatedRedis, ShardedRedis, connected
from tests.services import RedisServer, Vhost
from tests.waiting import until

CHATS = 40
PARTS = 4
JOBS = CHATS * PARTS
PARTITIONS = 4
DONE_SECONDS = 90.0


@pytest.fixture
def replicated(tmp_path: object, tmp_path_factory: pytest.TempPathFactory) -> Iterator[ReplicatedRedis]:
    redis = ReplicatedRedis(tmp_path_factory.mktemp("sentinel"))
    try:
        yield redis.start()
    finally:
        redis.stop()


@pytest.fixture
def sharded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ShardedRedis]:
    redis = ShardedRedis(tmp_path_factory.mktemp("cluster"), replicas=1)
    try:
        yield redis.start()
    finally:
        redis.stop()


def test_workers_go_on_at_the_replica_when_the_primary_is_killed(
    new_stage: MakeStage, vhost: Vhost, replicated: ReplicatedRedis
) -> None:
    stage, texts = under_load(new_stage, vhost, replicated.url)
    kill(replicated.primary())
    assert_all_sent_once_in_order(stage, texts)


@pytest.mark.full_length
def test_workers_go_on_at_the_replica_of_a_cluster_when_a_node_is_killed(
    new_stage: MakeStage, vhost: Vhost, sharded: ShardedRedis
) -> None:
    stage, texts = under_load(new_stage, vhost, sharded.url)
    kill(sharded.node_of(BOT))
    assert_all_sent_once_in_order(stage, texts)


@pytest.mark.full_length
def test_workers_go_on_at_the_node_to_which_a_bots_slot_is_moved(
    new_stage: MakeStage, vhost: Vhost, sharded: ShardedRedis
) -> None:
    stage, texts = under_load(new_stage, vhost, sharded.url)
    with sharded.moving(BOT) as move:
        time.sleep(1.5)  # for as long, asks are refused: longer than workers wait between two of them
        move(1_000_000)
    assert_all_sent_once_in_order(stage, texts)


def under_load(new_stage: MakeStage, vhost: Vhost, state_url: str) -> tuple[Stage, list[str]]:
    """Two workers in the middle of a broadcast."""
    stage = new_stage(vhost.url, partitions=PARTITIONS, extra={"FLOODGATE_STATE_URL": state_url})
    for _ in range(2):
        stage.worker()
    client = stage.client()
    parts = [(1000 + chat, f"{1000 + chat} {part}") for part in range(PARTS) for chat in range(CHATS)]
    client.enqueue_many(client.job("sendMessage", chat_id=chat, text=text, priority="bulk") for chat, text in parts)
    until(lambda: len(stage.sent()) >= CHATS, DONE_SECONDS)
    return stage, [text for _, text in parts]


def kill(primary: RedisServer) -> None:
    """Kill a server whose replica is current."""
    with connected(primary) as client:
        client.set("written", 1)  # WAIT waits for the writes of its own connection, and all before them
        client.wait(1, 10_000)
    primary.kill()


def assert_all_sent_once_in_order(stage: Stage, texts: list[str]) -> None:
    until(lambda: len(stage.sent()) >= JOBS, DONE_SECONDS)
    sent = stage.sent()
    assert sorted(sent) == sorted(texts)
    for chat in range(1000, 1000 + CHATS):
        assert (mine := [text for text in sent if text.startswith(f"{chat} ")]) == sorted(mine)
