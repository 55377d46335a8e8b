"""Checks of a run: the handlers' journal, the chats' counts, and the arrivals at the Bot API."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

from tests.acceptance.stage import Stage
from tests.acceptance.updates.journal import disorder


def said_by(users: int, each: int, first_user: int = 1_000) -> set[str]:
    """All messages of a crowd injected with the text ``{user}:{n}``."""
    return {f"{user}:{n}" for user in range(first_user, first_user + users) for n in range(1, each + 1)}


def answered(stage: Stage) -> list[str]:
    """The texts of answers in order of arrival, with repetitions."""
    return [text.removeprefix("re ") for text in stage.sent() if text.startswith("re ")]


def counts(clerk_home: Path) -> Counter[int]:
    """The values of the chats' counts, with the number of chats for each."""
    return Counter(int(session.read_text()) for session in clerk_home.glob("chat-*"))


def assert_within_limits(stage: Stage) -> None:
    """Checks that no call was refused, neither for its rate nor because two receivers polled."""
    summary = stage.control.summary()
    assert summary.answers_429 == 0, summary
    assert summary.by_code.get(409, 0) == 0, summary
    assert summary.bot_in_1s <= 30
    assert summary.chat_in_1s == 1


def assert_answers_in_order(stage: Stage) -> None:
    assert disorder(answered(stage)) == []
