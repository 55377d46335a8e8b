"""Plays one row: a load, two workers, a failure, and the account of what arrived."""

from __future__ import annotations

import itertools
import tempfile
import time
from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from benchmarks.failures.load import Enqueued, Load
from benchmarks.failures.row import Failure, Scene
from benchmarks.stage import pace, servers
from benchmarks.stage.pipeline import pipeline
from floodgate.fake_telegram.control import Arrived

WORKERS: Final = 2
LATENCY_MS: Final = (20.0, 40.0)
BEFORE_JOBS: Final = 60
BEFORE_SECONDS: Final = 90.0
AFTER_SECONDS: Final = 10.0
DRAIN_SECONDS: Final = 300.0
POLL_SECONDS: Final = 0.5


@dataclass(frozen=True, slots=True)
class Result:
    """The figures of one row, and the targets that they miss."""

    row: str
    figures: dict[str, float]
    missed: tuple[str, ...]
    refusals: dict[str, int]
    """How often the client was refused a job, by error; it tries again."""
    seconds: float

    def as_json(self) -> dict[str, Any]:
        return {
            "row": self.row,
            "figures": self.figures,
            "missed": list(self.missed),
            "refusals": self.refusals,
            "seconds": self.seconds,
        }


def play(row: Failure, *, after_seconds: float = AFTER_SECONDS, drain_seconds: float = DRAIN_SECONDS) -> Result:
    """Play a row. Bounded by its failure's length, the time-outs above and what starting takes."""
    began = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="floodgate-failures-") as folder:
        home = Path(folder)
        with (
            row.servers(home) as given,
            servers.fake_telegram(home / "fake.log", LATENCY_MS) as fake,
            pipeline(home, given.rabbitmq_url, fake.url, given.state_url, **given.settings) as ours,
        ):
            ours.start_workers(WORKERS)
            load = Load(ours.client)
            load.start()
            try:
                pace.watch(fake.control, BEFORE_JOBS, BEFORE_SECONDS)
                given.before_striking()
                struck = time.time()
                row.strike(Scene(ours, fake, load))
                repaired = time.time()
                time.sleep(after_seconds)
            finally:
                load.stop()
            arrived = _drain(fake, load.enqueued, drain_seconds)
            longest = load.longest_seconds
    figures = figures_of(load.enqueued, arrived, struck, repaired) | {"enqueue s": longest}
    missed = tuple(str(target) for target in row.targets if not target.met(figures))
    return Result(row.name, figures, missed, load.refusals, time.monotonic() - began)


def figures_of(
    enqueued: Sequence[Enqueued], arrived: Sequence[Arrived], struck: float, repaired: float
) -> dict[str, float]:
    """The figures of a run, from the jobs that were accepted and the calls that took effect. Pure.

    ``pause s`` is the longest time without a send while something had to be sent. ``after s`` is how much of it came
    after the repair. ``wait s`` is the longest that one job waited for its send. ``unsent 10 s``: how many of the jobs
    accepted before the repair were unsent ten seconds after it.
    """
    times = Counter(str(call.params["text"]) for call in arrived)
    first: dict[str, float] = {}
    for call in arrived:
        first.setdefault(str(call.params["text"]), call.wall)
    pauses = list(itertools.pairwise(sorted(first.values())))
    began, ended = max(pauses, key=lambda pause: pause[1] - pause[0], default=(0.0, 0.0))
    waits = [first[job.text] - job.accepted for job in enqueued if job.text in first]
    late = [job for job in enqueued if job.accepted < repaired and first.get(job.text, repaired + 11) > repaired + 10]
    return {
        "accepted": float(len(enqueued)),
        "pause s": ended - began,
        "began s": began - struck,
        "after s": max(0.0, ended - max(began, repaired)),
        "wait s": max(waits, default=0.0),
        "unsent 10 s": float(len(late)),
        "lost": float(sum(job.text not in first for job in enqueued)),
        "doubled": float(sum(count - 1 for count in times.values())),
        "disordered": float(_disorder(enqueued, first)),
    }


def _disorder(enqueued: Sequence[Enqueued], first: dict[str, float]) -> int:
    """How many jobs were first sent after a later one of their chat."""
    chats: defaultdict[int, list[float]] = defaultdict(list)
    for job in enqueued:
        if job.text in first:
            chats[job.chat].append(first[job.text])
    return sum(later < earlier for sends in chats.values() for earlier, later in itertools.pairwise(sends))


def _drain(fake: servers.Fake, enqueued: Sequence[Enqueued], at_most_seconds: float) -> list[Arrived]:
    """All calls that took effect, once all jobs are sent or so long has passed."""
    wanted = {job.text for job in enqueued}
    deadline = time.monotonic() + at_most_seconds
    while True:
        acted = [call for call in fake.control.arrivals() if call.acted and "text" in call.params]
        if time.monotonic() > deadline or wanted <= {str(call.params["text"]) for call in acted}:
            return acted
        time.sleep(POLL_SECONDS)
