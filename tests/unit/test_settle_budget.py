"""The budget of a failed call: refunded only if the call certainly never reached the Bot API."""

from __future__ import annotations

import asyncio
from datetime import timedelta
from pathlib import Path
from typing import Any, cast

import dramatiq
import pytest

from floodgate.actors.outcomes import Migrated, Outcome, Paused
from floodgate.actors.settle import Settler
from floodgate.broker.admission.contract import Go
from floodgate.broker.admission.policy import ask_for
from floodgate.broker.messages.job import encode_job, new_job
from floodgate.broker.settings.model import Settings
from floodgate.broker.worker.dramatiq_broker import FloodgateBroker
from floodgate.broker.worker.queue_consumer import DeliveredMessage
from tests.wire import Wire

TOKEN = "100200300:" + "A" * 35
QUEUE = "send.default.bulk.00"


@pytest.mark.parametrize(
    "outcome", [Migrated("-1001000002002"), Paused(timedelta(seconds=3), "Too Many Requests")], ids=["migrated", "429"]
)
def test_a_call_refused_by_the_bot_api_still_counts_against_the_budget(outcome: Outcome, tmp_path: Path) -> None:
    """It also counts there. A refund would allow one send more than a second holds."""

    async def settle() -> None:
        settings = Settings(_env_file=None, bot_token=TOKEN, state_url=f"sqlite:///{tmp_path}/state.db")
        broker, wire = FloodgateBroker(settings), Wire()
        broker._connections = cast(Any, wire)
        await broker.admission.vouch_idle("default")
        job = new_job("sendMessage", {"chat_id": -2002, "text": "hi"}, priority="bulk")
        message = DeliveredMessage(dramatiq.Message[Any].decode(encode_job(job, QUEUE)), cast(Any, None), job)
        message.ask = ask_for(job, broker.settings)
        permit = await broker.admission.admit(message.ask)
        assert isinstance(permit, Go)
        message.permit = permit
        await Settler(broker).settle(message, job, outcome)
        assert (await broker.admission.snapshot("default")).sent_last_second == 1
        assert [each.message_id for each in wire.published] == [job.id]
        assert message.settled
        await broker.aclose()

    asyncio.run(settle())
