"""One scenario, played by one contender against a fake of its own."""

from __future__ import annotations

import contextlib
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median
from typing import Any, Final

from benchmarks.stage import servers
from benchmarks.stage.contenders import Contender, Player, Surroundings
from benchmarks.stage.figures import figures_of
from benchmarks.stage.loads import Line
from benchmarks.stage.pipeline import BOT_ID
from benchmarks.stage.programs import Program
from benchmarks.stage.scenarios import Act, Event, Scenario
from benchmarks.stage.servers import Fake

POLL_SECONDS: Final = 0.25


@dataclass(frozen=True, slots=True)
class Result:
    """One cell of the table."""

    scenario: str
    contender: str
    figures: dict[str, float]
    missed: tuple[str, ...]
    seconds: float

    @classmethod
    def median(cls, rounds: Sequence[Result]) -> Result:
        """The median of each figure; what any round missed is missed."""
        names = dict.fromkeys(name for each in rounds for name in each.figures)
        figures = {name: median([each.figures[name] for each in rounds if name in each.figures]) for name in names}
        missed = tuple(dict.fromkeys(target for each in rounds for target in each.missed))
        return cls(rounds[0].scenario, rounds[0].contender, figures, missed, sum(each.seconds for each in rounds))

    def as_json(self) -> dict[str, Any]:
        return {
            "scenario": self.scenario,
            "contender": self.contender,
            "figures": self.figures,
            "missed": list(self.missed),
            "seconds": self.seconds,
        }


@dataclass(slots=True)
class _Log:
    """When what happened. Written by the playing thread."""

    enqueued: dict[str, float] = field(default_factory=dict)
    struck: dict[Act, float] = field(default_factory=dict)


def play(scenario: Scenario, contender: Contender, rabbitmq_url: str, redis_url: str) -> Result:
    """Set the scene, play, and add up. Bounded by the scenario's ``watch_seconds`` and what starting takes."""
    began = time.monotonic()
    log = _Log()
    with tempfile.TemporaryDirectory(prefix="floodgate-bench-") as folder:
        home = Path(folder)
        with servers.fake_telegram(home / "fake.log", scenario.latency_ms) as fake:
            for chat, seconds in scenario.slow_chats.items():
                fake.control.set_chat(chat, trouble="slow_mode", seconds=seconds)
            surroundings = Surroundings(home, rabbitmq_url, redis_url, fake, scenario)
            with contender.on_stage(surroundings) as player, _busy_loops(scenario.busy_loops, home):
                _perform(scenario, player, fake, log)
                arrivals = fake.control.arrivals()
    figures = figures_of(scenario, arrivals, log.enqueued, log.struck)
    missed = tuple(str(target) for target in scenario.targets if not target.met(figures))
    return Result(scenario.name, contender.name, figures, missed, time.monotonic() - began)


@contextlib.contextmanager
def _busy_loops(count: int, home: Path) -> Iterator[None]:
    """Processes that do nothing but use CPU, from before the workers start."""
    with contextlib.ExitStack() as stack:
        for _ in range(count):
            loop = Program(["-c", "while True: pass"], {}, home / "busy.log", "")
            stack.callback(loop.start().kill)
        yield


def _perform(scenario: Scenario, player: Player, fake: Fake, log: _Log) -> None:
    player.begin()
    started = time.monotonic()
    player.submit([line for line in scenario.lines if not line.at_seconds])
    for moment in _moments(scenario):
        _sleep_until(started + moment.at_seconds)
        _do(moment, player, fake, log)
    while time.monotonic() < started + scenario.watch_seconds:
        if scenario.to_the_end and fake.control.stats().acted >= len(scenario.lines):
            return
        time.sleep(POLL_SECONDS)


def _moments(scenario: Scenario) -> Sequence[Line | Event]:
    timed = [line for line in scenario.lines if line.at_seconds]
    return sorted([*timed, *scenario.events], key=lambda moment: moment.at_seconds)


def _sleep_until(moment: float) -> None:
    time.sleep(max(0.0, moment - time.monotonic()))


def _do(moment: Line | Event, player: Player, fake: Fake, log: _Log) -> None:
    match moment:
        case Line():
            log.enqueued[moment.text] = time.time()
            player.submit([moment])
        case Event(act=Act.PAUSE_CHAT | Act.PAUSE_BOT):
            fake.control.pause(BOT_ID, moment.seconds, moment.chat)
            log.struck[moment.act] = time.time()
        case Event():
            # Leaving takes a while, and the next event must not wait for it.
            threading.Thread(target=player.change, args=(moment.act,), name="benchmark-change", daemon=True).start()
