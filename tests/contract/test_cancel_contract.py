"""Cancelling a campaign, or all jobs of a bot: one record in the store, which admission reads as each job comes up."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from datetime import timedelta

import pytest

from floodgate.broker.admission import policy
from floodgate.broker.admission.contract import (
    CANCELLED,
    Admission,
    AlreadyDead,
    Ask,
    Go,
    Retrying,
    Sent,
    Standing,
    Wait,
)
from floodgate.broker.admission.policy import ask_for, policy_of
from floodgate.broker.errors import InvalidParamsError
from floodgate.broker.messages.job import Job
from floodgate.broker.settings.model import Settings
from floodgate.producer.async_client import AsyncClient
from floodgate.producer.client import Client
from tests.admission_bench import HandClock, ask_of, settings_of
from tests.contract.conftest import Opener

NOON_MS = 1_800_000_000_000


def of(campaign: str | None, created_ms: int = NOON_MS, *, chat: int = 5, job_id: str | None = None) -> Ask:
    return replace(ask_of(chat, job_id=job_id), campaign=campaign, created_ms=created_ms)


def reason(admission: Admission, ask: Ask) -> str | None:
    record = admission.lookup("default", ask.job_id)
    return None if record is None else record.reason


def test_a_cancelled_campaigns_job_ends_when_it_comes_up_and_others_are_sent(admission: Admission) -> None:
    admission.cancel_campaign("default", "spring", NOON_MS + 1)
    queued = of("spring")
    assert admission.admit(queued) == AlreadyDead(CANCELLED)
    assert admission.admit(queued) == AlreadyDead(CANCELLED), "again, as after a crash before its ack"
    record = admission.lookup("default", queued.job_id)
    assert record is not None
    assert (record.standing, record.reason) == (Standing.DEAD, CANCELLED)
    assert isinstance(admission.admit(of("autumn", chat=6)), Go)
    assert isinstance(admission.admit(of(None, chat=7)), Go)
    assert admission.snapshot("default").not_kept == {CANCELLED: 1}
    [listed] = admission.not_kept("default")
    assert (listed.job_id, listed.chat, listed.reason) == (queued.job_id, "5", CANCELLED)


def test_a_parked_job_of_a_cancelled_campaign_leaves_its_line(admission: Admission, clock: HandClock) -> None:
    first, parked, behind = of(None), of("spring"), of(None)
    go = admission.admit(first)
    assert isinstance(go, Go)
    admission.admit(parked)
    admission.admit(behind)
    admission.cancel_campaign("default", "spring", NOON_MS + 1)
    admission.settle(first, Sent(True), go.grant)
    clock.advance(1.1)
    assert admission.admit(parked) == AlreadyDead(CANCELLED)
    assert isinstance(admission.admit(behind), Go)


def test_a_job_that_was_enqueued_after_the_cancellation_is_sent(admission: Admission) -> None:
    admission.cancel_campaign("default", "spring", NOON_MS)
    assert isinstance(admission.admit(of("spring", NOON_MS)), Go)
    admission.cancel_campaign("default", "spring", NOON_MS - 5)
    assert admission.admit(of("spring", NOON_MS - 1, chat=6)) == AlreadyDead(CANCELLED), "the later one counts"


def test_a_job_under_way_is_not_cancelled_but_its_next_attempt_is(admission: Admission) -> None:
    ask = of("spring")
    go = admission.admit(ask)
    assert isinstance(go, Go)
    admission.cancel_campaign("default", "spring", NOON_MS + 1)
    assert reason(admission, ask) is None
    admission.settle(ask, Retrying(timedelta(0)), go.grant)
    assert admission.admit(ask) == AlreadyDead(CANCELLED)


def test_all_jobs_of_a_bot_are_cancelled_and_no_other_bots(admission: Admission) -> None:
    admission.cancel_campaign("default", None, NOON_MS + 1)
    assert admission.admit(of(None)) == admission.admit(of("spring", chat=6)) == AlreadyDead(CANCELLED)
    admission.vouch_idle("other")
    assert isinstance(admission.admit(replace(of("spring"), bot="other")), Go)


def test_a_sent_job_stays_sent(admission: Admission) -> None:
    ask = of("spring")
    go = admission.admit(ask)
    assert isinstance(go, Go)
    admission.settle(ask, Sent({"message_id": 1}), go.grant)
    admission.cancel_campaign("default", "spring", NOON_MS + 1)
    record = admission.lookup("default", ask.job_id)
    assert record is not None and record.standing is Standing.SENT


@pytest.mark.parametrize("later", [timedelta(days=388), timedelta(days=500)], ids=str)
def test_a_cancellation_outlives_every_scheduled_job_but_is_not_kept_for_ever(
    opener: Opener, clock: HandClock, later: timedelta
) -> None:
    admission = opener(policy_of(settings_of()))
    admission.vouch_idle("default")
    admission.cancel_campaign("default", "spring", NOON_MS + 1)
    clock.advance(later)
    now_ms = NOON_MS + later // timedelta(milliseconds=1)
    admission.cancel_campaign("default", "other", now_ms)
    outlived = later < timedelta(microseconds=policy.CANCELLED_KEPT_US)
    decision = admission.admit(of("spring"))
    assert (decision == AlreadyDead(CANCELLED)) is outlived


def test_the_latest_cancellations_are_kept(admission: Admission, clock: HandClock) -> None:
    for number in range(policy.CANCELLED_MOST + 1):
        clock.advance(timedelta(milliseconds=1))
        admission.cancel_campaign("default", f"c{number}", NOON_MS + number)
    assert isinstance(admission.admit(of("c0", 1)), Go)
    assert admission.admit(of("c1", 1, chat=6)) == AlreadyDead(CANCELLED)


def test_a_client_cancels_jobs_and_campaigns(settings: Settings, store: Admission) -> None:
    with Client(settings) as client:
        job = client.job("sendMessage", chat_id=5, text="hi")
        assert [record.reason for record in client.cancel(job, "an-id")] == [CANCELLED, CANCELLED]
        assert store.admit(ask_for(job, settings)) == AlreadyDead(CANCELLED)
        wrong = client.job("sendMessage", chat_id=6, text="hi", campaign="spring")
        other = client.job("sendMessage", chat_id=7, text="hi", campaign="spring", bot="other")
        assert client.cancel(campaign="spring") == []
        assert store.admit(ask_for(wrong, settings)) == AlreadyDead(CANCELLED)
        assert isinstance(store.admit(ask_for(other, settings)), Wait), "a new bot starts cautiously"
        client.cancel(campaign="spring", bot="other")
        assert store.admit(ask_for(other, settings)) == AlreadyDead(CANCELLED)
        for nothing in ({}, {"campaign": ""}):
            with pytest.raises(InvalidParamsError, match="what to cancel"):
                client.cancel(**nothing)  # type: ignore[arg-type]


def test_an_async_client_cancels_jobs_and_campaigns(settings: Settings, store: Admission) -> None:
    async def cancel() -> tuple[Job, Job]:
        async with AsyncClient(settings) as client:
            one = client.job("sendMessage", chat_id=5, text="hi")
            [record] = await client.cancel(one)
            assert record.reason == CANCELLED
            many = client.job("sendMessage", chat_id=6, text="hi", campaign="spring")
            assert await client.cancel(campaign="spring") == []
            return one, many

    for job in asyncio.run(cancel()):
        assert store.admit(ask_for(job, settings)) == AlreadyDead(CANCELLED)


def test_a_job_from_before_1970_is_sent_if_nothing_was_cancelled(admission: Admission) -> None:
    """Producers of others write what they like into the queue."""
    job = Job(
        id="odd", bot="default", method="sendMessage", params={"chat_id": 5, "text": "x"}, chat="5", created_ms=-1
    )
    assert isinstance(admission.admit(ask_for(job, settings_of())), Go)
