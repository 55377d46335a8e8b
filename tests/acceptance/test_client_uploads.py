"""Files sent by a client: stored in the spool, streamed by a worker, and identical content uploaded once."""

from __future__ import annotations

import asyncio
import dataclasses
import io
import os
from pathlib import Path

import pytest

from floodgate.broker.errors import DeadLetteredError, RabbitMQUnreachableError
from floodgate.broker.settings.model import Settings
from floodgate.producer.async_client import AsyncClient
from floodgate.producer.client import Client
from tests.acceptance.stage import Stage
from tests.waiting import until


@pytest.fixture
def settings(stage: Stage) -> Settings:
    """The settings of a program on the machine of a running worker."""
    stage.vouch_idle()
    stage.worker()
    return stage.settings


def spooled(settings: Settings) -> list[Path]:
    return [path for path in (Path(settings.spool_url) / "jobs").rglob("*") if path.is_file()]


def test_a_path_bytes_and_an_open_file_are_sent_and_removed(stage: Stage, settings: Settings) -> None:
    report = stage.home / "report.pdf"
    report.write_bytes(os.urandom(300_000))
    with Client(settings) as client, report.open("rb") as opened:
        jobs = [
            client.send_document(1, report, caption="by path"),
            client.send_document(2, os.urandom(1000)),
            client.send_document(3, opened),
        ]
        results = [client.result(job, timeout=30) for job in jobs]
    names = [result["document"]["file_name"] for result in results]
    assert names == ["report.pdf", "document", "report.pdf"]
    assert results[0]["caption"] == "by path"
    until(lambda: spooled(settings) == [])


def test_a_call_with_a_large_file_gets_more_time(stage: Stage) -> None:
    """The time its size takes at 100 kB/s: three seconds here, in addition to one."""
    stage.vouch_idle()
    stage.worker(FLOODGATE_CALL_TIMEOUT_SECONDS="1")
    stage.control.set_server(latency_ms=(2000, 2000))
    with Client(stage.settings) as client:
        job = client.send_document(1, os.urandom(300_000), caption="slow", on_uncertain="dead-letter")
        assert client.result(job, timeout=30)["caption"] == "slow"
        small = client.send_document(2, os.urandom(1000), on_uncertain="dead-letter")
        with pytest.raises(DeadLetteredError, match="uncertain"):
            client.result(small, timeout=30)


def test_an_album_of_files_is_sent_as_one_album(settings: Settings) -> None:
    async def main() -> list[str]:
        async with AsyncClient(settings) as client:
            album = [
                {"type": "photo", "media": os.urandom(2000), "caption": "first"},
                {"type": "video", "media": io.BytesIO(os.urandom(3000)), "thumbnail": os.urandom(100)},
            ]
            messages = await client.result(await client.send_media_group(1, album), timeout=30)
            return [next(kind for kind in ("photo", "video") if kind in message) for message in messages]

    assert asyncio.run(main()) == ["photo", "video"]


def test_one_content_for_many_chats_is_uploaded_once(stage: Stage, settings: Settings) -> None:
    content = os.urandom(50_000)

    async def main() -> None:
        async with AsyncClient(settings) as client:
            jobs = [await client.send_photo(chat, content) for chat in range(1, 9)]
            await asyncio.gather(*(client.result(job, timeout=30) for job in jobs))

    asyncio.run(main())
    uploads = [isinstance(call.params["photo"], dict) for call in stage.control.arrivals()]
    assert sorted(uploads) == [False] * 7 + [True]


def test_a_job_with_a_known_dedupe_key_keeps_no_file(settings: Settings) -> None:
    with Client(settings) as client:
        first = client.send_photo(1, os.urandom(1000), dedupe_key="once")
        client.result(first, timeout=30)
        until(lambda: spooled(settings) == [])
        second = client.send_photo(1, os.urandom(1000), dedupe_key="once")
        assert (second.id, second.known) == (first.id, True)
        assert spooled(settings) == []


def test_the_file_of_a_refused_job_is_not_kept(stage: Stage) -> None:
    nowhere = dataclasses.replace(stage, rabbitmq_url="amqp://guest:guest@127.0.0.1:9/")
    settings = nowhere.settings
    with Client(settings) as client, pytest.raises(RabbitMQUnreachableError):
        client.send_photo(1, b"not empty")
    assert spooled(settings) == []
