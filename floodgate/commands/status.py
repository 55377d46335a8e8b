"""``floodgate status``."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import math
import time
from collections import Counter
from dataclasses import dataclass
from typing import Annotated, Any, Final

import typer
from rich.console import Console
from rich.table import Table
from rich.text import Text

from floodgate.broker.admission import policy
from floodgate.broker.admission.contract import Snapshot
from floodgate.broker.amqp import queue_admin, topology
from floodgate.broker.amqp.connections import Connections
from floodgate.broker.messages import queue_names
from floodgate.broker.messages.job import Priority
from floodgate.broker.settings.model import Settings, load_settings
from floodgate.broker.worker.retention import NO_BOT
from floodgate.commands.options import AnyBot, AsJson, open_to_read
from floodgate.letters import reading
from floodgate.letters.view import counted

SHOWN_UNREAD: Final = 4
WATCH_SECONDS: Final = 2.0

# Explanations of the built-in reasons for a pause.
_WHY: Final = {
    "429": "Telegram answered 429",
    "unauthorized": "Telegram refuses the token: renew it",
    "operator": "floodgate pause",
}


@dataclass(frozen=True, slots=True)
class QueuedMessages:
    """The messages in a bot's queues."""

    queued: dict[str, int]
    """By kind: jobs by priority, answers to queries, updates, dead letters."""
    unread: dict[str, int]
    """By queue, for queues without a consumer."""


def status(
    bot: AnyBot = None,
    watch: Annotated[bool, typer.Option("--watch", help="Show it again every two seconds, until interrupted.")] = False,
    as_json: AsJson = False,
) -> None:
    """Show for each bot its rate and limit, pauses, waiting jobs, the longest lines and dead letters.

    Example: floodgate status --bot default --watch
    """
    settings = load_settings()
    bots = reading.bots(settings, bot)
    with Connections(settings, "cli") as connections:
        _show(settings, connections, bots, as_json)
        while watch:
            time.sleep(WATCH_SECONDS)
            if not as_json:
                Console().clear()  # on a terminal
            _show(settings, connections, bots, as_json)


def _show(settings: Settings, connections: Connections, bots: list[str], as_json: bool) -> None:
    backlogs = {bot: queued_messages(settings, connections, bot) for bot in bots}
    with contextlib.closing(open_to_read(settings)) as store:
        snapshots = [store.snapshot(bot) for bot in bots]
        strays = store.snapshot(NO_BOT).dropped
    if as_json:
        data = [_as_data(each, _full_rate(settings, each.bot), backlogs[each.bot]) for each in snapshots]
        print(json.dumps(data), flush=True)
        return
    for snapshot in snapshots:
        full = _full_rate(settings, snapshot.bot)
        Console(highlight=False).print(_table(snapshot, full, backlogs[snapshot.bot]))
    if strays:
        Console(highlight=False).print(f"dead letters without a bot, dropped: {counted(Counter(strays))}")


def _full_rate(settings: Settings, bot: str) -> float:
    """Return how many messages a second the bot may send when no 429 has slowed it; infinite without limits."""
    return policy.per_second(policy.policy_of(settings).rates(bot).free)


def queued_messages(settings: Settings, connections: Connections, bot: str) -> QueuedMessages:
    """Count the messages ready in RabbitMQ, also in partitions beyond the settings' number.

    Jobs on the delay ladder are not counted, as they are in no bot's queue.
    """
    dead = queue_names.dead_queue(bot)
    loads = queue_admin.partition_loads(connections, topology.pipeline_of(settings, [bot]).counts)
    dead_letters = queue_admin.depth(connections, [dead])[dead] or 0
    queued = Counter[str](dict.fromkeys((*map(str, Priority), "answers", "updates", "dead"), 0))
    for name, load in loads.items():
        queued[name.split(".")[2] if queue_names.family_of(name) == "send" else "updates"] += load.messages
    return QueuedMessages(dict(queued) | {"dead": dead_letters}, queue_admin.unread(loads))


def _table(snapshot: Snapshot, full: float, backlog: QueuedMessages) -> Table:
    queued = backlog.queued
    table = Table("", "", title=f"bot {snapshot.bot}", show_header=False, title_justify="left")
    table.add_row("sent in the last second", f"{snapshot.sent_last_second} of {_rate(snapshot.per_second_limit, full)}")
    table.add_row("sent in the last minute", str(snapshot.sent_last_minute))
    table.add_row("in flight", str(snapshot.sending))
    for priority in Priority:
        waiting = snapshot.waiting.get(priority, 0)
        table.add_row(f"waiting, {priority}", f"{queued[priority]} in the queue, {waiting} in lines")
    table.add_row("waiting, answers", str(queued["answers"]))
    table.add_row("waiting, updates", str(queued["updates"]))
    if backlog.unread:
        table.add_row("waiting, no consumer", _unread(backlog.unread))
    table.add_row("dead letters", str(queued["dead"]))
    if snapshot.dropped:
        table.add_row("dead letters dropped", counted(Counter(snapshot.dropped)))
    if snapshot.not_kept:
        table.add_row("dead jobs not kept", counted(Counter(snapshot.not_kept)))
    table.add_row("unreachable chats", str(snapshot.unreachable))
    if snapshot.outage is not None:
        since = f"for {snapshot.outage.total_seconds():.0f} s; calls are made one at a time until one is answered"
        table.add_row("Telegram does not answer", since)
    for pause in snapshot.pauses:
        whom = f"chat {pause.chat}" if pause.chat else "the bot"
        why = Text(f"{pause.remaining.total_seconds():.0f} s more: {_WHY.get(pause.why, pause.why)}")
        table.add_row(f"paused: {whom}", why)
    for line in snapshot.longest_lines:
        table.add_row(f"line of chat {line.chat}", f"{line.length} jobs, {line.priority}")
    return table


def _unread(unread: dict[str, int]) -> str:
    shown = ", ".join(f"{name} ({count})" for name, count in list(unread.items())[:SHOWN_UNREAD])
    more = f" and {len(unread) - SHOWN_UNREAD} more queues" if len(unread) > SHOWN_UNREAD else ""
    return f"{sum(unread.values())} in {shown}{more}"


def _rate(now: float, full: float) -> str:
    """Describe the rate of free messages; paid ones have a limit of their own."""
    if math.isinf(full):
        return "no limit"
    return f"{now:.1f}" if now >= full else f"{now:.1f}: below {full:.1f} for a while, because Telegram answered 429"


def _as_data(snapshot: Snapshot, full: float, backlog: QueuedMessages) -> dict[str, Any]:
    fields = dataclasses.asdict(snapshot)
    # JSON has no infinity: null means "no limit".
    fields["per_second_limit"] = None if math.isinf(full) else round(snapshot.per_second_limit, 3)
    fields["per_second_full"] = None if math.isinf(full) else round(full, 3)
    outage = fields.pop("outage")
    fields["outage_seconds"] = None if outage is None else outage.total_seconds()
    for pause in fields["pauses"]:
        pause["remaining_seconds"] = pause.pop("remaining").total_seconds()
    return fields | dataclasses.asdict(backlog)
