"""What recipients' responses change in the campaigns' database, on SQLite and on PostgreSQL."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import pytest
from sqlalchemy import select
from sqlalchemy.dialects import sqlite

from floodgate.broker.settings.model import Settings
from floodgate.producer.campaigns.audience.rows import read_rows
from floodgate.producer.campaigns.content.recipient_codes import RecipientCode, read_unsubscribe_data
from floodgate.producer.campaigns.content.templates import ContentTemplate
from floodgate.producer.campaigns.definition import Content, parse_definition
from floodgate.producer.campaigns.operations.corrections import edit_sent
from floodgate.producer.campaigns.responses.responses import Response, ResponseKind
from floodgate.producer.campaigns.responses.results import ResponseShare, results_of
from floodgate.producer.campaigns.responses.store import ResponseStore, recipients_of
from floodgate.producer.campaigns.responses.unsubscribing import Unsubscriptions
from floodgate.producer.campaigns.states import CampaignState, RecipientState
from floodgate.producer.campaigns.storage import clock, recipient_rows
from floodgate.producer.campaigns.storage.database import Database
from floodgate.producer.campaigns.storage.records import Campaign, RecipientOutcome
from floodgate.producer.campaigns.storage.store import CampaignStore
from floodgate.producer.campaigns.storage.tables import responses

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


def recorded(database: Database) -> dict[tuple[int, ResponseKind], int]:
    """The times of the responses, by recipient and kind."""
    with database.reading() as db:
        return {(row.recipient, ResponseKind(row.kind)): row.at_ms for row in db.execute(select(responses))}


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


def test_a_button_unsubscribes_its_chat_from_later_campaigns(store: CampaignStore, database: Database) -> None:
    campaign = running(store, 1, "@Spring_News", content={"text": "Hi", "unsubscribe_answer": "Gone!"})
    press = Unsubscriptions(database).by_button
    assert press(BOT, RecipientCode(campaign.id, 1), ["1", "@ann"], 1) == "Gone!"
    assert press(BOT, RecipientCode(campaign.id, 1), ["1"], 2) == "Gone!", "pressed twice"
    assert press(BOT, RecipientCode(campaign.id, 2), ["-1005", "@spring_news"], 3) == "Gone!"
    assert recorded(database) == {(1, ResponseKind.UNSUBSCRIBE): 1, (2, ResponseKind.UNSUBSCRIBE): 3}
    store.create(parse_definition({"name": "summer", "content": {"text": "Hi"}}, "the test"), BOT)
    store.import_audience("summer", read_rows({"chat_id": chat} for chat in (1, "@ann", "@spring_news", -1005)))
    assert [recipient.chat for recipient in store.recipients("summer")] == ["@ann"]


@pytest.mark.parametrize(
    ("bot", "number", "chats"), [(BOT, 2, ["1"]), (BOT, 99, ["1"]), ("another bot", 1, ["1"]), (BOT, 1, [])]
)
def test_a_forged_code_unsubscribes_nobody(
    store: CampaignStore, database: Database, bot: str, number: int, chats: list[str]
) -> None:
    campaign = running(store, 1, 2)
    assert Unsubscriptions(database).by_button(bot, RecipientCode(campaign.id, number), chats, 1) is None
    assert recorded(database) == {}
    assert len(store.release(campaign, "me", 100, [0])) == 2


def test_the_button_of_a_test_message_says_that_it_is_one(store: CampaignStore, database: Database) -> None:
    running(store, 1)
    sent = ContentTemplate(Content(unsubscribe="Stop")).render({})
    code = read_unsubscribe_data(sent["reply_markup"]["inline_keyboard"][0][0]["callback_data"])
    assert code is not None
    assert "test message" in str(Unsubscriptions(database).by_button(BOT, code, ["1"], 1))
    assert recorded(database) == {}


def test_a_button_of_an_unknown_campaign_names_the_setting(
    database: Database, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING):
        assert Unsubscriptions(database).by_button(BOT, RecipientCode(2**31 - 1, 2**31 - 1), ["1"], 1) is None
    assert "FLOODGATE_CAMPAIGNS_URL" in caplog.text


SENT_AT_MS = 1_700_000_000_000
WINDOW = timedelta(hours=1)
HOUR_MS = 3_600_000


@pytest.fixture
def sent(store: CampaignStore, monkeypatch: pytest.MonkeyPatch) -> Campaign:
    """A campaign of which chats 1 to 3 got messages 101 to 103 at SENT_AT_MS; chat 4 is held out, 5 is unreachable, and
    nothing is known yet of 6."""
    monkeypatch.setattr(clock, "now_ms", lambda: SENT_AT_MS)
    monkeypatch.setattr(recipient_rows, "_variant", lambda _definition, chat: -1 if chat == "4" else 0)
    campaign = running(store, 1, 2, 3, 4, 5, 6, hold_out=0.1)
    store.release(campaign, "me", 100, [0])
    outcomes = [RecipientOutcome(number, 0, RecipientState.SENT, 100 + number) for number in (1, 2, 3)]
    store.settle(campaign, [*outcomes, RecipientOutcome(5, 0, RecipientState.UNREACHABLE)])
    return campaign


def response(kind: ResponseKind, chat: int, at_ms: int = SENT_AT_MS, **fields: object) -> Response:
    return Response(BOT, kind, (str(chat),), at_ms, **fields)  # type: ignore[arg-type]


def test_a_press_and_a_reply_count_for_the_message_that_the_campaign_sent(database: Database, sent: Campaign) -> None:
    press, reply = ResponseKind.PRESS, ResponseKind.REPLY
    found = [
        response(press, 1, message_id=101),
        response(press, 1, SENT_AT_MS + 5, message_id=101),
        response(press, 2, message_id=101),
        response(press, 9, message_id=101),
        response(reply, 3, message_id=103),
        response(reply, 4, message_id=101),
        Response("another bot", press, ("2",), SENT_AT_MS, 102),
    ]
    assert list(ResponseStore(database).record(found, WINDOW)) == []
    assert recorded(database) == {(1, press): SENT_AT_MS, (3, reply): SENT_AT_MS}
    ResponseStore(database).record([response(press, 1, SENT_AT_MS + 9, message_id=101)], WINDOW)
    assert recorded(database)[1, press] == SENT_AT_MS, "once for each recipient"


def test_a_start_and_a_block_count_by_chat_so_those_held_out_can_be_compared(
    database: Database, sent: Campaign
) -> None:
    start, block = ResponseKind.START, ResponseKind.BLOCK
    found = [*(response(start, chat) for chat in (1, 4, 5, 9)), response(block, 2), response(block, 4)]
    ResponseStore(database).record(found, WINDOW)
    assert set(recorded(database)) == {(1, start), (4, start), (2, block), (4, block)}


def test_a_deep_link_counts_only_for_its_recipient(database: Database, sent: Campaign) -> None:
    found = [
        response(ResponseKind.START, 1, code=RecipientCode(sent.id, 1)),
        response(ResponseKind.START, 2, code=RecipientCode(sent.id, 1)),
        response(ResponseKind.START, 3, code=RecipientCode(sent.id + 1, 3)),
    ]
    ResponseStore(database).record(found, WINDOW)
    assert set(recorded(database)) == {(1, ResponseKind.START)}


def test_a_response_to_a_corrected_message_counts_for_the_campaign_that_sent_it(
    store: CampaignStore, database: Database, sent: Campaign
) -> None:
    edits = store.transition(edit_sent(store, "spring", {"text": "Sorry"}, "the test").name, CampaignState.RUNNING)
    store.lead("me", 100.0)
    for each in store.release(edits, "me", 100, [0]):
        store.settle(edits, [RecipientOutcome(each.number, 0, RecipientState.SENT, each.message_id)])
    ResponseStore(database).record([response(ResponseKind.PRESS, 1, message_id=101)], WINDOW)
    with database.reading() as db:
        assert list(db.execute(select(responses.c.campaign)).scalars()) == [sent.id]


@pytest.mark.parametrize("at_ms", [SENT_AT_MS - 1, SENT_AT_MS + HOUR_MS + 1])
def test_a_response_before_the_message_or_after_the_window_does_not_count(
    store: CampaignStore, database: Database, sent: Campaign, at_ms: int
) -> None:
    found = [response(ResponseKind.START, 1, at_ms), response(ResponseKind.PRESS, 1, at_ms, message_id=101)]
    ResponseStore(database).record(found, WINDOW)
    assert recorded(database) == {}
    last = response(ResponseKind.START, 1, SENT_AT_MS + HOUR_MS)
    store.transition("spring", CampaignState.CANCELLED)
    ResponseStore(database).record([last], WINDOW)
    assert set(recorded(database)) == {(1, ResponseKind.START)}, "the campaign has ended, its window has not"


def test_a_response_waits_until_it_is_recorded_how_the_recipient_ended(
    store: CampaignStore, database: Database, sent: Campaign
) -> None:
    early = response(ResponseKind.PRESS, 6, message_id=106)
    assert list(ResponseStore(database).record([early], WINDOW)) == [early]
    store.settle(sent, [RecipientOutcome(6, 0, RecipientState.SENT, 106)])
    assert list(ResponseStore(database).record([early], WINDOW)) == []
    assert set(recorded(database)) == {(6, ResponseKind.PRESS)}


def test_a_response_to_an_edited_message_counts_for_the_campaign_that_sent_it(
    store: CampaignStore, database: Database, sent: Campaign
) -> None:
    correction = edit_sent(store, "spring", {"text": "Sorry"}, "the test")
    correction = store.transition(correction.name, CampaignState.RUNNING)
    store.lead("me", 100.0)
    store.release(correction, "me", 100, [0])
    store.settle(correction, [RecipientOutcome(number, 0, RecipientState.SENT, 100 + number) for number in (1, 2, 3)])
    found = [response(ResponseKind.PRESS, 1, message_id=101), response(ResponseKind.START, 2)]
    ResponseStore(database).record(found, WINDOW)
    with database.reading() as db:
        assert set(db.execute(select(responses.c.campaign)).scalars()) == {sent.id}


def test_results_count_each_variant_and_those_held_out(
    store: CampaignStore, database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(recipient_rows, "_variant", lambda _definition, chat: int(chat) % 3 - 1)  # hold-out, a, b
    variants = [{"name": name, "share": 0.5, "content": {"text": name}} for name in ("a", "b")]
    campaign = running(store, *range(1, 10), content=None, variants=variants, hold_out=0.1)
    store.release(campaign, "me", 100, [0])
    outcomes = [RecipientOutcome(n, 0, RecipientState.SENT, 100 + n) for n in (1, 2, 4, 5, 7)]
    store.settle(campaign, [*outcomes, RecipientOutcome(8, 0, RecipientState.UNREACHABLE)])
    press, start, block = ResponseKind.PRESS, ResponseKind.START, ResponseKind.BLOCK
    responses = ResponseStore(database)
    for number, kind in [(1, press), (1, start), (4, press), (2, press), (3, start), (6, start), (8, block)]:
        responses.add(RecipientCode(campaign.id, number), kind, 1)
        responses.add(RecipientCode(campaign.id + 1, number), kind, 1)
    a, b, held_out = results_of(responses, campaign).variants
    assert [(each.name, each.recipients, each.sent) for each in (a, b, held_out)] == [
        ("a", 3, 3),
        ("b", 3, 2),
        ("hold-out", 3, 0),
    ]
    assert (a.responses[press], a.responses[start]) == (ResponseShare(2, 3), ResponseShare(1, 3))
    assert (b.responses[press], b.responses[block]) == (ResponseShare(1, 2), ResponseShare(0, 2)), "of those who got it"
    assert held_out.responses == {start: ResponseShare(2, 3), block: ResponseShare(0, 3)}


def test_a_response_costs_the_same_whatever_the_size_of_the_campaigns(tmp_path: Path) -> None:
    database = Database(Settings(_env_file=None, campaigns_url=f"sqlite:///{tmp_path}/campaigns.db"))
    statement = recipients_of([1, 2], ["1", "2"]).compile(
        dialect=sqlite.dialect(), compile_kwargs={"literal_binds": True, "render_postcompile": True}
    )
    with database.reading() as db:
        steps = [row.detail for row in db.exec_driver_sql(f"EXPLAIN QUERY PLAN {statement}")]
    assert any("USING INDEX" in step and "(campaign=? AND chat=?)" in step for step in steps), steps
    assert not any("campaign_recipients USING PRIMARY KEY" in step for step in steps), steps
    database.close()
