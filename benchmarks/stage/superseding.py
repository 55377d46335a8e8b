"""What a superseded job costs: a load of edits of which most are superseded, beside one that makes the same calls."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from benchmarks.stage import servers
from benchmarks.stage.pipeline import Pipeline, pipeline
from benchmarks.stage.streamers import ended_as
from floodgate.fake_telegram.control import ControlClient

CHATS: Final = 100
"""So many that the bot's own limit is used up, as in a flood of edits."""
EDITS: Final = 100
AT_MOST_SECONDS: Final = 120.0
POLL_SECONDS: Final = 0.5
LATENCY_MS: Final = (40.0, 120.0)


@dataclass(frozen=True, slots=True)
class SupersededCost:
    """What superseded jobs cost. Milliseconds of CPU are of user and system time."""

    jobs: int
    """Edits that were enqueued: some were sent, the others superseded."""
    superseded: int
    calls: int
    """Edits that the Bot API did not refuse with 429: those that are made again would count twice."""
    worker_ms: float
    """A superseded job, in the worker: what the first load took beyond the second, call for call."""
    producer_ms: float
    """To enqueue one, in the producer."""
    call_ms: float
    """A job that is sent, in the worker, for comparison."""

    @property
    def extra_calls(self) -> int:
        """Calls made for superseded jobs."""
        return self.calls - (self.jobs - self.superseded)


@dataclass(frozen=True, slots=True)
class _Measured:
    calls: int
    superseded: int
    worker_seconds: float
    producer_seconds: float


def measure(rabbitmq_url: str, chats: int = CHATS, edits: int = EDITS) -> SupersededCost:
    """Enqueue so many edits of one message in each chat, all at once; then as many as were called, without a key.

    Raises:
        TimeoutError: a load was not done in two minutes.
    """
    mostly = _measured(rabbitmq_url, chats, edits, coalesce="answer")
    plain = _measured(rabbitmq_url, chats, max(1, round(mostly.calls / chats)))
    for_calls = plain.worker_seconds / plain.calls * mostly.calls
    return SupersededCost(
        jobs=chats * edits,
        superseded=mostly.superseded,
        calls=mostly.calls,
        worker_ms=(mostly.worker_seconds - for_calls) / max(1, mostly.superseded) * 1000,
        producer_ms=mostly.producer_seconds / (chats * edits) * 1000,
        call_ms=plain.worker_seconds / plain.calls * 1000,
    )


def _measured(rabbitmq_url: str, chats: int, edits: int, **options: Any) -> _Measured:
    with tempfile.TemporaryDirectory(prefix="floodgate-bench-") as folder:
        home = Path(folder)
        with (
            servers.fake_telegram(home / "fake.log", LATENCY_MS) as fake,
            pipeline(home, rabbitmq_url, fake.url, f"sqlite:///{home}/state.db") as ours,
        ):
            ours.start_workers(1)
            deadline = time.monotonic() + AT_MOST_SECONDS
            ours.enqueue(1, chats)  # the messages that are edited: the first of each chat
            _await_done(ours, fake.control, chats, deadline)
            worker_before, producer_before = ours.workers[0].cpu_seconds(), time.process_time()
            ours.client.enqueue_many(_edits(ours, chats, edits, options))
            producer_seconds = time.process_time() - producer_before
            superseded = _await_done(ours, fake.control, chats * (edits + 1), deadline)
            worker_seconds = ours.workers[0].cpu_seconds() - worker_before
            edited = [call for call in fake.control.arrivals() if call.method == "editMessageText"]
            calls = sum(call.code != 429 for call in edited)
    return _Measured(calls, superseded, worker_seconds, producer_seconds)


def _edits(ours: Pipeline, chats: int, edits: int, options: dict[str, Any]) -> Iterable[Any]:
    for number in range(edits):
        for chat in range(1, chats + 1):
            text = f"state {number} of {edits}"
            yield ours.client.job("editMessageText", chat_id=chat, message_id=1, text=text, **options)


def _await_done(ours: Pipeline, control: ControlClient, jobs: int, deadline: float) -> int:
    """Wait until each job has been called for or superseded; return how many were superseded."""
    while time.monotonic() < deadline:
        acted = control.stats().acted
        superseded = ended_as(ours.env, "superseded") if acted < jobs else 0
        if acted + superseded >= jobs:
            return superseded
        time.sleep(POLL_SECONDS)
    raise TimeoutError(f"{jobs} jobs were not done in {AT_MOST_SECONDS:g} s")
