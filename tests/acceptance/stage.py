"""A complete Floodgate on one machine for a single test."""

from __future__ import annotations

import contextlib
import json
from dataclasses import dataclass, field
from pathlib import Path
from subprocess import CompletedProcess

from floodgate.broker.settings.model import Settings
from floodgate.broker.state.stores import open_store
from floodgate.fake_telegram.control import ControlClient
from floodgate.producer.client import Client
from tests.processes import FloodgateProcess, run_floodgate

BOT = "default"
TOKEN = "100200300:" + "A" * 35
# Each partition is a queue to declare and a thread to start: few, unless the test needs many.
FEW_PARTITIONS = 2


@dataclass
class Stage:
    """A complete Floodgate on one machine: a RabbitMQ, a Bot API, a state file and a folder for logs."""

    rabbitmq_url: str
    telegram_url: str
    home: Path
    partitions: int = FEW_PARTITIONS
    extra: dict[str, str] = field(default_factory=dict)
    _open: contextlib.ExitStack = field(default_factory=contextlib.ExitStack)
    _workers: int = 0

    @property
    def env(self) -> dict[str, str]:
        return {
            "FLOODGATE_RABBITMQ_URL": self.rabbitmq_url,
            "FLOODGATE_TELEGRAM_API_URL": self.telegram_url,
            "FLOODGATE_STATE_URL": f"sqlite:///{self.home}/state.db",
            "FLOODGATE_SPOOL_URL": str(self.home / "spool"),
            "FLOODGATE_CAMPAIGNS_URL": f"sqlite:///{self.home}/campaigns.db",
            "FLOODGATE_BOTS": json.dumps({BOT: TOKEN}),
            "FLOODGATE_PARTITIONS": str(self.partitions),
            "FLOODGATE_UPDATE_PARTITIONS": str(FEW_PARTITIONS),
            **self.extra,
        }

    @property
    def settings(self) -> Settings:
        """The same settings for the test's own process."""
        return Settings(
            _env_file=None,
            rabbitmq_url=self.rabbitmq_url,
            state_url=self.env["FLOODGATE_STATE_URL"],
            spool_url=str(self.home / "spool"),
            bots={BOT: TOKEN},
            partitions=self.partitions,
            update_partitions=FEW_PARTITIONS,
        )

    @property
    def control(self) -> ControlClient:
        return ControlClient(self.telegram_url)

    def worker(self, **env: str) -> FloodgateProcess:
        """Starts a worker and waits until it is ready. It ends with the test at the latest."""
        self._workers += 1
        process = FloodgateProcess("worker", env={**self.env, **env}, home=self.home, name=f"worker-{self._workers}")
        return self._open.enter_context(process).start("worker ready")

    def keep(self, process: FloodgateProcess) -> FloodgateProcess:
        """Ends a process with the test at the latest."""
        return self._open.enter_context(process)

    def client(self) -> Client:
        return self._open.enter_context(Client(self.settings))

    def floodgate(self, *arguments: str, **env: str) -> CompletedProcess[str]:
        """Runs one command to its end with this stage's settings, overridden by others."""
        return run_floodgate(*arguments, env={**self.env, **env}, home=self.home)

    def vouch_idle(self) -> None:
        """Declares the bot of a new state file idle, so that it may start at the full rate."""
        with contextlib.closing(open_store(self.settings)) as store:
            store.vouch_idle(BOT)

    def sent(self) -> list[str]:
        """Texts of the calls that took effect, in order of arrival."""
        return [str(call.params.get("text")) for call in self.control.arrivals() if call.acted]

    def close(self) -> None:
        self._open.close()
