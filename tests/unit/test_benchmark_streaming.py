"""The judge of streamed answers: what a screen shows, how stale it is, and how much of the limit was used."""

from __future__ import annotations

import asyncio
import itertools
import math
import time
from collections.abc import Iterable
from typing import Any

import pytest

from benchmarks import streaming
from benchmarks.stage import report
from benchmarks.stage.screens import ChatScreen, Streamed, judge, staleness
from benchmarks.stage.streams import FIRST_READER, Answer, StreamLoad
from benchmarks.stage.superseding import SupersededCost
from floodgate.fake_telegram.control import Arrived

BEGAN = 1000.0
CHAT, OTHER = 1_000_000, 1_000_001
LOAD = StreamLoad(chats=1, groups=0, tokens=100, rate=10.0)
_numbers = itertools.count(1)


def call(method: str, at: float, tokens: int = 0, chat: int = CHAT, **changes: Any) -> Arrived:
    """A call that arrived ``at`` seconds after the first token, with the first ``tokens`` of the answer."""
    text = "".join(map(LOAD.token, range(tokens)))
    usual = {"bot_id": 1, "cost": 1, "in_flight": 1, "verdict": "ok", "acted": True, "message_id": 1, "code": 200}
    known = {"seq": next(_numbers), "method": method, "chat_id": chat, "params": {"text": text}}
    return Arrived(**{**usual, **known, "at": at, "wall": BEGAN + at, **changes})


def screen_of(calls: Iterable[Arrived]) -> ChatScreen:
    screen = ChatScreen(CHAT)
    for each in calls:
        screen.take(each, LOAD)
    screen.close(BEGAN + 1000)
    return screen


def judged(*calls: Arrived, load: StreamLoad = LOAD, ended: float = 20.0) -> Streamed:
    return judge(load, load.chat_ids, calls, BEGAN, BEGAN + ended)


def test_a_text_shows_the_answer_up_to_its_last_word() -> None:
    assert LOAD.shown("") == 0
    assert LOAD.shown(LOAD.text) == 100
    assert LOAD.shown("".join(map(LOAD.token, range(40, 61)))) == 61


def test_an_answer_may_be_split_anywhere_in_white_space_but_lose_and_repeat_nothing() -> None:
    first, _, rest = LOAD.text.partition("\n\n")
    assert LOAD.is_answer([first, rest])
    assert not LOAD.is_answer([first])
    assert not LOAD.is_answer([first, rest, rest])


def test_a_draft_is_on_the_screen_until_its_life_is_over_or_a_message_is_sent() -> None:
    draft = call("sendMessageDraft", 0, 10, message_id=None)
    assert [screen_of([draft]).at(BEGAN + at) for at in (29, 31)] == [10, 0]
    assert screen_of([draft, call("sendMessage", 1, 5)]).at(BEGAN + 2) == 5


def test_a_refused_call_changes_no_screen() -> None:
    refused = call("editMessageText", 1, 20, verdict="chat", acted=False, message_id=None, code=429)
    assert screen_of([call("sendMessage", 0, 10), refused]).at(BEGAN + 2) == 10


def test_an_answer_is_complete_once_a_message_shows_its_end_not_a_draft() -> None:
    assert screen_of([call("sendMessageDraft", 9, 100, message_id=None)]).complete_at(LOAD) == math.inf
    assert screen_of([call("sendMessage", 9, 100)]).complete_at(LOAD) == BEGAN + 9


def test_staleness_is_the_age_of_the_oldest_token_that_is_not_shown() -> None:
    ages = list(
        staleness(screen_of([call("sendMessage", 2, 20), call("editMessageText", 10, 100)]), LOAD, BEGAN, BEGAN + 20)
    )
    assert ages[19] == pytest.approx(1.9)  # nothing is shown: the first token is the oldest
    assert ages[21] == pytest.approx(0.1)  # 20 tokens are shown: the next one was due after 2 s
    assert len(ages) == 100  # it ends with the answer


def test_an_answer_that_is_never_complete_is_stale_to_the_end() -> None:
    found = judged(call("sendMessage", 0, 1))
    assert found.last_seconds is None
    assert found.stale_p95_seconds == pytest.approx(20 * 0.95 - 0.1, abs=0.2)


def test_calls_count_against_the_limit_of_the_bot_unless_they_are_drafts_typing_or_refused() -> None:
    load = StreamLoad(chats=1, groups=0, tokens=100, rate=10.0)
    counted = [call("sendMessage", 2, 1), call("editMessageText", 3, 2), call("sendMessage", 4, chat=FIRST_READER)]
    free = [
        call("sendMessageDraft", 5, 3),
        call("sendChatAction", 6),
        call("editMessageText", 7, verdict="wait", code=429),
    ]
    assert judged(*counted, *free, load=load).counted_per_second == pytest.approx(3 / 9)


def test_the_use_of_the_limit_is_measured_while_an_edited_private_chat_has_something_new() -> None:
    load = StreamLoad(chats=60, groups=0, tokens=100, rate=10.0)
    idle = judged(call("sendMessage", 0, 1), load=load)
    assert idle.use == 0
    assert idle.busy_seconds == pytest.approx(9.0)
    every_second = [call("editMessageText", at, 10 * at, chat) for at in range(10) for chat in load.chat_ids]
    busy = judged(*every_second, load=load)
    assert busy.use is None  # no chat could have been called more often
    assert judged(*every_second[:-60], load=load).busy_seconds == pytest.approx(1.0, abs=0.2)
    drafts = [call("sendMessageDraft", 0, 1, chat) for chat in load.chat_ids]
    assert judged(*drafts, load=load).busy_seconds == 0


def test_a_reply_that_was_never_accepted_counts_as_infinitely_late() -> None:
    def reply(number: int, enqueued: float, at: float) -> Arrived:
        text = {"text": f"reply {number} {BEGAN + enqueued}"}
        return call("sendMessage", at, chat=FIRST_READER + number, params=text)

    found = judged(call("sendMessage", 3, 100), reply(0, 0.0, 0.5), reply(1, 1.0, 1.25))
    assert (found.replies, found.replies_missing, found.reply_p99_seconds) == (3, 1, math.inf)
    assert found.reply_p50_seconds == 0.5


def test_429s_are_counted_by_family() -> None:
    refused: dict[str, Any] = {"verdict": "wait", "acted": False, "message_id": None, "code": 429}
    methods = ("sendMessage", "editMessageText", "editMessageText", "sendMessageDraft", "sendChatAction")
    found = judged(*(call(method, 1, **refused) for method in methods))
    assert found.refused == {"message": 1, "edit": 2, "draft": 1, "typing": 1}


def test_a_model_does_not_wait_for_who_reads_it() -> None:
    async def read() -> list[str]:
        answer = Answer(LOAD, time.time() - 5.05)
        found = []
        async for token in answer:
            found.append(token)
            if not answer.has_more_now:
                return found
        return found

    assert 51 <= len(asyncio.run(read())) <= 100


def round_of(contender: str, streamed: Streamed, **changes: Any) -> streaming.Round:
    usual = {"chats": 1, "missing": 0, "cut_off_seconds": None, "superseded": None, "load": 1.0}
    cpu = {"producer_cpu_seconds": 1.0, "worker_cpu_seconds": 1.0}
    return streaming.Round(contender, **{**usual, **cpu, **changes}, streamed=streamed)


def test_what_is_missing_or_refused_or_late_misses_its_target() -> None:
    late = judged(call("sendMessage", 19, 1), call("sendMessage", 19, 1, verdict="chat", acted=False, code=429))
    found = streaming.musts(round_of("floodgate", late, missing=1), LOAD)
    assert [must.verdict for must in found] == ["FAIL", "FAIL", "not measured", "FAIL", "FAIL"]
    good = judged(
        *(call("sendMessage" if at == 0 else "editMessageText", at, 10 * at + 1) for at in range(10)),
        call("editMessageText", 10, 100),
        call("sendMessage", 1, chat=FIRST_READER, params={"text": f"reply 0 {BEGAN}"}),
    )
    verdicts = {must.what: must.verdict for must in streaming.musts(round_of("floodgate", good), LOAD)}
    assert verdicts["answers 429"] == verdicts["final texts missing"] == verdicts["staleness, p95"] == "pass"


def test_a_peer_that_streams_to_private_chats_only_is_compared_in_those() -> None:
    fresh, stale = (
        judged(call("sendMessageDraft", 1, 5), call("sendMessage", 2, 100)),
        judged(call("sendMessage", 9, 100)),
    )
    ours = round_of("floodgate", fresh, chats=2)
    peers = [round_of("everywhere", stale, chats=2), round_of("private", stale)]
    found = streaming.beside(ours, [ours, *peers])
    assert {("private chats" in must.what, must.met) for must in found} == {(False, True), (True, True)}


def test_a_superseded_job_that_was_called_for_or_took_too_long_misses_its_target() -> None:
    cheap, dear = SupersededCost(100, 90, 10, 0.1, 0.05, 0.4), SupersededCost(100, 90, 11, 0.3, 0.05, 0.4)
    assert [must.met for must in streaming.musts_of_cost(cheap)] == [True, True]
    assert [must.met for must in streaming.musts_of_cost(dear)] == [False, False]


def test_what_never_happened_is_saved_as_null(tmp_path: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(report, "FOLDER", tmp_path)
    assert "Infinity" not in report.save("streaming", [{"seconds": math.inf}], more={"list": [math.inf]}).read_text()
