"""The state on a Redis Cluster: slots on the move, nodes that are away, and one sentence for each mistake."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import timedelta
from pathlib import Path

import pytest

from floodgate.broker.admission.contract import Admission, AlreadySent, Go, Sent
from floodgate.broker.admission.policy import policy_of
from floodgate.broker.errors import StateUnavailableError
from floodgate.broker.state.activity import ProcessReport, Resolution, Series
from floodgate.broker.state.redis.activity import RedisActivity
from floodgate.broker.state.redis.admission import RedisAdmission
from rabbitmq_node.engine import free_ports
from tests import awaited_admission
from tests.admission_bench import ask_of, settings_of
from tests.redis_servers import ShardedRedis, connected, tls_files
from tests.services import RedisServer

RULES = policy_of(settings_of())
PROCESS = ProcessReport("w1", "worker", "one", 7, "0.2", timedelta(seconds=5), ())


@pytest.fixture
def stores(cluster_url: str) -> Iterator[Sequence[Admission]]:
    """The same state, blocking and in batches."""
    opened: list[Admission] = [RedisAdmission(cluster_url, RULES), awaited_admission.on_redis(cluster_url, RULES)]
    yield opened
    for each in opened:
        each.close()


def refusal(url: str) -> str:
    with pytest.raises(StateUnavailableError) as caught:
        RedisAdmission(url, RULES).lookup("default", "1")
    return str(caught.value)


def test_a_bot_waits_while_its_slot_moves_to_another_node_and_keeps_its_state(
    stores: Sequence[Admission], redis_cluster: ShardedRedis
) -> None:
    stores[0].vouch_idle("default")
    sent, begun = ask_of(5), ask_of(6)
    stores[0].settle(sent, Sent("before"))
    assert isinstance(stores[0].admit(begun), Go)
    with redis_cluster.moving("default") as move:
        for keys in (0, 1, 1000):  # none, one and all
            move(keys)
            for store in stores:
                with pytest.raises(StateUnavailableError, match="is moving the bot's keys to another node"):
                    store.admit(ask_of(7))
                store.vouch_idle(redis_cluster.bot_elsewhere("default"))
    for store in stores:
        assert store.admit(sent) == AlreadySent("before")
    stores[0].settle(begun, Sent("after"))
    assert stores[1].admit(begun) == AlreadySent("after")


def test_a_node_that_is_away_stops_only_its_own_bots_and_what_is_counted_of_them_is_reported_later(
    stores: Sequence[Admission], cluster_url: str, redis_cluster: ShardedRedis
) -> None:
    away, here = bots = redis_cluster.bot_elsewhere("processes"), "processes"  # that is where processes are listed
    activity = RedisActivity(cluster_url, RULES)

    def report() -> None:
        activity.report(PROCESS, {bot: {Series.SENT: 1} for bot in bots})

    for bot in bots:
        stores[0].vouch_idle(bot)
    report()
    with redis_cluster.without_node_of(away):
        for chat, store in enumerate((*stores, *stores), 1):
            with pytest.raises(StateUnavailableError, match=r"does not answer|a part that no node serves"):
                store.admit(ask_of(chat, bot=away))
            assert isinstance(store.admit(ask_of(chat, bot=here)), Go)
        newcomer = RedisAdmission(cluster_url, RULES)
        assert newcomer.lookup(here, "1") is None
        newcomer.close()
        report()
    report()
    counts = [activity.history(bot, Resolution.MINUTE, timedelta(hours=1)).values[Series.SENT] for bot in bots]
    assert [sum(filter(None, each)) for each in counts] == [2, 3], "the first report was lost with the node"
    for store in stores:
        store.vouch_idle(away)
    activity.close()


def test_a_database_of_a_cluster_is_refused_in_one_sentence(redis_cluster: ShardedRedis) -> None:
    assert "has only database 0" in refusal(f"redis://127.0.0.1:{redis_cluster.nodes[0].port}/1")


def test_a_cluster_that_is_away_is_reported_in_one_sentence() -> None:
    port = free_ports().amqp
    assert f"127.0.0.1:{port} (a cluster) does not answer" in refusal(f"redis+cluster://127.0.0.1:{port}")


def test_a_server_that_is_no_cluster_is_reported_in_one_sentence(redis_server: RedisServer) -> None:
    assert "is not a cluster" in refusal(f"redis+cluster://127.0.0.1:{redis_server.port}")


def test_a_wrong_password_is_reported_in_one_sentence(redis_cluster: ShardedRedis) -> None:
    said = refusal(redis_cluster.url.replace("://", "://user:s3cret@"))
    assert "refuses the user or password" in said
    assert "s3cret" not in said


def test_a_node_that_is_away_is_passed_over(redis_cluster: ShardedRedis) -> None:
    for make in (RedisAdmission, awaited_admission.on_redis):
        store = make(f"redis+cluster://127.0.0.1:{free_ports().amqp},{redis_cluster.hosts}", RULES)
        assert store.lookup("default", "1") is None
        store.close()


def test_tls_is_for_each_node_that_the_cluster_names(certificate: Path, tmp_path: Path) -> None:
    flags = [part for name, value in tls_files(certificate).items() for part in (f"--{name}", value)]
    cluster = ShardedRedis(tmp_path, tls=flags)
    try:
        cluster.start()
        for node in cluster.nodes:
            with connected(node) as client:
                client.execute_command("ACL SETUSER", "default", "resetpass", ">s3cret")
        url = f"rediss+cluster://:{{}}@127.0.0.1:{cluster.tls_ports[0]}?ssl_ca_certs={{}}"
        bots = [f"bot-{number}" for number in range(9)]
        for make in (RedisAdmission, awaited_admission.on_redis):
            store = make(url.format("s3cret", certificate), RULES)
            for bot in bots:
                store.vouch_idle(bot)
            store.close()
        said = refusal(url.format("wrong", certificate))
        assert "refuses the user or password" in said
        assert "s3cret" not in refusal(url.format("s3cret", "/etc/ssl/certs/ca-certificates.crt"))
        assert "cannot be reached with TLS" in refusal(url.format("s3cret", "/etc/ssl/certs/ca-certificates.crt"))
        for node in cluster.nodes:
            with connected(node, password="s3cret") as client:
                assert client.dbsize() > 0, "some bots are on each node"
    finally:
        cluster.stop()
