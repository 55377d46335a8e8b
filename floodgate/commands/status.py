"""``floodgate status``."""

from __future__ import annotations

import dataclasses
import json
from collections import Counter
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.table import Table

from broker import topology
from broker.admission.contract import Snapshot
from broker.admission.stores import open_store
from broker.connections import Connections
from broker.job import Priority
from broker.settings import Settings, load_settings


def status(
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Show, per bot: the rate now against its limit, pauses and why, the longest lines, what waits and what died.

    Example: floodgate status --json
    """
    settings = load_settings()
    bots = sorted(settings.require_bots())
    store = open_store(settings)
    try:
        snapshots = [store.snapshot(bot) for bot in bots]
    finally:
        store.close()
    queued = {bot: _queued(settings, bot) for bot in bots}
    if as_json:
        print(json.dumps([_as_data(each, queued[each.bot]) for each in snapshots]))
        return
    for snapshot in snapshots:
        Console(highlight=False).print(_table(snapshot, queued[snapshot.bot]))


def _queued(settings: Settings, bot: str) -> dict[str, int]:
    """Messages ready in RabbitMQ by priority, and dead letters. Jobs on the delay ladder are in no bot's queue."""
    names = {
        topology.send_queue(bot, priority, n): str(priority)
        for priority in Priority
        for n in range(settings.partitions)
    }
    names[topology.dead_queue(bot)] = "dead"
    with Connections(settings, "cli") as connections:
        depths = topology.depth(connections, names)
    totals: Counter[str] = Counter({str(priority): 0 for priority in Priority} | {"dead": 0})
    for name, depth in depths.items():
        totals[names[name]] += depth or 0
    return dict(totals)


def _table(snapshot: Snapshot, queued: dict[str, int]) -> Table:
    table = Table("", "", title=f"bot {snapshot.bot}", show_header=False, title_justify="left")
    table.add_row("sent in the last second", f"{snapshot.sent_last_second} of {snapshot.per_second_limit:g}")
    table.add_row("sent in the last minute", str(snapshot.sent_last_minute))
    table.add_row("under way", str(snapshot.sending))
    for priority in Priority:
        waiting = snapshot.waiting.get(priority, 0)
        table.add_row(f"waiting, {priority}", f"{queued[priority]} in the queue, {waiting} in lines")
    table.add_row("dead letters", str(queued["dead"]))
    for pause in snapshot.pauses:
        whom = f"chat {pause.chat}" if pause.chat else "the bot"
        table.add_row(f"paused: {whom}", f"{pause.remaining.total_seconds():.0f} s more: {pause.why}")
    for line in snapshot.longest_lines:
        table.add_row(f"line of chat {line.chat}", f"{line.length} jobs, {line.priority}")
    return table


def _as_data(snapshot: Snapshot, queued: dict[str, int]) -> dict[str, Any]:
    fields = dataclasses.asdict(snapshot)
    for pause in fields["pauses"]:
        pause["remaining_seconds"] = pause.pop("remaining").total_seconds()
    return fields | {"queued": queued}
