"""A permit is for now: one that its worker was too busy to use is handed back, and the job asks again."""

from __future__ import annotations

import asyncio
import contextlib
import json
import threading
import time
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any, cast

import dramatiq
import pytest

from actors.answers import Accepted, Answer
from actors.loop_calls import LoopCalls
from actors.send import PERMITS, Sender
from broker.admission.contract import Standing
from broker.dramatiq_broker import FloodgateBroker
from broker.dramatiq_consumer import DeliveredMessage
from broker.job import encode_job, new_job
from broker.middleware.rate_limit import RateLimit
from broker.settings import Settings

TOKEN = "100200300:" + "A" * 35
QUEUE = "send.default.interactive.00"
LONG_AGO = 0.0


@pytest.fixture
def broker(tmp_path: Path) -> Iterator[FloodgateBroker]:
    settings = Settings(_env_file=None, bot_token=TOKEN, state_url=f"sqlite:///{tmp_path}/state.db")
    broker = FloodgateBroker(settings)
    broker.admission.vouch_idle("default")
    yield broker
    broker.close()


@pytest.fixture
def loop() -> Iterator[asyncio.AbstractEventLoop]:
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever, name="test-loop")
    thread.start()
    ready = threading.Event()
    loop.call_soon_threadsafe(ready.set)
    ready.wait(5)
    yield loop
    loop.call_soon_threadsafe(loop.stop)
    thread.join(5)
    with contextlib.suppress(RuntimeError):
        loop.close()


def delivered(**params: Any) -> DeliveredMessage:
    job = new_job("sendMessage", {"chat_id": 42, "text": "hi", **params})
    message = dramatiq.Message[Any].decode(encode_job(job, QUEUE))
    return DeliveredMessage(message, cast(Any, None), job)


def admitted(broker: FloodgateBroker, **params: Any) -> DeliveredMessage:
    message = delivered(**params)
    RateLimit().before_process_message(broker, message)
    return message


class Sessions:
    """Takes every call."""

    def __init__(self) -> None:
        self.calls = 0

    async def call(self, bot: str, method: str, params: dict[str, Any], timeout: timedelta) -> Answer:
        self.calls += 1
        return Accepted(json.loads("true"))


def sender(sessions: Sessions, loop: asyncio.AbstractEventLoop) -> Sender:
    sender = Sender()
    sender._sessions = cast(Any, sessions)
    sender._calls = LoopCalls(loop)
    sender._timeout, sender._patience_seconds = timedelta(seconds=5), 10
    return sender


def test_a_permit_is_good_for_a_moment(broker: FloodgateBroker) -> None:
    before = time.monotonic()
    assert before < admitted(broker).good_until < time.monotonic() + 0.05


def test_a_permit_is_good_for_ever_where_no_window_is_kept(tmp_path: Path) -> None:
    settings = Settings(
        _env_file=None, bot_token=TOKEN, state_url=f"sqlite:///{tmp_path}/s.db", limits={"enabled": False}
    )
    unmetered = FloodgateBroker(settings)
    assert admitted(unmetered).good_until == float("inf")
    unmetered.close()


def test_a_paid_broadcast_is_kept_by_spacing_and_may_be_late(broker: FloodgateBroker) -> None:
    assert admitted(broker, allow_paid_broadcast=True).good_until == float("inf")


def test_what_is_handed_back_was_never_spent(broker: FloodgateBroker) -> None:
    message = admitted(broker)
    first = message.permit
    assert message.renew is not None
    message.renew(message)
    assert message.permit is not None
    assert message.permit != first
    assert broker.admission.snapshot("default").sent_last_second == 1
    record = broker.admission.lookup("default", message.message_id)
    assert record is not None
    assert record.standing is Standing.SENDING


def test_a_call_in_time_is_made_with_its_first_permit(broker: FloodgateBroker, loop: asyncio.AbstractEventLoop) -> None:
    sessions, message = Sessions(), admitted(broker)
    message.good_until = float("inf")
    first = message.permit
    assert message.job is not None
    assert sender(sessions, loop)._answer(message, message.job) == Accepted(True)
    assert (sessions.calls, message.permit) == (1, first)


def test_a_late_call_is_made_once_and_with_another_permit(
    broker: FloodgateBroker, loop: asyncio.AbstractEventLoop
) -> None:
    sessions, message = Sessions(), admitted(broker)
    message.good_until = LONG_AGO
    first = message.permit
    assert message.job is not None
    assert sender(sessions, loop)._answer(message, message.job) == Accepted(True)
    assert sessions.calls == 1
    assert message.permit != first


def test_a_process_that_is_late_for_every_permit_sends_all_the_same(
    broker: FloodgateBroker, loop: asyncio.AbstractEventLoop
) -> None:
    sessions, message = Sessions(), admitted(broker)
    message.good_until = LONG_AGO
    renewals = 0

    def renew_late(mine: DeliveredMessage) -> None:
        nonlocal renewals
        renewals += 1

    message.renew = renew_late
    assert message.job is not None
    assert sender(sessions, loop)._answer(message, message.job) == Accepted(True)
    assert (sessions.calls, renewals) == (1, PERMITS - 1)
