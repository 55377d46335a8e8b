"""The account of a benchmark's answers: matched, in order, each exactly once."""

from __future__ import annotations

from typing import Any

from benchmarks.stage.audience import Heard, Said, account
from floodgate.fake_telegram.control import Arrived


def answer(text: str, at: float, **changes: Any) -> Arrived:
    known = {"bot_id": 1, "method": "sendMessage", "chat_id": 5, "cost": 1, "in_flight": 1, "verdict": "off"}
    rest = {"message_id": 1, "code": 200, "acted": True, **changes}
    return Arrived(seq=int(at * 10), params={"text": text}, at=at, wall=1000 + at, **known, **rest)


SAID = [Said(5, "a", 1000.0), Said(6, "b", 1000.0), Said(5, "c", 1001.0)]


def test_answers_are_matched_to_messages_and_timed_from_them() -> None:
    heard = account(SAID, [answer("a", 0.5), answer("b", 1.0), answer("c", 1.25)])
    assert (heard.said, heard.answered, heard.doubled, heard.disorder) == (3, 3, 0, 0)
    assert (heard.p50_seconds, heard.p99_seconds) == (0.5, 1.0)


def test_only_an_answer_that_overtook_one_of_its_own_chat_is_counted() -> None:
    assert account(SAID, [answer("b", 0.5), answer("c", 1.0), answer("a", 1.25)]).disorder == 1


def test_missing_and_repeated_answers_are_counted() -> None:
    heard: Heard = account(SAID, [answer("a", 0.5), answer("a", 0.75)])
    assert (heard.answered, heard.doubled) == (1, 1)
