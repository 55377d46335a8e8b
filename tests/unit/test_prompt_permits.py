"""Permits are short-lived: one that its worker was too busy to use is handed back, and the job asks again."""

from __future__ import annotations

import asyncio
import json
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any, cast

import dramatiq
import pytest

from floodgate.actors.answers import Accepted, Answer
from floodgate.actors.send import PERMITS, Sender
from floodgate.broker.admission.contract import Standing
from floodgate.broker.errors import StateUnavailableError
from floodgate.broker.messages.job import encode_job, new_job
from floodgate.broker.settings.model import Settings
from floodgate.broker.worker.dramatiq_broker import FloodgateBroker
from floodgate.broker.worker.queue_consumer import DeliveredMessage

TOKEN = "100200300:" + "A" * 35
QUEUE = "send.default.interactive.00"
LONG_AGO = 0.0

Scene = Callable[[FloodgateBroker], Awaitable[None]]


@asynccontextmanager
async def broker_with(tmp_path: Path, **settings: Any) -> AsyncIterator[FloodgateBroker]:
    broker = FloodgateBroker(
        Settings(_env_file=None, bot_token=TOKEN, state_url=f"sqlite:///{tmp_path}/state.db", **settings)
    )
    broker.run_on_callers_loop()
    await broker.admission.vouch_idle("default")
    yield broker
    await broker.aclose()


@pytest.fixture
def play(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Runs a scene on an event loop, with a broker that is the process's meanwhile."""

    async def on_a_loop(scene: Scene, **settings: Any) -> None:
        async with broker_with(tmp_path, **settings) as broker:
            monkeypatch.setattr(sys.modules[Sender.__module__], "current_broker", lambda: broker)
            await scene(broker)

    return lambda scene, **settings: asyncio.run(on_a_loop(scene, **settings))


def delivered(**params: Any) -> DeliveredMessage:
    job = new_job("sendMessage", {"chat_id": 42, "text": "hi", **params})
    message = dramatiq.Message[Any].decode(encode_job(job, QUEUE))
    return DeliveredMessage(message, cast(Any, None), job)


async def admitted(broker: FloodgateBroker, **params: Any) -> DeliveredMessage:
    message = delivered(**params)
    await broker.rate_limit.abefore_process_message(broker, message)
    return message


class Sessions:
    """Accepts every call."""

    def __init__(self) -> None:
        self.calls = 0

    async def call(self, bot: str, method: str, params: dict[str, Any], timeout: timedelta) -> Answer:
        self.calls += 1
        return Accepted(json.loads("true"))


async def answer(sessions: Sessions, message: DeliveredMessage) -> Answer:
    sender = Sender()
    sender._sessions, sender._timeout = cast(Any, sessions), timedelta(seconds=5)
    assert message.job is not None
    return await sender._answer(message, message.job)


Play = Callable[..., None]


def test_a_permit_is_valid_for_a_short_time(play: Play) -> None:
    async def scene(broker: FloodgateBroker) -> None:
        before = time.monotonic()
        assert before < (await admitted(broker)).good_until < time.monotonic() + 0.05

    play(scene)


def test_a_permit_without_limits_is_valid_forever(play: Play) -> None:
    async def scene(broker: FloodgateBroker) -> None:
        assert (await admitted(broker)).good_until == float("inf")

    play(scene, limits={"enabled": False})


def test_a_permit_for_a_paid_broadcast_is_valid_forever(play: Play) -> None:
    async def scene(broker: FloodgateBroker) -> None:
        assert (await admitted(broker, allow_paid_broadcast=True)).good_until == float("inf")

    play(scene)


def test_renewing_a_permit_refunds_the_first_one(play: Play) -> None:
    async def scene(broker: FloodgateBroker) -> None:
        message = await admitted(broker)
        first = message.permit
        await broker.rate_limit.renew(broker, message)
        assert message.permit is not None
        assert message.permit != first
        assert (await broker.admission.snapshot("default")).sent_last_second == 1
        record = await broker.admission.lookup("default", message.message_id)
        assert record is not None
        assert record.standing is Standing.SENDING

    play(scene)


def test_a_permit_is_handed_back_once_the_store_is_available_again(play: Play, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("floodgate.broker.worker.middleware.rate_limit.STORE_RETRY_SECONDS", 0.001)

    async def scene(broker: FloodgateBroker) -> None:
        message = await admitted(broker)
        first, settle, failures = message.permit, broker.admission.settle, iter(["full", "full"])

        async def settle_later(*arguments: Any) -> None:
            if failure := next(failures, None):
                raise StateUnavailableError(failure)
            await settle(*arguments)

        monkeypatch.setattr(broker.admission, "settle", settle_later)
        await broker.rate_limit.renew(broker, message)
        assert message.permit not in (None, first)
        assert (await broker.admission.snapshot("default")).sent_last_second == 1

    play(scene)


def test_a_call_made_in_time_uses_its_first_permit(play: Play) -> None:
    async def scene(broker: FloodgateBroker) -> None:
        sessions, message = Sessions(), await admitted(broker)
        message.good_until = float("inf")
        first = message.permit
        assert await answer(sessions, message) == Accepted(True)
        assert (sessions.calls, message.permit) == (1, first)

    play(scene)


def test_a_late_call_is_made_once_with_a_new_permit(play: Play) -> None:
    async def scene(broker: FloodgateBroker) -> None:
        sessions, message = Sessions(), await admitted(broker)
        message.good_until = LONG_AGO
        first = message.permit
        assert await answer(sessions, message) == Accepted(True)
        assert sessions.calls == 1
        assert message.permit != first

    play(scene)


def test_a_process_that_is_late_for_every_permit_still_sends(play: Play, monkeypatch: pytest.MonkeyPatch) -> None:
    async def scene(broker: FloodgateBroker) -> None:
        sessions, message = Sessions(), await admitted(broker)
        message.good_until = LONG_AGO
        renewals = 0

        async def renew_late(_broker: FloodgateBroker, mine: DeliveredMessage) -> None:
            nonlocal renewals
            renewals += 1

        monkeypatch.setattr(broker.rate_limit, "renew", renew_late)
        assert await answer(sessions, message) == Accepted(True)
        assert (sessions.calls, renewals) == (1, PERMITS - 1)

    play(scene)
