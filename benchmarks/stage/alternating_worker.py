"""A worker that is observed in turns: ``python -m benchmarks.stage.alternating_worker NOTEBOOK ROUNDS SECONDS``.

For some seconds it counts nothing and makes no spans, then it is observed, then it is not, and so on; the ways of
observing it take turns in an order that is drawn anew in each round. So what the machine does meanwhile falls on all of
them alike, and each turn has one without anything before it and after it. A line of the notebook is a turn as JSON. The
process must export spans.

A turn with spans exports its own before it ends. Reports to the store and scrapes are measured between the turns: they
take as much of a second however many jobs there are in it, which a busy machine would show as a greater cost.
"""

from __future__ import annotations

import asyncio
import json
import random
import sys
import time
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import asdict, dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any, Final

from opentelemetry import trace
from opentelemetry.sdk.trace.sampling import ALWAYS_ON

from floodgate.actors.sessions import BotSessions
from floodgate.broker.process.exposition import render
from floodgate.broker.process.metrics import Metrics
from floodgate.broker.process.spans import FirstOfEachSecond
from floodgate.broker.state.reporter import EVERY_SECONDS, Reporter, totals_of
from floodgate.broker.worker.middleware.job_traces import JobTraces
from floodgate.broker.worker.runner import Runner

# Jobs that were under way at the beginning of a turn have ended after this.
CALM_SECONDS: Final = 0.1
SCRAPE_SECONDS: Final = 15.0
_COUNTING: Final = {name: getattr(Metrics, name) for name in ("count", "observe", "set")}


@dataclass(frozen=True, slots=True)
class Observation:
    """A way of observing."""

    name: str
    counts: bool = False
    traces: bool = False
    samples_all: bool = False


NOTHING: Final = Observation("nothing")
METRICS: Final = Observation("metrics", counts=True)
UNSAMPLED: Final = Observation("metrics, traces of no job", counts=True, traces=True)
SAMPLED: Final = Observation("metrics, traces of all jobs", counts=True, traces=True, samples_all=True)
OBSERVATIONS: Final = (METRICS, UNSAMPLED, SAMPLED)


@dataclass(frozen=True, slots=True)
class Turn:
    """What the process spent in one turn, on all its threads."""

    round: int
    observed: str
    cpu_seconds: float
    jobs: int
    seconds: float
    periodic: float = 0.0
    """The part of a core that reports to the store and scrapes take; 0 without metrics."""

    @property
    def cpu_ms_per_job(self) -> float:
        return 1000 * self.cpu_seconds / self.jobs


class Turns:
    """Takes turns in a worker that runs. Event loop only."""

    def __init__(self, notebook: Path, count: int, seconds: float) -> None:
        self._notebook = notebook
        self._count = count
        self._seconds = seconds
        self._calls = 0
        self._reports: Reports | None = None
        self._task: asyncio.Task[None] | None = None

    def install(self) -> None:
        """Take part in the worker of this process, which has not started yet."""
        call, start, report = BotSessions.call, Runner.start, Reporter._try_report

        async def counted(sessions: BotSessions, bot: str, method: str, params: Any, timeout: timedelta) -> Any:
            self._calls += 1
            return await call(sessions, bot, method, params, timeout)

        async def started(runner: Runner) -> None:
            await start(runner)
            self._task = asyncio.create_task(self._take_all(runner), name="turns")

        async def noted(reporter: Reporter, activity: Any, *, last: bool) -> None:
            self._reports = Reports(report, reporter, activity)

        BotSessions.call = counted  # type: ignore[assignment, method-assign]
        Runner.start = started  # type: ignore[assignment, method-assign]
        Reporter._try_report = noted  # type: ignore[assignment, method-assign]

    async def _take_all(self, runner: Runner) -> None:
        switch = _switch_of(runner)
        with self._notebook.open("a", buffering=1) as lines:
            for number in range(self._count):
                for observation in _order():
                    switch(observation)
                    await asyncio.sleep(CALM_SECONDS)
                    lines.write(json.dumps(asdict(await self._take(number, observation, runner.broker.metrics))) + "\n")

    async def _take(self, number: int, observation: Observation, metrics: Metrics) -> Turn:
        cpu, calls, began = time.process_time(), self._calls, time.monotonic()
        await asyncio.sleep(self._seconds)
        if observation.traces:
            await asyncio.to_thread(_provider().force_flush)
        spent, done, took = time.process_time() - cpu, self._calls - calls, time.monotonic() - began
        periodic = await self._periodic(metrics) if observation.counts else 0.0
        return Turn(number, observation.name, spent, done, took, periodic)

    async def _periodic(self, metrics: Metrics) -> float:
        scrape_seconds = await asyncio.to_thread(_cpu_of, render, metrics)
        report_seconds = await self._reports.make_one() if self._reports is not None else 0.0
        return report_seconds / EVERY_SECONDS + scrape_seconds / SCRAPE_SECONDS


class Reports:
    """Makes reports to the store in place of the worker's own timer, and measures them.

    Args:
        report: makes one, given a reporter and the history that it writes to.
    """

    def __init__(self, report: Callable[..., Awaitable[None]], reporter: Reporter, activity: Any) -> None:
        self._report = report
        self._reporter = reporter
        self._activity = activity
        self._written_seconds = 0.0

    async def make_one(self) -> float:
        """Report, and return the CPU that it took."""
        counted_seconds = _cpu_of(totals_of, self._reporter._metrics, self._reporter._settings.tokens)
        await self._report(self._reporter, self, last=False)
        return counted_seconds + self._written_seconds

    def report(self, *given: Any) -> None:
        """Stand in for the history: write to it, and measure that."""
        self._written_seconds = _cpu_of(self._activity.report, *given)


def _order() -> Iterator[Observation]:
    """Yield the turns of a round."""
    for observation in random.sample(OBSERVATIONS, len(OBSERVATIONS)):
        yield NOTHING
        yield observation


def _cpu_of(function: Callable[..., object], *given: object) -> float:
    """The seconds of CPU that a call takes on this thread."""
    began = time.thread_time()
    function(*given)
    return time.thread_time() - began


def _switch_of(runner: Runner) -> Callable[[Observation], None]:
    """Return what switches a worker to a way of observing."""
    [traces] = [each for each in runner.broker.middleware if isinstance(each, JobTraces)]
    place = runner.broker.middleware.index(traces)
    tracing: Any = traces._tracing
    spent = FirstOfEachSecond(0)

    def switch(observation: Observation) -> None:
        for name, method in _COUNTING.items():
            setattr(Metrics, name, method if observation.counts else _nothing)
        if traces in runner.broker.middleware:
            runner.broker.middleware.remove(traces)
        if observation.traces:
            runner.broker.middleware.insert(place, traces)
        runner._hooks._overriding.clear()  # it is looked up anew who overrides what
        tracing._budget = None if observation.samples_all else spent
        tracing._tracer.sampler = ALWAYS_ON if observation.samples_all else spent

    return switch


def _provider() -> Any:
    return trace.get_tracer_provider()


def _nothing(*_given: object, **_more: object) -> None:
    pass


def main(notebook: str, count: str, seconds: str) -> None:
    """Run what ``floodgate worker`` runs, observed in turns."""
    from floodgate.commands.worker import worker

    Turns(Path(notebook), int(count), float(seconds)).install()
    worker()


if __name__ == "__main__":
    main(*sys.argv[1:])
