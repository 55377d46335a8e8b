"""The account of a run: what happened to every accepted job, from evidence independent of the code under test. Pure.

Evidence: the producers' ledgers (accepted jobs), the fake's journal (arrivals and their effect), the workers'
notebooks (the outcomes they saw), the dead-letter queue, the state store's list of dead jobs not kept, and the
contents of the queues at the end.

Lost        accepted, but neither acted, nor dead, nor waiting in a queue.
Duplicate   acted more than once. Explained if the earlier call was never settled as sent: its worker was killed or
            its answer never arrived. A second call after the store recorded the first is a fault.
Inversion   of two jobs of one (producer, chat, priority): the one that was safe before the other was handed over
            acted for the first time after it. Scheduled and dead jobs have no order.
Limits      the fullest window of calls that acted, by arrival. A window that exceeds its limit only because the
            network (or a busy machine) delayed calls is distinguished: by the time of the calls, it does not exceed it.
"""

from __future__ import annotations

import itertools
from bisect import bisect_right
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from floodgate.fake_telegram.summary import fullest
from tests.chaos.producing import Accepted
from tests.chaos.telegram import Arrived

UNEXPLAINED = "UNEXPLAINED"
HELD_UP = "held up on its way"
OVER_THE_LIMIT = "OVER THE LIMIT"


@dataclass(frozen=True, slots=True)
class Note:
    """A line of a worker's notebook."""

    event: str
    at: float
    detail: str


@dataclass(frozen=True, slots=True)
class Evidence:
    """All evidence of the account. Jobs are identified by their text, notes by job id."""

    expected: int
    """How many jobs the producers had to put in."""
    accepted: Mapping[str, Accepted]
    arrivals: Sequence[Arrived]
    notes: Mapping[str, Sequence[Note]]
    dead: Mapping[str, str]
    waiting: frozenset[str]
    limits: Mapping[str, tuple[int, float]]
    """`bot`, `chat`, `group`: most units in so many seconds."""


@dataclass(frozen=True, slots=True)
class Duplicate:
    text: str
    times: int
    why: str


@dataclass(frozen=True, slots=True)
class Windows:
    """The fullest window of one limit: by arrival, and by the time of the calls."""

    limit: int
    at_arrival: int
    at_call: int

    @property
    def violated(self) -> bool:
        return self.at_arrival > self.limit and self.at_call > self.limit


@dataclass(slots=True)
class Report:
    expected: int = 0
    accepted: int = 0
    sent: int = 0
    dead: Counter[str] = field(default_factory=Counter)
    waiting: int = 0
    unacknowledged: int = 0
    """Handed over and never acknowledged to their producer; they may end either way."""
    lost: list[str] = field(default_factory=list)
    duplicates: list[Duplicate] = field(default_factory=list)
    sent_and_dead: list[Duplicate] = field(default_factory=list)
    inversions: list[tuple[str, str]] = field(default_factory=list)
    windows: dict[str, Windows] = field(default_factory=dict)
    refused: Counter[str] = field(default_factory=Counter)
    """Answers 429 by their cause: `wait` is a call into a wait that was imposed or had been told to somebody."""

    @property
    def faults(self) -> list[str]:
        """Violations; empty if the run kept every guarantee."""
        missing = self.expected - self.accepted
        found = [f"{missing} jobs were never accepted"] if missing else []
        found += [f"lost: {text}" for text in self.lost]
        found += [f"{one.text} acted {one.times} times: {one.why}" for one in self.duplicates if one.why == UNEXPLAINED]
        found += [f"{one.text} acted and is dead: {one.why}" for one in self.sent_and_dead if one.why == UNEXPLAINED]
        found += [f"{later} overtook {earlier}" for earlier, later in self.inversions]
        if count := self.refused[OVER_THE_LIMIT]:
            found.append(f"{count} calls were made too soon")
        found += [
            f"{name}: {w.at_arrival} where {w.limit} is the limit" for name, w in self.windows.items() if w.violated
        ]
        return found

    @property
    def resolved(self) -> int:
        return self.sent + sum(self.dead.values()) + self.waiting


def account_for(evidence: Evidence) -> Report:
    """The report of a run."""
    report = Report(expected=evidence.expected)
    acted: dict[str, list[Arrived]] = defaultdict(list)
    for arrival in evidence.arrivals:
        if arrival.acted:
            acted[arrival.text].append(arrival)
    for text, job in evidence.accepted.items():
        _count(report, evidence, job, bool(acted.get(text)))
    report.duplicates = [
        Duplicate(text, len(times), _explain_all(evidence, text, times))
        for text, times in acted.items()
        if len(times) > 1
    ]
    report.sent_and_dead = [
        Duplicate(text, len(times), _explain_death(evidence, text, times))
        for text, times in acted.items()
        if text in evidence.dead
    ]
    report.inversions = list(inversions(evidence.accepted.values(), acted))
    report.windows = _windows(evidence)
    report.refused = Counter(_refusal(evidence, arrival) for arrival in evidence.arrivals if arrival.code == 429)
    return report


def _count(report: Report, evidence: Evidence, job: Accepted, sent: bool) -> None:
    if job.safe_at is None:
        report.unacknowledged += 1
        return
    report.accepted += 1
    if sent:
        report.sent += 1
    elif job.text in evidence.dead:
        report.dead[evidence.dead[job.text]] += 1
    elif job.text in evidence.waiting:
        report.waiting += 1
    else:
        report.lost.append(job.text)


def inversions(accepted: Iterable[Accepted], acted: Mapping[str, Sequence[Arrived]]) -> Iterable[tuple[str, str]]:
    """Pairs (earlier, later) that arrived in the wrong order, one for each job that was overtaken."""
    lines: dict[tuple[int, str, str], list[Accepted]] = defaultdict(list)
    for job in accepted:
        if "d" not in job.flags and job.text in acted:
            lines[job.producer, job.chat, job.priority].append(job)
    for line in lines.values():
        line.sort(key=lambda job: acted[job.text][0].at)
        for first, second in itertools.combinations(line, 2):
            if second.safe_at is not None and second.safe_at < first.first_tried:
                yield second.text, first.text


def _explain_all(evidence: Evidence, text: str, times: Sequence[Arrived]) -> str:
    reasons = [_explain(evidence, text, arrival) for arrival in times[:-1]]
    return UNEXPLAINED if UNEXPLAINED in reasons else ", ".join(dict.fromkeys(reasons))


def _explain_death(evidence: Evidence, text: str, times: Sequence[Arrived]) -> str:
    why = _explain(evidence, text, times[-1])
    return why if why == UNEXPLAINED else f"{evidence.dead[text]}: {why}"


def _explain(evidence: Evidence, text: str, arrival: Arrived) -> str:
    """The reason why the pipeline could not know that this call acted."""
    notes = evidence.notes.get(text, ())
    calls = [index for index, note in enumerate(notes) if note.event == "call" and note.at <= arrival.at]
    if not calls:
        return UNEXPLAINED
    answers = list(itertools.takewhile(lambda note: note.event != "call", notes[calls[-1] + 1 :]))
    if any(note.event == "settled" and note.detail == "Sent" for note in answers):
        return UNEXPLAINED
    answer = next((note.detail for note in answers if note.event == "answer"), None)
    if answer is None:
        return "the worker was killed in mid-call"
    if answer in ("Unknown", "Retry", "Failed"):
        return _fate_of_answer(arrival.code)
    return f"the worker was killed before it could record {answer}"


def _fate_of_answer(code: int | None) -> str:
    match code:
        case None:
            return "its answer never came"
        case 200:
            return "its answer was lost on the way"
        case _:
            return f"it was answered {code} after it acted"


def _refusal(evidence: Evidence, refused: Arrived) -> str:
    """The cause of a 429. A call made in time but delayed by the network is not a fault of the pipeline."""
    if refused.verdict not in evidence.limits:
        return refused.verdict
    limit, seconds = evidence.limits[refused.verdict]
    called = _called_at(evidence, refused)
    used = sum(
        arrival.cost
        for arrival in evidence.arrivals
        if arrival.acted
        and arrival.verdict == "ok"
        and (refused.verdict == "bot" or arrival.chat == refused.chat)
        and called - seconds < _called_at(evidence, arrival) <= called
    )
    return HELD_UP if used + refused.cost <= limit else OVER_THE_LIMIT


def _windows(evidence: Evidence) -> dict[str, Windows]:
    passed = [a for a in evidence.arrivals if a.acted and a.verdict in ("ok", "off")]
    in_chats = [a for a in passed if a.charged_chat]
    in_groups = [a for a in in_chats if (a.chat or 0) < 0]
    return {
        "bot": _window(evidence, "bot", [(0, a) for a in passed]),
        "chat": _window(evidence, "chat", [(a.chat or 0, a) for a in in_chats]),
        "group": _window(evidence, "group", [(a.chat or 0, a) for a in in_groups]),
    }


def _window(evidence: Evidence, name: str, charges: Sequence[tuple[int, Arrived]]) -> Windows:
    limit, seconds = evidence.limits[name]
    called = sorted(((key, _called_at(evidence, a), a.cost) for key, a in charges), key=lambda charge: charge[1])
    return Windows(
        limit,
        at_arrival=fullest(((key, a.at, a.cost) for key, a in charges), seconds),
        at_call=fullest(called, seconds),
    )


def _called_at(evidence: Evidence, arrival: Arrived) -> float:
    times = [note.at for note in evidence.notes.get(arrival.text, ()) if note.event == "call"]
    before = bisect_right(times, arrival.at)
    return times[before - 1] if before else arrival.at
