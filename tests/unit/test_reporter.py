"""A process's reports to the state store."""

from __future__ import annotations

import sqlite3
import threading
import time
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import pytest

from floodgate.broker.admission.policy import policy_of
from floodgate.broker.process.event_loop import BackgroundLoop
from floodgate.broker.process.metrics import (
    DEAD,
    RELEASED,
    SENDS,
    TOO_MANY_REQUESTS,
    UPDATE_LAG,
    UPDATES_RECEIVED,
    WAIT,
    Metrics,
    ProcessRole,
)
from floodgate.broker.settings.model import Settings
from floodgate.broker.state import reporter as reporters
from floodgate.broker.state.activity import Activity, Resolution, Series
from floodgate.broker.state.reporter import MOST_SAMPLED, Reporter, sampled_in, totals_of
from floodgate.broker.state.sqlite.activity import SqliteActivity
from floodgate.broker.state.sqlite.admission import SqliteAdmission
from floodgate.broker.state.stores import open_activity
from tests.waiting import until

TOKEN = "123456:" + "A" * 35
QUEUES = ["send.default.bulk.00", "send.default.answers"]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "state.db"


@pytest.fixture
def settings(path: Path, monkeypatch: pytest.MonkeyPatch) -> Settings:
    """Those of a worker that has created the state file."""
    monkeypatch.setattr(reporters, "EVERY_SECONDS", 0.01)
    settings = Settings(_env_file=None, bot_token=TOKEN, state_url=f"sqlite:///{path}")  # type: ignore[call-arg, arg-type]
    store = SqliteAdmission(path, policy_of(settings))
    store.vouch_idle("default")
    store.close()
    return settings


@pytest.fixture
def metrics() -> Metrics:
    return Metrics(ProcessRole.WORKER, ["default"])


@pytest.fixture
def io() -> Iterator[BackgroundLoop]:
    """The event loop of the process."""
    loop = BackgroundLoop(_crashed)
    loop.start()
    yield loop
    loop.stop(20)


def _crashed(error: BaseException) -> None:
    raise AssertionError("the loop of a test crashed") from error


def start(io: BackgroundLoop, reporter: Reporter) -> None:
    async def begin() -> None:
        reporter.start()

    io.run(begin(), 20)


def stop(io: BackgroundLoop, reporter: Reporter) -> None:
    io.run(reporter.stop(), 20)


def sent(activity: Activity) -> float:
    return sum(value or 0 for value in activity.history("default", Resolution.MINUTE).values[Series.SENT])


def test_the_series_are_read_from_the_metrics(metrics: Metrics) -> None:
    for outcome in ("sent", "nothing-to-do", "retry", "uncertain", "paused", "dead"):
        metrics.count(SENDS, "default", outcome)
    metrics.count(SENDS, "stranger", "sent")
    metrics.count(DEAD, "default", "content")
    metrics.count(TOO_MANY_REQUESTS, "default", "chat")
    metrics.count(RELEASED, "default", by=3)
    metrics.count(UPDATES_RECEIVED, "default", by=2)
    for cause in ("rate", "rate", "in-flight"):
        metrics.observe(WAIT, 1.0, "default", cause)
    metrics.observe(UPDATE_LAG, 0.25, "default")
    totals = {series: value for series, value in totals_of(metrics, ["default"])["default"].items() if value}
    assert totals == {
        Series.SENT: 2,
        Series.RETRIED: 2,
        Series.REFUSED: 1,
        Series.DEAD: 1,
        Series.PAUSED_CHAT: 1,
        Series.RELEASED: 3,
        Series.RECEIVED: 2,
        Series.WAITS_RATE: 2,
        Series.WAITS_IN_FLIGHT: 1,
        Series.HANDLED: 1,
        Series.UPDATE_LAG: 0.25,
    }


def test_a_process_reports_until_it_stops_and_then_leaves_the_list(
    io: BackgroundLoop, settings: Settings, metrics: Metrics
) -> None:
    activity = open_activity(settings)
    metrics.count(SENDS, "default", "sent", by=2)
    reporter = Reporter(settings, metrics, process_id="w1", partitions=lambda: QUEUES)
    start(io, reporter)
    until(lambda: sent(activity) == 2)
    (process,) = activity.processes()
    assert (process.id, process.role, process.partitions) == ("w1", "worker", tuple(QUEUES))
    assert timedelta() < process.uptime < timedelta(seconds=20)
    assert activity.history("default", Resolution.MINUTE).values[Series.IN_FLIGHT][-1] == 0
    metrics.count(SENDS, "default", "sent")
    stop(io, reporter)
    assert activity.processes() == ()
    assert sent(activity) == 3
    activity.close()


def test_the_bots_of_a_process_are_sampled_in_turn() -> None:
    bots = [f"bot{number:03}" for number in range(MOST_SAMPLED * 2 + 1)]
    queues = [f"send.{bot}.{kind}" for bot in bots for kind in ("answers", "bulk.00")] + ["updates.other.00"]
    turns = [sampled_in(report, queues) for report in range(3)]
    assert [len(turn) for turn in turns] == [MOST_SAMPLED] * 3
    assert sorted({bot for turn in turns for bot in turn}) == bots


def test_counts_are_kept_while_the_store_is_away(
    io: BackgroundLoop,
    settings: Settings,
    metrics: Metrics,
    path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    activity = open_activity(settings)
    assert sent(activity) == 0
    monkeypatch.setattr("floodgate.broker.state.sqlite.file.LOCK_SECONDS", 0.01)
    other = sqlite3.connect(path, isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    metrics.count(SENDS, "default", "sent")
    reporter = Reporter(settings, metrics)
    start(io, reporter)
    until(lambda: "cannot report what it does: The state file" in caplog.text)
    metrics.count(SENDS, "default", "sent")
    other.execute("ROLLBACK")
    other.close()
    until(lambda: sent(activity) == 2)
    stop(io, reporter)
    assert sent(activity) == 2
    assert caplog.text.count("cannot report") == 1
    activity.close()


def test_a_store_that_does_not_answer_delays_the_end_by_a_bounded_time(
    io: BackgroundLoop, settings: Settings, metrics: Metrics, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reporters, "LAST_SECONDS", 0.05)
    asked, hangs = threading.Event(), threading.Event()

    def hang(*_: object) -> None:
        asked.set()
        hangs.wait(20)

    monkeypatch.setattr(SqliteActivity, "report", hang)
    reporter = Reporter(settings, metrics)
    start(io, reporter)
    assert asked.wait(20)
    began = time.monotonic()
    stop(io, reporter)
    assert time.monotonic() - began < 10
    hangs.set()


def test_a_fault_in_a_report_ends_the_reports_and_nothing_else(
    io: BackgroundLoop, settings: Settings, metrics: Metrics, caplog: pytest.LogCaptureFixture
) -> None:
    def broken() -> list[str]:
        raise ValueError("a bug")

    reporter = Reporter(settings, metrics, partitions=broken)
    start(io, reporter)
    stop(io, reporter)
    assert "the reports of this process ended early" in caplog.text


def test_without_a_state_file_nothing_is_reported_and_none_is_made(
    io: BackgroundLoop, settings: Settings, metrics: Metrics, path: Path
) -> None:
    path.unlink()
    reporter = Reporter(settings, metrics)
    start(io, reporter)
    stop(io, reporter)
    assert not path.exists()


def test_reports_can_be_switched_off(io: BackgroundLoop, settings: Settings, metrics: Metrics) -> None:
    reporter = Reporter(settings.model_copy(update={"reports": False}), metrics)
    start(io, reporter)
    stop(io, reporter)
    activity = open_activity(settings)
    assert activity.history("default", Resolution.MINUTE).times == []
    activity.close()


def test_a_reporter_can_be_stopped_twice_and_unstarted(
    io: BackgroundLoop, settings: Settings, metrics: Metrics
) -> None:
    unstarted, started = Reporter(settings, metrics), Reporter(settings, metrics)
    stop(io, unstarted)
    start(io, started)
    stop(io, started)
    stop(io, started)
