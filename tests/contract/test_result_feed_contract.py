"""What every store reports about a job's end: Telegram's own error, the result feed, and cancelling."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pytest

from floodgate.broker.admission.contract import (
    CANCELLED,
    Admission,
    AlreadyDead,
    AlreadySent,
    Dead,
    Go,
    Record,
    Retrying,
    Sent,
    Standing,
    Wait,
)
from floodgate.broker.admission.policy import policy_of
from floodgate.broker.admission.result_feed import EndedJob, ResultFeed
from floodgate.broker.errors import StateUnavailableError
from floodgate.broker.state.redis.admission import RedisAdmission
from floodgate.broker.state.redis.result_feed import RedisResultFeed
from floodgate.broker.state.sqlite.admission import SqliteAdmission
from floodgate.broker.state.sqlite.result_feed import SqliteResultFeed
from tests.admission_bench import ask_of, settings_of
from tests.contract.conftest import redis_url_of
from tests.services import RedisServer

ERROR = {"error_code": 403, "description": "Forbidden: bot was blocked by the user"}
BLOCKED = Dead("chat-unreachable", ERROR)


def test_a_dead_job_keeps_telegrams_error(admission: Admission) -> None:
    ask = ask_of(5)
    admission.admit(ask)
    admission.settle(ask, BLOCKED)
    assert admission.lookup("default", ask.job_id) == Record(Standing.DEAD, reason="chat-unreachable", error=ERROR)
    assert admission.admit(ask) == AlreadyDead("chat-unreachable")


def test_a_job_with_nothing_to_do_is_sent_and_keeps_telegrams_error(admission: Admission) -> None:
    ask = ask_of(5)
    said = {"error_code": 400, "description": "Bad Request: message\nis not modified"}
    admission.admit(ask)
    admission.settle(ask, Sent(True, error=said))
    assert admission.lookup("default", ask.job_id) == Record(Standing.SENT, result=True, error=said)
    assert admission.admit(ask) == AlreadySent(True)


def test_after_a_waiting_job_is_cancelled_the_next_in_line_is_sent(admission: Admission) -> None:
    first, second = ask_of(5), ask_of(5)
    admission.pause("default", "5", timedelta(seconds=1), "test")
    assert isinstance(admission.admit(first), Wait)
    assert isinstance(admission.admit(second), Wait)
    assert admission.cancel(first) == Record(Standing.DEAD, reason=CANCELLED)
    admission.resume("default", "5")
    assert isinstance(admission.admit(second), Go)
    assert admission.admit(first) == AlreadyDead(CANCELLED)


def test_a_job_can_be_cancelled_before_any_worker_takes_it(admission: Admission) -> None:
    ask = ask_of(5)
    assert admission.cancel(ask).reason == CANCELLED
    assert admission.admit(ask) == AlreadyDead(CANCELLED)
    assert isinstance(admission.admit(ask_of(5)), Go)


def test_a_job_in_flight_cannot_be_cancelled(admission: Admission) -> None:
    ask = ask_of(5)
    go = admission.admit(ask)
    assert isinstance(go, Go)
    assert admission.cancel(ask) == Record(Standing.SENDING)
    admission.settle(ask, Sent({"message_id": 1}), go.grant)
    assert admission.cancel(ask) == Record(Standing.SENT, result={"message_id": 1})


def test_a_job_waiting_for_a_retry_can_be_cancelled(admission: Admission) -> None:
    ask = ask_of(5)
    go = admission.admit(ask)
    assert isinstance(go, Go)
    admission.settle(ask, Retrying(timedelta(seconds=60)), go.grant)
    assert admission.cancel(ask).reason == CANCELLED


Pair = tuple[Admission, Callable[[], ResultFeed]]


@pytest.fixture(params=["sqlite", "redis", "redis cluster"])
def pair(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Pair]:
    """A store on the real clock, and a function that makes result feeds of it."""
    policy = policy_of(settings_of())
    listeners: list[ResultFeed] = []

    def listener() -> ResultFeed:
        if request.param == "sqlite":
            listeners.append(SqliteResultFeed(tmp_path / "state.db", ["default", "news"]))
        else:
            listeners.append(RedisResultFeed(redis_url_of(request), ["default", "news"]))
        return listeners[-1]

    if request.param == "sqlite":
        store: Admission = SqliteAdmission(tmp_path / "state.db", policy)
    else:
        store = RedisAdmission(redis_url_of(request), policy)
    store.vouch_idle("default")
    yield store, listener
    for each in listeners:
        each.close()
    store.close()


def heard(feed: ResultFeed, count: int) -> list[EndedJob]:
    found: list[EndedJob] = []
    while len(found) < count:
        news = feed.wait(5)
        assert news, f"heard only {found}"
        found += news
    return found


def test_a_result_feed_reports_each_ending_once_and_in_order(pair: Pair) -> None:
    store, listener = pair
    store.settle(ask_of(1), Sent("before"))
    feed = listener()
    feed.skip()
    asks = [ask_of(chat) for chat in range(2, 40)]
    for ask in asks:
        store.settle(ask, Sent({"n": ask.job_id}))
    store.settle(ask_of(40), BLOCKED)
    found = heard(feed, len(asks) + 1)
    assert [one.job_id for one in found[:-1]] == [ask.job_id for ask in asks]
    assert found[0] == EndedJob("default", asks[0].job_id, Record(Standing.SENT, result={"n": asks[0].job_id}))
    assert found[-1].record == Record(Standing.DEAD, reason="chat-unreachable", error=ERROR)
    assert not feed.wait(0.05)


def test_retries_and_waits_do_not_end_a_job(pair: Pair) -> None:
    store, listener = pair
    feed = listener()
    feed.skip()
    ask = ask_of(3)
    go = store.admit(ask)
    assert isinstance(go, Go)
    store.settle(ask, Retrying(timedelta(seconds=60)), go.grant)
    assert not feed.wait(0.05)


def test_an_unopened_result_feed_raises_and_can_be_opened_afterwards(pair: Pair) -> None:
    store, listener = pair
    feed = listener()
    with pytest.raises(StateUnavailableError):
        feed.wait(0.01)
    feed.skip()
    store.settle(ask_of(9), Sent(1))
    assert heard(feed, 1)[0].record.result == 1


def test_floodgates_in_two_databases_of_a_server_do_not_hear_each_other(redis_server: RedisServer) -> None:
    url = redis_server.url.removesuffix("/0")
    stores = [RedisAdmission(f"{url}/{database}", policy_of(settings_of())) for database in (0, 1)]
    feeds = [RedisResultFeed(f"{url}/{database}", ["default"]) for database in (0, 1)]
    for feed in feeds:
        feed.skip()
    for number, store in enumerate(stores):
        store.settle(ask_of(1), Sent(number))
    assert [[one.record.result for one in heard(feed, 1)] for feed in feeds] == [[0], [1]]
    assert not any(feed.wait(0.05) for feed in feeds)
    for each in (*feeds, *stores):
        each.close()


def test_a_result_feed_of_a_replaced_file_raises_because_it_may_have_missed_results(tmp_path: Path) -> None:
    path, policy = tmp_path / "state.db", policy_of(settings_of())
    store = SqliteAdmission(path, policy)
    store.settle(ask_of(1), Sent(1))
    feed = SqliteResultFeed(path, ["default"])
    feed.skip()
    for file in tmp_path.iterdir():
        file.unlink()
    store.settle(ask_of(2), Sent(2))
    with pytest.raises(StateUnavailableError):
        feed.wait(5)
    feed.skip()
    store.settle(ask_of(3), Sent(3))
    assert heard(feed, 1)[0].record.result == 3
    feed.close()
    store.close()


def test_reading_the_feed_takes_as_many_queries_for_fifty_bots_as_for_one(tmp_path: Path) -> None:
    path = tmp_path / "state.db"
    store = SqliteAdmission(path, policy_of(settings_of()))

    def queries(bots: list[str]) -> int:
        feed = SqliteResultFeed(path, bots)
        store.settle(ask_of(1), Sent(1))
        feed.skip()
        for bot in bots:
            store.settle(replace(ask_of(2), bot=bot), Sent(2))
        asked: list[str] = []
        assert feed._connection is not None
        feed._connection.set_trace_callback(asked.append)
        assert len(heard(feed, len(bots))) == len(bots)
        feed.close()
        return len(asked)

    assert queries(["default"]) == queries([f"bot-{n}" for n in range(50)])
    store.close()


def test_a_result_feed_continues_after_all_results_are_deleted_and_numbering_restarts(tmp_path: Path) -> None:
    path = tmp_path / "state.db"
    store = SqliteAdmission(path, policy_of(settings_of()))
    feed = SqliteResultFeed(path, ["default"])
    store.settle(ask_of(1), Sent(1))
    feed.skip()
    with sqlite3.connect(path) as db:
        db.execute("DELETE FROM results")
    store.settle(ask_of(2), Sent(2))
    store.settle(ask_of(3), Sent(3))
    assert [ended.record.result for ended in heard(feed, 2)] == [2, 3]
    feed.close()
    store.close()
