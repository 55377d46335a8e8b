"""What the exporter makes of a picture."""

from __future__ import annotations

import math
from dataclasses import replace
from datetime import timedelta

import pytest

from floodgate.broker.admission.contract import CallFamily, Line, Snapshot
from floodgate.broker.errors import RabbitMQUnreachableError, StateUnavailableError
from floodgate.broker.messages.job import Priority
from floodgate.broker.process.metrics import (
    CAMPAIGNS,
    DISK_FREE,
    DISK_LIMIT,
    LIMIT,
    LIMIT_USED,
    LIVE,
    LONGEST_LINE,
    NEEDED,
    NOT_KEPT,
    OLDEST_JOB,
    ON_LADDER,
    OUTAGE,
    PART_UP,
    RABBITMQ_ALARM,
    RECIPIENTS,
    SLOWED_CHATS,
    UNREAD,
)
from floodgate.broker.state.activity import ProcessReport
from floodgate.exporter import measured
from floodgate.overview.demand import needed_calls_in_flight
from floodgate.overview.last_minute import LastMinute
from floodgate.overview.picture import BotOverview, CampaignOverview, Health, NodeResources, Overview, QueuedMessages

CALM = Snapshot("news", 0, 30.0, 0, 0, dict.fromkeys(Priority, 0), (), (), 0, 0, {}, {})
RUNNING = CampaignOverview("spring", "news", "running", None, 100, 40, 5, 50, None)


def picture(snapshot: Snapshot = CALM, *campaigns: CampaignOverview, unread: tuple[str, ...] = ()) -> Overview:
    messages = QueuedMessages({}, dict.fromkeys(unread, 1), 0)
    bot = BotOverview("news", 30.0, snapshot, messages, campaigns)
    return Overview((bot,), Health("answers"), Health("answers"), Health("answers"), {})


def test_the_used_share_is_that_of_the_last_minute() -> None:
    assert measured(picture(replace(CALM, sent_last_minute=900))).values(LIMIT_USED)["news",] == 0.5
    unlimited = measured(picture(replace(CALM, sent_last_minute=900, per_second_limit=math.inf)))
    assert (unlimited.values(LIMIT_USED)["news",], unlimited.values(LIMIT)["news",]) == (0.0, math.inf)


def test_the_longest_line_of_each_priority_counts() -> None:
    lines = (Line("1", Priority.BULK, 9), Line("2", Priority.BULK, 7), Line("3", Priority.INTERACTIVE, 3))
    counted = measured(picture(replace(CALM, longest_lines=lines)))
    assert counted.values(LONGEST_LINE) == {("news", "bulk"): 9.0, ("news", "interactive"): 3.0}
    alone = measured(picture(replace(CALM, waiting={Priority.BULK: 5, Priority.INTERACTIVE: 0})))
    assert alone.values(LONGEST_LINE) == {("news", "bulk"): 1.0, ("news", "interactive"): 0.0}


def test_slowed_chats_are_counted_by_family_without_their_ids() -> None:
    slowed = measured(picture(replace(CALM, slowed_chats={CallFamily.EDITS: 3})))
    assert slowed.values(SLOWED_CHATS) == {
        ("news", "messages"): 0.0,
        ("news", "edits"): 3.0,
        ("news", "typing"): 0.0,
    }


def test_processes_are_counted_by_role_unless_the_store_is_away() -> None:
    worker = ProcessReport("1", "worker", "here", 1, "0.2.0", timedelta())
    live = replace(picture(), processes=(worker, replace(worker, id="2")))
    counted = measured(live).values(LIVE)
    assert (counted["worker",], counted["gateway",], counted["web",]) == (2.0, 0.0, 0.0)
    assert measured(replace(live, store=Health("away", StateUnavailableError("away")))).values(LIVE) == {}


def test_jobs_on_the_delay_ladder_are_counted_unless_rabbitmq_is_away() -> None:
    assert measured(replace(picture(), delayed=7)).values(ON_LADDER) == {(): 7.0}
    assert measured(picture()).values(ON_LADDER) == {}


def test_the_disk_and_the_alarms_of_each_node_are_told_if_the_management_api_answers() -> None:
    nodes = (NodeResources("rabbit@a", (), 9, 2), NodeResources("rabbit@b", ("disk",), 1, 2))
    counted = measured(replace(picture(), nodes=nodes, disk=Health("low")))
    assert counted.values(RABBITMQ_ALARM) == {
        ("rabbit@a", "disk"): 0.0,
        ("rabbit@a", "memory"): 0.0,
        ("rabbit@b", "disk"): 1.0,
        ("rabbit@b", "memory"): 0.0,
    }
    assert counted.values(DISK_FREE) == {("rabbit@a",): 9.0, ("rabbit@b",): 1.0}
    assert counted.values(DISK_LIMIT) == {("rabbit@a",): 2.0, ("rabbit@b",): 2.0}
    away = measured(replace(picture(), disk=Health("away", RabbitMQUnreachableError("away"))))
    assert [each.values(PART_UP).get(("management",)) for each in (counted, away, measured(picture()))] == [1, 0, None]


def test_the_age_of_the_oldest_job_is_zero_if_none_waits() -> None:
    counted = measured(picture(replace(CALM, oldest={Priority.BULK: timedelta(minutes=1)})))
    assert counted.values(OLDEST_JOB) == {("news", "bulk"): 60.0, ("news", "interactive"): 0.0}


def test_a_backlog_of_a_million_needs_the_calls_that_the_limit_grants() -> None:
    assert needed(ready=1_000_000) == pytest.approx(30 * 0.1), "30 calls a second, each for an assumed 0.1 s"
    slow = LastMinute(sent=(30,) * 60, answer_time=timedelta(seconds=2))
    assert needed(ready=1_000_000, minute=slow) == pytest.approx(30 * 2)


def test_less_work_than_the_limit_grants_needs_fewer_calls_and_none_needs_none() -> None:
    assert needed(ready=0, minute=LastMinute(sent=(6,) * 60)) == pytest.approx(6 * 0.1)
    assert needed(ready=3) == pytest.approx(3 * 0.1)
    assert needed(ready=0) == 0


def test_paid_messages_beyond_the_limit_of_free_ones_count() -> None:
    assert needed(ready=5, minute=LastMinute(sent=(900,) * 60)) == pytest.approx(900 * 0.1)


def test_the_needed_calls_are_unknown_while_rabbitmq_or_the_store_is_away() -> None:
    [bot] = picture().bots
    for unread in (replace(bot, messages=None), replace(bot, snapshot=None)):
        assert measured(replace(picture(), bots=(bot, unread))).values(NEEDED) == {}
    assert measured(replace(picture(), bots=(bot, bot))).values(NEEDED) == {(): 0.0}


def needed(*, ready: int, minute: LastMinute | None = None) -> float:
    """The calls that a bot needs in flight."""
    [bot] = picture().bots
    waiting = QueuedMessages({"bulk": ready}, {}, 0)
    calls = needed_calls_in_flight(replace(bot, messages=waiting, last_minute=minute or LastMinute()))
    assert calls is not None
    return calls


def test_a_running_campaigns_recipients_add_up() -> None:
    counted = measured(picture(CALM, RUNNING, replace(RUNNING, name="summer", state="done")))
    assert counted.values(CAMPAIGNS) == {("news", "running"): 1.0, ("news", "done"): 1.0}
    assert counted.values(RECIPIENTS) == {
        ("news", "spring", "left"): 50.0,
        ("news", "spring", "sent"): 40.0,
        ("news", "spring", "refused"): 5.0,
        ("news", "spring", "other"): 5.0,
    }
    assert counted.values(PART_UP)["campaigns",] == 1.0


def test_an_outage_counts_in_seconds_and_unread_partitions_by_family() -> None:
    unread = ("send.news.bulk.00", "send.news.answers", "updates.news.01")
    counted = measured(picture(replace(CALM, outage=timedelta(minutes=2), not_kept={"cancelled": 3}), unread=unread))
    assert counted.values(OUTAGE)["news",] == 120.0
    assert counted.values(UNREAD) == {("news", "send"): 2.0, ("news", "updates"): 1.0}
    assert counted.values(NOT_KEPT) == {("news", "cancelled"): 3.0}
