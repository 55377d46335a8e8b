"""What the campaigns' database keeps, on SQLite and on PostgreSQL."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path

import pytest
from sqlalchemy import Engine, event, text, update

from floodgate.broker.errors import CampaignError, SettingsError, StateUnavailableError
from floodgate.broker.settings.model import Settings
from floodgate.producer.campaigns import store as store_module
from floodgate.producer.campaigns.audience import AudienceRow, Candidate, RefusedRow, read_rows
from floodgate.producer.campaigns.database import Database
from floodgate.producer.campaigns.definition import Definition, parse_definition
from floodgate.producer.campaigns.states import CampaignState, RecipientState
from floodgate.producer.campaigns.store import Campaign, CampaignStore, Recipient, RecipientOutcome
from floodgate.producer.campaigns.tables import campaigns

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
    store.create(definition(), BOT)
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
    campaign = store.import_audience("spring", audience, excluded=["6"])
    assert campaign.state is CampaignState.READY
    assert [(each.number, each.chat, each.fields) for each in store.recipients("spring")] == [
        (number, str(chat), {"n": chat}) for number, chat in enumerate([1, 2, 3, 5, 7], 1)
    ]
    assert {refused.why: (refused.number, refused.line) for refused in store.refused("spring")} == {
        "the chat is in the audience already": (2, 3),
        "the chat has unsubscribed": (1, 6),
        "it is excluded": (1, 8),
        "it is not JSON": (2, 10),
    }
    assert counted(store) == {RecipientState.WAITING: 5}


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
    monkeypatch.setattr(store_module, "_now_ms", lambda: 2**42)
    store.transition("spring", CampaignState.STOPPED, "its start was missed")
    assert store.transition("spring", CampaignState.RUNNING).started_ms == 2**42
    store.lead("me", LEASE_SECONDS)
    assert store.release(campaign, "me", 1, [0])
    monkeypatch.setattr(store_module, "_now_ms", lambda: 2**43)
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
    store.lead("me", LEASE_SECONDS)
    assert [each.number for each in store.release(campaign, "me", 10, [1])] == [1, 4]
    assert [each.number for each in store.release(campaign, "me", 10, [0])] == [2, 3]


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
