"""Reports of processes and the history, on both stores."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pytest
import redis

from floodgate.broker.admission.contract import Admission
from floodgate.broker.admission.policy import Policy, policy_of
from floodgate.broker.errors import StateUnavailableError
from floodgate.broker.messages.partitions import rendezvous_score
from floodgate.broker.state.activity import BUCKET_BYTES, LIVE_SECONDS, Activity, ProcessReport, Resolution, Series
from floodgate.broker.state.buckets import decoded, encoded, merged
from floodgate.broker.state.redis.activity import RedisActivity
from floodgate.broker.state.redis.admission import RedisAdmission
from floodgate.broker.state.sqlite.activity import SqliteActivity
from floodgate.broker.state.sqlite.admission import SqliteAdmission
from tests.admission_bench import HandClock, ask_of, settings_of
from tests.services import RedisServer

WORKER = ProcessReport("w1", "worker", "one", 7, "0.2", timedelta(seconds=5), ("send.default.bulk.00",))
HOUR = timedelta(hours=1)
Stores = Callable[[Policy], tuple[Activity, Admission]]


@pytest.fixture(params=["sqlite", "redis"])
def stores(request: pytest.FixtureRequest, tmp_path: Path, clock: HandClock) -> Iterator[Stores]:
    """Opens the activity, as each process does, and the admission beside it."""
    opened: list[Activity | Admission] = []

    def make(policy: Policy) -> tuple[Activity, Admission]:
        activity: Activity
        admission: Admission
        if request.param == "sqlite":
            path = tmp_path / "state.db"
            activity, admission = SqliteActivity(path, policy, clock), SqliteAdmission(path, policy, clock)
        else:
            url = request.getfixturevalue("redis_url")
            activity, admission = RedisActivity(url, policy, clock), RedisAdmission(url, policy, clock)
        opened.extend((activity, admission))
        return activity, admission

    yield make
    for store in opened:
        store.close()


@pytest.fixture
def activity(stores: Stores) -> Activity:
    return stores(policy_of(settings_of()))[0]


def test_a_process_is_listed_until_it_has_been_silent_for_ten_seconds(activity: Activity, clock: HandClock) -> None:
    activity.report(WORKER, {})
    clock.advance(LIVE_SECONDS - 1)
    assert activity.processes() == (replace(WORKER, uptime=timedelta(seconds=5 + LIVE_SECONDS - 1)),)
    clock.advance(1)
    assert activity.processes() == ()


def test_a_process_that_leaves_is_gone_at_once_and_its_last_counts_stay(activity: Activity) -> None:
    gateway = ProcessReport("g1", "gateway", "one", 8, "0.2", timedelta())
    activity.report(WORKER, {})
    activity.report(gateway, {})
    activity.leave(WORKER, {"default": {Series.SENT: 3}})
    assert activity.processes() == (gateway,)
    assert activity.history("default", Resolution.SECOND).values[Series.SENT] == (3,)


def test_a_queue_is_held_by_the_worker_with_the_highest_priority_and_answers_by_all(
    activity: Activity, clock: HandClock
) -> None:
    queues = ("send.default.answers", *(f"send.default.bulk.{n:02}" for n in range(16)))
    one, two = (replace(WORKER, id=name, partitions=queues) for name in ("w1", "w2"))
    activity.report(one, {})
    activity.report(two, {})
    held = {each.id: set(each.partitions) for each in activity.processes()}
    assert held["w1"] & held["w2"] == {"send.default.answers"}
    assert held["w1"] | held["w2"] == set(queues)
    firsts = {queue for queue in queues if rendezvous_score("w1", queue) > rendezvous_score("w2", queue)}
    assert firsts - {"send.default.answers"} == held["w1"] - {"send.default.answers"}
    clock.advance(LIVE_SECONDS / 2)
    activity.report(two, {})
    clock.advance(LIVE_SECONDS / 2)
    (left,) = activity.processes()
    assert set(left.partitions) == set(queues)


def test_processes_add_to_the_same_buckets(stores: Stores, clock: HandClock) -> None:
    policy = policy_of(settings_of())
    one, two = stores(policy)[0], stores(policy)[0]
    one.report(WORKER, {"default": {Series.SENT: 2, Series.WAITS_RATE: 1}})
    two.report(replace(WORKER, id="w2"), {"default": {Series.SENT: 3}, "other": {Series.DEAD: 1}})
    clock.advance(1)
    two.report(replace(WORKER, id="w2"), {"default": {Series.SENT: 4}})
    seconds = one.history("default", Resolution.SECOND)
    assert seconds.values[Series.SENT] == (5, 4)
    assert seconds.values[Series.WAITS_RATE] == (1, 0)
    assert seconds.times == [clock.now_us // 1_000_000 - 1, clock.now_us // 1_000_000]
    assert one.history("default", Resolution.MINUTE).values[Series.SENT] == (9,)
    assert one.history("other", Resolution.MINUTE).values[Series.DEAD] == (1,)


def test_a_restart_shows_the_past(stores: Stores, clock: HandClock) -> None:
    policy = policy_of(settings_of())
    activity, _ = stores(policy)
    activity.report(WORKER, {"default": {Series.SENT: 2}})
    activity.close()
    clock.advance(HOUR)
    assert stores(policy)[0].history("default", Resolution.MINUTE).values[Series.SENT] == (2,)


@pytest.mark.parametrize("resolution", Resolution)
def test_a_bucket_is_shown_until_the_ring_has_gone_round(
    activity: Activity, clock: HandClock, resolution: Resolution
) -> None:
    clock.now_us -= clock.now_us % 3_600_000_000
    activity.report(WORKER, {"default": {Series.SENT: 2}})
    clock.advance(resolution.span - timedelta(seconds=1))
    assert activity.history("default", resolution).values[Series.SENT] == (2,)
    assert activity.history("default", resolution, resolution.span / 2).times == []
    clock.advance(1)
    assert activity.history("default", resolution).times == []


def test_gauges_are_sampled_once_a_second_from_the_stores_own_numbers(stores: Stores, clock: HandClock) -> None:
    activity, admission = stores(policy_of(settings_of()))
    admission.vouch_idle("default")
    for _ in range(4):
        admission.admit(ask_of(5))
    admission.admit(ask_of(6, "interactive"))
    activity.report(WORKER, {}, ["default"])
    admission.admit(ask_of(5))
    activity.report(replace(WORKER, id="w2"), {"default": {Series.SENT: 1}}, ["default"])
    for resolution in Resolution:
        values = activity.history("default", resolution).values
        assert values[Series.WAITING_BULK] == (3,)
        assert values[Series.WAITING_INTERACTIVE] == (0,)
        assert values[Series.IN_FLIGHT] == (2,)
        assert values[Series.SENT] == (1,)
        assert values[Series.LIMIT] == (pytest.approx(admission.snapshot("default").per_second_limit),)


def test_a_minute_keeps_the_most_jobs_that_waited_and_the_lowest_limit(stores: Stores, clock: HandClock) -> None:
    clock.now_us -= clock.now_us % 60_000_000
    activity, admission = stores(policy_of(settings_of()))
    admission.vouch_idle("default")
    full = admission.snapshot("default").per_second_limit
    asks = [ask_of(5) for _ in range(3)]
    for ask in asks:
        admission.admit(ask)
    activity.report(WORKER, {}, ["default"])
    for chat in ("1", "2", "3"):
        admission.too_many_requests("default", chat, timedelta(seconds=1))
    admission.cancel(asks[2])
    clock.advance(1)
    activity.report(WORKER, {}, ["default"])
    seconds, minutes = (activity.history("default", each).values for each in Resolution)
    assert seconds[Series.WAITING_BULK] == (2, 1)
    assert minutes[Series.WAITING_BULK] == (2,)
    assert seconds[Series.LIMIT][0] == pytest.approx(full, rel=1e-3)
    assert minutes[Series.LIMIT] == (seconds[Series.LIMIT][1],)
    assert seconds[Series.LIMIT][1] < 0.95 * full  # type: ignore[operator]


def test_a_bot_without_limits_has_no_limit_in_its_history(stores: Stores) -> None:
    activity, _ = stores(policy_of(settings_of(enabled=False)))
    activity.report(WORKER, {"default": {Series.SENT: 1}}, ["default"])
    values = activity.history("default", Resolution.SECOND).values
    assert values[Series.LIMIT] == (None,)
    assert values[Series.IN_FLIGHT] == (0,)


def test_a_bucket_without_a_sample_has_none(activity: Activity) -> None:
    activity.report(WORKER, {"default": {Series.SENT: 1}})
    values = activity.history("default", Resolution.SECOND).values
    assert values[Series.IN_FLIGHT] == values[Series.WAITING_BULK] == (None,)


def test_an_unknown_bot_has_an_empty_history(activity: Activity) -> None:
    history = activity.history("nobody", Resolution.MINUTE)
    assert history.times == []
    assert set(history.values) == set(Series)


def test_the_file_keeps_no_more_buckets_than_its_bound(tmp_path: Path, clock: HandClock) -> None:
    activity = SqliteActivity(tmp_path / "state.db", policy_of(settings_of()), clock)
    for resolution in Resolution:
        for _ in range(3):
            activity.report(WORKER, {"default": {Series.SENT: 1}})
            clock.advance(resolution.span / 2)
    for _ in range(2):
        activity.report(WORKER, {"other": {Series.SENT: 1}})
    count = "SELECT count(*) FROM history WHERE bot = 'default' AND at <= ?"
    old = clock.now_us // 1_000_000 - int(Resolution.MINUTE.span.total_seconds())
    assert activity._file.use(lambda db: db.execute(count, (old,)).fetchone()) == (0,)
    activity.close()


def test_every_key_of_redis_expires(redis_url: str, clock: HandClock) -> None:
    activity = RedisActivity(redis_url, policy_of(settings_of()), clock)
    activity.report(WORKER, {"default": {Series.SENT: 1}}, ["default"])
    client = redis.Redis.from_url(redis_url)
    keys = list(client.scan_iter("floodgate:*"))
    assert len(keys) == 4
    longest = Resolution.MINUTE.span + HOUR
    assert all(0 < client.ttl(key) <= longest.total_seconds() for key in keys)
    client.close()
    activity.close()


def test_a_bucket_has_a_bounded_size() -> None:
    assert len(encoded(dict.fromkeys(Series, 1_234_567_890.0))) <= BUCKET_BYTES
    text = encoded({Series.SENT: 7, Series.IN_FLIGHT: 0})
    assert merged(text, {Series.SENT: 1, Series.UPDATE_LAG: 0.25, Series.IN_FLIGHT: 2}).count(",") == text.count(",")
    assert encoded({}) == ""


def test_a_bucket_of_a_later_version_can_be_read() -> None:
    text = encoded({tuple(Series)[-1]: 30})
    assert decoded(f"{text},5") == decoded(text)


def test_a_cluster_keeps_it_too(cluster_url: str) -> None:
    activity = RedisActivity(cluster_url, policy_of(settings_of()))
    for _ in range(2):
        activity.report(WORKER, {"default": {Series.SENT: 1}, "other": {Series.SENT: 2}}, ["default", "other"])
    assert [each.id for each in activity.processes()] == ["w1"]
    assert activity.history("other", Resolution.MINUTE, HOUR).values[Series.SENT] == (4,)
    activity.close()


def test_a_server_that_is_away_is_a_store_error(new_redis: Callable[..., RedisServer]) -> None:
    server = new_redis()
    activity = RedisActivity(f"redis://localhost:{server.port}", policy_of(settings_of()))
    with pytest.raises(StateUnavailableError, match="does not answer"):
        activity.report(WORKER, {})
    activity.close()
