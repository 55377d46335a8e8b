"""The circuit breaker of a bot: while Telegram does not answer, only one probe at a time is sent.

Closed (the normal state): the bot has no circuit, or one that holds evidence: the chats whose calls have gone
unanswered (5xx, timeout, connection refused, DNS failure) since the last answer. Failures of several chats within a
minute open it. Failures of a single chat never do, because their cause may be that chat.

Open: only probes are sent, which are ordinary jobs, at intervals that double up to a limit. Any answer, even a refusal,
to a call admitted since the circuit opened closes it. Answers to earlier calls are ignored, because those calls may
have reached Telegram before the outage.

A probe that is never settled (its worker died) counts as failed when its lease ends.

``admission.lua`` mirrors these functions.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import NamedTuple

from floodgate.broker.admission import policy


class Silence(NamedTuple):
    """An unanswered call: its chat, and when it was settled."""

    chat: str
    at: int


@dataclass(slots=True)
class Circuit:
    """The state of a bot's circuit breaker. Times are microseconds of the store's clock."""

    silences: list[Silence] = field(default_factory=list)  # the evidence while it is closed: one per chat
    open_since: int = 0  # 0: closed
    probe_at: int = 0  # when the next probe may be admitted; during a probe, when its lease ends
    probe: int = 0  # the grant of the probe in flight; 0: none
    failures: int = 0  # probes without an answer


def wait_us(circuit: Circuit, now: int) -> int:
    """How long a job waits until it may be a probe or must ask again, in microseconds; 0 if it may go now."""
    if not circuit.open_since or circuit.probe_at <= now:
        return 0
    left = circuit.probe_at - now
    return min(left, policy.PROBE_POLL_US) if circuit.probe else left


def held_until(circuit: Circuit) -> int:
    """The time until which nothing is sent, as far as is known; 0 while a probe in flight is to decide."""
    return circuit.probe_at if circuit.open_since and not circuit.probe else 0


def begin_probe(circuit: Circuit, grant: int, lease_end: int) -> None:
    """Record that a job is sent while the circuit is open."""
    if circuit.probe:  # the previous probe was lost
        circuit.failures += 1
    circuit.probe, circuit.probe_at = grant, lease_end


def drop_probe(circuit: Circuit, grant: int, now: int) -> None:
    """Record that a call was not made after all. If it was the probe, another job may take its place."""
    if circuit.probe == grant:
        circuit.probe, circuit.probe_at = 0, now


def miss(circuit: Circuit, chat: str, grant: int, now: int) -> None:
    """Record an unanswered call."""
    if not circuit.open_since:
        _add_evidence(circuit, chat, now)
    elif circuit.probe == grant:
        circuit.failures += 1
        circuit.probe, circuit.probe_at = 0, now + policy.probe_interval(circuit.failures)


def is_closed_by(circuit: Circuit, grant: int) -> bool:
    """Whether an answer to this call ends the outage, or clears the evidence of one."""
    return grant > circuit.open_since


def _add_evidence(circuit: Circuit, chat: str, now: int) -> None:
    recent = [one for one in circuit.silences if one.chat != chat and now - one.at < policy.OUTAGE_MOMENT_US]
    circuit.silences = [*recent, Silence(chat, now)]
    if len(circuit.silences) >= policy.OUTAGE_CHATS:
        circuit.silences, circuit.open_since = [], now
        circuit.probe_at = now + policy.probe_interval(0)
