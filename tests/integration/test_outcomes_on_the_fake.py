"""From a fault of the fake to the outcome. Its texts and its misbehaviour are independent of our table."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from datetime import timedelta
from typing import Any

import pytest

from floodgate.actors.classify import CallFacts, classify
from floodgate.actors.outcomes import (
    BotRefused,
    Dead,
    FailureReason,
    Migrated,
    NothingToDo,
    Outcome,
    Paused,
    Retry,
    Uncertain,
)
from floodgate.actors.sessions import BotSessions
from floodgate.broker.admission.contract import Sent
from floodgate.broker.settings.model import Settings
from floodgate.fake_telegram import FakeTelegramThread, running_fake

USER = 1001
GROUP = -100200
ALBUM = [
    {"type": "photo", "media": "https://example.org/1.jpg"},
    {"type": "photo", "media": "https://example.org/2.jpg"},
]


@pytest.fixture(scope="module")
def started() -> Iterator[FakeTelegramThread]:
    with running_fake() as fake:
        yield fake


@pytest.fixture
def fake(started: FakeTelegramThread) -> FakeTelegramThread:
    started.control.reset()
    return started


def outcomes(fake: FakeTelegramThread, *calls: tuple[str, dict[str, Any]], seconds: float = 5) -> list[Outcome]:
    """The outcomes of successive calls over one connection pool."""

    async def scenario() -> list[Outcome]:
        settings = Settings(_env_file=None, bot_token="123456:" + "A" * 35, telegram_api_url=fake.url)
        sessions = BotSessions(settings)
        timeout = timedelta(seconds=seconds)
        try:
            return [
                classify(await sessions.call("default", method, p, timeout), CallFacts(method)) for method, p in calls
            ]
        finally:
            await sessions.close()

    return asyncio.run(scenario())


def outcome(fake: FakeTelegramThread, chat: int | str = USER, seconds: float = 5) -> Outcome:
    return outcomes(fake, ("sendMessage", {"chat_id": chat, "text": "x"}), seconds=seconds)[0]


@pytest.mark.parametrize(
    ("trouble", "chat", "reason"),
    [
        ("blocked", USER, FailureReason.CHAT_UNREACHABLE),
        ("deactivated", USER, FailureReason.CHAT_UNREACHABLE),
        ("kicked", GROUP, FailureReason.CHAT_UNREACHABLE),
        ("not_found", USER, FailureReason.CHAT_NOT_FOUND),
        ("topic_closed", GROUP, FailureReason.RIGHTS),
        ("no_rights", GROUP, FailureReason.RIGHTS),
    ],
)
def test_a_chat_fault_is_dead_with_its_reason(
    fake: FakeTelegramThread, trouble: str, chat: int, reason: FailureReason
) -> None:
    fake.control.set_chat(chat, trouble=trouble)
    ended = outcome(fake, chat)
    assert isinstance(ended, Dead)
    assert ended.reason is reason


def test_a_sent_message_has_telegrams_own_result(fake: FakeTelegramThread) -> None:
    ended = outcome(fake)
    assert isinstance(ended, Sent)
    assert ended.result["chat"]["id"] == USER
    assert ended.result["text"] == "x"


def test_a_migrated_group_reports_its_new_id(fake: FakeTelegramThread) -> None:
    fake.control.set_chat(GROUP, trouble="migrated", migrate_to=-1001234567890)
    assert outcome(fake, GROUP) == Migrated("-1001234567890")


def test_sends_that_come_too_soon_are_paused_for_the_requested_time(fake: FakeTelegramThread) -> None:
    send = ("sendMessage", {"chat_id": USER, "text": "x"})
    ended = outcomes(fake, *[send] * 8)
    paused = [end for end in ended if isinstance(end, Paused)]
    assert paused
    assert all(end.retry_after >= timedelta(seconds=1) for end in paused)
    fake.control.reset()
    fake.control.set_server(faults=[{"kind": "retry_after_in_400", "seconds": 9}])
    wrapped = outcome(fake)
    assert isinstance(wrapped, Paused)
    assert wrapped.retry_after == timedelta(seconds=9)


def test_a_partly_sent_album_is_uncertain(fake: FakeTelegramThread) -> None:
    fake.control.set_chat(USER, trouble="partial_album")
    (ended,) = outcomes(fake, ("sendMediaGroup", {"chat_id": USER, "media": ALBUM}))
    assert isinstance(ended, Uncertain)


def test_an_edit_that_changes_nothing_has_nothing_to_do(fake: FakeTelegramThread) -> None:
    fake.control.limits(enabled=False)
    sent = outcome(fake)
    assert isinstance(sent, Sent)
    same = {"chat_id": USER, "message_id": sent.result["message_id"], "text": "x"}
    (ended,) = outcomes(fake, ("editMessageText", same))
    assert isinstance(ended, NothingToDo)


def test_a_refused_token_is_a_bot_refusal(fake: FakeTelegramThread) -> None:
    fake.control.set_server(faults=[{"kind": "unauthorized"}])
    assert isinstance(outcome(fake), BotRefused)


@pytest.mark.parametrize(
    ("fault", "acted"),
    [
        ({"kind": "error", "code": 502}, 0),
        ({"kind": "error", "code": 500, "acts": True}, 1),
        ({"kind": "cut_before"}, 0),
        ({"kind": "cut_after"}, 1),
        ({"kind": "stall"}, 1),
    ],
)
def test_a_call_that_may_have_been_sent_is_uncertain_and_made_once(
    fake: FakeTelegramThread, fault: dict[str, Any], acted: int
) -> None:
    fake.control.set_server(faults=[fault])
    assert isinstance(outcome(fake, seconds=0.5), Uncertain)
    arrived = fake.control.arrivals()
    assert len(arrived) == 1
    assert sum(call.acted for call in arrived) == acted


def test_an_edit_that_may_have_been_made_is_retried(fake: FakeTelegramThread) -> None:
    fake.control.limits(enabled=False)
    fake.control.set_server(faults=[{"kind": "cut_after", "methods": ["editMessageText"]}])
    sent = outcome(fake)
    assert isinstance(sent, Sent)
    changed = {"chat_id": USER, "message_id": sent.result["message_id"], "text": "y"}
    (ended,) = outcomes(fake, ("editMessageText", changed))
    assert isinstance(ended, Retry)
    assert not ended.surely_not_sent
