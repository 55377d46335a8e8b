"""How fast a backlog goes through one process, and what the machine spends on it."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Self

from benchmarks.stage import pace
from benchmarks.stage.programs import Program
from benchmarks.stage.servers import Fake

_TICK: Final = os.sysconf("SC_CLK_TCK")


@dataclass(frozen=True, slots=True)
class Spent:
    """CPU so far, in seconds: the worker's, the Bot API's, and all processes' on all cores."""

    worker: float
    bot_api: float
    machine: float

    @classmethod
    def so_far(cls, worker: Program, fake: Fake) -> Self:
        return cls(worker.cpu_seconds(), fake.program.cpu_seconds(), machine_seconds())


@dataclass(frozen=True, slots=True)
class Drained:
    """One round. ``doubled`` counts sends beyond one a chat; only the instant Bot API tells them."""

    contender: str
    per_second: float
    cpu_ms_per_job: float
    bot_api_ms_per_job: float
    busy_cores: float
    """How many cores all processes used together; the machine's own number means that nothing was left."""
    doubled: int
    load: float


def drain(contender: str, fake: Fake, worker: Program, jobs: int, at_most_seconds: float) -> Drained:
    """Watch a worker that is ready until it has sent so many jobs.

    Raises:
        TimeoutError: it did not in time.
    """
    before = Spent.so_far(worker, fake)
    samples = pace.watch(fake.control, jobs, at_most_seconds)
    after = Spent.so_far(worker, fake)
    took_seconds = samples[-1].at - samples[0].at
    each_ms = 1000 / (samples[-1].done - samples[0].done)
    totals = fake.control.stats()
    return Drained(
        contender,
        pace.rate(samples),
        (after.worker - before.worker) * each_ms,
        (after.bot_api - before.bot_api) * each_ms,
        (after.machine - before.machine) / took_seconds,
        totals.arrived - totals.acted,
        os.getloadavg()[0],
    )


def machine_seconds() -> float:
    """User, nice, system, interrupts and stolen time; idle and waiting for disks left out."""
    user, nice, system, _idle, _waiting, interrupts, soft, stolen = map(
        int, Path("/proc/stat").read_text().splitlines()[0].split()[1:9]
    )
    return (user + nice + system + interrupts + soft + stolen) / _TICK
