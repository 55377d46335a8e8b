"""What the campaigns' database keeps, on SQLite and on PostgreSQL."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from sqlalchemy import Connection, Engine, event, select, text, update

from floodgate.broker.errors import CampaignError, SettingsError, StateUnavailableError
from floodgate.broker.settings.model import Settings
from floodgate.producer.campaigns.audience.rows import AudienceRow, Candidate, RefusedRow, read_rows
from floodgate.producer.campaigns.definition import Definition, parse_definition
from floodgate.producer.campaigns.states import CampaignState, RecipientState
from floodgate.producer.campaigns.storage import clock as database_clock
from floodgate.producer.campaigns.storage import releases
from floodgate.producer.campaigns.storage import store as store_module
from floodgate.producer.campaigns.storage.chat_lookup import select_by_chat
from floodgate.producer.campaigns.storage.database import Database
from floodgate.producer.campaigns.storage.records import Campaign, Recipient, RecipientOutcome
from floodgate.producer.campaigns.storage.rest import put_off_resting
from floodgate.producer.campaigns.storage.store import CampaignStore
from floodgate.producer.campaigns.storage.tables import METADATA, campaigns, excluded, recipients

LEASE_SECONDS = 100.0
BOT = "news"


@pytest.fixture(params=["sqlite", "postgresql"])
def settings(request: pytest.FixtureRequest, tmp_path: Path) -> Settings:
    if request.param == "sqlite":
        url = f"sqlite:///{tmp_path}/campaigns.db"
    else:
        url = request.getfixturevalue("postgres").new_database()
    return Settings(_env_file=None, campaigns_url=url)


@pytest.fixture
def store(settings: Settings) -> Iterator[CampaignStore]:
    store = CampaignStore(Database(settings))
    yield store
    store.close()
    store.close()


def definition(**fields: object) -> Definition:
    return parse_definition({"name": "spring", "content": {"text": "Hello"}, **fields}, "the test")


def rows(chats: Iterable[int]) -> Iterator[AudienceRow]:
    return read_rows({"chat_id": chat, "n": chat} for chat in chats)


def ready(store: CampaignStore, size: int = 10, **fields: object) -> Campaign:
    store.create(definition(**fields), BOT)
    return store.import_audience("spring", rows(range(1, size + 1)))


def running(store: CampaignStore, size: int = 10, **fields: object) -> Campaign:
    ready(store, size, **fields)
    return store.transition("spring", CampaignState.RUNNING)


def released(store: CampaignStore, most: int, size: int = 10) -> tuple[Campaign, list[Recipient]]:
    campaign = running(store, size)
    assert [each.id for each in store.lead("me", LEASE_SECONDS)] == [campaign.id]
    return campaign, list(store.release(campaign, "me", most, [0]))


def counted(store: CampaignStore) -> dict[RecipientState, int]:
    """The counts, which must be those of the rows."""
    counts = dict(store.counts("spring"))
    assert counts == dict(Counter(recipient.state for recipient in store.recipients("spring")))
    return counts


def test_a_campaign_is_read_as_it_was_created(store: CampaignStore) -> None:
    campaign = store.create(definition(canary=5), BOT)
    assert (campaign.name, campaign.bot, campaign.state) == ("spring", BOT, CampaignState.DRAFT)
    assert campaign.definition == definition(canary=5)
    assert store.get("spring") == campaign
    assert list(store.all()) == [campaign]


def test_a_name_is_used_once(store: CampaignStore) -> None:
    ready(store)
    with pytest.raises(CampaignError, match="choose another name"):
        store.create(definition(), BOT)


def test_an_unknown_name_is_refused(store: CampaignStore) -> None:
    with pytest.raises(CampaignError, match="no campaign named 'autumn'"):
        store.get("autumn")


def test_an_audience_is_kept_in_order_each_chat_once(store: CampaignStore, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(store_module, "BATCH", 3)
    store.create(definition(), BOT)
    store.unsubscribe(BOT, "4")
    store.unsubscribe(BOT, "4")
    audience = [
        *rows([1, 2, 2, 3, 1, 4, 5, 6, 7]),
        RefusedRow(10, "it is not JSON", "{"),
        RefusedRow(11, "it is not JSON", "["),
    ]
    campaign = store.import_audience("spring", audience, excluded=["6"], unreachable={"5", "8"}.intersection)
    assert campaign.state is CampaignState.READY
    assert [(each.number, each.chat, each.fields) for each in store.recipients("spring")] == [
        (number, str(chat), {"n": chat}) for number, chat in enumerate([1, 2, 3, 7], 1)
    ]
    assert {refused.why: (refused.number, refused.line) for refused in store.refused("spring")} == {
        "the chat is in the audience already": (2, 3),
        "the chat has unsubscribed": (1, 6),
        "it is excluded": (1, 8),
        "the chat is known to be unreachable": (1, 7),
        "it is not JSON": (2, 10),
    }
    assert counted(store) == {RecipientState.WAITING: 4}


def test_an_import_tells_postgresql_how_large_it_is(settings: Settings) -> None:
    """Without statistics, PostgreSQL took 20 seconds for each ten thousand rows after the first thirty thousand."""
    with closing(CampaignStore(database := Database(settings))) as store:
        ready(store)
        if not database.is_sqlite:
            with database.reading() as db:
                known = db.execute(text("SELECT reltuples FROM pg_class WHERE relname = 'campaign_recipients'"))
                assert known.scalar_one() == 10


def test_the_same_audience_has_the_same_fingerprint(store: CampaignStore) -> None:
    first = ready(store)
    store.create(definition(name="summer"), BOT)
    second = store.import_audience("summer", rows(range(1, 11)))
    store.create(definition(name="autumn"), BOT)
    third = store.import_audience("autumn", rows(range(1, 12)))
    assert first.fingerprint == second.fingerprint != third.fingerprint


def test_an_import_that_ends_early_leaves_a_draft_and_can_be_made_again(
    store: CampaignStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(store_module, "BATCH", 2)

    def broken() -> Iterator[AudienceRow]:
        yield from rows(range(1, 8))
        raise LookupError("the file ends here")

    store.create(definition(), BOT)
    with pytest.raises(LookupError):
        store.import_audience("spring", broken())
    assert store.get("spring").state is CampaignState.DRAFT
    assert store.import_audience("spring", rows(range(1, 4))).state is CampaignState.READY
    assert counted(store) == {RecipientState.WAITING: 3}


def test_a_draft_that_an_import_has_left_is_replaced_and_that_import_ends(
    store: CampaignStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(store_module, "BATCH", 2)

    def replaced() -> Iterator[AudienceRow]:
        yield from rows(range(1, 4))
        monkeypatch.setattr(database_clock, "now_ms", lambda: 2**42)
        with pytest.raises(CampaignError, match="choose another name"):
            store.create(definition(), "other")
        store.create(definition(canary=5), BOT)
        store.import_audience("spring", rows([7, 8]), excluded=["8"])
        yield from rows(range(4, 8))

    store.create(definition(), BOT)
    with pytest.raises(CampaignError, match="became ready during the import"):
        store.import_audience("spring", replaced(), excluded=["7"])
    campaign = store.get("spring")
    assert campaign.definition.canary == 5
    assert [recipient.chat for recipient in store.recipients("spring")] == ["7"]


def test_an_import_of_ten_million_malformed_rows_ends_early(store: CampaignStore) -> None:
    read = 0

    def malformed() -> Iterator[AudienceRow]:
        nonlocal read
        for read in range(1, 10_000_001):
            yield Candidate(read, str(read), None) if read % 100 == 0 else RefusedRow(read, "it is not JSON", "{")

    store.create(definition(), BOT)
    with pytest.raises(CampaignError, match=r"are malformed, \d+ because it is not JSON, the first in line 1 \(\{\)"):
        store.import_audience("spring", malformed())
    assert read <= 120_000
    assert store.get("spring").state is CampaignState.DRAFT


def test_an_import_does_not_go_on_in_a_draft_that_was_created_again(
    store: CampaignStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(store_module, "BATCH", 2)

    def replaced() -> Iterator[AudienceRow]:
        yield from rows(range(1, 4))
        monkeypatch.setattr(database_clock, "now_ms", lambda: 2**42)
        store.create(definition(), BOT)
        yield from rows(range(4, 8))

    store.create(definition(), BOT)
    with pytest.raises(CampaignError, match="became another draft during the import"):
        store.import_audience("spring", replaced())


def test_those_who_got_an_earlier_campaign_or_may_have_are_left_out(store: CampaignStore) -> None:
    campaign, _ = released(store, 5)
    states = (RecipientState.SENT, RecipientState.UNCERTAIN, RecipientState.FAILED, RecipientState.UNREACHABLE)
    store.settle(campaign, [RecipientOutcome(number, 0, state) for number, state in enumerate(states, 1)])
    store.create(definition(name="summer"), BOT)
    store.import_audience("summer", rows(range(1, 8)), earlier=["spring"])
    assert [recipient.chat for recipient in store.recipients("summer")] == ["3", "4", "5", "6", "7"]
    assert [(each.why, each.number, each.line) for each in store.refused("summer")] == [
        ("an excluded campaign was sent to the chat", 2, 1)
    ]


def test_a_chat_is_found_by_an_index_while_a_table_is_filled(store: CampaignStore, settings: Settings) -> None:
    """PostgreSQL knows nothing of such a table, and would read the audience so far for each batch of it."""
    campaign = ready(store, 5000)
    database, asked = Database(settings), list[tuple[str, Any]]()

    def listener(_connection: object, _cursor: object, statement: str, parameters: Any, *_rest: object) -> None:
        asked.append((statement, parameters))

    with database.reading() as db:
        event.listen(db.engine, "before_cursor_execute", listener)
        statement = select(recipients.c.chat).where(recipients.c.campaign == campaign.id)
        found = select_by_chat(db, statement, [str(n) for n in range(4500, 5500)])
        event.remove(db.engine, "before_cursor_execute", listener)
        assert sorted(row.chat for row in found) == [str(n) for n in range(4500, 5001)]
        text, parameters = asked[-1]
        explain = "EXPLAIN " if db.dialect.name == "postgresql" else "EXPLAIN QUERY PLAN "
        plan = str(db.exec_driver_sql(explain + text, parameters).all())
    assert (
        "campaign_recipients_chat" in plan or "sqlite_autoindex_campaign_recipients_2 (campaign=? AND chat=?)" in plan
    )
    assert "Seq Scan" not in plan
    database.close()


def test_a_campaign_of_another_bot_cannot_be_excluded(store: CampaignStore) -> None:
    ready(store)
    store.create(definition(name="summer"), "other")
    with pytest.raises(CampaignError, match="Bot other has no campaign named 'spring'"):
        store.import_audience("summer", rows([1]), earlier=["spring"])


def test_excluded_chats_are_kept_only_during_the_import(
    store: CampaignStore, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(store_module, "BATCH", 3)
    store.create(definition(), BOT)
    store.import_audience("spring", rows(range(1, 12)), excluded=(str(n % 10) for n in range(3, 30)))
    assert [recipient.chat for recipient in store.recipients("spring")] == ["10", "11"]
    database = Database(settings)
    with database.reading() as db:
        assert db.execute(select(excluded)).all() == []
    database.close()


def test_a_frozen_audience_is_not_replaced(store: CampaignStore) -> None:
    ready(store)
    with pytest.raises(CampaignError, match="its audience is frozen"):
        store.import_audience("spring", rows([1]))


def test_an_audience_without_a_valid_row_leaves_a_draft(store: CampaignStore) -> None:
    store.create(definition(), BOT)
    assert store.import_audience("spring", [RefusedRow(1, "it is not JSON", "x")]).state is CampaignState.DRAFT


def test_variants_and_the_hold_out_get_their_shares_and_the_same_again(store: CampaignStore) -> None:
    variants = [
        {"name": "a", "share": 0.25, "content": {"text": "A"}},
        {"name": "b", "share": 0.75, "content": {"text": "B"}},
    ]
    ready(store, 2000, content=None, variants=variants, hold_out=0.2)
    found = Counter(recipient.variant for recipient in store.recipients("spring"))
    assert found[store_module.HELD_OUT_VARIANT] == pytest.approx(400, abs=80)
    assert found[0] == pytest.approx(400, abs=80)
    assert found[1] == pytest.approx(1200, abs=120)
    assert counted(store)[RecipientState.HELD_OUT] == found[store_module.HELD_OUT_VARIANT]


@pytest.mark.parametrize(
    ("path", "refused"),
    [
        ([CampaignState.PAUSED], "ready, so it cannot become paused"),
        ([CampaignState.CANCELLED, CampaignState.RUNNING], "cancelled, so it cannot become running"),
        ([CampaignState.RUNNING, CampaignState.DONE, CampaignState.PAUSED], "done, so it cannot become paused"),
    ],
)
def test_a_state_that_cannot_follow_is_refused(store: CampaignStore, path: list[CampaignState], refused: str) -> None:
    ready(store)
    for state in path[:-1]:
        assert store.transition("spring", state).state is state
    with pytest.raises(CampaignError, match=refused):
        store.transition("spring", path[-1])


def test_a_stop_says_why_until_the_campaign_is_resumed(store: CampaignStore) -> None:
    running(store)
    assert store.transition("spring", CampaignState.STOPPED, "too many were refused").reason == "too many were refused"
    resumed = store.transition("spring", CampaignState.RUNNING)
    assert (resumed.state, resumed.reason) == (CampaignState.RUNNING, None)


def test_a_campaign_that_nobody_has_got_yet_starts_anew_when_it_is_resumed(
    store: CampaignStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """So one that was stopped because it missed its start is sent, as the reason says."""
    campaign = running(store)
    monkeypatch.setattr(database_clock, "now_ms", lambda: 2**42)
    store.transition("spring", CampaignState.STOPPED, "its start was missed")
    assert store.transition("spring", CampaignState.RUNNING).started_ms == 2**42
    store.lead("me", LEASE_SECONDS)
    assert store.release(campaign, "me", 1, [0])
    monkeypatch.setattr(database_clock, "now_ms", lambda: 2**43)
    store.transition("spring", CampaignState.PAUSED)
    assert store.transition("spring", CampaignState.RUNNING).started_ms == 2**42


def test_recipients_are_released_in_the_order_of_the_audience(store: CampaignStore) -> None:
    campaign, first = released(store, 3)
    assert [each.number for each in first] == [1, 2, 3]
    assert [each.number for each in store.release(campaign, "me", 100, [0])] == [4, 5, 6, 7, 8, 9, 10]
    assert list(store.release(campaign, "me", 100, [0])) == []
    assert [each.number for each in store.released(campaign)] == list(range(1, 11))
    assert counted(store) == {RecipientState.RELEASED: 10}


def test_nothing_is_released_by_another_process_or_in_another_state(store: CampaignStore) -> None:
    campaign, _ = released(store, 1)
    assert list(store.release(campaign, "you", 5, [0])) == []
    store.transition("spring", CampaignState.PAUSED)
    assert list(store.release(campaign, "me", 5, [0])) == []
    assert counted(store) == {RecipientState.RELEASED: 1, RecipientState.WAITING: 9}


def test_recipients_in_closed_time_zones_are_not_released(store: CampaignStore) -> None:
    schedule = {"local_time": "09:00", "zone": "Europe/Berlin"}
    store.create(definition(schedule=schedule), BOT)
    audience = [
        {"chat_id": n, "time_zone": zone} for n, zone in enumerate(["Asia/Tokyo", "", "Nowhere", "Asia/Tokyo"], 1)
    ]
    store.import_audience("spring", read_rows(audience))
    campaign = store.transition("spring", CampaignState.RUNNING)
    assert store.zones(campaign) == {0: "Europe/Berlin", 1: "Asia/Tokyo"}
    assert store.waiting_by_zone(campaign) == {0: 2, 1: 2}
    store.lead("me", LEASE_SECONDS)
    assert [each.number for each in store.release(campaign, "me", 10, [1])] == [1, 4]
    assert [each.number for each in store.release(campaign, "me", 10, [0])] == [2, 3]


HOUR_MS = 3_600_000


class Clock:
    """The time as the store sees it, moved by hand."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now_ms = 2**41
        monkeypatch.setattr(database_clock, "now_ms", lambda: self.now_ms)

    def advance(self, hours: float) -> None:
        self.now_ms += int(hours * HOUR_MS)


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    return Clock(monkeypatch)


def running_too(store: CampaignStore, name: str, bot: str = BOT, size: int = 6, **fields: object) -> Campaign:
    store.create(definition(name=name, **fields), bot)
    store.import_audience(name, rows(range(1, size + 1)))
    campaign = store.transition(name, CampaignState.RUNNING)
    store.lead("me", 10**9)
    return campaign


def numbers(store: CampaignStore, campaign: Campaign, most: int = 100) -> list[int]:
    return [each.number for each in store.release(campaign, "me", most, [0])]


def test_a_chat_that_got_another_campaign_is_overtaken_and_gets_the_next_after_its_rest(
    store: CampaignStore, clock: Clock
) -> None:
    spring, other = running_too(store, "spring"), running_too(store, "other", bot="another")
    summer = running_too(store, "summer", rest="24:00:00")
    assert numbers(store, spring, 4) == [1, 2, 3, 4]
    assert numbers(store, other) == [1, 2, 3, 4, 5, 6], "another bot's"
    states = (RecipientState.SENT, RecipientState.UNCERTAIN, RecipientState.FAILED, RecipientState.SENT)
    for number, state in enumerate(states, 1):
        store.settle(spring, [RecipientOutcome(number, 0, state)])
        clock.advance(1)
    assert numbers(store, summer, 2) == [3, 5]
    assert numbers(store, summer) == [6]
    assert numbers(store, summer) == []
    clock.advance(20)
    assert numbers(store, summer) == [1]
    clock.advance(0.9)
    assert numbers(store, summer) == []
    clock.advance(5)
    assert numbers(store, summer) == [2, 4]
    assert numbers(store, spring) == [5, 6], "it has no rest"


def test_a_chat_with_a_job_of_another_campaign_rests_only_if_that_is_sent(store: CampaignStore, clock: Clock) -> None:
    spring, summer = (running_too(store, name, size=3, rest="24:00:00") for name in ("spring", "summer"))
    assert numbers(store, spring, 2) == [1, 2]
    assert numbers(store, summer) == [3]
    assert numbers(store, spring) == [], "the other campaign has it"
    store.settle(spring, [RecipientOutcome(1, 0, RecipientState.SENT), RecipientOutcome(2, 0, RecipientState.WAITING)])
    clock.advance(0.01)
    assert numbers(store, summer) == [2]
    clock.advance(24)
    assert numbers(store, summer) == [1]


def test_a_correction_neither_rests_nor_makes_a_chat_rest(store: CampaignStore, clock: Clock) -> None:
    spring = running_too(store, "spring", size=1, rest="24:00:00")
    assert numbers(store, spring) == [1]
    store.settle(spring, [RecipientOutcome(1, 0, RecipientState.SENT, 7)])
    clock.advance(23)
    edits = store.create_correction(
        store.get("spring"), definition(content={"method": "editMessageText", "text": "x"}), "edit"
    )
    edits = store.transition(edits.name, CampaignState.RUNNING)
    store.lead("me", 10**9)
    assert numbers(store, edits) == [1]
    store.settle(edits, [RecipientOutcome(1, 0, RecipientState.SENT, 7)])
    clock.advance(1)
    assert numbers(store, running_too(store, "summer", size=1, rest="24:00:00")) == [1]


def test_of_two_campaigns_that_are_led_at_once_one_gets_each_chat(store: CampaignStore) -> None:
    both = [running_too(store, name, size=100, rest="24:00:00") for name in ("spring", "summer")]
    with ThreadPoolExecutor(2) as pool:
        found = pool.map(lambda campaign: [n for _ in range(20) for n in numbers(store, campaign, 5)], both)
        chats = [number for one in found for number in one]
    assert sorted(chats) == list(range(1, 101))


def test_chats_that_rest_are_put_off_once_and_not_looked_at_again(
    store: CampaignStore, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(releases, "PUT_OFF", 10)
    looked_at: list[int] = []

    def counted(db: Connection, bot: str, rest: timedelta, found: Sequence[Any], now_ms: int) -> Sequence[Any]:
        looked_at.append(len(found))
        return put_off_resting(db, bot, rest, found, now_ms)

    monkeypatch.setattr(releases, "put_off_resting", counted)
    spring = running_too(store, "spring", size=300)
    summer = running_too(store, "summer", size=305, rest="1:00:00")
    numbers(store, spring, 300)
    store.settle(spring, [RecipientOutcome(number, 0, RecipientState.SENT) for number in range(1, 301)])
    assert numbers(store, summer, 2) == []
    assert looked_at == [10] * releases.ROUNDS
    assert numbers(store, summer, 2) == [301, 302]
    looked_at.clear()
    assert numbers(store, summer, 2) == [303, 304]
    assert looked_at == [3], "those who are left"


def test_a_campaign_has_one_leader_until_the_lease_ends_or_is_given_up(store: CampaignStore) -> None:
    campaign = running(store)
    assert [each.id for each in store.lead("me", LEASE_SECONDS)] == [campaign.id]
    assert list(store.lead("you", LEASE_SECONDS)) == []
    assert [each.id for each in store.lead("me", -1.0)] == [campaign.id], "renewed, with a lease that has ended"
    assert [each.id for each in store.lead("you", LEASE_SECONDS)] == [campaign.id]
    store.resign("you")
    assert [each.id for each in store.lead("me", LEASE_SECONDS)] == [campaign.id]


def test_a_look_tells_what_is_led_and_whether_a_campaign_has_no_leader(store: CampaignStore) -> None:
    ready(store)
    assert store.look("me") == ([], False)
    started = store.transition("spring", CampaignState.RUNNING)
    assert store.look("me") == ([], True)
    store.lead("me", LEASE_SECONDS)
    assert store.look("me") == ([started], False)
    assert store.look("you") == ([], False)
    paused = store.transition("spring", CampaignState.PAUSED)
    assert store.look("me") == ([], False), "nobody is released, so it needs no leader"
    started = store.transition("spring", CampaignState.RUNNING)
    store.lead("me", -1.0)
    assert store.look("me") == ([], True), "the lease has ended"
    store.lead("me", LEASE_SECONDS)
    store.release(started, "me", 1, [0])
    paused = store.transition("spring", CampaignState.PAUSED)
    assert store.look("me") == ([paused], False)


def test_a_look_is_one_query_and_reads_a_definition_once_for_each_version(
    store: CampaignStore, settings: Settings
) -> None:
    running(store)
    database, statements = Database(settings), list[str]()
    mine = CampaignStore(database)
    mine.lead("me", LEASE_SECONDS)

    def listener(_connection: object, _cursor: object, statement: str, *_rest: object) -> None:
        if statement != "BEGIN":
            statements.append(statement)

    event.listen(Engine, "before_cursor_execute", listener)
    try:
        [before], _ = mine.look("me")
        assert len(statements) == 1
        assert "definition" not in statements[0]
        with database.writing() as db:
            text = definition(canary=3).model_dump_json(exclude_defaults=True)
            db.execute(update(campaigns).values(version=2, definition=text))
        [after], _ = mine.look("me")
    finally:
        event.remove(Engine, "before_cursor_execute", listener)
        mine.close()
    assert (before.definition.canary, after.definition.canary, after.version) == (0, 3, 2)


def test_a_campaign_that_needs_no_leader_has_none(store: CampaignStore) -> None:
    ready(store)
    assert list(store.lead("me", LEASE_SECONDS)) == []


def test_a_paused_campaign_has_a_leader_until_all_released_recipients_have_ended(store: CampaignStore) -> None:
    campaign, found = released(store, 1)
    store.transition("spring", CampaignState.PAUSED)
    assert [each.id for each in store.lead("me", LEASE_SECONDS)] == [campaign.id]
    store.settle(campaign, [RecipientOutcome(found[0].number, 0, RecipientState.SENT, 7)])
    assert list(store.lead("me", LEASE_SECONDS)) == []


def test_an_outcome_counts_once(store: CampaignStore) -> None:
    campaign, _ = released(store, 2)
    sent = RecipientOutcome(1, 0, RecipientState.SENT, 7)
    assert store.settle(campaign, [sent]) == 1
    assert (
        store.settle(
            campaign,
            [sent, RecipientOutcome(1, 0, RecipientState.FAILED), RecipientOutcome(99, 0, RecipientState.SENT)],
        )
        == 0
    )
    assert store.settle(campaign, []) == 0
    first = next(iter(store.recipients("spring")))
    assert (first.state, first.message_id) == (RecipientState.SENT, 7)
    assert counted(store) == {RecipientState.SENT: 1, RecipientState.RELEASED: 1, RecipientState.WAITING: 8}


def test_a_recipient_taken_back_waits_with_another_attempt(store: CampaignStore) -> None:
    campaign, _ = released(store, 1)
    assert store.settle(campaign, [RecipientOutcome(1, 0, RecipientState.WAITING)]) == 1
    [again] = store.release(campaign, "me", 1, [0])
    assert (again.number, again.attempt) == (1, 1)
    assert store.settle(campaign, [RecipientOutcome(1, 0, RecipientState.SENT, 7)]) == 0, (
        "the job of the first attempt is over"
    )
    assert store.settle(campaign, [RecipientOutcome(1, 1, RecipientState.SENT, 8)]) == 1
    assert counted(store)[RecipientState.SENT] == 1


def test_those_who_wait_in_a_cancelled_campaign_are_cancelled(store: CampaignStore) -> None:
    campaign, _ = released(store, 2)
    store.transition("spring", CampaignState.CANCELLED)
    assert [each.id for each in store.lead("me", LEASE_SECONDS)] == [campaign.id]
    assert store.cancel_waiting(campaign) == 8
    assert store.cancel_waiting(campaign) == 0
    assert counted(store) == {RecipientState.RELEASED: 2, RecipientState.CANCELLED: 8}


def test_the_tables_are_those_that_the_migrations_make(settings: Settings) -> None:
    database = Database(settings)
    with database.reading() as db:
        context = MigrationContext.configure(db, opts={"version_table": "campaign_version"})
        assert compare_metadata(context, METADATA) == []
    database.close()


def test_processes_that_open_a_new_database_at_once_create_it_together(settings: Settings) -> None:
    stores = [CampaignStore(Database(settings)) for _ in range(4)]
    with ThreadPoolExecutor(4) as pool:
        assert list(pool.map(lambda store: list(store.all()), stores)) == [[], [], [], []]
    for store in stores:
        store.close()


def test_threads_that_use_a_database_at_once_open_it_once(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    opened = list[object]()
    upgraded = Database._upgraded
    monkeypatch.setattr(Database, "_upgraded", lambda self: opened.append(self) or upgraded(self))
    with closing(CampaignStore(Database(settings))) as store, ThreadPoolExecutor(4) as pool:
        assert list(pool.map(lambda _: list(store.all()), range(4))) == [[], [], [], []]
    assert len(opened) == 1


def test_threads_can_open_different_databases_at_once(tmp_path: Path) -> None:
    urls = [f"sqlite:///{tmp_path}/{number}.db" for number in range(8)]
    stores = [CampaignStore(Database(Settings(_env_file=None, campaigns_url=url))) for url in urls]
    with ThreadPoolExecutor(8) as pool:
        assert list(pool.map(lambda store: list(store.all()), stores)) == [[]] * 8
    for store in stores:
        store.close()


def test_a_database_that_is_not_there_is_one_sentence(tmp_path: Path) -> None:
    away = Settings(_env_file=None, campaigns_url="postgresql+psycopg://me:secret@127.0.0.1:1/x")
    with pytest.raises(StateUnavailableError, match=r"The campaigns' database at 127.0.0.1 is unavailable") as raised:
        CampaignStore(Database(away)).all()
    assert "secret" not in str(raised.value)
    (tmp_path / "file").write_text("not a folder")
    below = Settings(_env_file=None, campaigns_url=f"sqlite:///{tmp_path}/file/campaigns.db")
    with pytest.raises(StateUnavailableError, match="Cannot write"):
        CampaignStore(Database(below)).all()


@pytest.mark.parametrize("url", ["nonsense", "mongo://x/y", "sqlite://"])
def test_a_url_of_no_database_is_refused(url: str) -> None:
    with pytest.raises(SettingsError, match="FLOODGATE_CAMPAIGNS_URL"):
        CampaignStore(Database(Settings(_env_file=None, campaigns_url=url))).all()


def test_candidates_keep_other_fields_as_json() -> None:
    [row] = read_rows([{"chat_id": "42", "name": "Ann", "empty": "", "none": None}])
    assert row == Candidate(1, "42", '{"name":"Ann"}')
