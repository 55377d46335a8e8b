"""How fast a load goes through, from the fake's counters."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from floodgate.fake_telegram.control import ControlClient

POLL_SECONDS: Final = 0.05
STEADY: Final = (0.1, 0.9)


@dataclass(frozen=True, slots=True)
class Sample:
    at: float  # monotonic
    done: int


def watch(control: ControlClient, goal: int, at_most_seconds: float) -> list[Sample]:
    """Samples until ``goal`` calls took effect, all that did before included.

    Raises:
        TimeoutError: they did not in time.
    """
    deadline = time.monotonic() + at_most_seconds
    samples = [_sample(control)]
    while samples[-1].done < goal:
        if samples[-1].at > deadline:
            raise TimeoutError(f"{samples[-1].done} of {goal} in {at_most_seconds:g} s")
        time.sleep(POLL_SECONDS)
        samples.append(_sample(control))
    return samples


def _sample(control: ControlClient) -> Sample:
    done = control.stats().acted
    return Sample(time.monotonic(), done)


def rate(samples: Sequence[Sample], parts: tuple[float, float] = STEADY) -> float:
    """Calls a second between two parts of the whole; the start and the tail are left out by default."""
    start, whole = samples[0].done, samples[-1].done - samples[0].done
    first = next(sample for sample in samples if sample.done - start >= whole * parts[0])
    last = next(sample for sample in samples if sample.done - start >= whole * parts[1])
    return (last.done - first.done) / max(last.at - first.at, POLL_SECONDS)
