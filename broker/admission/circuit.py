"""The circuit breaker of a bot: while Telegram does not answer, one probe at a time is sent instead of every job.

Closed, which is the rule, a bot has no circuit at all or one that holds evidence: the chats whose calls got no answer
(5xx, time-out, refused, no name) since the last answer. Failures of several chats within a minute open it; those of one
chat never do, for they may be the chat's own.

Open, nothing is sent but a probe, which is a job like any other, at intervals that double up to a bound. Any answer to
a call that was admitted since then, a refusal included, closes it. Answers to earlier calls are ignored: they may have
been on their way for as long as a call may take.

A probe that is never settled (its worker died) has failed when its lease ends.

``admission.lua`` mirrors these functions.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import NamedTuple

from floodgate.broker.admission import policy


class Silence(NamedTuple):
    """A call that got no answer: for which chat, and when that was settled."""

    chat: str
    at: int


@dataclass(slots=True)
class Circuit:
    silences: list[Silence] = field(default_factory=list)  # the evidence while it is closed: one a chat
    open_since: int = 0  # 0: closed
    probe_at: int = 0  # when the next probe may be admitted; during a probe, when its lease ends
    probe: int = 0  # the grant of the probe under way; 0: none
    failures: int = 0  # probes without an answer


def wait_us(circuit: Circuit, now: int) -> int:
    """How long a job has to wait until it may be a probe, or looks again; 0: no longer."""
    if not circuit.open_since or circuit.probe_at <= now:
        return 0
    left = circuit.probe_at - now
    return min(left, policy.PROBE_POLL_US) if circuit.probe else left


def held_until(circuit: Circuit) -> int:
    """Until when nothing is sent, by all that is known; 0 when a probe under way will tell."""
    return circuit.probe_at if circuit.open_since and not circuit.probe else 0


def begin_probe(circuit: Circuit, grant: int, lease_end: int) -> None:
    """A job goes while the circuit is open."""
    if circuit.probe:  # the one before was lost
        circuit.failures += 1
    circuit.probe, circuit.probe_at = grant, lease_end


def drop_probe(circuit: Circuit, grant: int, now: int) -> None:
    """The call was not made after all. If it was the probe, another job may be."""
    if circuit.probe == grant:
        circuit.probe, circuit.probe_at = 0, now


def miss(circuit: Circuit, chat: str, grant: int, now: int) -> None:
    """A call got no answer."""
    if not circuit.open_since:
        _add_evidence(circuit, chat, now)
    elif circuit.probe == grant:
        circuit.failures += 1
        circuit.probe, circuit.probe_at = 0, now + policy.probe_interval(circuit.failures)


def is_closed_by(circuit: Circuit, grant: int) -> bool:
    """Whether an answer to a call ends the outage, or all evidence of one."""
    return grant > circuit.open_since


def _add_evidence(circuit: Circuit, chat: str, now: int) -> None:
    recent = [one for one in circuit.silences if one.chat != chat and now - one.at < policy.OUTAGE_MOMENT_US]
    circuit.silences = [*recent, Silence(chat, now)]
    if len(circuit.silences) >= policy.OUTAGE_CHATS:
        circuit.silences, circuit.open_since = [], now
        circuit.probe_at = now + policy.probe_interval(0)
