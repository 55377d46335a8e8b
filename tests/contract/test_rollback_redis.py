"""What is peculiar to Redis when it has lost writes: another server, replicas."""

from __future__ import annotations

import logging
from collections.abc import Callable
from contextlib import closing
from datetime import timedelta

import pytest
import redis

from floodgate.broker.admission.contract import Go, Sent, Wait
from floodgate.broker.admission.policy import REBUILD_GRACE_US, policy_of
from floodgate.broker.state.calls import BatchedAdmission
from floodgate.broker.state.redis import continuity
from floodgate.broker.state.redis.admission import RedisAdmission, RedisBatches
from floodgate.broker.state.redis.scripts import ReplicaWait
from tests import awaited_admission
from tests.admission_bench import HandClock, ask_of, settings_of
from tests.chaos.lost_writes import replicated
from tests.services import RedisServer

RULES = policy_of(settings_of())


@pytest.fixture
def clock() -> HandClock:
    return HandClock()


def test_a_new_process_does_not_wait_for_jobs_that_a_restarted_server_may_have_lost(
    new_redis: Callable[..., RedisServer], clock: HandClock
) -> None:
    server = new_redis("--appendonly", "no").start()
    ghost, waiting = ask_of(5), ask_of(5)
    with closing(RedisAdmission(server.url, RULES, clock)) as store:
        store.vouch_idle("default")
        ask = ask_of(5)
        assert isinstance(store.admit(ask), Go)
        store.settle(ask, Sent(True))
        for each in (ghost, waiting):
            store.admit(each)
        with closing(redis.Redis.from_url(server.url)) as admin:
            admin.save()
        clock.advance(1.1)
        assert isinstance(store.admit(ghost), Go)
        store.settle(ghost, Sent(True))
    server.kill()
    server.start()
    clock.advance(2)
    with closing(RedisAdmission(server.url, RULES, clock)) as store:
        wait = store.admit(waiting)
        assert isinstance(wait, Wait)
        assert wait.delay <= timedelta(microseconds=REBUILD_GRACE_US)
        clock.advance(wait.delay)
        assert isinstance(store.admit(waiting), Go)


def test_a_restart_that_lost_nothing_is_known_to_a_new_process_from_one_that_was_there(
    new_redis: Callable[..., RedisServer],
    clock: HandClock,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    monkeypatch.setattr(continuity, "IDENTIFY_SECONDS", 0)
    server = new_redis().start()
    with closing(RedisAdmission(server.url, RULES, clock)) as old:
        old.vouch_idle("default")
        old.admit(ask_of(5))
        server.kill()
        server.start()
        old.admit(ask_of(6))
        with closing(RedisAdmission(server.url, RULES, clock)) as new:
            assert isinstance(new.admit(ask_of(7)), Go)
    assert not [record for record in caplog.records if record.levelno >= logging.WARNING]


def test_a_promoted_replica_that_lagged_is_noticed_and_told(new_redis: Callable[..., RedisServer]) -> None:
    first, second = ask_of(5), ask_of(5)
    with (
        replicated(new_redis) as servers,
        closing(RedisAdmission(f"redis://127.0.0.1:{servers.front.port}/0", RULES)) as store,
    ):
        store.vouch_idle("default")
        go = store.admit(first)
        assert isinstance(go, Go)
        with closing(redis.Redis(port=servers.primary.port)) as admin:
            assert admin.execute_command("WAIT", 1, 5000) == 1
        servers.lag()
        assert isinstance(store.admit(second), Wait)
        store.settle(first, Sent({"message_id": 1}), go.grant)
        servers.fail_over()
        wait = store.admit(second)
        assert isinstance(wait, Wait)
        assert wait.delay < timedelta(seconds=2), "for the chat's budget, and for no job that is gone"
        snapshot = store.snapshot("default")
    assert snapshot.rollbacks == 1
    assert snapshot.waiting["bulk"] == 1


def test_sending_goes_on_when_too_few_replicas_answer_and_the_log_says_so(
    new_redis: Callable[..., RedisServer], caplog: pytest.LogCaptureFixture
) -> None:
    server = new_redis().start()
    batches = RedisBatches(server.url, RULES, replicas=ReplicaWait(1, timedelta(milliseconds=20)))
    with closing(awaited_admission.AwaitedAdmission(BatchedAdmission(batches))) as store:
        for chat in (5, 6):
            assert isinstance(store.admit(ask_of(chat)), Go | Wait)
    assert [record.message.partition(":")[0] for record in caplog.records] == [
        "0 of 1 replicas of Redis had the last writes in time"
    ]
