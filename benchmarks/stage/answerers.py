"""Who answers a bot's updates: Floodgate by an Application or a plain function, and two libraries.

The libraries receive by long polling in one process and send straight to the Bot API: python-telegram-bot with
``concurrent_updates(True)``, which keeps no order, and grammY's runner with ``sequentialize``, which keeps a chat's.
"""

from __future__ import annotations

import contextlib
import shutil
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Protocol

from benchmarks.stage import servers
from benchmarks.stage.editions import CURRENT, Edition, editions
from benchmarks.stage.pipeline import TOKEN, pipeline
from benchmarks.stage.programs import NODE_MODULES, Program

PEERS: Final = Path(__file__).parents[1] / "peers"
APPLICATION: Final = "Application"
FUNCTION: Final = "@on_update"
_TARGETS: Final = {APPLICATION: "answering:application", FUNCTION: "answering:plain"}


@dataclass(frozen=True, slots=True)
class Place:
    """What an answerer gets for one round. ``env`` is what ``benchmarks/apps/answering.py`` reads."""

    home: Path
    rabbitmq_url: str
    fake: servers.Fake
    env: Mapping[str, str]
    settings: Mapping[str, Any]
    """Of Floodgate, beside limits that are off."""


class Answerer(Protocol):
    """Someone who answers a bot's updates. Yields its processes once it receives."""

    @property
    def name(self) -> str: ...

    def on_stage(self, place: Place) -> contextlib.AbstractContextManager[list[Program]]: ...


@dataclass(frozen=True, slots=True)
class Peer:
    """One process of somebody else's: an interpreter and what it runs, given the URL and the token."""

    name: str
    interpreter: str
    arguments: tuple[str, ...]

    @contextlib.contextmanager
    def on_stage(self, place: Place) -> Iterator[list[Program]]:
        env = {"NODE_PATH": str(NODE_MODULES), **place.env}
        arguments = [*self.arguments, place.fake.url, TOKEN]
        program = Program(arguments, env, place.home / "peer.log", "receiving", self.interpreter).start()
        try:
            program.ready_line()
            yield [program]
        finally:
            program.kill()  # what it still works on is nothing that anybody waits for


@dataclass(frozen=True, slots=True)
class Floodgate:
    """A receiver, so many handler workers, and a send worker, all of one edition."""

    kind: str
    handlers: int = 1
    edition: Edition = CURRENT

    @property
    def name(self) -> str:
        return f"{self.edition.name}, {self.kind}, {self.handlers} worker{'s' if self.handlers > 1 else ''}"

    @contextlib.contextmanager
    def on_stage(self, place: Place) -> Iterator[list[Program]]:
        settings = {"limits": {"enabled": False}, **place.settings}
        state = f"sqlite:///{place.home}/state.db"
        with (
            contextlib.ExitStack() as stack,
            pipeline(place.home, place.rabbitmq_url, place.fake.url, state, self.edition, **settings) as ours,
        ):
            ours.start_workers(1)
            env = {**ours.env, **place.env, "BENCH_TOKEN": TOKEN}
            programs = [
                self.edition.handler_worker(_TARGETS[self.kind], env, place.home / f"handler-{number}.log")
                for number in range(self.handlers)
            ]
            programs.append(self.edition.receiver(env, place.home / "receiver.log"))
            for program in programs:
                stack.callback(program.start().stop)
            for program in programs:
                program.ready_line()
            yield [*programs, *ours.workers]


def floodgates(workers: Sequence[int], kinds: Sequence[str] = (FUNCTION, APPLICATION)) -> Iterator[Floodgate]:
    """Each kind with each number of handler workers; the former edition with the first number only."""
    for kind in kinds:
        for edition in editions():
            yield from (Floodgate(kind, count, edition) for count in (workers if edition is CURRENT else workers[:1]))


def peers() -> Iterator[Peer]:
    """The libraries that can run here. What cannot is named."""
    yield Peer("python-telegram-bot", sys.executable, ("-m", "benchmarks.peers.updates_ptb"))
    node = shutil.which("node")
    if node and (NODE_MODULES / "@grammyjs" / "runner").exists():
        yield Peer("grammY runner", node, (str(PEERS / "updates_grammy.cjs"),))
    else:
        print("grammY is not installed here: scripts/setup --tests installs it where Node is", file=sys.stderr)
