"""How fast a load goes through, from the fake's counters."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from fake_telegram.control import ControlClient

POLL_SECONDS: Final = 0.05
STEADY: Final = (0.1, 0.9)


@dataclass(frozen=True, slots=True)
class Sample:
    at: float  # monotonic
    done: int


def watch(control: ControlClient, wanted: int, at_most_seconds: float) -> list[Sample]:
    """Samples until so many more calls took effect.

    Raises:
        TimeoutError: they did not in time.
    """
    start = control.stats().acted
    samples = [Sample(time.monotonic(), 0)]
    deadline = samples[0].at + at_most_seconds
    while samples[-1].done < wanted:
        if samples[-1].at > deadline:
            raise TimeoutError(f"{samples[-1].done} of {wanted} in {at_most_seconds:g} s")
        time.sleep(POLL_SECONDS)
        samples.append(Sample(time.monotonic(), control.stats().acted - start))
    return samples


def rate(samples: Sequence[Sample], parts: tuple[float, float] = STEADY) -> float:
    """Calls a second between two parts of the whole; the start and the tail are left out by default."""
    whole = samples[-1].done
    first = next(sample for sample in samples if sample.done >= whole * parts[0])
    last = next(sample for sample in samples if sample.done >= whole * parts[1])
    return (last.done - first.done) / max(last.at - first.at, POLL_SECONDS)
