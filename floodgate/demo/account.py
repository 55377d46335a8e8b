"""Accounts for the demo's jobs: compares the accepted jobs with the calls that the Bot API saw. Without I/O."""

from __future__ import annotations

import itertools
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class EnqueuedJob:
    """An accepted job. ``text`` is unique in the demo and identifies the job's arrival."""

    job_id: str
    part: str
    chat: str
    priority: str
    text: str
    expect_dead: bool = False


@dataclass(frozen=True, slots=True)
class DemoArrival:
    """A call that the Bot API accepted."""

    text: str


@dataclass(frozen=True, slots=True)
class PartAccount:
    """One row of the table."""

    part: str
    accepted: int
    sent: int
    dead: int
    missing: int
    doubled: int


@dataclass(frozen=True, slots=True)
class Account:
    """The whole table, and the faults that were found."""

    parts: tuple[PartAccount, ...]
    too_many_requests: int
    order_violations: int
    wrong_outcomes: int

    @property
    def adds_up(self) -> bool:
        """Whether there are no faults."""
        faults = sum(part.missing + part.doubled for part in self.parts)
        return faults + self.too_many_requests + self.order_violations + self.wrong_outcomes == 0


def account_for(
    accepted: Iterable[EnqueuedJob], arrivals: Iterable[DemoArrival], dead: Mapping[str, str], too_many_requests: int
) -> Account:
    """Account for a finished demo. ``dead`` maps the ids of dead-lettered jobs to their reasons."""
    jobs = list(accepted)
    order = [arrival.text for arrival in arrivals]
    times_sent = Counter(order)
    return Account(
        parts=tuple(_part(name, [job for job in jobs if job.part == name], times_sent, dead) for name in _names(jobs)),
        too_many_requests=too_many_requests,
        order_violations=count_order_violations(jobs, order),
        wrong_outcomes=sum((job.job_id in dead) != job.expect_dead for job in jobs),
    )


def count_order_violations(accepted: Iterable[EnqueuedJob], sent_texts: Iterable[str]) -> int:
    """Count the jobs that were first sent after a later job of the same chat and priority."""
    first_sent: dict[str, int] = {}
    for position, text in enumerate(sent_texts):
        first_sent.setdefault(text, position)
    lines: defaultdict[tuple[str, str], list[int]] = defaultdict(list)
    for job in accepted:
        if job.text in first_sent:
            lines[job.chat, job.priority].append(first_sent[job.text])
    return sum(later < earlier for line in lines.values() for earlier, later in itertools.pairwise(line))


def _names(jobs: list[EnqueuedJob]) -> list[str]:
    return list(dict.fromkeys(job.part for job in jobs))


def _part(name: str, jobs: list[EnqueuedJob], times_sent: Counter[str], dead: Mapping[str, str]) -> PartAccount:
    sent = [job for job in jobs if times_sent[job.text]]
    return PartAccount(
        part=name,
        accepted=len(jobs),
        sent=len(sent),
        dead=sum(job.job_id in dead for job in jobs),
        missing=sum(not times_sent[job.text] and job.job_id not in dead for job in jobs),
        doubled=sum(times_sent[job.text] - 1 for job in sent),
    )
