"""The text that `floodgate top` shows."""

from __future__ import annotations

import dataclasses
import math
from datetime import timedelta

import pytest
from rich.text import Text

from floodgate.broker.admission.contract import (
    CallFamily,
    ChatExplanation,
    ChatLine,
    Line,
    Pause,
    Scope,
    SlowedChat,
    Snapshot,
)
from floodgate.broker.errors import RabbitMQUnreachableError
from floodgate.broker.messages.job import Priority
from floodgate.overview.picture import BotOverview, CampaignOverview, Health, Overview, QueuedMessages
from floodgate.top import lines
from floodgate.top.figures import bar, count, sparkline

SLOWED = SlowedChat("7", CallFamily.EDITS, timedelta(seconds=4.2), timedelta(seconds=1), timedelta(minutes=12))
CALM = Snapshot("news", 15, 30, 900, 2, {Priority.INTERACTIVE: 1, Priority.BULK: 2}, (), (), 0, 0, {}, {})
QUEUED = QueuedMessages({"interactive": 10, "bulk": 20, "answers": 0, "updates": 5, "dead": 7}, {}, 1)
BOT = BotOverview("news", 30, CALM, QUEUED, None)


def with_(bot: BotOverview = BOT, **snapshot: object) -> BotOverview:
    return dataclasses.replace(bot, snapshot=dataclasses.replace(CALM, **snapshot))  # type: ignore[arg-type]


def cells(bot: BotOverview) -> list[str]:
    return [cell.plain for cell in lines.bot_cells(bot)]


def told(bot: BotOverview) -> str:
    return lines.bot_lines(bot).plain


@pytest.mark.parametrize(
    ("share", "drawn"), [(0, "░░░░"), (0.5, "██░░"), (1, "████"), (7, "████"), (-1, "░░░░")], ids=str
)
def test_a_bar_is_as_long_as_its_share(share: float, drawn: str) -> None:
    assert bar(share, 4) == drawn


def test_a_sparkline_has_a_character_for_each_value() -> None:
    assert sparkline([0, 15, 30, 60], 30) == "▁▅██"
    assert sparkline([0, 3], 0) == "▁▁"


def test_counts_stay_short() -> None:
    assert [count(number) for number in (0, 12_345, 999_999, 1_234_567)] == ["0", "12,345", "999,999", "1.2M"]


def test_jobs_in_queues_and_lines_are_counted_together() -> None:
    assert cells(BOT) == ["news", "███░░░ 15/30.0", "11", "22", "5", "7", "ok"]


def test_a_count_of_which_a_part_is_unknown_is_a_lower_bound() -> None:
    assert cells(dataclasses.replace(BOT, messages=None))[2:6] == ["≥ 1", "≥ 2", "?", "?"]
    assert cells(dataclasses.replace(BOT, snapshot=None)) == ["news", "?", "≥ 10", "≥ 20", "5", "7", "?"]


def test_a_bot_without_limits_has_no_bar() -> None:
    assert cells(dataclasses.replace(BOT, full_rate=math.inf))[1] == "15, no limit"


@pytest.mark.parametrize(
    ("bot", "state", "said"),
    [
        (with_(outage=timedelta(seconds=90)), "outage", "Telegram has not answered for 90 s"),
        (with_(pauses=(Pause(None, timedelta(seconds=30), "429"),)), "paused", "the bot, 30 s more: Telegram answered"),
        (with_(oldest={Priority.BULK: timedelta(minutes=3)}), "ok", "bulk for 3 min"),
        (with_(per_second_limit=20.0), "slowed", "20.0 a second for a while"),
        (with_(slowed=(SLOWED,)), "ok", "chat 7, 12 min more: edits 4.2 s apart"),
        (with_(pauses=(Pause("7", timedelta(seconds=30), "429"),)), "ok", "chat 7, 30 s more"),
        (
            dataclasses.replace(BOT, messages=dataclasses.replace(QUEUED, unread={"send.news.bulk.00": 3})),
            "unread",
            "3 in send.news.bulk.00",
        ),
    ],
    ids=["outage", "paused", "old jobs", "slowed", "a slowed chat", "a paused chat", "unread"],
)
def test_the_state_of_a_bot_is_one_word_and_its_cause_a_line(bot: BotOverview, state: str, said: str) -> None:
    assert cells(bot)[-1] == state
    assert said in told(bot)


def test_the_chats_of_a_bot_are_its_longest_lines_and_its_pauses() -> None:
    bot = with_(
        longest_lines=(Line("1", Priority.BULK, 9), Line("2", Priority.BULK, 5), Line("1", Priority.INTERACTIVE, 3)),
        pauses=(Pause("2", timedelta(seconds=40), "429"), Pause("3", timedelta(seconds=20), "operator")),
    )
    rows = {chat: [cell.plain for cell in lines.chat_cells(chat, waits)] for chat, waits in lines.chats(bot).items()}
    assert rows == {
        "1": ["1", "3", "9", ""],
        "2": ["2", "0", "5", "40 s more: Telegram answered 429"],
        "3": ["3", "0", "0", "20 s more: floodgate pause"],
    }


def explanation(**given: object) -> ChatExplanation:
    facts: dict[str, object] = dict.fromkeys(("why", "scope", "pause", "bot_pause", "outage", "unreachable", "call"))
    facts |= {"bot": "news", "chat": "2", "known": True, "lines": ()}
    facts |= {"chat_free": timedelta(0), "bot_free": timedelta(seconds=3)}
    return ChatExplanation(**(facts | given))  # type: ignore[arg-type]


def test_a_chat_that_waits_is_told_its_cause_its_pauses_and_its_expected_times() -> None:
    times = {"age": timedelta(minutes=4), "due": timedelta(0), "missing": None}
    line = ChatLine(Priority.BULK, 118, 120, "job-1", **times, first=timedelta(seconds=21), last=None)  # type: ignore[arg-type]
    why = explanation(
        why="pause",
        scope=Scope.CHAT,
        pause=Pause("2", timedelta(seconds=40), "429"),
        bot_pause=Pause(None, timedelta(seconds=20), "by night"),
        slowed=(SLOWED,),
        lines=(line,),
    )
    assert [" ".join(text.split()) for text in lines.chat_lines(why).plain.splitlines()] == [
        "waits for the end of a pause of the chat",
        "paused the bot, 20 s more: by night",
        "paused chat 2, 40 s more: Telegram answered 429",
        "slowed chat 7, 12 min more: edits 4.2 s apart, because Telegram answered 429",
        "free slots of the chat now, of the bot in 3 s",
        "bulk 118 jobs of 120 units",
        "the first job-1, for 4 min, sent in 21 s",
        "the last sent at an unknown time",
    ]


def test_a_chat_that_does_not_wait_is_told_so() -> None:
    assert "nothing: a job could be sent now" in lines.chat_lines(explanation()).plain
    assert "does not know the chat" in lines.chat_lines(explanation(known=False)).plain


def test_texts_of_others_are_printed_without_control_characters_and_markup() -> None:
    bot = with_(pauses=(Pause("2", timedelta(seconds=40), "[red]\x1b[2J"),))
    assert r"[red]\x1b[2J" in told(bot)


def test_a_fault_replaces_the_line_on_health() -> None:
    sound = Overview((BOT,), Health("version 4.0.5"), Health("answers"), None, {})
    assert lines.health_line(sound).plain == "RabbitMQ: version 4.0.5 · state store: answers"
    fault = RabbitMQUnreachableError("RabbitMQ is away.")
    away = dataclasses.replace(sound, rabbitmq=Health(str(fault), fault))
    assert lines.health_line(away).plain == "! RabbitMQ is away."


def test_a_running_campaign_is_told_with_its_progress() -> None:
    spring = CampaignOverview("spring", "news", "running", None, 200, 90, 10, 100, timedelta(minutes=7))
    bot = dataclasses.replace(BOT, campaigns=(spring, dataclasses.replace(spring, name="old", state="done")))
    assert "spring ████░░░░░  50%, 10 refused, about 7 min left" in told(bot)
    assert "old" not in told(bot)


def test_a_stopped_campaign_is_told_with_its_reason() -> None:
    spring = CampaignOverview("spring", "news", "stopped", "Too many 429s.", 200, 90, 10, 100, None)
    bot = dataclasses.replace(BOT, campaigns=(spring,))
    assert lines.campaign_lines(bot, spring) == Text("Too many 429s.")
    assert lines.campaign_lines(BOT, None) == Text("No database of campaigns.")
