"""An outage of Telegram in ``floodgate status``."""

from __future__ import annotations

import dataclasses
import json
from datetime import timedelta

from rich.console import Console

from floodgate.broker.admission.contract import Snapshot
from floodgate.broker.messages.job import Priority
from floodgate.commands.status import _as_data, _table
from floodgate.overview.picture import BotOverview, QueuedMessages

CALM = Snapshot("default", 0, 29.4, 0, 0, dict.fromkeys(Priority, 0), (), (), 0, 0, {}, {})
OUTAGE = dataclasses.replace(CALM, outage=timedelta(seconds=90))
QUEUED = QueuedMessages({"interactive": 0, "bulk": 0, "answers": 0, "updates": 0, "dead": 0}, {}, 0)


def bot(snapshot: Snapshot) -> BotOverview:
    return BotOverview("default", 29.4, snapshot, QUEUED, None)


def printed(snapshot: Snapshot) -> str:
    console = Console(width=120)
    with console.capture() as capture:
        console.print(_table(bot(snapshot)))
    return capture.get()


def test_an_outage_is_shown_with_its_age() -> None:
    assert "Telegram does not answer" in printed(OUTAGE)
    assert "for 90 s; calls are made one at a time" in printed(OUTAGE)
    assert "does not answer" not in printed(CALM)


def test_json_has_the_age_of_an_outage_in_seconds() -> None:
    assert _as_data(bot(OUTAGE))["outage_seconds"] == 90
    assert _as_data(bot(CALM))["outage_seconds"] is None


def test_json_has_the_age_of_the_oldest_job_of_each_priority_in_seconds() -> None:
    waits = dataclasses.replace(CALM, oldest={Priority.BULK: timedelta(seconds=90)})
    assert json.loads(json.dumps(_as_data(bot(waits))))["oldest_seconds"] == {"bulk": 90}


def test_the_age_of_the_oldest_job_of_a_priority_is_shown() -> None:
    assert "the oldest for 3 min" in printed(dataclasses.replace(CALM, oldest={Priority.BULK: timedelta(seconds=200)}))
    assert "the oldest" not in printed(CALM)
