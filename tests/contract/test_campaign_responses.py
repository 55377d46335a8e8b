"""What recipients' responses change in the campaigns' database, on SQLite and on PostgreSQL."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

from floodgate.broker.settings.model import Settings
from floodgate.producer.campaigns.audience import read_rows
from floodgate.producer.campaigns.database import Database
from floodgate.producer.campaigns.definition import parse_definition
from floodgate.producer.campaigns.recipient_codes import RecipientCode
from floodgate.producer.campaigns.states import CampaignState, RecipientState
from floodgate.producer.campaigns.store import Campaign, CampaignStore, RecipientOutcome
from floodgate.producer.campaigns.unsubscribing import unsubscribe_by_button

BOT = "news"


@pytest.fixture(params=["sqlite", "postgresql"])
def database(request: pytest.FixtureRequest, tmp_path: Path) -> Database:
    if request.param == "sqlite":
        url = f"sqlite:///{tmp_path}/campaigns.db"
    else:
        url = request.getfixturevalue("postgres").new_database()
    return Database(Settings(_env_file=None, campaigns_url=url))


@pytest.fixture
def store(database: Database) -> Iterator[CampaignStore]:
    store = CampaignStore(database)
    yield store
    store.close()


def running(store: CampaignStore, *chats: int | str, **fields: object) -> Campaign:
    definition = parse_definition({"name": "spring", "content": {"text": "Hello"}, **fields}, "the test")
    store.create(definition, BOT)
    store.import_audience("spring", read_rows({"chat_id": chat} for chat in chats))
    campaign = store.transition("spring", CampaignState.RUNNING)
    store.lead("me", 100.0)
    return campaign


def counted(store: CampaignStore) -> dict[RecipientState, int]:
    """The counts, which must be those of the rows."""
    counts = dict(store.counts("spring"))
    assert counts == dict(Counter(recipient.state for recipient in store.recipients("spring")))
    return counts


def test_a_waiting_recipient_who_unsubscribes_is_skipped_with_the_reason(store: CampaignStore) -> None:
    campaign = running(store, 1, 2, 3, 4)
    store.unsubscribe(BOT, "2", "3")
    store.unsubscribe("another bot", "4")
    assert [each.chat for each in store.release(campaign, "me", 100, [0])] == ["1", "4"]
    assert counted(store) == {RecipientState.RELEASED: 2, RecipientState.SKIPPED: 2}
    assert [each.error for each in store.recipients("spring") if each.state is RecipientState.SKIPPED] == [
        "the chat has unsubscribed"
    ] * 2


def test_a_recipient_who_unsubscribes_before_being_taken_back_is_skipped(store: CampaignStore) -> None:
    campaign = running(store, 1, 2)
    store.release(campaign, "me", 100, [0])
    store.unsubscribe(BOT, "1")
    store.settle(campaign, [RecipientOutcome(number, 0, RecipientState.WAITING) for number in (1, 2)])
    assert [each.chat for each in store.release(campaign, "me", 100, [0])] == ["2"]
    assert counted(store) == {RecipientState.RELEASED: 1, RecipientState.SKIPPED: 1}


def test_a_button_unsubscribes_its_chat_from_later_campaigns(store: CampaignStore) -> None:
    campaign = running(store, 1, "@Spring_News", content={"text": "Hi", "unsubscribe_answer": "Gone!"})
    assert unsubscribe_by_button(store, BOT, RecipientCode(campaign.id, 1), ["1", "@ann"]) == "Gone!"
    assert unsubscribe_by_button(store, BOT, RecipientCode(campaign.id, 1), ["1"]) == "Gone!", "pressed twice"
    assert unsubscribe_by_button(store, BOT, RecipientCode(campaign.id, 2), ["-1005", "@spring_news"]) == "Gone!"
    store.create(parse_definition({"name": "summer", "content": {"text": "Hi"}}, "the test"), BOT)
    store.import_audience("summer", read_rows({"chat_id": chat} for chat in (1, "@ann", "@spring_news", -1005)))
    assert [recipient.chat for recipient in store.recipients("summer")] == ["@ann"]


@pytest.mark.parametrize(
    ("bot", "number", "chats"), [(BOT, 2, ["1"]), (BOT, 99, ["1"]), ("another bot", 1, ["1"]), (BOT, 1, [])]
)
def test_a_forged_code_unsubscribes_nobody(store: CampaignStore, bot: str, number: int, chats: list[str]) -> None:
    campaign = running(store, 1, 2)
    assert unsubscribe_by_button(store, bot, RecipientCode(campaign.id, number), chats) is None
    assert len(store.release(campaign, "me", 100, [0])) == 2


def test_a_button_of_an_unknown_campaign_names_the_setting(
    store: CampaignStore, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING):
        assert unsubscribe_by_button(store, BOT, RecipientCode(2**31 - 1, 2**31 - 1), ["1"]) is None
    assert "FLOODGATE_CAMPAIGNS_URL" in caplog.text
