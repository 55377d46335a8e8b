"""The result feed: reports jobs as they end, for a gateway with thousands of waiting callers.

Each process has one feed, which receives every ended job of its bots; the process picks out those with a waiting
caller. Without listeners the cost is negligible: SQLite keeps one more index, and Redis publishes to no subscriber.

A feed reports only jobs that end after ``skip``. So on starting, or restarting after an error, call ``skip`` and then
look up each awaited job once; no result is missed that way.

An ended job's ``outcome`` is the same text in every store: Telegram's result as JSON for a sent job, the reason for a
dead one. If Telegram returned an error, a second line holds it as JSON; a sent job has one if there was nothing to do.
Stores keep the outcome for ``FLOODGATE_RESULT_SECONDS``, and the job's standing and reason for longer.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from floodgate.broker.admission.contract import Dead, Record, Sent, Standing


@dataclass(frozen=True, slots=True)
class EndedJob:
    """A job that has ended, with its record in the ledger."""

    bot: str
    job_id: str
    record: Record
    chain: str | None = None
    """For a job that was superseded or took the place of another: the id under which the end of all such jobs of one
    place is reported, which is that of the first. For the first itself it means nothing."""


class ResultFeed(Protocol):
    """A feed of ended jobs. Belongs to one thread, except for ``close``."""

    def skip(self) -> None:
        """Start listening from now on.

        Raises:
            StateUnavailableError: the store is unavailable.
        """
        ...

    def wait(self, seconds: float) -> Sequence[EndedJob]:
        """Return the jobs that ended since the last call or ``skip``, waiting up to ``seconds`` for the first.

        Raises:
            StateUnavailableError: the store is unavailable, or results may have been missed: call ``skip`` again.
        """
        ...

    def close(self) -> None:
        """Release files and sockets. Safe to call twice."""
        ...


def sent_text(sent: Sent) -> str:
    """The outcome of a sent job as stores keep it."""
    return _text(json_text(sent.result), sent.error)


def dead_text(dead: Dead) -> str:
    """The outcome of a dead job as stores keep it."""
    return _text(dead.reason, dead.error)


def dead_record(outcome: str) -> Record:
    """The record of a dead job. A reason alone is a valid outcome."""
    reason, _, error = outcome.partition("\n")
    return Record(Standing.DEAD, reason=reason, error=json.loads(error or "null"))


def sent_record(outcome: str | None) -> Record:
    """The record of a sent job. None means that the outcome is no longer kept."""
    result, _, error = (outcome or "").partition("\n")
    return Record(Standing.SENT, result=json.loads(result or "null"), error=json.loads(error or "null"))


def _text(outcome: str, error: dict[str, Any] | None) -> str:
    return outcome if error is None else f"{outcome}\n{json_text(error)}"


def json_text(value: Any) -> str:
    """A value as JSON on one line, unescaped: with escapes, most scripts would take two or three times the space.
    Values with unpaired surrogates, which UTF-8 cannot encode, are escaped."""
    text = json.dumps(value, separators=(",", ":"), ensure_ascii=False)
    try:
        text.encode()
    except UnicodeEncodeError:
        return json.dumps(value, separators=(",", ":"))
    return text
