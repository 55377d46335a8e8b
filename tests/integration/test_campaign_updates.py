"""How a handler worker treats updates that answer a campaign, on a real RabbitMQ and a real database."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import select

from floodgate.actors.updates.run import HandlerRun
from floodgate.broker.amqp.connections import Connections
from floodgate.broker.errors import StateUnavailableError
from floodgate.broker.messages.job import decode_job, unix_ms
from floodgate.broker.messages.queue_names import answers_queue
from floodgate.broker.messages.update import Update
from floodgate.broker.settings.model import Settings
from floodgate.producer.async_client import AsyncClient
from floodgate.producer.campaigns.audience.rows import read_rows
from floodgate.producer.campaigns.content.recipient_codes import RecipientCode
from floodgate.producer.campaigns.definition import parse_definition
from floodgate.producer.campaigns.responses.recorder import ResponseRecorder
from floodgate.producer.campaigns.responses.responses import Response, ResponseKind
from floodgate.producer.campaigns.responses.store import ResponseStore
from floodgate.producer.campaigns.states import CampaignState, RecipientState
from floodgate.producer.campaigns.storage.database import Database
from floodgate.producer.campaigns.storage.records import RecipientOutcome
from floodgate.producer.campaigns.storage.store import CampaignStore
from floodgate.producer.campaigns.storage.tables import responses
from floodgate.updates.campaign_updates import CampaignUpdates
from floodgate.updates.function import FunctionHandler, on_update
from tests.draining import drain
from tests.processes import run_python
from tests.services import Vhost

BOT = "default"
CHAT, OTHER = 42, 43


class Bot:
    """A user's handler behind the campaigns', and what reaches it."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.seen: list[int] = []
        connections = Connections(settings, "test")

        @on_update
        async def note(update: Update, _client: AsyncClient) -> None:
            self.seen.append(update.update_id)

        self.handler = CampaignUpdates(FunctionHandler("test", note, settings, connections), settings, connections)
        self._connections = connections

    async def gets(self, update_id: int, **content: Any) -> None:
        update = Update(BOT, update_id, {"update_id": update_id, **content})
        await self.handler.handle(HandlerRun(update, "updates.default.00", arrived_ms=update_id))

    async def pressed(self, update_id: int, data: str, chat: int = CHAT) -> None:
        message = {"message_id": 7, "date": 0, "chat": {"id": chat, "type": "private"}}
        await self.gets(update_id, callback_query={"id": f"query-{update_id}", "data": data, "message": message})

    def answers(self) -> list[dict[str, Any]]:
        bodies = drain(self.settings.rabbitmq_url.get_secret_value(), answers_queue(BOT))
        return [decode_job(body).params for _, body in bodies]

    async def close(self) -> None:
        await self.handler.close()
        await self.handler.close()
        await asyncio.to_thread(self._connections.stop)


def on_a_bot(vhost: Vhost, use: Callable[[Bot], Awaitable[None]], **settings: Any) -> None:
    async def main() -> None:
        bots = {BOT: "100200300:" + "A" * 35}
        bot = Bot(Settings(_env_file=None, rabbitmq_url=vhost.url, partitions=1, bots=bots, **settings))
        try:
            await use(bot)
        finally:
            await bot.close()

    asyncio.run(main())


@pytest.fixture
def urls(tmp_path: Path) -> dict[str, str]:
    return {"state_url": f"sqlite:///{tmp_path}/state.db", "campaigns_url": f"sqlite:///{tmp_path}/campaigns.db"}


@pytest.fixture
def store(urls: dict[str, str]) -> CampaignStore:
    return CampaignStore(Database(Settings(_env_file=None, **urls)))


def spring(store: CampaignStore) -> RecipientCode:
    """Create a campaign. Return the code of CHAT, its first recipient."""
    campaign = store.create(parse_definition({"name": "spring", "content": {"text": "Hello"}}, "the test"), BOT)
    store.import_audience("spring", read_rows([{"chat_id": CHAT}, {"chat_id": OTHER}]))
    return RecipientCode(campaign.id, 1)


def left_out(store: CampaignStore) -> set[str]:
    """The chats that a later campaign leaves out."""
    store.create(parse_definition({"name": "summer", "content": {"text": "Hello"}}, "the test"), BOT)
    store.import_audience("summer", read_rows([{"chat_id": CHAT}, {"chat_id": OTHER}]))
    return {str(CHAT), str(OTHER)} - {recipient.chat for recipient in store.recipients("summer")}


def test_a_press_is_recorded_and_answered_and_the_handler_does_not_see_it(
    vhost: Vhost, urls: dict[str, str], store: CampaignStore
) -> None:
    code = spring(store)

    async def use(bot: Bot) -> None:
        await bot.pressed(1, code.unsubscribe_data)
        await bot.pressed(1, code.unsubscribe_data)
        await bot.pressed(2, "buy")
        await bot.pressed(3, "fg:u:buy")
        await bot.gets(4, message={"text": "hello"})
        await bot.gets(5, callback_query="nonsense")
        assert bot.seen == [2, 3, 4, 5]
        answers = await asyncio.to_thread(bot.answers)
        assert {each["callback_query_id"]: each["text"] for each in answers} == {
            "query-1": "You will get no more of these messages."
        }

    on_a_bot(vhost, use, **urls)
    assert left_out(store) == {str(CHAT)}
    assert store.counts("spring") == {RecipientState.WAITING: 2}


def test_a_press_that_was_forged_for_another_chat_unsubscribes_nobody(
    vhost: Vhost, urls: dict[str, str], store: CampaignStore
) -> None:
    code = spring(store)

    async def use(bot: Bot) -> None:
        await bot.pressed(1, code.unsubscribe_data, chat=OTHER)
        await bot.gets(2, callback_query={"id": "query-2", "data": code.unsubscribe_data, "inline_message_id": "x"})
        assert bot.seen == []
        answers = await asyncio.to_thread(bot.answers)
        assert answers == [{"callback_query_id": "query-1"}, {"callback_query_id": "query-2"}]

    on_a_bot(vhost, use, **urls)
    assert left_out(store) == set()


def test_a_press_fails_as_a_handler_does_while_the_database_is_away_and_other_updates_do_not(vhost: Vhost) -> None:
    async def use(bot: Bot) -> None:
        with pytest.raises(StateUnavailableError, match=r"campaigns' database at 127.0.0.1 is unavailable"):
            await bot.pressed(1, RecipientCode(1, 1).unsubscribe_data)
        await bot.gets(2, message={"text": "hello"})
        assert bot.seen == [2]

    on_a_bot(vhost, use, campaigns_url="postgresql+psycopg://me:secret@127.0.0.1:1/x")


def test_a_press_does_not_wait_for_a_database_that_hangs(
    vhost: Vhost, urls: dict[str, str], store: CampaignStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    code = spring(store)
    monkeypatch.setattr("floodgate.updates.campaign_updates.DATABASE_SECONDS", 0.1)

    async def use(bot: Bot) -> None:
        with store._database.writing():  # SQLite has one writer at a time
            with pytest.raises(StateUnavailableError, match=r"did not answer within 0.1 s"):
                await bot.pressed(1, code.unsubscribe_data)
            await bot.gets(2, message={"text": "hello"})
        assert bot.seen == [2]

    on_a_bot(vhost, use, **urls)


def test_responses_are_recorded_in_the_background_and_reach_the_handler(
    vhost: Vhost, urls: dict[str, str], store: CampaignStore
) -> None:
    code = spring(store)
    campaign = store.transition("spring", CampaignState.RUNNING)
    store.lead("me", 100.0)
    store.release(campaign, "me", 2, [0])
    store.settle(campaign, [RecipientOutcome(number, 0, RecipientState.SENT, 7) for number in (1, 2)])
    now_ms = unix_ms()

    async def use(bot: Bot) -> None:
        await bot.handler.open()
        await bot.pressed(now_ms, "buy")
        await bot.gets(now_ms + 1, message={"text": "/start", "chat": {"id": OTHER}})
        await bot.gets(now_ms + 2, message={"text": "hello", "chat": {"id": OTHER}})
        assert bot.seen == [now_ms, now_ms + 1, now_ms + 2]

    on_a_bot(vhost, use, campaigns_response_hours=1, **urls)
    with store._database.reading() as db:
        found = {(row.recipient, ResponseKind(row.kind)) for row in db.execute(select(responses))}
    assert found == {(code.number, ResponseKind.PRESS), (2, ResponseKind.START)}


def test_responses_that_cannot_be_recorded_are_dropped_and_counted(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("floodgate.producer.campaigns.responses.recorder.MOST_NOTED", 3)
    away = Settings(_env_file=None, campaigns_url="postgresql+psycopg://me:secret@127.0.0.1:1/x")
    recorder = ResponseRecorder(ResponseStore(Database(away)), timedelta(hours=1))
    for number in range(5):
        recorder.note(Response(BOT, ResponseKind.START, (str(number),), 0))
    recorder.record()
    assert "responses to campaigns wait to be recorded: The campaigns' database at 127.0.0.1" in caplog.text
    assert "2 responses to campaigns were dropped: 3 wait already" in caplog.text
    recorder.stop()
    recorder.stop()


def test_a_handler_worker_loads_no_database_before_there_is_a_response(tmp_path: Path) -> None:
    """So it needs neither the extra nor the memory unless the bot's campaigns are answered."""
    ended = run_python(
        "-c", "import floodgate.updates.compose, sys; print('sqlalchemy' in sys.modules)", env={}, home=tmp_path
    )
    assert ended.stdout == "False\n"
