"""A campaign under test: its database, its leaders as processes or threads, and what became of its recipients."""

from __future__ import annotations

import asyncio
import json
import threading
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sqlalchemy import update

from floodgate.broker.settings.model import Settings
from floodgate.fake_telegram.control import ControlClient
from floodgate.producer.async_client import AsyncClient
from floodgate.producer.campaigns.audience.rows import read_rows
from floodgate.producer.campaigns.definition import parse_definition
from floodgate.producer.campaigns.sending.process import CampaignRunner
from floodgate.producer.campaigns.states import CampaignState, RecipientState
from floodgate.producer.campaigns.storage.database import Database
from floodgate.producer.campaigns.storage.store import CampaignStore
from floodgate.producer.campaigns.storage.tables import campaigns
from tests.chaos.hooks import Hooks, start_leader, start_worker

DEATH_SECONDS = 60.0
MOST_FLOOD_WAITS = 10_000


@dataclass(frozen=True, slots=True)
class Ending:
    """How a campaign ended: its rows by chat, its counts, and how often each chat got the message."""

    state: CampaignState
    rows: Mapping[str, RecipientState]
    counts: Mapping[RecipientState, int]
    acted: Mapping[str, int]


class CampaignUnderTest:
    """A campaign with a database, and chats of its own from the number ``first`` on. Settings are read at once."""

    def __init__(self, name: str, first: int, home: Path, given: Mapping[str, Any]) -> None:
        self.name, self.home = name, home
        self.settings = Settings(_env_file=None, **given)
        self._env = environment(given)
        self._first = first
        self._database = Database(self.settings)
        self.store = CampaignStore(self._database)

    def start(self, recipients: int, **fields: Any) -> None:
        """Create the campaign and start it. Nobody leads it yet."""
        rules = {"too_many_requests": MOST_FLOOD_WAITS}  # the tests' bot has no limits of its own
        content = {"text": "Hello"}
        definition = parse_definition({"name": self.name, "content": content, "rules": rules, **fields}, "the test")
        self.store.create(definition, self.settings.default_bot)
        chats = range(self._first, self._first + recipients)
        self.store.import_audience(self.name, read_rows({"chat_id": chat} for chat in chats))
        self.store.transition(self.name, CampaignState.RUNNING)

    def worker(self, hooks: Hooks | None = None) -> ProcessUnderTest:
        return ProcessUnderTest(start_worker(self._env, self.home / "worker.log", hooks))

    def leader(self, hooks: Hooks | None = None) -> ProcessUnderTest:
        return ProcessUnderTest(start_leader(self._env, self.home / f"{self.name}.log", hooks))

    def free(self) -> None:
        """End the lease of a leader that died, as time would."""
        with self._database.writing() as db:
            db.execute(update(campaigns).values(leader_until_ms=0))

    @contextmanager
    def led(self) -> Iterator[None]:
        """Lead the campaign on another thread, whoever led it before."""
        self.free()
        runner = CampaignRunner(self.settings, AsyncClient(self.settings))
        thread = threading.Thread(target=lambda: asyncio.run(runner.run()), name="leader")
        thread.start()
        try:
            yield
        finally:
            runner.stop()
            thread.join()

    @property
    def is_done(self) -> bool:
        return self.store.get(self.name).state is CampaignState.DONE

    def ending(self, control: ControlClient) -> Ending:
        """Read how it ended."""
        recipients = list(self.store.recipients(self.name))
        calls = Counter(str(call.chat_id) for call in control.arrivals() if call.acted)
        rows = {recipient.chat: recipient.state for recipient in recipients}
        assert len(rows) == len(recipients)
        counts = dict(self.store.counts(self.name))
        acted = {chat: calls[chat] for chat in rows if calls[chat]}
        return Ending(self.store.get(self.name).state, rows, counts, acted)


class ProcessUnderTest:
    """A process that kills itself, or is killed."""

    def __init__(self, process: Any) -> None:
        self._process = process

    @property
    def is_dead(self) -> bool:
        return self._process.exitcode is not None

    def died(self) -> int:
        """Wait for its death, and return its exit code."""
        self._process.join(DEATH_SECONDS)
        if not self.is_dead:
            self.kill()
            raise AssertionError("it passed the point without dying at it")
        return int(self._process.exitcode)

    def kill(self) -> None:
        self._process.kill()
        self._process.join()


def environment(given: Mapping[str, Any]) -> dict[str, str]:
    """Settings as processes read them."""
    texts = {name: value if isinstance(value, str) else json.dumps(value) for name, value in given.items()}
    return {f"FLOODGATE_{name.upper()}": text for name, text in texts.items()}


def bounds(ending: Ending) -> dict[str, object]:
    """What must hold of every ending, by name; all values must be empty."""
    final = {RecipientState.SENT, RecipientState.UNCERTAIN}
    rows = ending.rows
    return {
        "without an ending": [chat for chat, state in rows.items() if state not in final],
        "counted wrongly": {} if Counter(rows.values()) == Counter(dict(ending.counts)) else dict(ending.counts),
        "lost": [chat for chat, state in rows.items() if state is RecipientState.SENT and chat not in ending.acted],
        "sent twice": [chat for chat, times in ending.acted.items() if times > 1],
    }
