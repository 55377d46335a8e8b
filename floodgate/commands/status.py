"""``floodgate status``."""

from __future__ import annotations

import dataclasses
import json
import math
import time
from collections import Counter
from collections.abc import Mapping
from typing import Annotated, Any, Final

import typer
from rich.console import Console
from rich.table import Table
from rich.text import Text

from floodgate.broker.admission.contract import Snapshot
from floodgate.broker.messages.job import Priority
from floodgate.broker.settings.model import load_settings
from floodgate.commands.options import AnyBot, AsJson
from floodgate.letters import reading
from floodgate.letters.paging import ago
from floodgate.letters.view import counted
from floodgate.overview.picture import BotOverview, QueuedMessages
from floodgate.overview.reader import OverviewReader
from floodgate.overview.words import at_its_pace, why_paused

SHOWN_UNREAD: Final = 4
WATCH_SECONDS: Final = 2.0


def status(
    bot: AnyBot = None,
    watch: Annotated[bool, typer.Option("--watch", help="Show it again every two seconds, until interrupted.")] = False,
    as_json: AsJson = False,
) -> None:
    """Show for each bot its rate and limit, pauses, slowed chats, waiting jobs, the longest lines and dead letters.

    Example: floodgate status --bot default --watch
    """
    settings = load_settings()
    with OverviewReader(settings, "cli", bots=reading.bots(settings, bot), patience=None) as reader:
        _show(reader, as_json)
        while watch:
            time.sleep(WATCH_SECONDS)
            if not as_json:
                Console().clear()  # on a terminal
            _show(reader, as_json)


def _show(reader: OverviewReader, as_json: bool) -> None:
    overview = reader.read(fresh=True)
    for health in (overview.rabbitmq, overview.store):
        if health.fault is not None:
            raise health.fault
    if overview.missing_state_file is not None:
        typer.echo(overview.missing_state_file, err=True)
    if as_json:
        print(json.dumps([_as_data(each) for each in overview.bots]), flush=True)
        return
    for each in overview.bots:
        Console(highlight=False).print(_table(each))
    if strays := overview.dropped_without_bot:
        Console(highlight=False).print(f"dead letters without a bot, dropped: {counted(Counter(strays))}")


def _table(bot: BotOverview) -> Table:
    snapshot, messages = _whole(bot)
    queued = messages.queued
    table = Table("", "", title=f"bot {snapshot.bot}", show_header=False, title_justify="left")
    table.add_row(
        "sent in the last second", f"{snapshot.sent_last_second} of {_rate(snapshot.per_second_limit, bot.full_rate)}"
    )
    table.add_row("sent in the last minute", str(snapshot.sent_last_minute))
    table.add_row("in flight", str(snapshot.sending))
    for priority in Priority:
        waiting = snapshot.waiting.get(priority, 0)
        age = snapshot.oldest.get(priority)
        oldest = "" if age is None else f", the oldest for {ago(age)}"
        table.add_row(f"waiting, {priority}", f"{queued[priority]} in the queue, {waiting} in lines{oldest}")
    table.add_row("waiting, answers", str(queued["answers"]))
    table.add_row("waiting, updates", str(queued["updates"]))
    if messages.unread:
        table.add_row("waiting, no consumer", _unread(messages.unread))
    table.add_row("dead letters", str(queued["dead"]))
    if snapshot.dropped:
        table.add_row("dead letters dropped", counted(Counter(snapshot.dropped)))
    if snapshot.not_kept:
        table.add_row("dead jobs not kept", counted(Counter(snapshot.not_kept)))
    table.add_row("unreachable chats", str(snapshot.unreachable))
    if snapshot.outage is not None:
        since = f"for {snapshot.outage.total_seconds():.0f} s; calls are made one at a time until one is answered"
        table.add_row("Telegram does not answer", since)
    if snapshot.rolled_back is not None:
        table.add_row(
            "state store lost writes", f"{snapshot.rollbacks} times, the last {ago(snapshot.rolled_back)} ago"
        )
    for pause in snapshot.pauses:
        whom = f"chat {pause.chat}" if pause.chat else "the bot"
        why = Text(f"{pause.remaining.total_seconds():.0f} s more: {why_paused(pause.why)}")
        table.add_row(f"paused: {whom}", why)
    for slowed in snapshot.slowed:
        table.add_row(f"slowed: chat {slowed.chat}", f"{at_its_pace(slowed)}; full pace in {ago(slowed.recovery)}")
    if (more := sum(snapshot.slowed_chats.values()) - len(snapshot.slowed)) > 0:
        table.add_row("slowed: other chats", str(more))
    for line in snapshot.longest_lines:
        table.add_row(f"line of chat {line.chat}", f"{line.length} jobs, {line.priority}")
    return table


def _unread(unread: Mapping[str, int]) -> str:
    shown = ", ".join(f"{name} ({count})" for name, count in list(unread.items())[:SHOWN_UNREAD])
    more = f" and {len(unread) - SHOWN_UNREAD} more queues" if len(unread) > SHOWN_UNREAD else ""
    return f"{sum(unread.values())} in {shown}{more}"


def _rate(now: float, full: float) -> str:
    """Describe the rate of free messages; paid ones have a limit of their own."""
    if math.isinf(full):
        return "no limit"
    return f"{now:.1f}" if now >= full else f"{now:.1f}: below {full:.1f} for a while, because Telegram answered 429"


def _as_data(bot: BotOverview) -> dict[str, Any]:
    snapshot, messages = _whole(bot)
    full, fields = bot.full_rate, dataclasses.asdict(snapshot)
    # JSON has no infinity: null means "no limit".
    fields["per_second_limit"] = None if math.isinf(full) else round(snapshot.per_second_limit, 3)
    fields["per_second_full"] = None if math.isinf(full) else round(full, 3)
    fields["oldest_seconds"] = {priority: age.total_seconds() for priority, age in fields.pop("oldest").items()}
    outage = fields.pop("outage")
    fields["outage_seconds"] = None if outage is None else outage.total_seconds()
    rolled_back = fields.pop("rolled_back")
    fields["rolled_back_seconds"] = None if rolled_back is None else rolled_back.total_seconds()
    for pause in fields["pauses"]:
        pause["remaining_seconds"] = pause.pop("remaining").total_seconds()
    for slowed in fields["slowed"]:
        for name in ("interval", "next_call", "recovery"):
            slowed[f"{name}_seconds"] = slowed.pop(name).total_seconds()
    return fields | dataclasses.asdict(messages)


def _whole(bot: BotOverview) -> tuple[Snapshot, QueuedMessages]:
    """Return what both RabbitMQ and the store know, once it is sure that both have answered."""
    assert bot.snapshot is not None
    assert bot.messages is not None
    return bot.snapshot, bot.messages
