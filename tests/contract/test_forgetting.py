"""Results are kept for hours, standings for days, and reading a store costs little regardless of its size."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
import redis

from floodgate.broker.admission.contract import AlreadyDead, AlreadySent, Dead, Go, Record, Released, Sent, Standing
from floodgate.broker.admission.policy import policy_of
from floodgate.broker.messages.job import Priority
from floodgate.broker.settings.model import Settings
from floodgate.broker.state.redis.admission import RedisAdmission
from floodgate.broker.state.sqlite.admission import SWEEP_EVERY, SqliteAdmission
from tests.admission_bench import HandClock, ask_of
from tests.services import RedisServer

RULES = policy_of(
    Settings(_env_file=None, ledger_seconds=7200, result_seconds=600, limits={"enabled": False})  # type: ignore[call-arg, arg-type]
)
ERROR = {"error_code": 403, "description": "Forbidden: bot was blocked by the user"}
NOT_KEPT = Dead("chat-unreachable", ERROR, kept=False)
RESULT = {"message_id": 7, "text": "Привет"}


@pytest.fixture
def clock() -> HandClock:
    return HandClock()


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "state.db"


@pytest.fixture
def store(path: Path, clock: HandClock) -> Iterator[SqliteAdmission]:
    opened = SqliteAdmission(path, RULES, clock)
    yield opened
    opened.close()


def send(store: SqliteAdmission, count: int, first_chat: int = 100) -> None:
    for chat in range(first_chat, first_chat + count):
        ask = ask_of(chat)
        go = store.admit(ask)
        assert isinstance(go, Go)
        store.settle(ask, Sent(RESULT), go.grant)


def look(path: Path, query: str) -> Any:
    with sqlite3.connect(path) as db:
        return db.execute(query).fetchone()[0]


def test_after_hours_only_the_standing_is_kept(store: SqliteAdmission, path: Path, clock: HandClock) -> None:
    sent, dead = ask_of(1), ask_of(2)
    store.settle(sent, Sent(RESULT))
    store.settle(dead, Dead("chat-unreachable", ERROR))
    clock.advance(599)
    send(store, SWEEP_EVERY)
    assert store.lookup("default", sent.job_id) == Record(Standing.SENT, result=RESULT)
    assert store.lookup("default", dead.job_id) == Record(Standing.DEAD, reason="chat-unreachable", error=ERROR)
    clock.advance(2)
    send(store, SWEEP_EVERY)
    assert store.lookup("default", sent.job_id) == Record(Standing.SENT)
    assert store.lookup("default", dead.job_id) == Record(Standing.DEAD, reason="chat-unreachable")
    assert store.admit(sent) == AlreadySent(None)
    assert store.admit(dead) == AlreadyDead("chat-unreachable")
    assert look(path, "SELECT count(*) FROM results") == 2 * SWEEP_EVERY


def test_a_reused_result_number_does_not_return_another_jobs_result(
    store: SqliteAdmission, path: Path, clock: HandClock
) -> None:
    ask = ask_of(1)
    store.settle(ask, Sent(RESULT))
    clock.advance(601)
    for _ in range(SWEEP_EVERY):
        store.settle(ask_of(2), Released())
    assert look(path, "SELECT count(*) FROM results") == 0
    send(store, 1)
    assert look(path, "SELECT max(number) FROM results") == 1
    assert store.lookup("default", ask.job_id) == Record(Standing.SENT)


def test_deletion_keeps_up_with_a_sending_bot(store: SqliteAdmission, path: Path, clock: HandClock) -> None:
    for _ in range(30):
        send(store, 200)
        clock.advance(300)
    assert look(path, "SELECT count(*) FROM results") <= 200 * 3 + SWEEP_EVERY
    assert look(path, "SELECT count(*) FROM jobs") <= 200 * 25 + SWEEP_EVERY


def test_the_rows_of_an_inactive_bot_are_deleted_while_other_bots_send(
    store: SqliteAdmission, path: Path, clock: HandClock
) -> None:
    store.settle(ask_of(1, bot="old"), Sent(True))
    clock.advance(7201)
    send(store, 2 * SWEEP_EVERY)
    assert look(path, "SELECT count(*) FROM jobs WHERE bot = 'old'") == 0


def test_texts_are_stored_as_utf_8(store: SqliteAdmission, path: Path) -> None:
    store.settle(ask_of(1), Sent(RESULT))
    assert "Привет" in look(path, "SELECT outcome FROM results")


def test_a_lone_surrogate_is_stored(store: SqliteAdmission) -> None:
    ask = ask_of(1)
    store.settle(ask, Sent({"text": "\ud83d"}))
    assert store.lookup("default", ask.job_id) == Record(Standing.SENT, result={"text": "\ud83d"})


def test_counts_follow_dropped_reopened_and_deleted_jobs(store: SqliteAdmission, clock: HandClock) -> None:
    waiting, dead, reopened = ask_of(5), ask_of(6), ask_of(7)
    store.admit(ask_of(5))
    store.admit(waiting)
    for ask in (dead, reopened):
        store.settle(ask, Dead("content"))
    store.reopen("default", reopened.job_id)
    seen = store.snapshot("default")
    assert (seen.waiting[Priority.BULK], seen.dead) == (1, 1)
    clock.advance(timedelta(hours=3))
    send(store, 4 * SWEEP_EVERY)
    seen = store.snapshot("default")
    assert (seen.waiting[Priority.BULK], seen.dead) == (0, 0)


def test_reads_do_not_wait_for_a_writer(store: SqliteAdmission, path: Path) -> None:
    ask = ask_of(1)
    store.admit(ask)
    other = sqlite3.connect(path, isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    assert store.snapshot("default").sending == 1
    assert store.lookup("default", ask.job_id) == Record(Standing.SENDING)
    assert store.unreachable("default") == ()
    other.execute("ROLLBACK")
    other.close()


def test_jobs_not_kept_are_unlisted_after_their_retention(store: SqliteAdmission, path: Path, clock: HandClock) -> None:
    for chat in range(3 * SWEEP_EVERY):
        store.settle(ask_of(chat + 1), NOT_KEPT)
    assert RULES.listed_us is not None
    clock.advance(timedelta(microseconds=RULES.listed_us))
    send(store, SWEEP_EVERY)
    assert look(path, "SELECT count(*) FROM not_kept") == 0
    late = ask_of(1)
    store.settle(late, NOT_KEPT)
    assert [job.job_id for job in store.not_kept("default")] == [late.job_id]


def test_redis_unlists_jobs_not_kept_after_their_retention(
    new_redis: Callable[[], RedisServer], clock: HandClock
) -> None:
    server = new_redis().start()
    store = RedisAdmission(server.url, RULES, clock)
    client = redis.Redis.from_url(server.url)
    key = "floodgate:{default}:listed"
    for chat in range(1, 5):
        store.settle(ask_of(chat), NOT_KEPT)
    assert RULES.listed_us is not None
    assert 0 < client.pttl(key) <= RULES.listed_us // 1000  # type: ignore[operator]
    clock.advance(timedelta(microseconds=RULES.listed_us))
    for left in (3, 2, 3):  # two old rows are deleted for each new one
        store.settle(ask_of(6), NOT_KEPT)
        assert client.llen(key) == left
    client.close()
    store.close()


def test_redis_forgets_the_oldest_job_once_it_has_expired(new_redis: Callable[[], RedisServer]) -> None:
    server = new_redis().start()
    store = RedisAdmission(server.url, RULES)
    client = redis.Redis.from_url(server.url)
    expired, alive = ask_of(5), ask_of(6)
    store.pause("default", None, timedelta(hours=1), "test")
    store.admit(expired)
    store.admit(alive)
    client.delete(f"floodgate:{{default}}:job:{expired.job_id}")
    assert set(store.snapshot("default").oldest) == {Priority.BULK}
    assert client.zrange("floodgate:{default}:oldest:bulk", 0, -1) == [alive.job_id.encode()]
    client.close()
    store.close()


def test_redis_keeps_results_for_hours_and_standings_for_days(new_redis: Callable[[], RedisServer]) -> None:
    server = new_redis().start()
    store = RedisAdmission(server.url, RULES)
    sent, dead = ask_of(1), ask_of(2)
    store.settle(sent, Sent(RESULT))
    store.settle(dead, Dead("chat-unreachable", ERROR))
    client = redis.Redis.from_url(server.url, decode_responses=True)
    keys = {ask.job_id: f"floodgate:{{default}}:result:{ask.job_id}" for ask in (sent, dead)}
    for ask in (sent, dead):
        assert 590_000 < client.pttl(keys[ask.job_id]) <= 600_000  # type: ignore[operator]
        assert client.pttl(f"floodgate:{{default}}:job:{ask.job_id}") > 7_190_000  # type: ignore[operator]
        assert client.delete(keys[ask.job_id])
    assert store.lookup("default", sent.job_id) == Record(Standing.SENT)
    assert store.lookup("default", dead.job_id) == Record(Standing.DEAD, reason="chat-unreachable")
    assert store.admit(sent) == AlreadySent(None)
    assert store.admit(dead) == AlreadyDead("chat-unreachable")
    client.close()
    store.close()
