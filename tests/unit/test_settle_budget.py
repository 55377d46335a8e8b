"""The budget of a failed call: refunded only if the call certainly never reached the Bot API."""

from __future__ import annotations

import asyncio
import dataclasses
from datetime import timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import dramatiq
import pytest

from floodgate.actors.outcomes import Migrated, Outcome, Paused
from floodgate.actors.settle import Settler
from floodgate.broker.admission.contract import Go
from floodgate.broker.admission.policy import PAUSE_POLL, ask_for
from floodgate.broker.amqp.delay_ladder import delayed
from floodgate.broker.messages.job import encode_job, new_job
from floodgate.broker.messages.publication import Publication
from floodgate.broker.process.metrics import DELAYED, RETRY_AFTER, SENDS, TOO_MANY_REQUESTS, Metrics
from floodgate.broker.settings.model import Settings
from floodgate.broker.worker.dramatiq_broker import FloodgateBroker
from floodgate.broker.worker.queue_consumer import DeliveredMessage
from tests.wire import Wire

TOKEN = "100200300:" + "A" * 35
QUEUE = "send.default.bulk.00"


async def settle(outcome: Outcome, home: Path, counted: Metrics | None = None) -> tuple[Publication, int]:
    """Settle a call that ended so. What is published, and the units that stay spent."""
    settings = Settings(_env_file=None, bot_token=TOKEN, state_url=f"sqlite:///{home}/state.db")
    broker, wire = FloodgateBroker(settings), Wire()
    broker._connections = cast(Any, wire)
    broker.metrics = counted or broker.metrics
    await broker.admission.vouch_idle("default")
    job = new_job("sendMessage", {"chat_id": -2002, "text": "hi"}, priority="bulk")
    message = DeliveredMessage(
        dramatiq.Message[Any].decode(encode_job(job, QUEUE)), cast(Any, SimpleNamespace(trace=None)), job
    )
    message.ask = ask_for(job, broker.settings)
    permit = await broker.admission.admit(message.ask)
    assert isinstance(permit, Go)
    message.permit = permit
    await Settler(broker).settle(message, job, outcome)
    [published] = wire.published
    assert published.message_id == job.id
    assert message.settled
    spent = (await broker.admission.snapshot("default")).sent_last_second
    await broker.aclose()
    return published, spent


@pytest.mark.parametrize(
    "outcome", [Migrated("-1001000002002"), Paused(timedelta(seconds=3), "Too Many Requests")], ids=["migrated", "429"]
)
def test_a_call_refused_by_the_bot_api_still_counts_against_the_budget(outcome: Outcome, tmp_path: Path) -> None:
    """It also counts there. A refund would allow one send more than a second holds."""
    _, spent = asyncio.run(settle(outcome, tmp_path))
    assert spent == 1


@pytest.mark.parametrize(
    ("asked", "parked"),
    [(timedelta(seconds=3), timedelta(seconds=3)), (timedelta(days=1), PAUSE_POLL)],
    ids=["seconds", "a day"],
)
def test_a_job_answered_with_429_is_parked_no_longer_than_a_minute(
    asked: timedelta, parked: timedelta, tmp_path: Path
) -> None:
    published, _ = asyncio.run(settle(Paused(asked, "Too Many Requests"), tmp_path))
    assert published == delayed(dataclasses.replace(published, routing_key=QUEUE), parked)


@pytest.mark.parametrize(
    ("outcome", "word", "scope"),
    [
        (Paused(timedelta(seconds=3), "Too Many Requests"), "paused", "chat"),
        (Migrated("-1001000002002"), "migrated", None),
    ],
    ids=["429", "migrated"],
)
def test_an_outcome_is_counted_once_and_a_429_by_what_it_paused(
    outcome: Outcome, word: str, scope: str | None, tmp_path: Path
) -> None:
    counted = Metrics()
    asyncio.run(settle(outcome, tmp_path, counted))
    assert counted.values(SENDS) == {("default", word): 1.0}
    assert counted.values(TOO_MANY_REQUESTS) == ({("default", scope): 1.0} if scope else {})
    assert [each.sum for each in counted.distributions(RETRY_AFTER).values()] == ([3.0] if scope else [])
    assert counted.values(DELAYED) == {("default", "retry"): 1.0}
