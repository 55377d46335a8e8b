"""Jobs that are shed by a worker: late ones, and typing whose call failed."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from floodgate.actors.outcomes import BotRefused, FailureReason, Migrated, Outcome, Paused, Retry, Uncertain, dead
from floodgate.actors.settle import Settler
from floodgate.broker.admission.contract import SHED, AlreadyDead, Go, Record, Sent, Standing
from floodgate.broker.admission.policy import ask_for, call_timeout
from floodgate.broker.errors import InvalidParamsError
from floodgate.broker.messages.job import Job, decode_job, encode_job, new_job, unix_ms
from floodgate.broker.messages.method_table import Charge
from floodgate.broker.process.metrics import DEAD
from floodgate.broker.settings.model import Settings
from floodgate.broker.worker.middleware.rate_limit import Deferral, RateLimit
from floodgate.broker.worker.queue_consumer import DeliveredMessage
from floodgate.letters.replay import renewed
from floodgate.producer.core import Composer
from floodgate.producer.telegram_answer import answer_to, as_answered
from tests.unit.test_jobs_not_kept import Desk

TYPING = {"chat_id": 5, "action": "typing"}
HI = {"chat_id": 5, "text": "hi"}
MINUTE_MS = 60_000


def composer() -> Composer:
    return Composer(Settings(_env_file=None))


def typing() -> Job:
    """Typing that stays worth sending on a busy machine."""
    return new_job("sendChatAction", TYPING, worth_until_ms=unix_ms() + 10 * MINUTE_MS)


def run(desk: Desk, act: Callable[[], Awaitable[None]]) -> None:
    async def whole() -> None:
        await desk.broker.admission.vouch_idle("default")
        try:
            await act()
        finally:
            await desk.broker.aclose()

    asyncio.run(whole())


@pytest.fixture
def desk(tmp_path: Path) -> Desk:
    return Desk(tmp_path / "state.db")


async def admitted(desk: Desk, job: Job) -> DeliveredMessage:
    message = desk.message(job)
    await RateLimit().abefore_process_message(desk.broker, message)
    assert isinstance(message.permit, Go)
    return message


async def is_shed(desk: Desk, job: Job) -> bool:
    record = await desk.broker.admission.lookup("default", job.id)
    counted = (await desk.broker.admission.snapshot("default")).not_kept
    measured = desk.broker.metrics.values(DEAD).get(("default", SHED), 0)
    return record == Record(Standing.DEAD, reason=SHED) and (counted, measured) == ({SHED: 1}, 1)


# What a job is worth.


@pytest.mark.parametrize("method", ["sendChatAction", "sendMessageDraft", "sendRichMessageDraft"])
def test_typing_and_drafts_are_worth_five_seconds_from_when_they_are_due(method: str) -> None:
    job = new_job(method, {"chat_id": 5})
    assert job.worth_until_ms == job.created_ms + 5_000
    later = composer().unchecked(method, {"chat_id": 5}, {"delay": 60})
    assert later.worth_until_ms == (later.not_before_ms or 0) + 5_000


def test_other_jobs_are_always_worth_sending() -> None:
    assert new_job("sendMessage", HI).worth(0) is None
    corrected = Composer(Settings(_env_file=None, methods={"sendChatAction": "action"})).job("sendChatAction", TYPING)
    assert corrected.worth_until_ms is None


def test_the_option_takes_a_time_or_a_number_of_seconds_and_travels_with_the_job() -> None:
    soon = datetime.now(UTC) + timedelta(minutes=1)
    for given in (soon, timedelta(minutes=1), 60):
        job = composer().job("sendMessage", {**HI, "worth_until": given})
        assert abs((job.worth_until_ms or 0) - unix_ms() - MINUTE_MS) < 30_000
        assert decode_job(encode_job(job, "send.default.interactive.00")).worth_until_ms == job.worth_until_ms


def test_a_job_that_would_never_be_worth_it_is_refused() -> None:
    with pytest.raises(InvalidParamsError, match="worth_until is before the job's earliest time to send"):
        composer().job("sendMessage", {**HI, "worth_until": 5, "delay": 10})
    with pytest.raises(InvalidParamsError, match="worth_until is not in the future"):
        composer().job("sendMessage", {**HI, "worth_until": 0})


def test_a_replayed_letter_is_worth_sending() -> None:
    job = composer().job("sendMessage", {**HI, "worth_until": 5})
    assert renewed(job, "content", unix_ms()).worth_until_ms is None


def test_a_call_of_typing_takes_no_longer_than_it_is_worth() -> None:
    settings = Settings(_env_file=None)
    assert call_timeout(new_job("sendChatAction", TYPING), settings) == timedelta(seconds=5)
    assert call_timeout(new_job("sendMessage", HI), settings) == timedelta(seconds=30)


# In the worker.


@pytest.mark.parametrize("method", ["sendMessage", "sendChatAction"])
def test_a_late_job_is_acknowledged_and_counted_without_a_dead_letter(desk: Desk, method: str) -> None:
    job = new_job(method, HI | TYPING, worth_until_ms=unix_ms() - 1)

    async def act() -> None:
        message = desk.message(job)
        with pytest.raises(Deferral):
            await RateLimit().abefore_process_message(desk.broker, message)
        assert message.settled
        assert await is_shed(desk, job)
        assert desk.wire.published == []

    run(desk, act)


def test_a_job_whose_wait_is_not_worth_it_is_shed_at_once(desk: Desk) -> None:
    job = new_job("sendMessage", HI, worth_until_ms=unix_ms() + 30_000)

    async def act() -> None:
        await desk.broker.admission.pause("default", "5", timedelta(hours=1), "operator")
        message = desk.message(job)
        with pytest.raises(Deferral):
            await RateLimit().abefore_process_message(desk.broker, message)
        assert message.settled
        assert await is_shed(desk, job)

    run(desk, act)


@pytest.mark.parametrize(
    "outcome",
    [
        Paused(timedelta(seconds=3), "retry after 3"),
        Retry("502", surely_not_sent=False),
        Retry("refused", surely_not_sent=True),
        Uncertain("cut off"),
        Migrated("-1005"),
        BotRefused("Unauthorized"),
    ],
)
def test_typing_whose_call_failed_is_shed(desk: Desk, outcome: Outcome) -> None:
    job = typing()

    async def act() -> None:
        message = await admitted(desk, job)
        await Settler(desk.broker).settle(message, job, outcome)
        assert message.settled
        assert await is_shed(desk, job)
        assert desk.wire.published == [], "it is not tried again"

    run(desk, act)


def test_after_a_429_for_typing_messages_go_on_and_typing_does_not(desk: Desk) -> None:
    job = typing()

    async def act() -> None:
        message = await admitted(desk, job)
        await Settler(desk.broker).settle(message, job, Paused(timedelta(seconds=3), "retry after 3"))
        admission, settings = desk.broker.admission, desk.broker.settings
        again = ask_for(typing(), settings)
        assert await admission.admit(again) == AlreadyDead(SHED)
        assert isinstance(await admission.admit(ask_for(new_job("sendMessage", HI), settings)), Go)

    run(desk, act)


@pytest.mark.parametrize("method", ["sendChatAction", "sendMessageDraft", "sendRichMessageDraft"])
def test_typing_that_telegram_refuses_for_good_is_listed_without_a_dead_letter(desk: Desk, method: str) -> None:
    job = new_job(method, TYPING, worth_until_ms=unix_ms() + 10 * MINUTE_MS)

    async def act() -> None:
        message = await admitted(desk, job)
        await Settler(desk.broker).settle(message, job, dead(FailureReason.CONTENT, "wrong action", 400))
        assert message.settled
        assert desk.wire.published == []
        assert [(each.job_id, each.reason) for each in await desk.broker.admission.not_kept("default")] == [
            (job.id, "content")
        ]
        record = await desk.broker.admission.lookup("default", job.id)
        assert record is not None
        assert record.error == {"error_code": 400, "description": "wrong action"}
        assert desk.broker.metrics.values(DEAD) == {("default", "content"): 1}

    run(desk, act)


def test_typing_that_expired_leaves_no_dead_letter(desk: Desk) -> None:
    now = unix_ms()
    job = new_job("sendChatAction", TYPING, worth_until_ms=now + 10 * MINUTE_MS, expires_ms=now - 1)

    async def act() -> None:
        message = desk.message(job)
        with pytest.raises(Deferral):
            await RateLimit().abefore_process_message(desk.broker, message)
        assert message.settled
        assert desk.wire.published == []
        assert [each.reason for each in await desk.broker.admission.not_kept("default")] == ["expired"]

    run(desk, act)


def test_typing_that_telegram_accepts_ends_as_sent(desk: Desk) -> None:
    job = typing()

    async def act() -> None:
        await Settler(desk.broker).settle(await admitted(desk, job), job, Sent(True))
        assert await desk.broker.admission.lookup("default", job.id) == Record(Standing.SENT, result=True)

    run(desk, act)


@pytest.mark.parametrize(("worth_ms", "shed"), [(30_000, True), (10 * MINUTE_MS, False)])
def test_a_retry_that_would_be_late_is_shed_so_that_its_line_goes_on(desk: Desk, worth_ms: int, shed: bool) -> None:
    job = new_job("sendMessage", HI, worth_until_ms=unix_ms() + worth_ms)

    async def act() -> None:
        message = await admitted(desk, job)
        await Settler(desk.broker).settle(message, job, Paused(timedelta(minutes=5), "retry after 300"))
        assert message.settled
        assert len(desk.wire.published) == (0 if shed else 1)
        assert await is_shed(desk, job) is shed

    run(desk, act)


# For callers.


def test_a_library_gets_true_for_typing_that_was_shed_and_an_error_for_a_message() -> None:
    shed = Record(Standing.DEAD, reason=SHED)
    assert answer_to("j", as_answered(shed, Charge.TYPING)) == (200, {"ok": True, "result": True})
    code, body = answer_to("j", as_answered(shed, Charge.MESSAGE))
    assert (code, body["description"]) == (410, "Not sent: shed (job j).")
