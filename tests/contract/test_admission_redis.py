"""The contract of the Redis store: server failures, memory, clusters."""

from __future__ import annotations

import logging
import secrets
from collections.abc import Callable, Iterator
from datetime import timedelta
from typing import Any

import pytest
import redis

from floodgate.broker.admission.contract import AlreadySent, Go, Sent, Wait
from floodgate.broker.admission.policy import policy_of
from floodgate.broker.errors import StateSchemaError, StateUnavailableError
from floodgate.broker.state.redis.admission import RedisAdmission
from tests.admission_bench import HandClock, ask_of, settings_of
from tests.services import RedisServer

RULES = policy_of(settings_of())


@pytest.fixture
def server(new_redis: Callable[[], RedisServer]) -> RedisServer:
    return new_redis().start()


@pytest.fixture
def admin(server: RedisServer) -> Iterator[Any]:
    client = redis.Redis.from_url(server.url, decode_responses=True)
    yield client
    client.close()


@pytest.fixture
def store(server: RedisServer) -> Iterator[RedisAdmission]:
    opened = RedisAdmission(server.url, RULES)
    opened.vouch_idle("default")
    yield opened
    opened.close()


def test_the_store_uses_the_servers_clock(store: RedisAdmission, admin: Any) -> None:
    go = store.admit(ask_of(5))
    assert isinstance(go, Go)
    assert go.grant is not None
    seconds, micros = admin.time()
    assert 0 <= seconds * 1_000_000 + micros - go.grant < 5_000_000


def test_an_unavailable_server_is_reported_in_one_sentence_and_sending_resumes_when_it_is_back(
    store: RedisAdmission, server: RedisServer
) -> None:
    ask = ask_of(5)
    store.admit(ask)
    store.settle(ask, Sent(True))
    server.kill()
    with pytest.raises(StateUnavailableError, match=rf"127\.0\.0\.1:{server.port} does not answer"):
        store.admit(ask_of(6))
    server.start()
    assert isinstance(store.admit(ask_of(6)), Go)
    assert store.admit(ask) == AlreadySent(True)


def test_no_error_shows_the_password(server: RedisServer) -> None:
    store = RedisAdmission(f"redis://user:s3cret@127.0.0.1:{server.port}/0", RULES)
    with pytest.raises(StateUnavailableError, match="refuses the user or password") as caught:
        store.admit(ask_of(5))
    assert "s3cret" not in str(caught.value)


def test_the_script_is_loaded_again_when_the_server_has_lost_it(store: RedisAdmission, admin: Any) -> None:
    admin.script_flush()
    assert isinstance(store.admit(ask_of(5)), Go)


def test_a_permit_whose_reply_was_lost_is_granted_again(store: RedisAdmission, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(secrets, "token_hex", lambda size: "the same call")
    ask = ask_of(5)
    first = store.admit(ask)
    assert isinstance(first, Go)
    assert store.admit(ask) == first
    monkeypatch.undo()
    assert isinstance(store.admit(ask), Wait)


def test_a_read_only_replica_is_reported_in_one_sentence(store: RedisAdmission, admin: Any) -> None:
    assert isinstance(store.admit(ask_of(5)), Go)
    admin.replicaof("127.0.0.1", "1")
    clients = len(admin.client_list())
    with pytest.raises(StateUnavailableError, match="read-only replica"):
        store.admit(ask_of(6))
    assert len(admin.client_list()) == clients - 1  # the next call connects anew, perhaps elsewhere
    admin.replicaof("NO", "ONE")
    assert isinstance(store.admit(ask_of(6)), Go)


def test_a_server_out_of_memory_is_reported_in_one_sentence_and_sending_resumes_when_it_recovers(
    store: RedisAdmission, admin: Any
) -> None:
    admin.config_set("maxmemory", "1")
    with pytest.raises(StateUnavailableError, match="no memory left"):
        store.admit(ask_of(5))
    admin.config_set("maxmemory", "0")
    assert isinstance(store.admit(ask_of(5)), Go)


def test_a_server_that_evicts_keys_causes_a_warning(
    server: RedisServer, admin: Any, caplog: pytest.LogCaptureFixture
) -> None:
    admin.config_set("maxmemory", "100mb")
    admin.config_set("maxmemory-policy", "allkeys-lru")
    store = RedisAdmission(server.url, RULES)
    with caplog.at_level(logging.WARNING, "floodgate.admission"):
        store.admit(ask_of(5))
    assert "noeviction" in caplog.text
    store.close()


def test_state_of_another_version_is_refused(store: RedisAdmission, admin: Any) -> None:
    admin.eval("redis.call('SET', KEYS[1], cmsgpack.pack({ v = 99, offset = 0, granted = 0 }))", 1, BOT_KEY)
    with pytest.raises(StateSchemaError, match="schema 99"):
        store.admit(ask_of(5))


BOT_KEY = "floodgate:{default}:bot"


def test_a_wiped_server_starts_cautiously(store: RedisAdmission, admin: Any) -> None:
    assert isinstance(store.admit(ask_of(5)), Go)
    admin.flushall()
    assert isinstance(store.admit(ask_of(6)), Wait)


def test_all_keys_of_a_bot_share_one_slot_and_growing_keys_expire(server: RedisServer, admin: Any) -> None:
    clock = HandClock()
    store = RedisAdmission(server.url, RULES, clock)
    store.vouch_idle("default")
    for chat in (1, 2, -3, -3, -3):
        ask = ask_of(chat)
        if isinstance(decision := store.admit(ask), Go):
            store.settle(ask, Sent({"message_id": 1}), decision.grant)
    for chat in range(20, 30):
        store.admit(ask_of(chat))
    store.pause("default", "9", timedelta(seconds=60), "test")
    store.migrate("default", "-8", "-9")
    store.migrate("default", "@name", "-9")
    keys = admin.keys("*")
    assert all(key.startswith("floodgate:{default}:") for key in keys)
    lasting = {key.removeprefix("floodgate:{default}:") for key in keys if admin.pttl(key) < 0}
    assert lasting <= {
        *(
            "bot",
            "writes",
            "aliases",
            "names",
            "counts",
            "lines",
            "calls",
            "pauses",
            "dead",
            "waiters:free",
            "waiting:free",
        )
    }
    assert 0 < admin.pttl("floodgate:{default}:chat:1") < 3_600_000
    store.close()


def test_abandoned_waiters_are_removed(server: RedisServer, admin: Any) -> None:
    clock = HandClock()
    store = RedisAdmission(server.url, RULES, clock)
    store.vouch_idle("default")
    for chat in range(1, 40):
        store.admit(ask_of(chat))
    assert admin.zcard("floodgate:{default}:waiters:free") == 34
    clock.advance(120)
    store.admit(ask_of(100))
    assert admin.zcard("floodgate:{default}:waiters:free") == 0
    assert admin.hlen("floodgate:{default}:waiting:free") == 0
    store.close()


def test_it_works_on_a_cluster(cluster_url: str) -> None:
    store = RedisAdmission(cluster_url, RULES)
    store.vouch_idle("default")
    ask = ask_of(5)
    decision = store.admit(ask)
    assert isinstance(decision, Go)
    store.settle(ask, Sent(True), decision.grant)
    assert store.admit(ask) == AlreadySent(True)
    store.close()
