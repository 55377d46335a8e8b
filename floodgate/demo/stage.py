"""The environment of every demo: a fake Bot API, a new bot with its settings, and the configured RabbitMQ.

The bot's queues are removed at the end.
"""

from __future__ import annotations

import contextlib
import tempfile
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from floodgate.broker.amqp import queue_admin, topology
from floodgate.broker.amqp.connections import Connections
from floodgate.broker.messages import queue_names
from floodgate.broker.settings.model import Settings, load_settings
from floodgate.broker.state.stores import open_store
from floodgate.demo.processes import child
from floodgate.fake_telegram.control import ControlClient

FAKE_TOKEN: Final = "100200300:" + "A" * 35


@dataclass(frozen=True, slots=True)
class DemoStage:
    """A demo's folder, the environment of its processes, and the objects it uses."""

    bot: str
    home: Path
    env: dict[str, str]
    settings: Settings
    connections: Connections
    control: ControlClient
    stack: contextlib.ExitStack
    """A stack for further processes, which end before the queues are removed."""


@contextlib.contextmanager
def demo_stage() -> Iterator[DemoStage]:
    """Start the fake Bot API and connect to RabbitMQ; clean up at the end.

    Raises:
        FloodgateError: RabbitMQ cannot be reached, or a process did not start.
    """
    bot = f"demo-{uuid.uuid4().hex[:6]}"
    with tempfile.TemporaryDirectory(prefix="floodgate-demo-") as folder, contextlib.ExitStack() as stack:
        home = Path(folder)
        said = stack.enter_context(child(["fake-telegram", "--port", "0"], {}, home / "fake.log", "http://"))
        url = "http://" + said.rpartition("http://")[2]
        env = _environment(bot, url, home)
        settings = load_settings(
            bots={bot: FAKE_TOKEN},
            bot_token=None,
            telegram_api_url=url,
            state_url=env["FLOODGATE_STATE_URL"],
            campaigns_url=env["FLOODGATE_CAMPAIGNS_URL"],
        )
        _vouch(settings, bot)
        connections = stack.enter_context(Connections(settings, "demo"))
        stack.callback(_remove_queues, connections, bot, settings)
        yield DemoStage(bot, home, env, settings, connections, ControlClient(url), stack)


def _environment(bot: str, url: str, home: Path) -> dict[str, str]:
    """Return the environment of the demo's processes."""
    return {
        "FLOODGATE_BOTS": f'{{"{bot}": "{FAKE_TOKEN}"}}',
        "FLOODGATE_BOT_TOKEN": "",
        "FLOODGATE_TELEGRAM_API_URL": url,
        "FLOODGATE_STATE_URL": f"sqlite:///{home}/state.db",
        "FLOODGATE_CAMPAIGNS_URL": f"sqlite:///{home}/campaigns.db",
        "FLOODGATE_DEAD_LETTERS__KEEP_UNREACHABLE_BULK": "true",  # the account is made from dead letters
    }


def _vouch(settings: Settings, bot: str) -> None:
    """Tell the store that the bot is new and has sent nothing.

    Otherwise the store starts cautiously, as if the bot had been sending all the time: the group's first messages would
    go out every three seconds, and the demo would take twenty seconds longer.
    """
    with contextlib.closing(open_store(settings)) as store:
        store.vouch_idle(bot)


def _remove_queues(connections: Connections, bot: str, settings: Settings) -> None:
    """Delete all queues of a demo's bot."""
    mine = topology.pipeline_of(settings, [bot])
    own = (topology.Role.SEND, topology.Role.UPDATES, topology.Role.LEADER)
    names = [queue.name for queue in mine.queues if queue.role in own] + [queue_names.dead_queue(bot)]
    queue_admin.delete(connections, names, mine.counts)
