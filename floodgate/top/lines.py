"""What the picture says of a bot, a chat and a campaign, as cells and lines of text. Without I/O."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Final

from rich.text import Text

from floodgate.broker.admission.contract import Snapshot
from floodgate.broker.messages.job import Priority
from floodgate.letters.criteria import harmless
from floodgate.letters.paging import ago
from floodgate.letters.view import counted
from floodgate.overview.picture import BotOverview, CampaignOverview, Overview
from floodgate.overview.words import why_paused
from floodgate.top.figures import bar, count, sparkline

UNKNOWN: Final = "?"
RATE_WIDTH: Final = 6
PROGRESS_WIDTH: Final = 9
LABEL_WIDTH: Final = 15
SHOWN_QUEUES: Final = 2

Cells = tuple[Text, ...]


@dataclass(frozen=True, slots=True)
class ChatWaits:
    """The jobs of a chat that wait in lines, and its pause."""

    lengths: dict[Priority, int] = field(default_factory=dict)
    paused: timedelta | None = None
    why: str = ""


def health_line(overview: Overview) -> Text:
    """Say what does not answer; if everything does, say so."""
    named = {"RabbitMQ": overview.rabbitmq, "state store": overview.store, "campaigns": overview.campaigns}
    faults = [health for health in named.values() if health is not None and not health.up]
    if faults:
        return Text(f"! {_plain(faults[0].text)}", style="bold red", overflow="ellipsis", no_wrap=True)
    told = [f"{name}: {health.text}" for name, health in named.items() if health is not None]
    if overview.missing_state_file is not None:
        told.append("no worker has run yet")
    return Text(" · ".join(told), style="dim", overflow="ellipsis", no_wrap=True)


def bot_cells(bot: BotOverview) -> Cells:
    """Return a bot's name, rate, waiting jobs by priority, updates, dead letters and state."""
    queued = bot.messages.queued if bot.messages else {}
    return (
        Text(bot.name, overflow="ellipsis"),
        Text(_rate(bot)),
        *(_right(waiting(bot, priority)) for priority in Priority),
        *(_right(count(queued[kind]) if queued else UNKNOWN) for kind in ("updates", "dead")),
        Text(_state(bot)),
    )


def waiting(bot: BotOverview, priority: Priority) -> str:
    """Count the jobs of a priority in queues and lines; "≥" if only one of them is known."""
    known = [
        *([bot.messages.queued[priority]] if bot.messages else []),
        *([bot.snapshot.waiting.get(priority, 0)] if bot.snapshot else []),
    ]
    if not known:
        return UNKNOWN
    return f"{'≥ ' if len(known) == 1 else ''}{count(sum(known))}"


def _rate(bot: BotOverview) -> str:
    if bot.snapshot is None:
        return UNKNOWN
    sent, limit = bot.snapshot.sent_last_second, bot.snapshot.per_second_limit
    if math.isinf(bot.full_rate):
        return f"{sent}, no limit"
    return f"{bar(sent / limit if limit else 0, RATE_WIDTH)} {sent:>2}/{limit:.1f}"


def _state(bot: BotOverview) -> str:
    snapshot = bot.snapshot
    if snapshot is None:
        return UNKNOWN
    if snapshot.outage is not None:
        return "outage"
    if any(pause.chat is None for pause in snapshot.pauses):
        return "paused"
    if bot.messages is not None and bot.messages.unread:
        return "unread"
    return "slowed" if snapshot.per_second_limit < bot.full_rate else "ok"


def bot_lines(bot: BotOverview, sent: Sequence[int]) -> Text:
    """Say what is known of a bot, most urgent first. ``sent`` are the messages of the last seconds."""
    return _lines(_about(bot, sent))


def _about(bot: BotOverview, sent: Sequence[int]) -> Iterator[tuple[str, str]]:
    snapshot, messages = bot.snapshot, bot.messages
    if snapshot is not None:
        yield from _urgent(snapshot)
        if not math.isinf(bot.full_rate) and snapshot.per_second_limit < bot.full_rate:
            yield "slowed", f"{snapshot.per_second_limit:.1f} a second for a while: Telegram answered 429"
    if messages is not None and messages.unread:
        queues = list(messages.unread)
        more = f" and {len(queues) - SHOWN_QUEUES} more" if len(queues) > SHOWN_QUEUES else ""
        yield "no consumer", f"{count(sum(messages.unread.values()))} in {', '.join(queues[:SHOWN_QUEUES])}{more}"
    if snapshot is not None:
        top = max([*sent, 1]) if math.isinf(bot.full_rate) else bot.full_rate
        yield (
            "sent",
            f"{sparkline(sent, top)} {count(snapshot.sent_last_minute)} in a minute, {snapshot.sending} in flight",
        )
        if snapshot.longest_lines:
            yield (
                "longest lines",
                ", ".join(f"{each.chat}: {count(each.length)}" for each in snapshot.longest_lines[:3]),
            )
    if messages is not None:
        yield (
            "answers",
            f"{count(messages.queued['answers'])} wait; processes that receive updates: {messages.receivers}",
        )
    if snapshot is not None:
        yield from _ended(snapshot)


def _running(campaign: CampaignOverview) -> tuple[str, str]:
    end = "" if campaign.eta is None else f", about {ago(campaign.eta)} left"
    return "campaign", f"{campaign.name} {_progress(campaign)}, {count(campaign.refused)} refused{end}"


def _progress(campaign: CampaignOverview) -> str:
    share = campaign.ended / campaign.recipients if campaign.recipients else 0
    return f"{bar(share, PROGRESS_WIDTH)} {share:>4.0%}"


def _urgent(snapshot: Snapshot) -> Iterator[tuple[str, str]]:
    if snapshot.outage is not None:
        yield "outage", f"Telegram has not answered for {ago(snapshot.outage)}; it is tried with one call at a time"
    for pause in snapshot.pauses[:3]:
        whom = f"chat {pause.chat}" if pause.chat else "the bot"
        yield "paused", f"{whom}, {ago(pause.remaining)} more: {why_paused(pause.why)}"


def _ended(snapshot: Snapshot) -> Iterator[tuple[str, str]]:
    if snapshot.unreachable:
        yield "unreachable", f"{count(snapshot.unreachable)} chats"
    if snapshot.not_kept:
        yield "not kept", counted(Counter(snapshot.not_kept))
    if snapshot.dropped:
        yield "letters dropped", counted(Counter(snapshot.dropped))


def chats(bot: BotOverview) -> dict[str, ChatWaits]:
    """Return the bot's longest lines and pauses by chat, the longest lines first."""
    found: dict[str, ChatWaits] = {}
    if bot.snapshot is None:
        return found
    for line in bot.snapshot.longest_lines:
        its = found.setdefault(line.chat, ChatWaits())
        its.lengths[line.priority] = line.length
    for pause in bot.snapshot.pauses:
        if pause.chat is not None:
            lengths = found[pause.chat].lengths if pause.chat in found else {}
            found[pause.chat] = ChatWaits(lengths, pause.remaining, pause.why)
    return found


def chat_cells(chat: str, waits: ChatWaits) -> Cells:
    """Return a chat, its waiting jobs by priority, and its pause."""
    lengths = (count(waits.lengths.get(priority, 0)) for priority in Priority)
    paused = "" if waits.paused is None else f"{ago(waits.paused)} more: {why_paused(waits.why)}"
    return Text(_plain(chat)), *map(_right, lengths), Text(_plain(paused), overflow="ellipsis")


def campaign_cells(campaign: CampaignOverview) -> Cells:
    """Return a campaign's name, state, progress, numbers and expected end."""
    return (
        Text(campaign.name, overflow="ellipsis"),
        Text(campaign.state),
        Text(_progress(campaign)),
        _right(count(campaign.sent)),
        _right(count(campaign.refused)),
        _right(count(campaign.left)),
        Text("" if campaign.eta is None else ago(campaign.eta)),
    )


def chat_lines(bot: BotOverview, chat: str, unreachable: bool | None) -> Text:
    """Say why a chat waits; ``unreachable`` is None while it is not known."""
    return _lines(_about_chat(bot, chats(bot).get(chat, ChatWaits()), unreachable))


def _about_chat(bot: BotOverview, waits: ChatWaits, unreachable: bool | None) -> Iterator[tuple[str, str]]:
    if bot.snapshot is None:
        yield "waits", UNKNOWN
        return
    if waits.paused is not None:
        yield "paused", f"{ago(waits.paused)} more: {why_paused(waits.why)}"
    for label, said in _urgent(bot.snapshot):
        if label == "outage" or said.startswith("the bot"):
            yield label, said
    if unreachable:
        yield "unreachable", "Telegram has refused the chat; its jobs are dead until an update comes from it"
    for priority, length in waits.lengths.items():
        yield str(priority), f"{count(length)} jobs wait in its line"
    if not waits.lengths:
        yield "line", "not among the bot's longest"


def campaign_lines(bot: BotOverview, campaign: CampaignOverview | None) -> Text:
    """Say why a campaign stopped, or that there are none."""
    if not bot.campaigns:
        return Text("No campaigns." if bot.campaigns is not None else "No database of campaigns.")
    return Text("" if campaign is None or campaign.reason is None else _plain(campaign.reason))


def letter_cells(reason: str, number: int) -> Cells:
    """Return a reason and how many letters have it."""
    return Text(_plain(reason)), _right(count(number))


def letters_lines(bot: BotOverview, counts: Counter[str] | None) -> Text:
    """Say how many dead letters there are now, and how many were counted by reason."""
    if counts is None:
        return Text("Counting…")
    now = UNKNOWN if bot.messages is None else count(bot.messages.queued["dead"])
    more = "`floodgate dead-letters list` shows them, and `replay` sends them again."
    return Text(f"Dead letters now: {now}. Counted by reason, the oldest first: {count(counts.total())}.\n{more}")


def _lines(found: Iterator[tuple[str, str]]) -> Text:
    text = Text(no_wrap=True, overflow="ellipsis")
    for label, said in found:
        text.append(f"{label:<{LABEL_WIDTH}} ", style="dim").append(f"{_plain(said)}\n")
    return text


def _right(said: str) -> Text:
    return Text(said, justify="right")


def _plain(said: str) -> str:
    return harmless(said.encode("utf-8", "backslashreplace"))
