"""Who plays a scenario: Floodgate in several sizes here, others in ``benchmarks.peers``."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from benchmarks.stage.editions import CURRENT, Edition
from benchmarks.stage.loads import Line, Lines
from benchmarks.stage.pipeline import Pipeline, pipeline
from benchmarks.stage.scenarios import Act, Scenario
from benchmarks.stage.servers import Fake
from floodgate.broker.messages.job import Job
from floodgate.producer.client import Client


@dataclass(frozen=True, slots=True)
class Surroundings:
    """What every contender gets."""

    home: Path
    rabbitmq_url: str
    redis_url: str
    fake: Fake
    scenario: Scenario


class Player(Protocol):
    """A contender on stage. Used by one thread."""

    def submit(self, lines: Lines) -> None:
        """Hand lines over, in order; returns when they are taken."""
        ...

    def begin(self) -> None:
        """Start sending; returns when workers are ready."""
        ...

    def change(self, act: Act) -> None:
        """A worker joins, leaves or dies."""
        ...


class Contender(Protocol):
    """One column of the table."""

    @property
    def name(self) -> str: ...

    def plays(self, scenario: Scenario) -> bool: ...

    def on_stage(self, surroundings: Surroundings) -> contextlib.AbstractContextManager[Player]: ...


@dataclass(frozen=True, slots=True)
class Floodgate:
    """So many workers of one edition over one store."""

    workers: int
    store: str  # "sqlite" or "redis"
    edition: Edition = CURRENT

    @property
    def name(self) -> str:
        return f"{self.edition.name} {self.workers}×{self.store}"

    def plays(self, scenario: Scenario) -> bool:
        return self.workers in scenario.workers and (self.edition is CURRENT or scenario.former)

    @contextlib.contextmanager
    def on_stage(self, surroundings: Surroundings) -> Iterator[Player]:
        here = surroundings
        state = here.redis_url if self.store == "redis" else f"sqlite:///{here.home}/state.db"
        with pipeline(
            here.home, here.rabbitmq_url, here.fake.url, state, self.edition, **here.scenario.settings
        ) as ours:
            yield _FloodgatePlayer(ours, self.workers)


@dataclass(slots=True)
class _FloodgatePlayer:
    pipeline: Pipeline
    workers: int

    def submit(self, lines: Lines) -> None:
        client = self.pipeline.client
        client.enqueue_many(_job(client, line) for line in lines)

    def begin(self) -> None:
        self.pipeline.start_workers(self.workers)

    def change(self, act: Act) -> None:
        match act:
            case Act.JOIN:
                self.pipeline.start_workers(1)
            case Act.LEAVE:
                self.pipeline.workers.pop(0).stop()
            case Act.DIE:
                self.pipeline.workers.pop(0).kill()
            case _:
                raise ValueError(f"{act} is not about workers")


def _job(client: Client, line: Line) -> Job:
    return client.job("sendMessage", priority="bulk" if line.bulk else "interactive", **line.params)
