"""The state on a primary that Sentinels name: failovers, and one sentence for each mistake."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from floodgate.broker.admission.contract import Admission, AlreadySent, Sent
from floodgate.broker.admission.policy import policy_of
from floodgate.broker.errors import StateUnavailableError
from floodgate.broker.state.redis import clients
from floodgate.broker.state.redis.admission import RedisAdmission
from floodgate.broker.state.redis.result_feed import RedisResultFeed
from rabbitmq_node.engine import free_ports
from tests import awaited_admission
from tests.admission_bench import ask_of, settings_of
from tests.redis_servers import PRIMARY, ReplicatedRedis, SentinelServer, connected, tls_files
from tests.services import RedisServer
from tests.waiting import until

RULES = policy_of(settings_of())
DOWN_AFTER_MS = 500
FAILOVER_SECONDS = 60.0


@pytest.fixture(scope="module")
def replicated(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ReplicatedRedis]:
    # Sentinels begin a failover only twice this time after the last one.
    soon = f"sentinel failover-timeout {PRIMARY} 1000"
    home = tmp_path_factory.mktemp("sentinel")
    redis = ReplicatedRedis(home, down_after_ms=DOWN_AFTER_MS, sentinel_lines=[soon])
    try:
        yield redis.start()
    finally:
        redis.stop()


def persistent(act: Callable[[], object]) -> object:
    """Repeat what workers repeat: a call to a store that is away."""
    deadline = time.monotonic() + FAILOVER_SECONDS
    while True:
        try:
            return act()
        except StateUnavailableError:
            assert time.monotonic() < deadline
            time.sleep(0.1)


def refusal(url: str) -> str:
    with pytest.raises(StateUnavailableError) as caught:
        RedisAdmission(url, RULES).lookup("default", "1")
    assert "s3cret" not in str(caught.value)
    return str(caught.value)


def test_a_wrong_name_is_reported_in_one_sentence(replicated: ReplicatedRedis) -> None:
    assert "'mian' of the Sentinels" in (said := refusal(f"redis+sentinel://:s3cret@{replicated.hosts}/mian"))
    assert "is unknown to them. Correct the name" in said


def test_a_sentinel_that_is_away_is_passed_over(replicated: ReplicatedRedis) -> None:
    store = RedisAdmission(f"redis+sentinel://127.0.0.1:{free_ports().amqp},{replicated.hosts}/{PRIMARY}", RULES)
    assert store.lookup("default", "1") is None
    store.close()


def test_sentinels_that_are_away_are_reported_in_one_sentence() -> None:
    ports = free_ports()
    url = f"redis+sentinel://:s3cret@127.0.0.1:{ports.amqp},127.0.0.1:{ports.distribution}/{PRIMARY}"
    assert "cannot be found: no Sentinel answers (ConnectionError)" in refusal(url)


def test_servers_that_are_no_sentinels_are_reported_in_one_sentence(redis_server: RedisServer) -> None:
    assert "no Sentinels" in refusal(f"redis+sentinel://127.0.0.1:{redis_server.port}/{PRIMARY}")


def test_the_sentinels_have_a_password_of_their_own(replicated: ReplicatedRedis) -> None:
    for each in replicated.sentinels:
        with connected(each) as client:
            client.execute_command("ACL SETUSER", "default", "resetpass", ">sentinels")
    try:
        assert "the Sentinels refuse the user or password" in refusal(replicated.url)
        assert "the Sentinels refuse the user or password" in refusal(f"{replicated.url}?sentinel_password=s3cret")
        store = RedisAdmission(f"{replicated.url}?sentinel_password=sentinels", RULES)
        assert store.lookup("default", "1") is None
        store.close()
    finally:
        for each in replicated.sentinels:
            with connected(each, password="sentinels") as client:
                client.execute_command("ACL SETUSER", "default", "nopass")


def test_a_wrong_password_of_the_server_is_reported_in_one_sentence(replicated: ReplicatedRedis) -> None:
    assert "refuses the user or password" in refusal(replicated.url.replace("://", "://user:s3cret@"))


def test_stores_go_on_at_the_replica_when_the_primary_hangs(
    replicated: ReplicatedRedis, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(clients, "TIMEOUT_SECONDS", 0.7)
    store, ask = awaited_admission.on_redis(replicated.url, RULES), ask_of(7)
    store.settle(ask, Sent("before"))
    primary = replicated.primary()
    await_copy(primary)
    with primary.frozen():
        assert persistent(lambda: store.admit(ask)) == AlreadySent("before")
        store.close()
        assert replicated.primary() is not primary
        replicated.replace(primary)


def await_copy(primary: RedisServer) -> None:
    with connected(primary) as client:
        client.set("written", 1)  # WAIT waits for the writes of its own connection, and all before them
        client.wait(1, 10_000)


def test_stores_go_on_at_the_replica_when_the_primary_is_killed(replicated: ReplicatedRedis) -> None:
    stores: list[Admission] = [
        RedisAdmission(replicated.url, RULES),
        awaited_admission.on_redis(replicated.url, RULES),
    ]
    ask = ask_of(5)
    for store in stores:
        store.settle(ask, Sent("before"))
    feed = RedisResultFeed(replicated.url, ["default"])
    feed.skip()
    killed = replicated.primary()
    await_copy(killed)
    killed.kill()
    for store in stores:
        assert persistent(lambda store=store: store.admit(ask)) == AlreadySent("before")  # type: ignore[misc]
    with pytest.raises(StateUnavailableError):
        feed.wait(5)
    feed.skip()
    stores[0].settle(ask_of(6), Sent("after"))
    assert [each.record.result for each in feed.wait(5)] == ["after"]
    for each in (feed, *stores):
        each.close()
    _no_primary_is_left(replicated)


def _no_primary_is_left(replicated: ReplicatedRedis) -> None:
    """The sentence for it, when the promoted replica is killed as well, whichever a Sentinel still names."""
    for server in replicated.servers:
        server.kill()
    hosts = replicated.hosts.replace(",", ", ")
    until(lambda: "is down, and no replica has taken over yet" in refusal(replicated.url), FAILOVER_SECONDS)
    assert f"'{PRIMARY}' of the Sentinels {hosts}" in refusal(replicated.url)


def test_tls_is_for_the_server_and_for_the_sentinels(
    certificate: Path, new_redis: Callable[..., RedisServer], tmp_path: Path
) -> None:
    files = tls_files(certificate)
    tls_port, sentinel_tls_port = free_ports().amqp, free_ports().amqp
    flags = [part for name, value in files.items() for part in (f"--{name}", value)]
    new_redis("--tls-port", str(tls_port), "--tls-auth-clients", "no", *flags).start()
    lines = [f"{name} {value}" for name, value in files.items()]
    sentinel = SentinelServer(
        tmp_path,
        tls_port,
        *(f"tls-port {sentinel_tls_port}", "tls-auth-clients no", "tls-replication yes"),
        *lines,
    ).start()
    try:
        url = f"rediss+sentinel://127.0.0.1:{sentinel_tls_port}/{PRIMARY}"
        trusting = f"?ssl_ca_certs={certificate}"
        for make in (RedisAdmission, awaited_admission.on_redis):
            store = make(url + trusting, RULES)
            assert persistent(lambda store=store: store.lookup("default", "1")) is None  # type: ignore[misc]
            store.close()
        assert "no Sentinel answers" in refusal(url)
        assert "cannot be reached with TLS" in refusal(f"rediss://127.0.0.1:{tls_port}")
    finally:
        sentinel.kill()
