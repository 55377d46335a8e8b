"""The keys of `floodgate top`, pressed on a real RabbitMQ and a real store."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pytest
from textual.pilot import Pilot
from textual.widgets import DataTable, Static

from floodgate.broker.admission.contract import Admission, AlreadyDead
from floodgate.broker.admission.policy import ask_for
from floodgate.broker.amqp import queue_admin, topology
from floodgate.broker.amqp.connections import Connections
from floodgate.broker.messages import dead_letters, queue_names
from floodgate.broker.messages.job import encode_job, new_job, unix_ms
from floodgate.broker.settings.model import Settings
from floodgate.broker.state.stores import open_store
from floodgate.overview import part
from floodgate.producer.campaigns.operations.service import Campaigns
from floodgate.producer.client import Client
from floodgate.top.app import TopApp
from floodgate.top.screens import BotsScreen, CampaignsScreen, ChatScreen, LettersScreen
from tests.proxy import Proxy
from tests.services import Vhost

BOT = "news"
SECONDS = 30.0
Top = Pilot[None]


@pytest.fixture
def settings(vhost: Vhost, tmp_path: Path) -> Settings:
    return settings_for(vhost.url, tmp_path)


def settings_for(rabbitmq_url: str, home: Path) -> Settings:
    return Settings(
        _env_file=None,
        rabbitmq_url=rabbitmq_url,
        state_url=f"sqlite:///{home}/state.db",
        campaigns_url=f"sqlite:///{home}/campaigns.db",
        bots={BOT: "100200300:" + "A" * 35},
        partitions=1,
        update_partitions=1,
    )


@pytest.fixture
def store(settings: Settings) -> Admission:
    return open_store(settings)


@asynccontextmanager
async def top(settings: Settings) -> AsyncIterator[Top]:
    app = TopApp(settings, [BOT])
    async with app.run_test(size=(80, 24)) as pilot:
        await until(pilot, lambda: app.screen.query_one(DataTable).row_count == 1)
        yield pilot


async def until(pilot: Top, holds: Callable[[], object]) -> None:
    """Wait until it holds: what threads have read and done arrives as messages."""
    deadline = time.monotonic() + SECONDS
    while not holds():
        assert time.monotonic() < deadline, f"It never held. On the screen:\n{screen_of(pilot)}"
        await pilot.pause(0.02)


async def until_screen(pilot: Top, kind: type) -> None:
    await until(pilot, lambda: isinstance(pilot.app.screen, kind))


def screen_of(pilot: Top) -> str:
    """All text on the screen in front."""
    tables = [
        " ".join(str(cell) for cell in table.get_row_at(row))
        for table in pilot.app.screen.query(DataTable)
        for row in range(table.row_count)
    ]
    return "\n".join([*(str(each.render()) for each in pilot.app.screen.query(Static)), *tables])


def test_p_pauses_the_bot_and_r_resumes_it(settings: Settings, store: Admission) -> None:
    async def press() -> None:
        async with top(settings) as pilot:
            await pilot.press("p")
            await until(pilot, lambda: "paused" in screen_of(pilot))
            assert [pause.chat for pause in store.snapshot(BOT).pauses] == [None]
            await pilot.press("r")
            await until(pilot, lambda: "paused" not in screen_of(pilot))
            assert store.snapshot(BOT).pauses == ()

    asyncio.run(press())


def test_a_chat_is_found_shown_with_its_pause_and_paused_on_its_own(settings: Settings, store: Admission) -> None:
    async def press() -> None:
        async with top(settings) as pilot:
            await pilot.press("enter", "slash", *"42", "enter")
            await until_screen(pilot, ChatScreen)
            await until(pilot, lambda: "the store does not know the chat" in screen_of(pilot))
            await pilot.press("p")
            await until(pilot, lambda: "the end of a pause of the chat" in screen_of(pilot))
            assert "floodgate pause" in screen_of(pilot)
            assert [pause.chat for pause in store.snapshot(BOT).pauses] == ["42"]
            await pilot.press("escape")
            await until(pilot, lambda: "42" in screen_of(pilot))
            await pilot.press("escape", "escape")
            await until_screen(pilot, BotsScreen)

    asyncio.run(press())


def test_upper_case_x_says_how_many_jobs_it_cancels_and_takes_no_for_an_answer(settings: Settings) -> None:
    with Client(settings) as client:
        job = client.send_message(1, "hi")
        other = client.send_message(1, "hi", priority="bulk")

    async def answer(pilot: Top, key: str, asked: str, said: str) -> None:
        await pilot.press("X")
        await until(pilot, lambda: f"Cancel all jobs of bot {BOT}: {asked}" in screen_of(pilot))
        await pilot.press(key)
        await until(pilot, lambda: notified(pilot, said))
        pilot.app.clear_notifications()

    async def press() -> None:
        async with top(settings) as pilot:
            await answer(pilot, "n", "2 that wait", "No job was cancelled.")
            await answer(pilot, "escape", "2 that wait", "No job was cancelled.")
            assert not is_cancelled(settings, job.id)  # and now its call is under way
            await answer(pilot, "y", "", f"Cancelled: all jobs of bot {BOT}.")

    asyncio.run(press())
    assert is_cancelled(settings, other.id)


def is_cancelled(settings: Settings, job_id: str) -> bool:
    """Whether a worker that comes to the job finds it cancelled."""
    job = new_job("sendMessage", {"chat_id": 1, "text": "hi"}, bot=BOT, job_id=job_id)
    ask = replace(ask_for(job, settings), created_ms=unix_ms() - 60_000)
    return isinstance(open_store(settings).admit(ask), AlreadyDead)


def test_upper_case_d_deletes_the_dead_letters_of_a_reason_that_it_counted(settings: Settings) -> None:
    bury(settings, ["content", "content", "rights"])

    async def press() -> None:
        async with top(settings) as pilot:
            await pilot.press("d")
            await until_screen(pilot, LettersScreen)
            await until(pilot, lambda: "content 2" in screen_of(pilot))
            await pilot.press("D")
            await until(pilot, lambda: "Delete 2 dead letters of bot news permanently: content?" in screen_of(pilot))
            await pilot.press("y")
            await until(pilot, lambda: "content" not in screen_of(pilot) and "rights 1" in screen_of(pilot))

    asyncio.run(press())
    with Connections(settings, "test") as connections:
        assert queue_admin.depth(connections, [queue_names.dead_queue(BOT)]) == {queue_names.dead_queue(BOT): 1}


def bury(settings: Settings, reasons: list[str]) -> None:
    queue = queue_names.send_queue(BOT, "bulk", 0)
    with Connections(settings, "test") as connections:
        queue_admin.declare(connections, topology.pipeline([BOT], 1))
        for reason in reasons:
            job = new_job("sendMessage", {"chat_id": 1, "text": "hi"}, bot=BOT)
            connections.publisher.publish(dead_letters.dead_job(job, encode_job(job, queue), queue, reason, ""))


def test_a_campaign_is_paused_resumed_and_after_yes_cancelled(settings: Settings) -> None:
    campaigns = Campaigns(settings)
    campaigns.create({"name": "spring", "bot": BOT, "content": {"text": "Hi"}}, [{"chat_id": 1}, {"chat_id": 2}])
    campaigns.start("spring")

    def state() -> str:
        return str(campaigns.progress("spring").campaign.state)

    async def press() -> None:
        async with top(settings) as pilot:
            await pilot.press("c")
            await until_screen(pilot, CampaignsScreen)
            for key, expected in (("p", "paused"), ("r", "running")):
                await pilot.press(key)
                await until(pilot, lambda expected=expected: f"spring {expected}" in screen_of(pilot))
                assert state() == expected
            await pilot.press("C")
            await until(pilot, lambda: "have not got it and will not: 2" in screen_of(pilot))
            await pilot.press("y")
            await until(pilot, lambda: "spring cancelled" in screen_of(pilot))

    asyncio.run(press())
    assert state() == "cancelled"
    campaigns.close()


def test_an_operation_that_fails_is_told_in_a_sentence_and_ends_nothing(settings: Settings) -> None:
    campaigns = Campaigns(settings)
    campaigns.create({"name": "spring", "bot": BOT, "content": {"text": "Hi"}}, [{"chat_id": 1}])
    campaigns.close()

    async def press() -> None:
        async with top(settings) as pilot:
            await pilot.press("c", "r")
            await until(pilot, lambda: notified(pilot, "not paused or stopped"))
            await pilot.press("escape", "p")
            await until(pilot, lambda: "paused" in screen_of(pilot))

    asyncio.run(press())


def test_a_rabbitmq_that_goes_away_is_one_line_and_the_rest_goes_on(
    vhost: Vhost, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(part, "LONGEST_REST", timedelta(0))
    with Proxy(vhost.node.port) as proxy:

        async def press() -> None:
            async with top(settings_for(proxy.url(vhost.url), tmp_path)) as pilot:
                await until(pilot, lambda: "RabbitMQ: version" in screen_of(pilot))
                proxy.refuse()
                proxy.cut()
                await until(pilot, lambda: "! " in screen_of(pilot))
                await pilot.press("p")
                await until(pilot, lambda: "paused" in screen_of(pilot))

        asyncio.run(press())


@pytest.mark.parametrize("key", ["q", "ctrl+c"])
def test_it_ends_at_once_while_rabbitmq_does_not_answer(vhost: Vhost, tmp_path: Path, key: str) -> None:
    with Proxy(vhost.node.port) as proxy:
        proxy.stall()
        app = TopApp(settings_for(proxy.url(vhost.url), tmp_path), [BOT])

        async def press() -> None:
            async with app.run_test(size=(80, 24)) as pilot:
                await pilot.press("X")  # waits for RabbitMQ on the operator's thread
                await pilot.press(key)

        began = time.monotonic()
        asyncio.run(press())
        assert app.return_code == 0
        assert time.monotonic() - began < PATIENT_SECONDS


PATIENT_SECONDS = 9.0  # below RabbitMQ's connect_timeout_seconds


def notified(pilot: Top, text: str) -> bool:
    return any(text in notification.message for notification in pilot.app._notifications)
