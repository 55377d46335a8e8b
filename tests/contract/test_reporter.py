"""A process reports itself and what it counts to either store."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from floodgate.broker.process import metrics
from floodgate.broker.process.metrics import TABLE, WAIT, Metrics, ProcessRole
from floodgate.broker.settings.model import Settings
from floodgate.broker.state import reporter as reporting
from floodgate.broker.state.activity import Activity, Resolution, Series
from floodgate.broker.state.reporter import Reporter, differences, totals
from floodgate.broker.state.stores import open_activity
from floodgate.broker.state.thread import StateThread
from tests.waiting import until

TOKEN = "100200300:" + "A" * 35


@pytest.fixture(params=["sqlite", "redis"])
def settings(request: pytest.FixtureRequest, tmp_path: Path) -> Settings:
    url = request.getfixturevalue("redis_url") if request.param == "redis" else f"sqlite:///{tmp_path}/state.db"
    return Settings(_env_file=None, state_url=url, bots={"news": TOKEN})


@pytest.fixture
def activity(settings: Settings) -> Iterator[Activity]:
    with contextlib.closing(open_activity(settings)) as opened:
        yield opened


def reported(activity: Activity, series: Series) -> float:
    return sum(value or 0.0 for value in activity.history("news", Resolution.MINUTE).values.get(series, ()))


async def eventually(seen: Callable[[], object]) -> None:
    await asyncio.to_thread(until, seen)


def test_a_worker_is_seen_with_its_queues_and_its_counts_and_is_gone_when_it_stops(
    settings: Settings, activity: Activity, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reporting, "REPORT_SECONDS", 0.01)

    async def work() -> None:
        counted, thread = Metrics(ProcessRole.WORKER, ["news"]), StateThread()
        reporter = Reporter(settings, counted, thread, "worker-1")
        await reporter.stop()
        counted.count(metrics.SENDS, "news", "sent", by=2)
        reporter.start(["send.news.bulk.00"])
        await eventually(activity.processes)
        counted.count(metrics.SENDS, "news", "sent")
        counted.observe(WAIT, 0.5, "news", "rate")
        await eventually(lambda: reported(activity, Series.SENT) == 3)
        [process] = activity.processes()
        assert (process.id, process.role, process.partitions) == ("worker-1", "worker", ("send.news.bulk.00",))
        counted.count(metrics.DEAD, "news", "content")
        await reporter.stop()
        await reporter.stop()
        await thread.stop()

    asyncio.run(work())
    assert activity.processes() == ()
    assert [reported(activity, each) for each in (Series.SENT, Series.WAITS_RATE, Series.DEAD)] == [3, 1, 1]
    limit = activity.history("news", Resolution.MINUTE).values[Series.LIMIT]
    assert any(limit), "a worker samples the gauges of its bots"


def test_what_is_counted_while_the_store_is_away_is_reported_afterwards(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reporting, "REPORT_SECONDS", 0.01)
    settings = Settings(_env_file=None, state_url=f"sqlite:///{tmp_path}/state.db", bots={"news": TOKEN})
    (tmp_path / "state.db").mkdir()  # it cannot be opened

    async def work() -> None:
        counted, thread = Metrics(ProcessRole.GATEWAY, ["news"]), StateThread()
        reporter = Reporter(settings, counted, thread)
        counted.count(metrics.RELEASED, "news", by=5)
        reporter.start()
        await asyncio.sleep(0)  # its first call goes to the thread
        await thread.call(lambda: None)  # and has failed
        (tmp_path / "state.db").rmdir()
        with contextlib.closing(open_activity(settings)) as activity:
            await eventually(lambda: reported(activity, Series.RELEASED) == 5)
            await reporter.stop()
            assert reported(activity, Series.RELEASED) == 5
        await thread.stop()

    asyncio.run(work())


def test_each_series_has_its_source() -> None:
    counted = Metrics()
    for metric in TABLE:
        labels = list(metric.labels)
        if labels[:1] != ["bot"]:
            continue
        for word in metric.labels[labels[1]] if len(labels) == 2 else ("",):
            given = ("news", word)[: len(labels)]
            if metric.buckets:
                counted.observe(metric, 0.5, *given)
            elif len(labels) <= 2:
                counted.count(metric, *given)
    found = totals(counted, ["news"])["news"]
    assert set(found) == {series for series in Series if not series.is_gauge}
    assert (found[Series.SENT], found[Series.RETRIED], found[Series.UPDATE_LAG]) == (2, 4, 0.5)


def test_only_what_changed_is_reported_and_only_of_configured_bots() -> None:
    counted = Metrics()
    counted.count(metrics.SENDS, "news", "sent")
    counted.count(metrics.DEAD, "mail", "no-actor")  # a plain actor's queue
    before = totals(counted, ["news", "shop"])
    assert differences(before, {}) == {"news": {Series.SENT: 1.0}}
    assert differences(totals(counted, ["news", "shop"]), before) == {}
