"""The results a client gets from a worker that sent a job or could not."""

from __future__ import annotations

import asyncio
import contextlib
import time
from datetime import timedelta

import pytest

from floodgate.broker.admission.contract import Record, Standing
from floodgate.broker.errors import DeadLetteredError, NotSettledError
from floodgate.broker.state.stores import open_store
from floodgate.producer.async_client import AsyncClient
from tests.acceptance.stage import BOT, Stage
from tests.waiting import until

BLOCKED = 666


def test_the_result_is_telegrams_own(stage: Stage) -> None:
    stage.worker()
    client = stage.client()
    job = client.send_message(42, "hi")
    result = client.result(job, timeout=20)
    assert (result["text"], result["chat"]["id"]) == ("hi", 42)
    assert client.result(job.id, timeout=timedelta(0)) == result
    record = client.status(job)
    assert record is not None and record.standing is Standing.SENT


def test_the_result_of_a_job_that_will_not_be_sent_is_its_reason(stage: Stage) -> None:
    stage.control.set_chat(BLOCKED, trouble="blocked")
    stage.worker()
    client = stage.client()
    job = client.send_message(BLOCKED, "hi")
    with pytest.raises(DeadLetteredError, match=f"Job {job.id} was not sent") as caught:
        client.result(job, timeout=20)
    assert (caught.value.job_id, caught.value.reason) == (job.id, "chat-unreachable")
    assert caught.value.error == {"error_code": 403, "description": "Forbidden: bot was blocked by the user"}


def test_waiting_for_a_result_times_out_and_says_that_the_job_is_safe(stage: Stage) -> None:
    client = stage.client()
    job = client.send_message(42, "hi")  # no worker is running
    began = time.monotonic()
    with pytest.raises(NotSettledError, match="it is safe"):
        client.result(job, timeout=0.3)
    assert 0.3 <= time.monotonic() - began < 3
    assert client.status(job) is None


def test_the_async_client_gets_the_same_results(stage: Stage) -> None:
    stage.worker()

    async def main() -> list[str]:
        async with AsyncClient(stage.settings) as client:
            jobs = [await client.send_message(chat, f"to {chat}") for chat in (1, 2, 3)]
            results = await asyncio.gather(*(client.result(job, timeout=20) for job in jobs))
            return [result["text"] for result in results]

    assert asyncio.run(main()) == ["to 1", "to 2", "to 3"]


def test_two_jobs_with_one_dedupe_key_are_sent_once(stage: Stage) -> None:
    stage.worker()
    client = stage.client()
    first = client.send_message(42, "your invoice", dedupe_key="invoice-7")
    client.result(first, timeout=20)
    second = client.send_message(42, "your invoice", dedupe_key="invoice-7")
    assert (first.known, second.known) == (False, True)
    last = client.send_message(42, "something else")
    client.result(last, timeout=20)
    assert second.id == first.id
    assert stage.sent() == ["your invoice", "something else"]


def test_every_way_of_enqueueing_reports_a_known_dedupe_key(stage: Stage) -> None:
    worker = stage.worker()
    client = stage.client()
    client.result(client.send_message(42, "your invoice", dedupe_key="invoice-7"), timeout=20)
    again = [client.job("sendMessage", chat_id=42, text="your invoice", dedupe_key="invoice-7")]
    assert [job.known for job in client.enqueue_each(again)] == [True]

    async def main() -> list[bool | None]:
        async with AsyncClient(stage.settings) as other:
            hit = await other.send_message(42, "your invoice", dedupe_key="invoice-7")
            return [hit.known, *[job.known async for job in other.enqueue_each(again)]]

    assert asyncio.run(main()) == [True, True]
    client.result(client.send_message(42, "something else"), timeout=20)
    until(lambda: worker.log.count("dedupe key 'invoice-7'") == 3)
    assert stage.sent() == ["your invoice", "something else"]


def test_a_waiting_job_is_shown_with_its_expected_time(stage: Stage) -> None:
    with contextlib.closing(open_store(stage.settings)) as store:
        store.pause(BOT, "42", timedelta(minutes=5), "test")
    stage.worker()
    client = stage.client()
    job = client.send_message(42, "later")
    record = until(lambda: client.status(job))
    assert record.standing is Standing.WAITING
    assert record.due is not None and timedelta(minutes=4) < record.due <= timedelta(minutes=5)

    async def main() -> Record | None:
        async with AsyncClient(stage.settings) as other:
            return await other.status(job)

    same = asyncio.run(main())
    assert same is not None and same.due is not None and same.due <= record.due
