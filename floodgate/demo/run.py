"""Runs the demo: starts the fake Bot API and a worker with their own commands, enqueues jobs and accounts for them.

It uses the configured RabbitMQ with a bot name of its own, and removes that bot's queues at the end.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Final

from rich.console import Console
from rich.live import Live

from floodgate.broker.amqp import queue_admin
from floodgate.broker.amqp.async_queue_reader import browse
from floodgate.broker.amqp.connections import Connections
from floodgate.broker.messages import queue_names
from floodgate.broker.messages.dead_letters import read_dead_letter
from floodgate.demo import script, view
from floodgate.demo.account import Account, DemoArrival, EnqueuedJob, account_for
from floodgate.demo.processes import child
from floodgate.demo.stage import DemoStage, demo_stage
from floodgate.fake_telegram.control import ControlClient
from floodgate.producer.client import Client

# The group's last message goes after its first minute and ten seconds; the rest is a margin for slow machines.
AT_MOST_SECONDS: Final = 180.0
REFRESH_SECONDS: Final = 0.25


@dataclass(slots=True)
class _Tally:
    """The jobs accepted so far. Producing threads append to it, and the view reads it."""

    accepted: list[EnqueuedJob] = field(default_factory=list)
    faults: list[BaseException] = field(default_factory=list)


def run_demo(console: Console, size: script.DemoSize = script.FULL) -> bool:
    """Run the demo to the end; return True if every job is accounted for.

    Raises:
        FloodgateError: RabbitMQ cannot be reached, or a process did not start.
    """
    console.print("Starting a local Bot API that enforces Telegram's limits strictly …")
    with demo_stage() as stage:
        _set_the_scene(stage.control)
        console.print("Starting a worker …")
        stage.stack.enter_context(child(["worker"], stage.env, stage.home / "worker.log", "worker ready"))
        console.print(f"Broadcasting to {size.users} users, {size.group_messages} messages to one group among them.")
        account = _play(console, stage, size)
    console.print(view.final(account))
    console.print(view.verdict(account), style="green" if account.adds_up else "red")
    return account.adds_up


def _set_the_scene(control: ControlClient) -> None:
    control.set_server(latency_ms=(40, 80))
    control.set_chat(script.BLOCKED_USER, trouble="blocked")
    control.set_chat(script.OLD_GROUP, trouble="migrated", migrate_to=script.NEW_GROUP)


def _play(console: Console, stage: DemoStage, size: script.DemoSize) -> Account:
    tally = _Tally()
    with Client(stage.settings, bot=stage.bot, connections=stage.connections) as client:
        replying = threading.Thread(target=_reply, args=(client, tally, size), name="demo-replies", daemon=True)
        replying.start()
        _broadcast(client, tally, size)
        _watch(console, stage, tally, replying)
    if tally.faults:
        raise tally.faults[0]
    dead = _dead(stage.connections, stage.bot)
    return account_for(tally.accepted, _arrivals(stage.control), dead, stage.control.stats().by_code.get(429, 0))


def _broadcast(client: Client, tally: _Tally, size: script.DemoSize) -> None:
    lines = script.broadcast(size)
    jobs = [client.job("sendMessage", chat_id=line.chat, text=line.text, priority=line.priority) for line in lines]
    for line, job in zip(lines, client.enqueue_each(jobs), strict=True):
        tally.accepted.append(_accepted(line, job.id))


def _reply(client: Client, tally: _Tally, size: script.DemoSize) -> None:
    started = time.monotonic()
    try:
        for moment, line in script.replies(size):
            time.sleep(max(0.0, started + moment - time.monotonic()))
            job = client.send_message(chat_id=line.chat, text=line.text)
            tally.accepted.append(_accepted(line, job.id))
    except Exception as error:  # noqa: BLE001  # carried to the main thread, which raises it
        tally.faults.append(error)


def _accepted(line: script.DemoMessage, job_id: str) -> EnqueuedJob:
    return EnqueuedJob(job_id, line.part, str(line.chat), line.priority, line.text, line.expect_dead)


def _watch(console: Console, stage: DemoStage, tally: _Tally, replying: threading.Thread) -> None:
    """Show the figures until every accepted job has ended, or time is up."""
    started = time.monotonic()
    with Live(console=console, transient=True) as screen:
        while (elapsed := time.monotonic() - started) < AT_MOST_SECONDS:
            stats = stage.control.stats()
            moment = view.Moment(
                elapsed_seconds=elapsed,
                accepted=len(tally.accepted),
                sent=stats.by_code.get(200, 0),
                dead=_count_dead(stage.connections, stage.bot),
                rate=stats.acted_last_second,
                limit=30,
                too_many_requests=stats.by_code.get(429, 0),
            )
            screen.update(view.live(moment))
            if not replying.is_alive() and moment.waiting == 0:
                return
            time.sleep(REFRESH_SECONDS)


def _count_dead(connections: Connections, bot: str) -> int:
    queue = queue_names.dead_queue(bot)
    return queue_admin.depth(connections, [queue])[queue] or 0


def _dead(connections: Connections, bot: str) -> Mapping[str, str]:
    queue = queue_names.dead_queue(bot)
    letters = [read_dead_letter(queue, m.message_id, m.headers, m.body) for m in browse(connections, queue, 1000)]
    return {letter.message_id: letter.reason for letter in letters}


def _arrivals(control: ControlClient) -> Iterator[DemoArrival]:
    return (DemoArrival(str(call.params.get("text"))) for call in control.arrivals() if call.acted)
