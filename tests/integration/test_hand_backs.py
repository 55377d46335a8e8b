"""A job that never reaches its call, on a real RabbitMQ and a real store."""

from __future__ import annotations

import asyncio
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import dramatiq
import pytest

from floodgate.broker.admission import policy
from floodgate.broker.admission.contract import Standing
from floodgate.broker.amqp import queue_admin, topology
from floodgate.broker.messages import queue_names
from floodgate.broker.messages.dead_letters import read_dead_letter
from floodgate.broker.messages.job import encode_job, new_job
from floodgate.broker.settings.model import Settings
from floodgate.broker.worker.dramatiq_broker import FloodgateBroker
from floodgate.broker.worker.middleware.rate_limit import Deferral
from floodgate.broker.worker.queue_consumer import DeliveredMessage
from tests.draining import drain
from tests.services import Vhost

BOT, QUEUE = "default", "send.default.interactive.00"


@pytest.mark.parametrize("state", ["sqlite", "redis"])
def test_the_hundredth_hand_back_makes_a_dead_letter(
    state: str, vhost: Vhost, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    settings = Settings(
        _env_file=None,
        bot_token="100200300:" + "A" * 35,
        rabbitmq_url=vhost.url,
        state_url=request.getfixturevalue("redis_url") if state == "redis" else f"sqlite:///{tmp_path}/state.db",
        partitions=1,
        update_partitions=1,
    )
    job = new_job("sendMessage", {"chat_id": 42, "text": "hi"})
    body = encode_job(job, QUEUE)
    delivery = cast(Any, SimpleNamespace(body=body, trace=None))
    message = DeliveredMessage(dramatiq.Message[Any].decode(body), delivery, job)

    async def hand_back_for_ever() -> None:
        broker = FloodgateBroker(settings)
        broker.run_on_callers_loop()
        await queue_admin.adeclare(broker.connections, topology.pipeline([BOT], 1))
        await broker.admission.vouch_idle(BOT)
        await broker.rate_limit.abefore_process_message(broker, message)
        for _ in range(policy.HANDED_BACK_MOST - 1):
            await broker.rate_limit.renew(broker, message)
        with pytest.raises(Deferral, match="exhausted"):
            await broker.rate_limit.renew(broker, message)
        record = await broker.admission.lookup(BOT, job.id)
        assert record is not None
        assert record.standing is Standing.DEAD
        await broker.aclose()

    asyncio.run(hand_back_for_ever())
    assert message.settled, "it is acknowledged"
    queue = queue_names.dead_queue(BOT)
    [(properties, left)] = drain(vhost.url, queue)
    letter = read_dead_letter(queue, properties.message_id, properties.headers, left)
    assert (letter.reason, letter.description) == ("exhausted", "it was handed back 100 times in a row before its call")


@pytest.mark.parametrize(("times", "ends"), [(topology.DELIVERY_LIMIT - 1, False), (topology.DELIVERY_LIMIT, True)])
def test_a_job_that_fails_in_admission_is_requeued_and_finally_becomes_a_dead_letter(
    times: int, ends: bool, vhost: Vhost, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """RabbitMQ 4.3 does not count returns toward its delivery limit, so we do."""
    settings = Settings(
        _env_file=None,
        bot_token="100200300:" + "A" * 35,
        rabbitmq_url=vhost.url,
        state_url=f"sqlite:///{tmp_path}/state.db",
        partitions=1,
    )
    job = new_job("sendMessage", {"chat_id": 42, "text": "hi"})
    body = encode_job(job, QUEUE)
    delivery = cast(Any, SimpleNamespace(body=body, delivery_count=times, trace=None))
    message = DeliveredMessage(dramatiq.Message[Any].decode(body), delivery, job)

    async def fail(*_arguments: Any) -> Any:
        raise ValueError("a bug")

    async def meet() -> None:
        broker = FloodgateBroker(settings)
        broker.run_on_callers_loop()
        await queue_admin.adeclare(broker.connections, topology.pipeline([BOT], 1))
        monkeypatch.setattr(broker.admission, "admit", fail)
        with pytest.raises(Deferral, match="ValueError"):
            await broker.rate_limit.abefore_process_message(broker, message)
        await broker.aclose()

    asyncio.run(meet())
    assert message.settled is ends
    queue = queue_names.dead_queue(BOT)
    letters = [read_dead_letter(queue, p.message_id, p.headers, left) for p, left in drain(vhost.url, queue)]
    assert [letter.reason for letter in letters] == (["failed"] if ends else [])
