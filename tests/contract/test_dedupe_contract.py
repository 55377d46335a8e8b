"""What both stores report about a dedupe key that was used before."""

from __future__ import annotations

import json
from collections.abc import Iterator

import pytest

from floodgate.broker.admission.contract import Admission, AlreadyDead, AlreadySent, Dead, Go, Sent
from floodgate.broker.admission.policy import ask_for
from floodgate.broker.errors import DedupeKeyError
from floodgate.broker.messages.job import Job, decode_job, encode_job
from floodgate.broker.settings.model import Settings
from floodgate.producer.core import Composer
from floodgate.producer.ledger import Ledger


@pytest.fixture
def ledger(settings: Settings) -> Iterator[Ledger]:
    ledger = Ledger(settings, "default")
    yield ledger
    ledger.close()


def message(settings: Settings, text: str = "Order 7 is placed", chat: int = 42, key: str = "order-7") -> Job:
    return Composer(settings).job("sendMessage", {"chat_id": chat, "text": text, "dedupe_key": key})


def admit(store: Admission, settings: Settings, job: Job) -> None:
    """As a worker does with the job from its queue."""
    arrived = decode_job(encode_job(job, "send.default.interactive.00"))
    assert isinstance(store.admit(ask_for(arrived, settings)), Go)


def test_a_repeated_message_is_recognized(settings: Settings, store: Admission, ledger: Ledger) -> None:
    assert ledger.recognised(message(settings)).known is False
    admit(store, settings, message(settings))
    again = ledger.recognised(message(settings))
    assert (again.known, again.died) == (True, None)


@pytest.mark.parametrize("ends", [None, Sent(True), Dead("content")], ids=["under way", "sent", "dead"])
@pytest.mark.parametrize("other", [{"text": "Order 8 is placed"}, {"chat": 43}], ids=["text", "chat"])
def test_a_dedupe_key_reused_for_different_content_is_reported(
    settings: Settings, store: Admission, ledger: Ledger, ends: Sent | Dead | None, other: dict[str, object]
) -> None:
    first = message(settings)
    admit(store, settings, first)
    if ends is not None:
        store.settle(ask_for(first, settings), ends)
    with pytest.raises(DedupeKeyError, match=r"'order-7' was already used .* Nothing was queued"):
        ledger.recognised(message(settings, **other))  # type: ignore[arg-type]


def test_a_dedupe_key_of_a_dead_job_gives_the_reason(settings: Settings, store: Admission, ledger: Ledger) -> None:
    first = message(settings)
    admit(store, settings, first)
    store.settle(ask_for(first, settings), Dead("chat-unreachable"))
    again = ledger.recognised(message(settings))
    assert (again.known, again.died) == (True, "chat-unreachable")


def test_a_worker_learns_what_was_sent_under_the_dedupe_key(settings: Settings, store: Admission) -> None:
    sent, dead = message(settings), message(settings, chat=43, key="order-8")
    for job, ends in ((sent, Sent("done")), (dead, Dead("content"))):
        admit(store, settings, job)
        store.settle(ask_for(job, settings), ends)
    assert store.admit(ask_for(message(settings, "another"), settings)) == AlreadySent("done", sent.content)
    assert store.admit(ask_for(dead, settings)) == AlreadyDead("content", dead.content)
    assert None not in (sent.content, dead.content)


def test_a_job_without_a_key_has_no_content_to_compare(settings: Settings, store: Admission) -> None:
    job = Composer(settings).job("sendMessage", {"chat_id": 42, "text": "hi"})
    admit(store, settings, job)
    found = store.lookup("default", job.id)
    assert found is not None and found.content is None


def test_a_message_sent_as_json_equals_one_sent_as_a_form(settings: Settings) -> None:
    def content(**params: object) -> str | None:
        return Composer(settings).unchecked("sendMessage", params, {"dedupe_key": "k"}).content

    markup = {"inline_keyboard": [[{"text": "Go", "url": "https://example.org"}]]}
    first = content(chat_id=42, text="1", disable_notification=True, reply_markup=markup)
    form = {"chat_id": "42", "text": "1", "disable_notification": "true"}
    assert content(**form, reply_markup=json.dumps(markup, indent=1)) == first
    assert content(**form | {"text": "2"}, reply_markup=json.dumps(markup)) != first
    assert content(chat_id=42, text="[1, 2]") != content(chat_id=42, text="[1,2]")
