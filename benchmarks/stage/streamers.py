"""Who streams answers: Floodgate with drafts and without, python-telegram-bot in three ways, and grammY's plug-in."""

from __future__ import annotations

import contextlib
import importlib.util
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar, Final, Protocol

from benchmarks.stage import servers
from benchmarks.stage.pipeline import TOKEN, pipeline
from benchmarks.stage.programs import ROOT, Program
from benchmarks.stage.streams import StreamLoad

PEERS: Final = ROOT / "benchmarks" / "peers"
NODE_MODULES: Final = ROOT / ".cache" / "bench" / "node_modules"
STATUS_SECONDS: Final = 60.0


@dataclass(frozen=True, slots=True)
class Scene:
    """What a contender gets for one round."""

    home: Path
    rabbitmq_url: str
    fake: servers.Fake
    load: StreamLoad


@dataclass(slots=True)
class Performance:
    """A contender on stage: its processes, of which the first one produces the answers, ready to be started."""

    producer: Program
    others: Sequence[Program] = ()
    status_env: Mapping[str, str] = field(default_factory=dict)
    """Of Floodgate: what ``floodgate status`` needs."""

    def cpu_seconds(self) -> tuple[float, float]:
        """User and system time so far, of the producer and of the others."""
        return self.producer.cpu_seconds(), sum(program.cpu_seconds() for program in self.others)

    def superseded(self) -> int | None:
        """Return how many jobs Floodgate's ledger counts as superseded; None for others."""
        return ended_as(self.status_env, "superseded") if self.status_env else None


class Streamer(Protocol):
    """Somebody who streams answers."""

    @property
    def name(self) -> str: ...

    def chats(self, load: StreamLoad) -> list[int]:
        """Return the chats that it can stream to."""
        ...

    def on_stage(self, scene: Scene) -> contextlib.AbstractContextManager[Performance]: ...


@dataclass(frozen=True, slots=True)
class StreamingPeer:
    """One process of somebody else's library, given the URL, the token and the load."""

    name: str
    interpreter: str
    arguments: tuple[str, ...]
    how: tuple[str, ...] = ()
    private_only: bool = False

    def chats(self, load: StreamLoad) -> list[int]:
        return [chat for chat in load.chat_ids if chat > 0 or not self.private_only]

    @contextlib.contextmanager
    def on_stage(self, scene: Scene) -> Iterator[Performance]:
        arguments = [*self.arguments, scene.fake.url, TOKEN, scene.load.as_json(), *self.how]
        env = {"NODE_PATH": str(NODE_MODULES)}
        program = Program(arguments, env, scene.home / "peer.log", "streaming from", self.interpreter)
        try:
            yield Performance(program.start())
        finally:
            program.kill()  # what it still works on is nothing that anybody waits for


@dataclass(frozen=True, slots=True)
class FloodgateStream:
    """``AsyncClient.stream`` in one process, and so many workers."""

    word: ClassVar[str] = "floodgate"
    drafts: bool = True
    workers: int = 1
    settings: Mapping[str, Any] = field(default_factory=dict)

    @property
    def name(self) -> str:
        return self.word if self.drafts else f"{self.word}, edits only"

    def chats(self, load: StreamLoad) -> list[int]:
        return load.chat_ids

    @contextlib.contextmanager
    def on_stage(self, scene: Scene) -> Iterator[Performance]:
        state = f"sqlite:///{scene.home}/state.db"
        with (
            contextlib.ExitStack() as stack,
            pipeline(scene.home, scene.rabbitmq_url, scene.fake.url, state, **self.settings) as ours,
        ):
            ours.start_workers(self.workers)
            how = "drafts" if self.drafts else "edits"
            arguments = ["-m", "benchmarks.apps.streaming", ours.bot, scene.load.as_json(), how]
            producer = Program(arguments, ours.env, scene.home / "producer.log", "streaming from")
            stack.callback(producer.start().kill)
            yield Performance(producer, ours.workers, ours.env)


def ended_as(env: Mapping[str, str], reason: str) -> int:
    """Return how many jobs ended so without a dead letter, as ``floodgate status`` counts them."""
    command = [sys.executable, "-m", "floodgate", "status", "--json"]
    found = subprocess.run(command, env={**os.environ, **env}, capture_output=True, check=True, timeout=STATUS_SECONDS)
    return sum(int(bot["not_kept"].get(reason, 0)) for bot in json.loads(found.stdout))


def streamers() -> Iterator[Streamer]:
    """Everybody who can play here, Floodgate first. What cannot is named."""
    yield FloodgateStream()
    yield FloodgateStream(drafts=False)
    ptb = ("-m", "benchmarks.peers.streams_ptb")
    yield StreamingPeer("ptb, an edit a token", sys.executable, ptb, ("each",))
    if importlib.util.find_spec("aiolimiter"):
        yield StreamingPeer("ptb AIORateLimiter", sys.executable, ptb, ("limiter",))
    else:
        print("AIORateLimiter cannot run here: scripts/setup --bench installs what it needs", file=sys.stderr)
    yield StreamingPeer("ptb, an edit a second", sys.executable, ptb, ("throttle",))
    node = shutil.which("node")
    if node and (NODE_MODULES / "@grammyjs" / "stream").exists():
        yield StreamingPeer("grammY stream", node, (str(PEERS / "streams_grammy.cjs"),), private_only=True)
    else:
        print("grammY's plug-in is not installed here: scripts/setup --bench does that where Node is", file=sys.stderr)
