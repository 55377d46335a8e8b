"""Changes to a campaign that has begun, on SQLite and on PostgreSQL: retries, samples, edits and corrections."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import pytest

from floodgate.broker.errors import CampaignError
from floodgate.broker.settings.model import Settings
from floodgate.producer.campaigns.audience.rows import read_rows
from floodgate.producer.campaigns.definition import Definition, parse_definition
from floodgate.producer.campaigns.operations import retries
from floodgate.producer.campaigns.operations.corrections import delete_sent, edit_sent
from floodgate.producer.campaigns.operations.edits import edit
from floodgate.producer.campaigns.operations.retries import RetryChoice, retry, retry_choice
from floodgate.producer.campaigns.operations.samples import sample_job
from floodgate.producer.campaigns.states import CampaignState, RecipientState
from floodgate.producer.campaigns.storage import clock, zone_numbers
from floodgate.producer.campaigns.storage.database import Database
from floodgate.producer.campaigns.storage.records import Campaign, Recipient, RecipientOutcome
from floodgate.producer.campaigns.storage.store import CampaignStore

LEASE_SECONDS = 100.0
BOT = "news"
SETTINGS = Settings(_env_file=None)
ENDED = (
    RecipientOutcome(1, 0, RecipientState.SENT, 71),
    RecipientOutcome(2, 0, RecipientState.FAILED, error="content: Bad Request: can't parse entities (here"),
    RecipientOutcome(3, 0, RecipientState.FAILED, error="rights: Bad Request: not enough rights"),
    RecipientOutcome(4, 0, RecipientState.UNREACHABLE, error="chat-unreachable: Forbidden: bot was blocked"),
    RecipientOutcome(5, 0, RecipientState.UNCERTAIN, error="uncertain"),
)


@pytest.fixture(params=["sqlite", "postgresql"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[CampaignStore]:
    if request.param == "sqlite":
        url = f"sqlite:///{tmp_path}/campaigns.db"
    else:
        url = request.getfixturevalue("postgres").new_database()
    store = CampaignStore(Database(Settings(_env_file=None, campaigns_url=url)))
    yield store
    store.close()


def definition(**fields: object) -> Definition:
    return parse_definition({"name": "spring", "content": {"text": "Hello"}, **fields}, "the test")


def running(store: CampaignStore, size: int = len(ENDED), **fields: object) -> Campaign:
    """A campaign that runs, led by "me"."""
    store.create(definition(**fields), BOT)
    store.import_audience("spring", read_rows({"chat_id": n, "n": n} for n in range(1, size + 1)))
    campaign = store.transition("spring", CampaignState.RUNNING)
    store.lead("me", LEASE_SECONDS)
    return campaign


def ended(store: CampaignStore, **fields: object) -> Campaign:
    """A campaign that is done, with one recipient in each state."""
    campaign = running(store, **fields)
    store.release(campaign, "me", len(ENDED), [0])
    assert store.settle(campaign, ENDED) == len(ENDED)
    assert store.finish(campaign)
    return store.get("spring")


def states(store: CampaignStore, name: str = "spring") -> list[RecipientState]:
    """The states of all recipients, whose numbers must be those that are counted."""
    found = [recipient.state for recipient in store.recipients(name)]
    assert store.counts(name) == Counter(found)
    return found


@pytest.mark.parametrize(
    ("choice", "numbers"),
    [
        (retry_choice(["failed", "uncertain"]), [2, 3, 5]),
        (retry_choice(reason="^(rights|chat-unreachable):"), [3, 4]),
        (retry_choice(["unreachable"], "rights"), []),
    ],
)
def test_a_retry_takes_the_chosen_recipients_and_a_campaign_that_is_done_runs_again(
    store: CampaignStore, choice: RetryChoice, numbers: list[int]
) -> None:
    before = ended(store)
    assert retry(store, "spring", choice) == len(numbers)
    assert states(store) == [RecipientState.WAITING if each.number in numbers else each.state for each in ENDED]
    after = store.get("spring")
    assert (after.state, after.ended_ms) == (
        (CampaignState.RUNNING, None) if numbers else (CampaignState.DONE, before.ended_ms)
    )


def test_a_recipient_that_is_tried_again_gets_another_attempt_and_loses_the_error(store: CampaignStore) -> None:
    campaign = ended(store)
    retry(store, "spring", retry_choice(["failed"]))
    again = store.release(campaign, "me", 10, [0])
    assert [(each.number, each.attempt, each.error, each.ended_ms) for each in again] == [
        (2, 1, None, None),
        (3, 1, None, None),
    ]
    assert store.settle(campaign, ENDED) == 0, "the jobs of the first attempt are over"
    assert store.settle(campaign, [RecipientOutcome(2, 1, RecipientState.SENT, 72)]) == 1


def test_a_recipient_that_changed_since_it_was_chosen_stays_as_it_is(store: CampaignStore) -> None:
    ended(store)
    chosen = list(retry_choice(["failed"]).of(store, "spring"))
    assert store.wait_again("spring", chosen[:1]) == 1
    assert store.wait_again("spring", chosen) == 1
    assert [each.attempt for each in store.recipients("spring")] == [0, 1, 1, 0, 0]


def test_a_campaign_in_which_all_are_tried_again_starts_anew(
    store: CampaignStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """So it does not stop because its start was missed."""
    campaign = running(store, 1)
    store.settle(campaign, [replace(outcome(each), state=RecipientState.FAILED) for each in released(store, campaign)])
    assert store.finish(campaign)
    monkeypatch.setattr(clock, "now_ms", lambda: 2**42)
    retry(store, "spring", retry_choice(["failed"]))
    assert store.get("spring").started_ms == 2**42


def test_a_retry_in_batches_takes_each_recipient_once(store: CampaignStore, monkeypatch: pytest.MonkeyPatch) -> None:
    ended(store)
    monkeypatch.setattr(retries, "BATCH", 1)
    assert retry(store, "spring", retry_choice(["failed", "unreachable"])) == 3
    assert states(store).count(RecipientState.WAITING) == 3


def test_a_campaign_that_was_stopped_stays_so_when_recipients_are_tried_again(store: CampaignStore) -> None:
    ended(store)
    store.transition("spring", CampaignState.RUNNING)
    store.transition("spring", CampaignState.STOPPED, "why")
    retry(store, "spring", retry_choice(["failed"]))
    assert (store.get("spring").state, store.get("spring").reason) == (CampaignState.STOPPED, "why")


def test_nobody_is_tried_again_in_a_cancelled_campaign(store: CampaignStore) -> None:
    ended(store)
    store.transition("spring", CampaignState.RUNNING)
    store.transition("spring", CampaignState.CANCELLED)
    with pytest.raises(CampaignError, match="cancelled: nobody is tried again"):
        retry(store, "spring", retry_choice(["failed"]))


def test_a_campaign_does_not_end_while_somebody_waits_or_is_released(store: CampaignStore) -> None:
    campaign = running(store, 1)
    assert not store.finish(campaign)
    [one] = store.release(campaign, "me", 1, [0])
    assert not store.finish(campaign)
    store.settle(campaign, [outcome(one)])
    assert store.finish(campaign)
    assert not store.finish(campaign), "it has ended"
    assert store.get("spring").state is CampaignState.DONE


def released(store: CampaignStore, campaign: Campaign) -> Sequence[Recipient]:
    return store.release(campaign, "me", 10, [0])


def outcome(recipient: Recipient) -> RecipientOutcome:
    return RecipientOutcome(recipient.number, recipient.attempt, RecipientState.SENT, 70 + recipient.number)


def test_a_sample_is_what_a_recipient_gets_sent_to_another_chat(store: CampaignStore) -> None:
    variants = [
        {"name": "a", "share": 0.5, "content": {"text": "A {{ n }}"}},
        {"name": "b", "share": 0.5, "content": {"text": "B {{ n }}"}},
    ]
    running(store, 20, content=None, variants=variants, hold_out=0.4)
    audience = list(store.recipients("spring"))
    for one in audience:
        if one.state is RecipientState.HELD_OUT:
            with pytest.raises(CampaignError, match="is held out of spring"):
                sample_job(store, SETTINGS, "spring", "42", one.chat)
        else:
            job = sample_job(store, SETTINGS, "spring", "42", one.chat)
            assert job.params == {"chat_id": "42", "text": f"{'AB'[one.variant]} {one.number}"}
            assert (job.bot, job.campaign) == (BOT, None)
    assert {recipient.state for recipient in audience} == {RecipientState.WAITING, RecipientState.HELD_OUT}
    first = next(one for one in audience if one.state is RecipientState.WAITING)
    assert sample_job(store, SETTINGS, "spring", "@colleague").params["text"].endswith(f" {first.number}")
    with pytest.raises(CampaignError, match="77 is not in the audience of spring"):
        sample_job(store, SETTINGS, "spring", "42", "77")


def test_a_sample_of_a_draft_has_the_fallbacks(store: CampaignStore) -> None:
    store.create(definition(content={"text": "Hi {{ name }}", "fallbacks": {"name": "there"}}), BOT)
    assert sample_job(store, SETTINGS, "spring", "42").params["text"] == "Hi there"


def test_an_edit_is_another_version_of_which_each_recipient_tells(store: CampaignStore) -> None:
    first = running(store, 4)
    assert [each.version for each in store.release(first, "me", 2, [0])] == [1, 1]
    second = edit(store, "spring", definition(content={"text": "Hello again"}, weight=2))
    assert (second.version, second.state, second.fingerprint) == (2, CampaignState.RUNNING, first.fingerprint)
    assert (second.definition.contents[0].params, second.definition.weight) == ({"text": "Hello again"}, 2)
    assert list(store.release(first, "me", 1, [0])) == [], "nobody gets the former message any more"
    assert [(each.number, each.version) for each in store.release(second, "me", 1, [0])] == [(3, 2)]
    assert [each.version for each in store.recipients("spring")] == [1, 1, 2, None]


FIXED: dict[str, dict[str, object]] = {
    "name": {"name": "summer"},
    "bot": {"bot": "other"},
    "canary, chat_field, hold_out": {"hold_out": 0.1, "canary": 5, "chat_field": "id"},
    "the names or shares": {"content": None, "variants": [{"name": "a", "share": 1, "content": {"text": "x"}}]},
}


def test_an_edit_of_what_is_fixed_is_refused(store: CampaignStore) -> None:
    before = running(store)
    for what, fields in FIXED.items():
        with pytest.raises(CampaignError, match=f"The edit of spring changes {what}.*: only content, the contents of"):
            edit(store, "spring", definition(**fields))
    assert store.get("spring") == before
    assert edit(store, "spring", definition(bot=BOT, weight=2)).version == 2, "the bot may be named"


def test_an_edit_is_checked_with_those_who_wait_or_may_be_taken_back(store: CampaignStore) -> None:
    campaign = running(store, 3)
    store.release(campaign, "me", 2, [0])
    store.settle(campaign, [RecipientOutcome(1, 0, RecipientState.SENT, 71)])
    wrong = definition(content={"text": "{% if n > 1 %}{{ first_name }}{% else %}x{% endif %}"})
    with pytest.raises(CampaignError, match=r"'first_name' is missing.*Recipients with this error: 2 \(the first is 2"):
        edit(store, "spring", wrong)
    assert store.get("spring") == campaign
    store.settle(campaign, [RecipientOutcome(2, 0, RecipientState.SENT, 72)])
    store.release(campaign, "me", 1, [0])
    store.settle(campaign, [RecipientOutcome(3, 0, RecipientState.SENT, 73)])
    assert edit(store, "spring", wrong).version == 2, "those who were sent are not concerned"


def test_of_two_edits_at_once_the_second_is_refused(store: CampaignStore) -> None:
    campaign = running(store)
    store.replace_definition(campaign, definition(weight=2))
    with pytest.raises(CampaignError, match="was edited in the meantime"):
        store.replace_definition(campaign, definition(weight=3))
    assert store.get("spring").definition.weight == 2


def test_a_draft_and_a_cancelled_campaign_are_not_edited(store: CampaignStore) -> None:
    store.create(definition(), BOT)
    with pytest.raises(CampaignError, match="is draft, so it cannot be edited"):
        edit(store, "spring", definition(weight=2))
    store.transition("spring", CampaignState.CANCELLED)
    with pytest.raises(CampaignError, match="is cancelled, so it cannot be edited"):
        edit(store, "spring", definition(weight=2))


def test_quiet_hours_that_come_with_an_edit_are_those_of_each_recipients_time_zone(
    store: CampaignStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(zone_numbers, "BATCH", 2)
    store.create(definition(), BOT)
    zones = ["Asia/Tokyo", None, "Europe/Rome", "Asia/Tokyo", "Nowhere"]
    store.import_audience("spring", read_rows({"chat_id": n, "tz": zone} for n, zone in enumerate(zones, 1)))
    quiet = {"quiet": {"since": "22:00", "until": "08:00"}, "zone_field": "tz", "zone": "Europe/Rome"}
    campaign = edit(store, "spring", definition(schedule=quiet))
    numbers = {name: number for number, name in store.zones(campaign).items()}
    assert numbers.keys() == {"Asia/Tokyo", "Europe/Rome"}
    store.transition("spring", CampaignState.RUNNING)
    store.lead("me", LEASE_SECONDS)
    assert [each.number for each in store.release(campaign, "me", 9, [numbers["Asia/Tokyo"]])] == [1, 4]
    assert [each.number for each in store.release(campaign, "me", 9, [numbers["Europe/Rome"]])] == [2, 3, 5]


HOUR_MS = 3_600_000


def sent(store: CampaignStore, chats: list[str], **fields: object) -> Campaign:
    """A campaign that is done, whose messages have the ids 71, 72 and so on, but for the last, whose id is unknown."""
    store.create(definition(**fields), BOT)
    store.import_audience("spring", read_rows({"chat_id": chat, "n": n} for n, chat in enumerate(chats, 1)))
    campaign = store.transition("spring", CampaignState.RUNNING)
    store.lead("me", LEASE_SECONDS)
    outcomes = [outcome(each) for each in store.release(campaign, "me", len(chats), [0])]
    store.settle(campaign, [*outcomes[:-1], replace(outcomes[-1], message_id=None)])
    assert store.finish(campaign)
    return store.get("spring")


def started(store: CampaignStore, correction: Campaign) -> Campaign:
    campaign = store.transition(correction.name, CampaignState.RUNNING)
    store.lead("me", LEASE_SECONDS)
    return campaign


def test_an_edit_of_what_was_sent_is_a_campaign_for_those_who_got_it(store: CampaignStore) -> None:
    campaign = ended(store)
    store.unsubscribe(BOT, "1")
    edits = edit_sent(store, "spring", {"text": "Sorry, {{ n }}"}, "the test")
    assert (edits.name, edits.bot, edits.state, edits.corrects) == (
        "spring.edit-1",
        BOT,
        CampaignState.READY,
        campaign.id,
    )
    assert states(store, edits.name) == [RecipientState.WAITING]
    [one] = store.release(started(store, edits), "me", 10, [0])
    content = edits.definition.contents[0]
    assert (one.number, one.fields, content.params) == (1, {"n": 1}, {"text": "Sorry, {{ n }}"})
    assert one.address(content) == {"chat_id": "1", "message_id": 71}
    assert edit_sent(store, "spring", {"text": "Sorry"}, "the test").name == "spring.edit-2"


def test_a_correction_keeps_the_message_id_however_it_ends(store: CampaignStore) -> None:
    sent(store, ["1", "2", "3", "4"])
    edits = started(store, edit_sent(store, "spring", {"text": "Sorry"}, "the test"))
    store.release(edits, "me", 10, [0])
    store.settle(edits, [RecipientOutcome(1, 0, RecipientState.SENT), RecipientOutcome(2, 0, RecipientState.FAILED)])
    store.settle(edits, [RecipientOutcome(3, 0, RecipientState.WAITING)])
    retry(store, edits.name, retry_choice(["failed"]))
    again = store.release(edits, "me", 10, [0])
    assert [(each.number, each.attempt, each.message_id) for each in again] == [(2, 1, 72), (3, 1, 73)]
    assert [each.message_id for each in store.recipients(edits.name)] == [71, 72, 73]
    assert {refused.why: refused.number for refused in store.refused(edits.name)} == {
        "the message's id is not known": 1
    }


def test_a_content_for_all_or_the_same_variants_edit_what_variants_sent(store: CampaignStore) -> None:
    variants = [{"name": name, "share": 0.5, "content": {"text": name, "parse_mode": "HTML"}} for name in "ab"]
    sent(store, [str(n) for n in range(1, 9)], content=None, variants=variants)
    shared = edit_sent(store, "spring", {"text": "c"}, "the test").definition
    assert [each.content.params for each in shared.variants] == [{"text": "c"}] * 2
    other = edit_sent(
        store, "spring", {"name": "x", "variants": [*variants[:1], {**variants[1], "content": {"text": "d"}}]}, "t"
    )
    assert [each.content.params for each in other.definition.variants] == [{"text": "a"}, {"text": "d"}]
    chosen = [each.variant for each in store.recipients("spring")][:-1]
    assert [each.variant for each in store.recipients(other.name)] == chosen
    with pytest.raises(CampaignError, match="the test has not the variants of spring"):
        edit_sent(store, "spring", {"variants": [{**variants[0], "share": 1}]}, "the test")


def test_an_edit_that_telegram_would_refuse_creates_nothing(store: CampaignStore) -> None:
    sent(store, ["1", "2"])
    with pytest.raises(CampaignError, match="Nothing of spring is edited: The markup of text is wrong"):
        edit_sent(store, "spring", {"text": "<b>", "parse_mode": "HTML"}, "the test")
    with pytest.raises(CampaignError, match="the test: content: chat_id comes from the audience"):
        edit_sent(store, "spring", {"content": {"text": 1, "chat_id": 2}}, "the test")
    assert [each.name for each in store.all()] == ["spring"]


def test_messages_older_than_48_hours_are_not_deleted_from_private_chats(
    store: CampaignStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = clock.now_ms()
    sent(store, ["1", "-100200", "@news", "2", "3"])
    monkeypatch.setattr(clock, "now_ms", lambda: now + 47 * HOUR_MS)
    young = started(store, delete_sent(store, "spring"))
    assert states(store, young.name) == [RecipientState.WAITING] * 4
    monkeypatch.setattr(clock, "now_ms", lambda: now + 49 * HOUR_MS)
    store.lead("me", LEASE_SECONDS)
    assert [each.chat for each in store.release(young, "me", 10, [0])] == ["-100200", "@news"]
    assert [state.name for state in states(store, young.name)] == ["SKIPPED", "RELEASED", "RELEASED", "SKIPPED"]
    old = delete_sent(store, "spring")
    assert (old.name, [each.chat for each in store.recipients(old.name)]) == ("spring.delete-2", ["-100200", "@news"])
    assert {refused.why: (refused.number, refused.sample) for refused in store.refused(old.name)} == {
        "the message is older than 48 hours, so Telegram does not delete it": (2, "1"),
        "the message's id is not known": (1, "3"),
    }
    edits = edit_sent(store, "spring", {"text": "Sorry"}, "the test")
    assert len(states(store, edits.name)) == 4, "edits of a bot's own messages have no such limit"


def test_a_message_that_was_deleted_is_not_corrected_again(store: CampaignStore) -> None:
    sent(store, ["1", "2", "3"])
    deletes = started(store, delete_sent(store, "spring"))
    store.release(deletes, "me", 1, [0])
    store.settle(deletes, [RecipientOutcome(1, 0, RecipientState.SENT)])
    edits = edit_sent(store, "spring", {"text": "Sorry"}, "the test")
    assert [each.number for each in store.recipients(edits.name)] == [2]
    assert "the message was deleted by an earlier correction" in {each.why for each in store.refused(edits.name)}


def test_what_cannot_be_corrected_at_all_leaves_no_campaign(store: CampaignStore) -> None:
    running(store, 1)
    with pytest.raises(CampaignError, match=r"No message of spring can be corrected \(nobody has got one\)"):
        delete_sent(store, "spring")
    store.create(definition(name="album", content={"method": "sendMediaGroup", "media": []}), BOT)
    with pytest.raises(CampaignError, match="album sent albums"):
        delete_sent(store, "album")
    assert [each.name for each in store.all()] == ["album", "spring"]


def test_a_correction_is_neither_corrected_nor_sent_to_another_chat(store: CampaignStore) -> None:
    sent(store, ["1", "2"])
    edits = edit_sent(store, "spring", {"text": "Sorry"}, "the test")
    with pytest.raises(CampaignError, match="is a correction itself"):
        delete_sent(store, edits.name)
    with pytest.raises(CampaignError, match="corrects messages, so it has none"):
        sample_job(store, SETTINGS, edits.name, "42")
    long = "s" * 40
    store.create(definition(name=long), BOT)
    audience = read_rows([{"chat_id": 1}])
    store.import_audience(long, audience)
    campaign = store.transition(long, CampaignState.RUNNING)
    store.lead("me", LEASE_SECONDS)
    store.settle(campaign, [outcome(each) for each in store.release(campaign, "me", 1, [0])])
    assert delete_sent(store, long).name == "s" * 31 + ".delete-1"
