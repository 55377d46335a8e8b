"""What the picture says of a bot, a chat and a campaign, as cells and lines of text. Without I/O."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Final

from rich.text import Text

from floodgate.broker.admission.contract import ChatExplanation, ChatLine, Pause, SlowedChat, Snapshot
from floodgate.broker.messages.job import Priority
from floodgate.broker.state.activity import ProcessReport
from floodgate.letters.criteria import harmless
from floodgate.letters.paging import ago
from floodgate.letters.view import counted
from floodgate.overview.picture import BotOverview, CampaignOverview, Overview
from floodgate.overview.words import at_its_pace, why_paused
from floodgate.top.figures import bar, count, sparkline

UNKNOWN: Final = "?"
RATE_WIDTH: Final = 6
PROGRESS_WIDTH: Final = 9
LABEL_WIDTH: Final = 15
SHOWN_QUEUES: Final = 2
SHOWN: Final = 3
"""Pauses, slowed chats and lines in the summary of a bot."""

Cells = tuple[Text, ...]


@dataclass(frozen=True, slots=True)
class ChatWaits:
    """The jobs of a chat that wait in lines, and its pause."""

    lengths: dict[Priority, int] = field(default_factory=dict)
    paused: timedelta | None = None
    why: str = ""


def health_line(overview: Overview) -> Text:
    """Say what does not answer; if everything does, say so."""
    named = {
        "RabbitMQ": overview.rabbitmq,
        "disk": overview.disk,
        "state store": overview.store,
        "campaigns": overview.campaigns,
    }
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


def bot_lines(bot: BotOverview) -> Text:
    """Say what is known of a bot, most urgent first."""
    return _lines(_about(bot))


def _about(bot: BotOverview) -> Iterator[tuple[str, str]]:
    snapshot, messages, minute = bot.snapshot, bot.messages, bot.last_minute
    if snapshot is not None:
        yield from _urgent(snapshot.outage, snapshot.pauses[:SHOWN])
        if not math.isinf(bot.full_rate) and snapshot.per_second_limit < bot.full_rate:
            yield "slowed", f"{snapshot.per_second_limit:.1f} a second for a while: Telegram answered 429"
        yield from _slowed(snapshot.slowed[:SHOWN])
    if messages is not None and messages.unread:
        queues = list(messages.unread)
        more = f" and {len(queues) - SHOWN_QUEUES} more" if len(queues) > SHOWN_QUEUES else ""
        yield "no consumer", f"{count(sum(messages.unread.values()))} in {', '.join(queues[:SHOWN_QUEUES])}{more}"
    if snapshot is not None:
        yield "sent", f"{count(snapshot.sent_last_minute)} in the last minute; calls in flight: {snapshot.sending}"
        if minute.sent:
            top = max([*minute.sent, 1]) if math.isinf(bot.full_rate) else bot.full_rate
            yield "last minute", sparkline(minute.sent, top)
        if minute.waits:
            yield "waits", f"{', '.join(f'{cause}: {count(number)}' for cause, number in minute.waits)} in a minute"
        if snapshot.oldest:
            ages = (f"{priority} for {ago(age)}" for priority, age in snapshot.oldest.items())
            yield "oldest jobs", ", ".join(ages)
        if longest := snapshot.longest_lines[:SHOWN]:
            yield "longest lines", ", ".join(f"{line.chat}: {count(line.length)}" for line in longest)
    yield from map(_running, (each for each in bot.campaigns or () if each.state == "running"))
    if messages is not None:
        yield "answers", f"{count(messages.queued['answers'])} wait"
        lag = "" if minute.update_lag is None else f", handled after {minute.update_lag.total_seconds():.1f} s"
        yield "updates", f"{count(messages.queued['updates'])} wait{lag}; processes that receive: {messages.receivers}"
    if snapshot is not None:
        yield from _ended(snapshot)


def _running(campaign: CampaignOverview) -> tuple[str, str]:
    end = "" if campaign.eta is None else f", about {ago(campaign.eta)} left"
    return "campaign", f"{campaign.name} {_progress(campaign)}, {count(campaign.refused)} refused{end}"


def _progress(campaign: CampaignOverview) -> str:
    share = campaign.ended / campaign.recipients if campaign.recipients else 0
    return f"{bar(share, PROGRESS_WIDTH)} {share:>4.0%}"


def _urgent(outage: timedelta | None, pauses: Iterable[Pause]) -> Iterator[tuple[str, str]]:
    if outage is not None:
        yield "outage", f"Telegram has not answered for {ago(outage)}; it is tried with one call at a time"
    for pause in pauses:
        whom = f"chat {pause.chat}" if pause.chat else "the bot"
        yield "paused", f"{whom}, {ago(pause.remaining)} more: {why_paused(pause.why)}"


def _slowed(chats: Iterable[SlowedChat]) -> Iterator[tuple[str, str]]:
    for slowed in chats:
        yield "slowed", f"chat {slowed.chat}, {ago(slowed.recovery)} more: {at_its_pace(slowed)}"


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


def chat_lines(why: ChatExplanation) -> Text:
    """Say why a chat waits, and for how long."""
    return _lines(_about_chat(why))


def _about_chat(why: ChatExplanation) -> Iterator[tuple[str, str]]:
    yield "waits for", _cause(why)
    yield from _urgent(why.outage, filter(None, (why.bot_pause, why.pause)))
    yield from _slowed(why.slowed)
    if why.unreachable is not None:
        yield "unreachable", f"for {ago(why.unreachable.age)}: {why.unreachable.why}"
    if why.call is not None:
        yield "call", f"of job {why.call.job_id}, for {ago(why.call.age)}, {ago(why.call.lease_left)} more at most"
    yield "free slots", f"of the chat {_soon(why.chat_free)}, of the bot {_soon(why.bot_free)}"
    for line in why.lines:
        yield from _about_line(line)


def _about_line(line: ChatLine) -> Iterator[tuple[str, str]]:
    yield str(line.priority), f"{count(line.length)} jobs of {count(line.units)} units"
    yield "  the first", f"{line.head}, for {ago(line.age)}, sent {_soon(line.first)}"
    if line.length > 1:
        yield "  the last", f"sent {_soon(line.last)}"
    if line.missing is not None:
        yield "  missing", f"the first has been due for {ago(line.missing)}, and no worker asked for it"


_CAUSES: Final = {
    "rate": "the limits of the",
    "line": "earlier jobs of the",
    "pause": "the end of a pause of the",
    "in-flight": "a call under way in the",
    "outage": "an answer of Telegram to the",
    "unreachable": "an update of the",
}


def _cause(why: ChatExplanation) -> str:
    if not why.known:
        return "nothing: the store does not know the chat, which has been idle for ten minutes at least"
    return f"{_CAUSES.get(why.why, why.why)} {why.scope or 'chat'}" if why.why else "nothing: a job could be sent now"


def _soon(time: timedelta | None) -> str:
    if time is None:
        return "at an unknown time"
    return f"in {ago(time)}" if time >= timedelta(seconds=1) else "now"


def campaign_lines(bot: BotOverview, campaign: CampaignOverview | None) -> Text:
    """Say why a campaign stopped, or that there are none."""
    if not bot.campaigns:
        return Text("No campaigns." if bot.campaigns is not None else "No database of campaigns.")
    return Text("" if campaign is None or campaign.reason is None else _plain(campaign.reason))


def process_cells(process: ProcessReport) -> Cells:
    """Return a process's role, machine, version and uptime, and the partitions of which it is the active consumer."""
    partitions = ", ".join(process.partitions)
    where = f"{process.host} {process.pid}"
    cells = (process.role, where, process.version, ago(process.uptime), str(len(process.partitions)), partitions)
    return tuple(Text(_plain(cell), overflow="ellipsis") for cell in cells)


def process_summary(overview: Overview) -> Text:
    """Count the processes by role."""
    roles = Counter(process.role for process in overview.processes)
    return _lines(iter([("processes", counted(roles))] if roles else []))


def process_lines(overview: Overview, chosen: str | None) -> Text:
    """Name all partitions of a process; without processes, say why there may be none."""
    if not overview.processes:
        return Text("No process has reported to the state store in the last seconds.")
    held = next((each.partitions for each in overview.processes if each.id == chosen), ())
    return Text(_plain(", ".join(held)) or "It holds no partition.")


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
