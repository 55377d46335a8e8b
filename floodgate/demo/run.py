"""Runs the demo: starts the fake Bot API and a worker with their own commands, enqueues jobs and accounts for them.

It uses the configured RabbitMQ with a bot name of its own, and removes that bot's queues at the end.
"""

from __future__ import annotations

import contextlib
import tempfile
import threading
import time
import uuid
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from rich.console import Console
from rich.live import Live

from floodgate.broker.amqp import queue_admin, topology
from floodgate.broker.amqp.async_queue_reader import browse
from floodgate.broker.amqp.connections import Connections
from floodgate.broker.messages import queue_names
from floodgate.broker.messages.dead_letters import read_dead_letter
from floodgate.broker.settings.model import Settings, load_settings
from floodgate.broker.state.stores import open_store
from floodgate.demo import script, view
from floodgate.demo.account import Account, DemoArrival, EnqueuedJob, account_for
from floodgate.demo.processes import child
from floodgate.fake_telegram.control import ControlClient
from floodgate.producer.client import Client

FAKE_TOKEN: Final = "100200300:" + "A" * 35
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
    bot = f"demo-{uuid.uuid4().hex[:6]}"
    with tempfile.TemporaryDirectory(prefix="floodgate-demo-") as folder, contextlib.ExitStack() as stack:
        home = Path(folder)
        console.print("Starting a local Bot API that enforces Telegram's limits strictly …")
        said = stack.enter_context(child(["fake-telegram", "--port", "0"], {}, home / "fake.log", "http://"))
        url = "http://" + said.rpartition("http://")[2]
        env = environment(bot, url, home)
        settings = load_settings(
            bots={bot: FAKE_TOKEN}, bot_token=None, telegram_api_url=url, state_url=env["FLOODGATE_STATE_URL"]
        )
        vouch(settings, bot)
        control = ControlClient(url)
        _set_the_scene(control)
        connections = stack.enter_context(Connections(settings, "demo"))
        stack.callback(remove_queues, connections, bot, settings)
        console.print("Starting a worker …")
        stack.enter_context(child(["worker"], env, home / "worker.log", "worker ready"))
        console.print(f"Broadcasting to {size.users} users, {size.group_messages} messages to one group among them.")
        account = _play(console, settings, connections, control, bot, size)
    console.print(view.final(account))
    console.print(view.verdict(account), style="green" if account.adds_up else "red")
    return account.adds_up


def environment(bot: str, url: str, home: Path) -> dict[str, str]:
    """Return the environment of the demo's processes."""
    return {
        "FLOODGATE_BOTS": f'{{"{bot}": "{FAKE_TOKEN}"}}',
        "FLOODGATE_BOT_TOKEN": "",
        "FLOODGATE_TELEGRAM_API_URL": url,
        "FLOODGATE_STATE_URL": f"sqlite:///{home}/state.db",
        "FLOODGATE_DEAD_LETTERS__KEEP_UNREACHABLE_BULK": "true",  # the account is made from dead letters
    }


def vouch(settings: Settings, bot: str) -> None:
    """Tell the store that the bot is new and has sent nothing.

    Otherwise the store starts cautiously, as if the bot had been sending all the time: the group's first messages would
    go out every three seconds, and the demo would take twenty seconds longer.
    """
    with contextlib.closing(open_store(settings)) as store:
        store.vouch_idle(bot)


def _set_the_scene(control: ControlClient) -> None:
    control.set_server(latency_ms=(40, 80))
    control.set_chat(script.BLOCKED_USER, trouble="blocked")
    control.set_chat(script.OLD_GROUP, trouble="migrated", migrate_to=script.NEW_GROUP)


def _play(
    console: Console,
    settings: Settings,
    connections: Connections,
    control: ControlClient,
    bot: str,
    size: script.DemoSize,
) -> Account:
    tally = _Tally()
    with Client(settings, bot=bot, connections=connections) as client:
        replying = threading.Thread(target=_reply, args=(client, tally, size), name="demo-replies", daemon=True)
        replying.start()
        _broadcast(client, tally, size)
        _watch(console, connections, control, bot, tally, replying)
    if tally.faults:
        raise tally.faults[0]
    dead = _dead(connections, bot)
    return account_for(tally.accepted, _arrivals(control), dead, control.stats().by_code.get(429, 0))


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


def _watch(
    console: Console,
    connections: Connections,
    control: ControlClient,
    bot: str,
    tally: _Tally,
    replying: threading.Thread,
) -> None:
    """Show the figures until every accepted job has ended, or time is up."""
    started = time.monotonic()
    with Live(console=console, transient=True) as screen:
        while (elapsed := time.monotonic() - started) < AT_MOST_SECONDS:
            stats = control.stats()
            moment = view.Moment(
                elapsed_seconds=elapsed,
                accepted=len(tally.accepted),
                sent=stats.by_code.get(200, 0),
                dead=_count_dead(connections, bot),
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


def remove_queues(connections: Connections, bot: str, settings: Settings) -> None:
    """Delete all queues of a demo's bot."""
    mine = topology.pipeline_of(settings, [bot]).queues
    own = (topology.Role.SEND, topology.Role.UPDATES, topology.Role.LEADER)
    names = [queue.name for queue in mine if queue.role in own] + [queue_names.dead_queue(bot)]
    queue_admin.delete(connections, names)
